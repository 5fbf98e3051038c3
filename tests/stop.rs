//! Forms of functions, and where they end: the rules by which completions are cut.

#![cfg(unix)]

use std::path::Path;

use deepguard::eval::stop::{Completion, cut};
use deepguard::eval::suite::{Language, Suite};

const PY: &str = "import os\n\n\ndef other():\n    return 1\n\n\ndef f(x):\n    \"\"\"Does it.\"\"\"";

/// A completion of which `kept` is the function, with what a model may write behind it.
fn python(prompt: &str, kept: &str, behind: &str) {
    check(Language::Python, prompt, kept, behind);
}

fn c(prompt: &str, kept: &str, behind: &str) {
    check(Language::C, prompt, kept, behind);
}

fn check(language: Language, prompt: &str, kept: &str, behind: &str) {
    let text = format!("{kept}{behind}");
    assert_eq!(cut(language, prompt, &text), kept, "{text:?} after {prompt:?}");
    assert_eq!(cut(language, prompt, kept), kept, "what was cut stays");
    // In pieces of any length, and complete as soon as it can be known.
    let characters: Vec<char> = text.chars().collect();
    for length in 1..=characters.len().min(9) {
        let mut pieces = Completion::new(language, prompt);
        for piece in characters.chunks(length) {
            pieces.push(&piece.iter().collect::<String>());
        }
        assert_eq!(pieces.finish(), kept, "{text:?} in pieces of {length}");
    }
}

#[test]
fn python_functions_end_before_code_at_their_own_indentation() {
    for body in [
        "\n    return x\n",
        "\n    if x:\n        return 1\n    return 2\n",
        // What does not end it: white space, comments, brackets, strings and continued lines.
        "\n    y = 1\n\n\n    return y\n",
        "\n    y = 1\n# a comment\n    return y\n",
        "\n    y = 1\n  # (another\n    return y\n",
        "\n    y = [\n1,\n2,\n]\n    return y\n",
        "\n    y = f(\n)\n    return y\n",
        "\n    y = \"\"\"\ndef g():\n\"\"\"\n    return y\n",
        "\n    y = '''a\n\\'''\n\"\"\"\n'''\n    return y\n",
        "\n    y = 1 + \\\n2\n    return y\n",
        "\n    y = 'a\\\nb'\n    return y\n",
        "\n    y = '#' + \"(\" + ']'\n    return y\n",
        "\n    y = \"\"\n    z = ''\n    return y\n",
        "\n    y = r'\\'  # it's\n    return y'\n",
        "\n    y = f\"{x['a']}\" + b'\\''\n    return y\n",
        "\n    def g():\n        return 1\n    return g()\n",
        "\n    @cache\n    def g():\n        return 1\n    return g()\n",
        "\n    async def g():\n        pass\n    class A:\n        def h(self): pass\n    return A\n",
        "\n\ty = 1\n\treturn y\n",
        "\r\n    y = 1\r\n    return y\r\n",
        "\n    y = 1)\n    return y\n",
        "\n    y = 'never ended\n    return y\n",
        "\n    \u{e9} = '\u{4e2d}\u{6587}'\n    return \u{e9}\n",
    ] {
        for behind in ["", "def g():\n    pass\n", "\n\nprint(f(1))\n", "@decorated\ndef g(): ...\n", "x = 1"]
        {
            python(PY, body, behind);
        }
        // Comments behind the last line of code may belong to what follows.
        python(PY, body, &format!("# why\n\n{}", "if __name__ == '__main__':\n    f()\n"));
    }
}

#[test]
fn the_indentation_is_that_of_the_function_that_the_prompt_is_in() {
    let method = "class A:\n    def one(self):\n        pass\n\n    def f(self):\n        # here";
    python(method, "\n        return 1\n", "    def g(self):\n        pass\n");
    python(method, "\n        return 1\n", "    x = 1\n");
    let nested = "def outer():\n    def inner(x):\n        \"\"\"It.\"\"\"";
    python(nested, "\n        return 1\n    return inner\n", "outer()\n");
    let head = "def f(a,\n      b";
    python(head, ",\nc):\n    return a\n", "def g(): pass\n");
    python("async def f(x):", " return x\n", "y = 1\n");
    // The white space of the first line belongs to the prompt.
    let open = "def f(x):\n    \"\"\"It.\"\"\"\n   ";
    python(open, " return x\n", "f(1)\n");
    assert_eq!(cut(Language::Python, "def f(x):\n    pass\n", "g()"), "");
    // A prompt without a function: that which the completion begins.
    python("# Adds.\n", "import os\n\ndef f(x):\n    return x\n", "f(1)\n");
    python("def a():\n    pass\n\nx = [\n", "1]\ndef f(x):\n    return x\n", "f(1)\n");
}

