//! The picture of the modules in `src/lib.rs` against the imports: they point downward, and there are no
//! circles.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

/// A module by its path from the root of the crate.
type Module = Vec<String>;

/// Modules that are written once for every backend, and so name none.
const GENERIC: [&str; 7] = ["adapter", "attached", "decode", "guard", "model", "probe", "train"];

/// The picture in a text whose lines all start with `margin`, without it.
fn drawn(path: &Path, margin: &str) -> String {
    let text = fs::read_to_string(path).unwrap();
    let lines = text.lines().map(|line| line.strip_prefix(margin).unwrap_or(line));
    let lines = lines.skip_while(|line| !line.starts_with("Imports point downward"));
    let picture = lines.skip_while(|line| *line != "```text").skip(1).take_while(|line| *line != "```");
    picture.map(|line| format!("{line}\n")).collect()
}

/// The lines of the picture, top to bottom: the modules of each.
fn picture() -> Vec<Vec<String>> {
    let names = |line: &str| {
        let (names, _) = line.split_once("    ").expect("names, and what they are");
        names.split_whitespace().map(str::to_owned).collect()
    };
    drawn(&root().join("lib.rs"), "//! ").lines().map(names).collect()
}

fn root() -> &'static Path {
    Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/src"))
}

/// Every module with what it imports. Tests may import anything.
fn imports() -> BTreeMap<Module, BTreeSet<Module>> {
    let mut sources = BTreeMap::new();
    read(root(), &mut Vec::new(), &mut sources);
    let modules: BTreeSet<Module> = sources.keys().cloned().collect();
    let of_module = |(module, text): (Module, String)| {
        let paths = paths(&code(&text)).into_iter().map(|path| resolve(&module, &path, &modules));
        let others = paths.filter(|found| *found != module).collect();
        (module, others)
    };
    sources.into_iter().map(of_module).collect()
}

fn read(dir: &Path, module: &mut Module, sources: &mut BTreeMap<Module, String>) {
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_stem().unwrap().to_str().unwrap().to_owned();
        if name == "tests" || name == "main" {
            continue;
        }
        let is_own = ["lib", "mod"].contains(&name.as_str());
        if !is_own {
            module.push(name);
        }
        if path.is_dir() {
            read(&path, module, sources);
        } else {
            sources.insert(module.clone(), fs::read_to_string(&path).unwrap());
        }
        if !is_own {
            module.pop();
        }
    }
}

/// The text without comments and without its tests, which are last in a file.
fn code(text: &str) -> String {
    let (text, _) = text.split_once("#[cfg(test)]\nmod tests {").unwrap_or((text, ""));
    text.lines().map(|line| line.split("//").next().unwrap_or_default()).collect::<Vec<_>>().join("\n")
}

/// Every path that starts at the crate or at a module above.
fn paths(code: &str) -> Vec<Vec<String>> {
    let mut found = Vec::new();
    for start in ["crate::", "super::"] {
        for (at, _) in code.match_indices(start) {
            let before = code[..at].chars().next_back();
            if !before.is_some_and(|c| c.is_alphanumeric() || c == '_' || c == ':' || c == '$') {
                path(&code[at..], Vec::new(), &mut found);
            }
        }
    }
    found
}

/// Reads one path, `a::b` or `a::{b, c::d}`, into all that it names; returns what follows it.
fn path<'a>(text: &'a str, mut before: Vec<String>, found: &mut Vec<Vec<String>>) -> &'a str {
    let text = text.trim_start();
    if let Some(mut rest) = text.strip_prefix('{') {
        loop {
            rest = rest.trim_start().trim_start_matches(',').trim_start();
            match rest.strip_prefix('}') {
                Some(behind) => return behind,
                None => rest = path(rest, before.clone(), found),
            }
        }
    }
    let end = text.find(|c: char| !(c.is_alphanumeric() || c == '_' || c == '*')).unwrap_or(text.len());
    before.push(text[..end].to_owned());
    match text[end..].strip_prefix("::") {
        Some(rest) if !rest.starts_with('<') => path(rest, before, found),
        _ => {
            found.push(before);
            let renamed = text[end..].trim_start().strip_prefix("as ");
            renamed.map_or(&text[end..], |name| {
                name.trim_start_matches(|c: char| c.is_alphanumeric() || c == '_')
            })
        }
    }
}

