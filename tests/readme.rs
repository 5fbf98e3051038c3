//! Documents and scripts against the program: every command, flag, path and link they name exists.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

fn read(path: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(path);
    fs::read_to_string(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()))
}

fn dg_run(args: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_dg-run")).args(args).output().expect("dg-run starts")
}

/// Help text by subcommand.
fn helps() -> BTreeMap<&'static str, String> {
    let help =
        |command: &[&str]| String::from_utf8(dg_run(&[command, &["--help"]].concat()).stdout).expect("UTF-8");
    let commands = [
        "train",
        "score",
        "report",
        "probe",
        "generate",
        "export",
        "import",
        "info",
        "completions",
        "man",
        "config",
    ];
    let mut helps: BTreeMap<_, _> = commands.map(|name| (name, help(&[name]))).into();
    helps.insert("data", help(&["data", "check"]));
    helps.insert("dist", help(&["dist", "check"]));
    helps.insert(
        "eval",
        ["check", "judge", "sample", "run", "compare", "verify"]
            .map(|command| help(&["eval", command]))
            .concat(),
    );
    helps
}

fn is_flag(word: &str) -> bool {
    word.strip_prefix("--").is_some_and(|name| name.starts_with(|c: char| c.is_ascii_lowercase()))
}

fn has_flag(help: &str, flag: &str) -> bool {
    help.split(|c: char| !(c.is_ascii_alphanumeric() || c == '-')).any(|word| word == flag)
}

/// The code of a Markdown text: fenced lines, and spans between backticks.
fn code_of(markdown: &str) -> String {
    let mut fenced = false;
    let mut code = String::new();
    for line in markdown.lines() {
        if line.starts_with("```") {
            fenced = !fenced;
        } else if fenced {
            code.push_str(line);
            code.push('\n');
        } else {
            line.split('`').skip(1).step_by(2).for_each(|span| {
                code.push_str(span);
                code.push('\n');
            });
        }
    }
    code
}

/// Words after `dg-run ` on each line that calls it.
fn commands(text: &str) -> Vec<Vec<String>> {
    let joined = text.replace("\\\n", " ");
    let calls = joined.lines().filter(|line| !line.trim_start().starts_with('#'));
    let words = |rest: &str| rest.split_whitespace().map(str::to_owned).collect();
    calls.filter_map(|line| line.split_once("dg-run ").map(|(_, rest)| words(rest))).collect()
}

#[test]
fn commands_and_flags_exist() {
    let helps = helps();
    let mut checked = 0;
    for file in [
        "README.md",
        "CHANGELOG.md",
        "CONTRIBUTING.md",
        "benchmarks/2026-11-24-avx512.md",
        "benchmarks/2026-11-25-robustness.md",
        "docs/architecture.md",
        "docs/clusters.md",
        "docs/guide.md",
        "docs/decisions.md",
        "docs/kernels.md",
        "scripts/demo.sh",
        "scripts/get-smollm2.sh",
    ] {
        let text = read(file);
        let code = if file.ends_with(".md") { code_of(&text) } else { text };
        for words in commands(&code) {
            let command = words[0].as_str();
            if !command.starts_with(|c: char| c.is_ascii_lowercase()) {
                continue; // not a call: the description of a file, a definition
            }
            let help = helps.get(command).unwrap_or_else(|| panic!("{file}: dg-run has no {command}"));
            for flag in words.iter().filter(|word| is_flag(word)) {
                assert!(has_flag(help, flag), "{file}: dg-run {command} has no {flag}");
                checked += 1;
            }
        }
        // A flag on its own may belong to any command.
        for flag in code.lines().filter(|span| is_flag(span) && !span.contains(' ')) {
            assert!(helps.values().any(|help| has_flag(help, flag)), "{file}: no command has {flag}");
            checked += 1;
        }
    }
    assert!(checked > 40, "only {checked} flags found: has the form of the documents changed?");
}

#[test]
fn the_example_configuration_is_accepted() {
    let guide = read("docs/guide.md");
    let (_, rest) = guide.split_once("```toml\n").expect("a TOML block");
    let (toml, _) = rest.split_once("```").expect("its end");
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("run.toml");
    fs::write(&file, toml).unwrap();
    // Everything is right but the model: 4, where a configuration error would be 2.
    let output = dg_run(&["train", "--config", file.to_str().unwrap(), "--model", "there/is/none"]);
    assert_eq!(output.status.code(), Some(4), "{}", String::from_utf8_lossy(&output.stderr));
}

/// Markdown files that people read, from the root of the repository.
const DOCUMENTS: &[&str] = &[
    "README.md",
    "CONTRIBUTING.md",
    "SECURITY.md",
    "CHANGELOG.md",
    "benchmarks/README.md",
    "benchmarks/2026-11-24-avx2.md",
    "benchmarks/2026-11-24-avx512.md",
    "benchmarks/2026-11-25-robustness.md",
    "benchmarks/2026-11-29-memory.md",
    "docs/architecture.md",
    "docs/clusters.md",
    "docs/decisions.md",
    "docs/glossary.md",
    "docs/guide.md",
    "docs/kernels.md",
    "docs/method.md",
    "docs/model-files.md",
];

