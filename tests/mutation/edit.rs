//! Precise edits of PTX: a change of the n-th line that contains a text. An edit that finds nothing is an
//! error, so that a mutant cannot silently become the original when the compiler changes.

/// One change of the text of a kernel.
#[derive(Clone, Debug)]
pub struct Edit {
    /// A text that the lines contain.
    line: &'static str,
    /// Which of these lines, from 0; none for all.
    at: &'static [usize],
    change: Change,
}

/// A change of a line. `$0`, `$1`, … stand for its operands, `&0`, `&1`, … for addresses without their
/// brackets.
#[derive(Clone, Debug)]
enum Change {
    Remove,
    Swap(&'static str, &'static str),
    Operand(usize, &'static str),
    Instead(&'static str),
    MoveBehind(&'static str, usize),
}

/// Removes lines.
pub fn remove(line: &'static str, at: &'static [usize]) -> Edit {
    Edit { line, at, change: Change::Remove }
}

/// Replaces a text within lines.
pub fn swap(line: &'static str, at: &'static [usize], from: &'static str, to: &'static str) -> Edit {
    Edit { line, at, change: Change::Swap(from, to) }
}

/// Replaces operand number `n` of lines.
pub fn operand(line: &'static str, at: &'static [usize], n: usize, to: &'static str) -> Edit {
    Edit { line, at, change: Change::Operand(n, to) }
}

/// Puts something else in the place of lines.
pub fn instead(line: &'static str, at: &'static [usize], text: &'static str) -> Edit {
    Edit { line, at, change: Change::Instead(text) }
}

/// Moves a line behind number `n` of the lines with another text.
pub fn move_behind(line: &'static str, at: &'static [usize], target: &'static str, n: usize) -> Edit {
    Edit { line, at, change: Change::MoveBehind(target, n) }
}

/// The PTX with edits of one kernel. All of them count lines in the original.
///
/// # Errors
/// The edit that does not fit the text.
pub fn apply(ptx: &str, kernel: &str, edits: &[Edit]) -> Result<String, String> {
    let start = ptx.find(&format!(".entry {kernel}(")).ok_or_else(|| format!("no kernel {kernel}"))?;
    let end = start + body_end(&ptx[start..]).ok_or_else(|| format!("{kernel} has no end"))?;
    let original: Vec<&str> = ptx[start..end].lines().collect();
    let mut lines: Vec<String> = original.iter().map(|&line| line.to_owned()).collect();
    for edit in edits {
        for n in places(&original, edit.line, edit.at)? {
            if let Change::MoveBehind(target, at) = edit.change {
                let moved = std::mem::take(&mut lines[n]);
                lines[places(&original, target, &[at])?[0]].push_str(&moved);
                continue;
            }
            lines[n] =
                edit.change.apply(&lines[n]).map_err(|problem| format!("{}: {problem}", lines[n].trim()))?;
        }
    }
    Ok(format!("{}{}\n{}", &ptx[..start], lines.join("\n"), &ptx[end..]))
}

/// Position of the brace that closes the body: asm statements bring some of their own.
fn body_end(text: &str) -> Option<usize> {
    let mut depth = 0;
    text.char_indices().find_map(|(at, c)| {
        match c {
            '{' => depth += 1,
            '}' => depth -= 1,
            _ => {}
        }
        (c == '}' && depth == 0).then_some(at)
    })
}

/// Numbers of the lines that contain a text; of these, only some, unless `at` is empty.
fn places(lines: &[&str], text: &str, at: &[usize]) -> Result<Vec<usize>, String> {
    let is_code = |line: &str| !line.starts_with("//") && !line.starts_with(".loc");
    let matches = |line: &str| is_code(line.trim()) && line.contains(text);
    let found: Vec<usize> = (0..lines.len()).filter(|&n| matches(lines[n])).collect();
    if at.is_empty() {
        return if found.is_empty() { Err(format!("no line with `{text}`")) } else { Ok(found) };
    }
    let place =
        |&n: &usize| found.get(n).copied().ok_or_else(|| format!("only {} lines with `{text}`", found.len()));
    at.iter().map(place).collect()
}

impl Change {
    fn apply(&self, line: &str) -> Result<String, String> {
        match *self {
            Change::Remove | Change::MoveBehind(..) => Ok(String::new()),
            Change::Swap(from, to) => match line.matches(from).count() {
                1 => Ok(line.replace(from, to)),
                n => Err(format!("expected `{from}` once, found it {n} times")),
            },
            Change::Instead(text) => Ok(fill(text, &operands(line))),
            Change::Operand(n, to) => {
                let found = operands(line);
                let old = *found.get(n).ok_or_else(|| format!("no operand {n}"))?;
                let at = old.as_ptr() as usize - line.as_ptr() as usize;
                Ok(format!("{}{}{}", &line[..at], fill(to, &found), &line[at + old.len()..]))
            }
        }
    }
}

/// Puts operands into a template.
fn fill(template: &str, operands: &[&str]) -> String {
    let places = operands.iter().enumerate().rev();
    places.fold(template.to_owned(), |text, (n, operand)| {
        let address = operand.trim_matches(['[', ']']);
        text.replace(&format!("${n}"), operand).replace(&format!("&{n}"), address)
    })
}

/// The operands of an instruction: split at commas outside of brackets.
fn operands(line: &str) -> Vec<&str> {
    let code = line.trim().split(';').next().unwrap_or_default();
    let code = match code.strip_prefix('@') {
        Some(guarded) => guarded.split_once(char::is_whitespace).map_or("", |(_, code)| code.trim_start()),
        None => code,
    };
    let list = code.split_once(char::is_whitespace).map_or("", |(_, list)| list);
    let mut depth = 0;
    let outside = |c: char| {
        match c {
            '[' | '{' => depth += 1,
            ']' | '}' => depth -= 1,
            _ => {}
        }
        c == ',' && depth == 0
    };
    list.split(outside).map(str::trim).filter(|operand| !operand.is_empty()).collect()
}

#[test]
fn edits_are_precise() {
    let ptx = ".entry k(\n)\n{\n\tbar.sync 0;\n{\n}\n\t// bar.sync\n\t@%p1 ld.global.v2.u32 \t{%r1, %r2}, [%rd1+4];\n\tbar.sync 0;\n}\n";
    let one = |edit: Edit| apply(ptx, "k", &[edit]);
    assert_eq!(one(remove("bar.sync", &[1])).unwrap().matches("bar.sync 0").count(), 1);
    assert!(one(remove("bar.sync", &[2])).unwrap_err().contains("only 2 lines"));
    assert!(one(remove("bar.arrive", &[])).unwrap_err().contains("no line with"));
    assert!(one(swap("ld.global", &[0], "%r", "%f")).unwrap_err().contains("3 times"));
    let moved = one(operand("ld.global", &[0], 1, "[%rd1+8]")).unwrap();
    assert!(moved.contains("@%p1 ld.global.v2.u32 \t{%r1, %r2}, [%rd1+8];"));
    assert!(
        one(instead("ld.global", &[0], "mov.b64 $0, 0;")).unwrap().contains("\nmov.b64 {%r1, %r2}, 0;\n")
    );
    assert!(apply(ptx, "other", &[]).is_err());
}