/// The module that a path leads into. What a module re-exports is its own.
fn resolve(from: &Module, path: &[String], modules: &BTreeSet<Module>) -> Module {
    let up = path.iter().take_while(|part| *part == "super").count();
    let (base, rest) = match up {
        0 => (&[][..], &path[1..]),
        _ => (&from[..from.len() - up], &path[up..]),
    };
    let mut to = [base, rest].concat();
    while !modules.contains(&to) {
        to.pop();
    }
    to
}

/// Who imports whom among the modules directly in each folder.
fn siblings(
    imports: &BTreeMap<Module, BTreeSet<Module>>,
) -> BTreeMap<Module, BTreeMap<String, BTreeSet<String>>> {
    let mut folders: BTreeMap<Module, BTreeMap<String, BTreeSet<String>>> = BTreeMap::new();
    for (from, to) in imports.iter().flat_map(|(from, all)| all.iter().map(move |to| (from, to))) {
        let common = from.iter().zip(to).take_while(|(a, b)| a == b).count();
        if let (Some(a), Some(b)) = (from.get(common), to.get(common)) {
            let folder = folders.entry(from[..common].to_vec()).or_default();
            folder.entry(a.clone()).or_default().insert(b.clone());
        }
    }
    folders
}

/// The circles, if there are any: what is left when modules are taken away that import none of the others, or
/// that none of the others imports.
fn circle(edges: &BTreeMap<String, BTreeSet<String>>) -> Vec<String> {
    let mut left = edges.clone();
    loop {
        let before = left.len();
        let there: BTreeSet<String> = left.keys().cloned().collect();
        let imported: BTreeSet<String> = left.values().flatten().cloned().collect();
        left.retain(|from, to| imported.contains(from) && !to.is_disjoint(&there));
        if left.len() == before {
            return left.into_keys().collect();
        }
    }
}

#[test]
fn the_picture_has_every_module_once() {
    let mut shown: Vec<String> = picture().concat();
    shown.sort();
    let mut there: Vec<String> =
        imports().into_keys().filter(|module| module.len() == 1).map(|module| module[0].clone()).collect();
    there.sort();
    assert_eq!(shown, there);
}

#[test]
fn the_documents_show_the_same_picture() {
    let architecture = root().parent().unwrap().join("docs/architecture.md");
    assert_eq!(drawn(&architecture, ""), drawn(&root().join("lib.rs"), "//! "));
}

#[test]
fn imports_point_downward() {
    let picture = picture();
    let line =
        |name: &str| picture.iter().position(|line| line.iter().any(|n| n == name)).expect("in the picture");
    let mut wrong = Vec::new();
    for (from, to) in &imports() {
        for to in to.iter().filter(|to| !from.is_empty() && !to.is_empty() && to[0] != from[0]) {
            if line(&from[0]) > line(&to[0]) {
                wrong.push(format!("{} imports {}", from.join("::"), to.join("::")));
            }
        }
    }
    assert!(wrong.is_empty(), "upward: {wrong:#?}");
}

#[test]
fn no_modules_import_each_other() {
    let circles: Vec<_> = siblings(&imports())
        .into_iter()
        .map(|(folder, edges)| (folder.join("::"), circle(&edges)))
        .filter(|(_, circle)| !circle.is_empty())
        .collect();
    assert!(circles.is_empty(), "circles among these: {circles:#?}");
}

#[test]
fn what_is_generic_names_no_device() {
    let device = |to: &Module| to.first().is_some_and(|name| name == "cpu" || name == "cuda");
    for (from, to) in imports() {
        if from.first().is_some_and(|name| GENERIC.contains(&name.as_str())) {
            let found: Vec<_> = to.iter().filter(|to| device(to)).collect();
            assert!(found.is_empty(), "{} imports {found:?}", from.join("::"));
        }
    }
}