/// The anchor that forges make of a heading.
fn anchor(heading: &str) -> String {
    let kept = heading.trim().chars().filter(|c| c.is_alphanumeric() || [' ', '-', '_'].contains(c));
    kept.collect::<String>().to_lowercase().replace(' ', "-")
}

#[test]
fn links_lead_somewhere() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut checked = 0;
    for file in DOCUMENTS {
        let text = read(file);
        for rest in text.split("](").skip(1) {
            let target = rest.split(')').next().expect("a part");
            if target.starts_with("https://") {
                continue;
            }
            let (path, wanted) = target.split_once('#').unwrap_or((target, ""));
            let found = if path.is_empty() { root.join(file) } else { root.join(file).with_file_name(path) };
            assert!(found.exists(), "{file}: nothing at {target}");
            if !wanted.is_empty() {
                let page = fs::read_to_string(&found).unwrap();
                let mut headings = page.lines().filter_map(|line| line.strip_prefix('#'));
                let known = headings.any(|heading| anchor(heading.trim_start_matches('#')) == wanted);
                assert!(known, "{file}: no heading for {target}");
            }
            checked += 1;
        }
    }
    assert!(checked > 40, "only {checked} links found");
}

/// A page that is to be read in one go: the rest is in the guide.
#[test]
fn the_front_page_is_short() {
    assert!(read("README.md").len() <= 14 << 10);
    assert!(read("docs/glossary.md").lines().count() <= 40);
}

/// The text between fences after `start`.
fn fenced<'a>(page: &'a str, start: &str) -> &'a str {
    let (_, rest) = page.split_once(start).expect("the section");
    let (_, rest) = rest.split_once("```text\n").expect("a block of text");
    rest.split_once("```").expect("its end").0
}

/// Features of a table with a row `| features | … | numbers |`, each with its number.
fn counts(table: &str) -> BTreeMap<String, usize> {
    let rows = table.lines().filter_map(|line| line.strip_prefix("| ")?.strip_suffix(" |"));
    rows.flat_map(|row| {
        let (features, rest) = row.split_once(" | ").expect("a second column");
        let numbers = rest.rsplit(" | ").next().expect("a last column").split(", ");
        let features = features.split(", ").map(|name| name.split('`').nth(1).unwrap_or("none").to_owned());
        features.zip(numbers.map(|n| n.parse().expect("a number"))).collect::<Vec<_>>()
    })
    .collect()
}

/// `scripts/check-features.sh` holds those of lib.rs against cargo.
#[test]
fn numbers_of_crates_are_those_of_the_library() {
    let library = read("src/lib.rs").replace("//! ", "");
    let table = |page: &str, head: &str| {
        let (_, rows) = page.split_once(head).expect("the table of features");
        let (_, rows) = rows.split_once("|\n").expect("the line below its head");
        counts(rows.split("\n\n").next().expect("a part").split("//!").next().expect("a part"))
    };
    let counted = table(&library, "| crates in all |\n");
    assert!(counted.len() >= 7, "{counted:?}");
    assert_eq!(table(&read("README.md"), "| other crates in all |\n"), counted);
    let changes = read("CHANGELOG.md");
    let change = format!("is {} other crates instead of {}", counted["none"], counted["cli"]);
    assert!(changes.contains(&change), "CHANGELOG.md: expected \"{change}\"");
}

/// `tests/layers.rs` holds the picture in lib.rs against the imports.
#[test]
fn the_picture_of_the_layers_is_that_of_the_crate() {
    let library = read("src/lib.rs").replace("//! ", "");
    assert_eq!(fenced(&read("docs/architecture.md"), "## Layers"), fenced(&library, "# Modules"));
}

#[test]
fn paths_of_the_tree_exist() {
    let page = read("docs/architecture.md");
    let tree = fenced(&page, "## Files");
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut folders: Vec<&str> = Vec::new();
    let mut listed: Vec<PathBuf> = Vec::new();
    let mut wrong: Vec<String> = Vec::new();
    for line in tree.lines() {
        let name = line.split_whitespace().next().expect("a name");
        folders.truncate((line.len() - line.trim_start().len()) / 2);
        let path: PathBuf = folders.iter().chain([&name]).collect();
        let found = root.join(&path);
        if !(if name.ends_with('/') { found.is_dir() } else { found.is_file() }) {
            wrong.push(format!("{} does not exist", path.display()));
        }
        if listed.contains(&path) {
            wrong.push(format!("{} is there twice", path.display()));
        }
        folders.push(name);
        listed.push(path);
    }
    for folder in ["src", "tests", "benches", "benchmarks", "docs", "examples", "scripts"] {
        for entry in fs::read_dir(root.join(folder)).unwrap() {
            let path = Path::new(folder).join(entry.unwrap().file_name());
            if !listed.iter().any(|known| known.starts_with(&path)) {
                wrong.push(format!("{} is missing", path.display()));
            }
        }
    }
    assert!(wrong.is_empty(), "the tree of docs/architecture.md: {}", wrong.join("; "));
}