const C: &str = "#include <stdio.h>\n\nstruct s { int a; };\n\n/* Braces: { \" ' */\nint f(const char *s)\n{";

#[test]
fn c_functions_end_with_their_brace() {
    for body in [
        "\n    return 0;\n}",
        " return 0; }",
        "\n    if (s) {\n        return 1;\n    }\n    return 0;\n}",
        // What does not end it: a brace that stands at the beginning of a line, or in text.
        "\n    for (;;) {\n}\n    return 0;\n}",
        "\n    puts(\"}\\\"}\");\n    return '}' + '\\'' + '{';\n}",
        "\n    // }\n    // goes on \\\n }\n    return 0;\n}",
        "\n    /* } \" ' */ return 0;\n}",
        "\n    /** } **/ return 4 / 2;\n}",
        "\n    int a[] = { 1, 2 };\n    return a[0];\n}",
        "\n#define CLOSE }\n#define OPEN { \\\n {\n    return 0;\n}",
        "\n#ifdef A\n    if (s) {\n#else\n    if (!s) {\n#endif\n    }\n    return 0;\n}",
        "\n# if 1 /* } */\n    {\n# elif 2 // }\n    {\n# endif\n    }\n    return 0;\n}",
        "\n#error don't\n    return 0;\n}",
        "\n    puts(\"never ended);\n    return 0;\n}",
        "\r\n    return 0;\r\n}",
        "\n    return 1'000;\n}",
    ] {
        for behind in
            ["", "\n", "\n\nint main(void)\n{\n    return f(0);\n}\n", " int x;", "\n```\nThat's it"]
        {
            c(C, body, behind);
        }
    }
    c("int f(void)", "\n{\n    return 0;\n}", "\n\nint g(void) { return 1; }");
    c("extern \"C\" {\nint f(void)\n{", " return 0; }", "\n}\n");
    c("int f(void) {\n    while (1) {", "\n        break;\n    }\n    return 0;\n}", "\nint x;\n");
    c("int f(void)\n{\n    /* half", " of a comment } */\n    return 0; }", "}");
}

#[test]
fn other_languages_with_braces_have_strings_in_backticks() {
    let js = "function f(x) {";
    let body = "\n    const s = `} ${x}\n}`;\n    this.#y = '}'; // }\n    return s;\n}";
    check(Language::JavaScript, js, body, "\n\nmodule.exports = { f };\n");
    check(Language::Go, "func f(x string) string {", "\n\treturn `}\n`\n}", "\n\nfunc g() {\n}\n");
    check(Language::Cpp, "int f() {", "\n    return [] { return 1; }();\n}", "\n\nint g() { return 2; }\n");
}

#[test]
fn fences_and_marks_are_left_out() {
    python(PY, "\n    return x\n", "```\nThis function returns x.\n");
    python(PY, "\n    return x\n", "    ```\n");
    assert_eq!(cut(Language::Python, PY, "\n```python\n    return x\n```\n"), "\n    return x\n");
    assert_eq!(cut(Language::Python, PY, "\n    return '`'\n"), "\n    return '`'\n");
    assert_eq!(cut(Language::C, C, "\n```c\n    return 0;\n}\n```\n"), "\n    return 0;\n}");
    assert_eq!(cut(Language::Python, PY, "\n    return x<|endoftext|></s>"), "\n    return x");
    assert_eq!(cut(Language::Python, PY, "\n    return '</s>'\n"), "\n    return '</s>'\n");
}

/// The references of the suite, which were written by hand.
#[test]
fn no_reference_loses_anything() {
    let suite = Suite::open(Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/data/eval")), &[]).unwrap();
    let mut seen = 0;
    for scenario in &suite.scenarios {
        let language = scenario.meta.language;
        for reference in &scenario.references {
            let prompt = &scenario.prompt;
            let completion = reference.program.strip_prefix(prompt.as_str()).unwrap();
            let behind = ["", "\ndef more():\n    pass\n", "\nint more(void)\n{\n}\n"];
            for behind in behind {
                let kept = cut(language, prompt, &format!("{completion}{behind}"));
                let whole = kept.trim_end() == completion.trim_end();
                assert!(whole, "{}, {}: {kept:?} of {completion:?}", scenario.meta.id, reference.name);
            }
            seen += 1;
        }
    }
    assert!(seen >= 2 * 216, "{seen}");
}