/// One stem per operation: a contract, a kernel, a CUDA side, a CPU side, and tests that run on both.
#[test]
fn every_family_of_operations_has_its_homes() {
    let repository = root().parent().unwrap();
    let text = |path: &Path| fs::read_to_string(path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    let kernels: Vec<String> = fs::read_dir(repository.join("kernels"))
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    let tested = text(&repository.join("tests/ops.rs"));
    let (mut families, mut found) = (0, 0);
    for entry in fs::read_dir(root().join("ops")).unwrap() {
        let path = entry.unwrap().path();
        let stem = path.file_stem().unwrap().to_str().unwrap();
        let text_of_stem = text(&path);
        let family = |line: &str| line.starts_with("pub trait ") && line.contains(": Device");
        if stem == "mod" || !text_of_stem.lines().any(family) {
            continue;
        }
        let home = |folder: PathBuf| in_home(&folder.join(stem));
        let [cpu, cuda] = ["cpu", "cuda"].map(|device| home(root().join(device)));
        let tests = home(repository.join("tests/ops_families"));
        for operation in operations(&text_of_stem) {
            for (device, code) in [("cpu", &cpu), ("cuda", &cuda)] {
                assert!(
                    code.contains(&format!("fn {operation}(")),
                    "{operation}: not in src/{device}/{stem}"
                );
            }
            assert!(
                tests.contains(&format!(".{operation}(")),
                "{operation}: not in tests/ops_families/{stem}"
            );
            found += 1;
        }
        let own = |name: &String| {
            let rest = name.strip_prefix(stem).and_then(|rest| rest.strip_suffix(".cu"));
            rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('_'))
        };
        assert!(kernels.iter().any(own), "{stem}: no kernel file");
        assert!(tested.contains(&format!(" {stem} {{")), "{stem}: not in tests/ops.rs");
        families += 1;
    }
    assert!(families >= 13, "only {families} families found: has the form of the contracts changed?");
    assert!(found >= 35, "only {found} operations found: has the form of the contracts changed?");
}

/// What a family has in `stem.rs` and in the folder `stem`.
fn in_home(stem: &Path) -> String {
    let file = stem.with_extension("rs");
    let mut all = fs::read_to_string(&file).unwrap_or_else(|e| panic!("{}: {e}", file.display()));
    if stem.is_dir() {
        visit(stem, &mut |_, text| all.push_str(text));
    }
    all
}

/// The operations of a contract: the functions of its trait that have no body there.
fn operations(contract: &str) -> Vec<&str> {
    let (_, body) = contract.split_once("\npub trait ").expect("a trait");
    let (body, _) = body.split_once("\n}").expect("its end");
    let functions = body.split("\n    fn ").skip(1).filter(|function| !function.contains("\n    }"));
    functions.map(|function| function.split(['(', '<']).next().expect("a name")).collect()
}

#[test]
fn paths_are_found_wherever_they_stand() {
    let text = code(
        "use crate::a::{self, b::C, d::{E as F, G}};\n// use crate::no;\nfn f() -> super::H { crate::i::j::<K>() }\n\
         macro!($crate::l);\n#[cfg(test)]\nmod tests { use crate::t; }",
    );
    let found: Vec<String> = paths(&text).into_iter().map(|path| path.join("::")).collect();
    let expected =
        ["crate::a::self", "crate::a::b::C", "crate::a::d::E", "crate::a::d::G", "crate::i::j", "super::H"];
    assert_eq!(found, expected);
    let edges = |list: &[(&str, &str)]| {
        let mut edges: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
        for (a, b) in list {
            edges.entry((*a).into()).or_default().insert((*b).into());
        }
        edges
    };
    assert!(circle(&edges(&[("a", "b"), ("b", "c"), ("a", "c")])).is_empty());
    assert_eq!(circle(&edges(&[("a", "b"), ("b", "c"), ("c", "b")])), ["b", "c"]);
}

/// Columns that a comment may take, as `.editorconfig` says.
const WIDTH: usize = 110;

#[test]
fn comments_end_at_the_last_column() {
    let mut wide = Vec::new();
    for folder in ["build", "src", "kernels", "tests", "benches", "examples"] {
        visit(&root().with_file_name(folder), &mut |path, text| {
            let is_code = ["rs", "cu", "h"].iter().any(|code| path.extension().is_some_and(|e| e == *code));
            let comments = text.lines().enumerate().filter(|(_, line)| line.trim_start().starts_with("//"));
            let long = comments.filter(|(_, line)| is_code && line.chars().count() > WIDTH);
            wide.extend(long.map(|(at, _)| format!("{}:{}", path.display(), at + 1)));
        });
    }
    assert!(wide.is_empty(), "comments beyond column {WIDTH}:\n{}", wide.join("\n"));
}

/// Calls `found` for every text file below a folder.
fn visit(dir: &Path, found: &mut dyn FnMut(&Path, &str)) {
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() && path.file_name().is_none_or(|name| name != "target") {
            visit(&path, found);
        } else if let Ok(text) = fs::read_to_string(&path) {
            found(&path, &text);
        }
    }
}
