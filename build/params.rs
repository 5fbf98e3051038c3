//! Rust mirrors of the structs that kernels take by value, generated from their C++ declarations: names,
//! order and types of fields cannot drift apart.

use std::collections::HashMap;
use std::fmt::Write;

/// The mark of a parameter struct in `kernels/`.
const MARK: &str = "struct KERNEL_PARAMETER ";

/// A marked struct.
struct Struct {
    /// The struct's file in `kernels/`.
    file: String,
    name: String,
    fields: Vec<Field>,
}

/// A field; `length` is that of an array, a number or a constant of `tile.h`.
struct Field {
    name: String,
    c_type: String,
    length: Option<String>,
}

/// Bytes of a type, and what its address is a multiple of.
#[derive(Clone, Copy)]
struct Layout {
    size: usize,
    alignment: usize,
}

/// Rust code of all marked structs of `sources`, names and texts of files; `constants` are those of `tile.h`.
/// An error names the struct and the field that cannot be mirrored, and says why.
pub fn generate(sources: &[(String, String)], constants: &HashMap<String, usize>) -> Result<String, String> {
    let mut structs = Vec::new();
    for (file, text) in sources {
        for (at, _) in text.match_indices(MARK) {
            let found = parse(file, &text[at + MARK.len()..]);
            structs.push(found.map_err(|problem| format!("kernels/{file}: {problem}"))?);
        }
    }
    let mirrors = Mirrors { structs: &structs, constants };
    let mut rust = String::new();
    for found in &structs {
        let text = mirrors.rust(found);
        rust +=
            &text.map_err(|problem| format!("kernels/{}: struct {}: {problem}", found.file, found.name))?;
    }
    Ok(rust)
}

/// A struct from behind its mark on. Member functions and comments are left out.
fn parse(file: &str, text: &str) -> Result<Struct, String> {
    let (name, body) = text.split_once('{').ok_or("a struct without fields")?;
    let name = name.trim().to_owned();
    let mut fields = Vec::new();
    let (mut depth, mut statement) = (0, String::new());
    for line in body.lines() {
        for c in line.split("//").next().unwrap_or_default().chars() {
            match c {
                '{' => depth += 1,
                '}' if depth == 0 => return Ok(Struct { file: file.to_owned(), name, fields }),
                '}' => {
                    depth -= 1;
                    statement.clear(); // the end of a member function
                }
                ';' if depth == 0 => {
                    fields.extend(declared(&statement).map_err(|e| format!("struct {name}: {e}"))?);
                    statement.clear();
                }
                _ if depth == 0 => statement.push(c),
                _ => {}
            }
        }
        statement.push(' ');
    }
    Err(format!("struct {name} has no end"))
}

/// The fields of a declaration such as `int m, n` or `const bf16* a`.
fn declared(statement: &str) -> Result<Vec<Field>, String> {
    let problem = || format!("`{}`: expected a type and names", statement.trim());
    let text = statement.replace('*', " * ");
    let mut words: Vec<&str> = text.split_whitespace().filter(|&word| word != "const").collect();
    let first_name =
        words.iter().position(|word| word.ends_with(',')).unwrap_or(words.len().saturating_sub(1));
    let names = words.split_off(first_name).join(" ");
    let c_type = if words.contains(&"*") { "*".to_owned() } else { words.join(" ") };
    if c_type.is_empty() || names.contains('*') {
        return Err(problem());
    }
    let field = |declarator: &str| {
        let (name, length) = match declarator.trim().split_once('[') {
            Some((name, rest)) => (name, Some(rest.strip_suffix(']').ok_or_else(problem)?.to_owned())),
            None => (declarator.trim(), None),
        };
        Ok(Field { name: name.to_owned(), c_type: c_type.clone(), length })
    };
    names.split(',').map(field).collect()
}

struct Mirrors<'a> {
    structs: &'a [Struct],
    constants: &'a HashMap<String, usize>,
}

impl Mirrors<'_> {
    fn rust(&self, found: &Struct) -> Result<String, String> {
        self.layout(found)?;
        let Struct { file, name, fields } = found;
        let mut rust = format!(
            "/// `{name}` of `kernels/{file}`.\n#[derive(Clone, Copy, bytemuck::Pod, bytemuck::Zeroable)]\n#[repr(C)]\n\
             pub struct {name} {{\n"
        );
        for Field { name, c_type, length } in fields {
            let element = rust_type(c_type);
            match length {
                Some(length) => writeln!(rust, "    pub {name}: [{element}; {length}],").unwrap(),
                None => writeln!(rust, "    pub {name}: {element},").unwrap(),
            }
        }
        write!(
            rust,
            "}}\n\nimpl Default for {name} {{\n    fn default() -> Self {{\n        bytemuck::Zeroable::zeroed()\n    }}\n}}\n\n"
        )
        .unwrap();
        Ok(rust)
    }

    /// Size and alignment by C's rules. Padding has to be a field, as the host's bytes of it would be
    /// undefined.
    fn layout(&self, found: &Struct) -> Result<Layout, String> {
        let mut whole = Layout { size: 0, alignment: 1 };
        for field in &found.fields {
            let element = self.element(field)?;
            if !whole.size.is_multiple_of(element.alignment) {
                return Err(format!("padding before {}: make it a field", field.name));
            }
            whole.size += element.size * self.length(field)?;
            whole.alignment = whole.alignment.max(element.alignment);
        }
        match whole.size.is_multiple_of(whole.alignment) {
            true => Ok(whole),
            false => Err("padding at the end: make it a field".to_owned()),
        }
    }

    fn element(&self, field: &Field) -> Result<Layout, String> {
        let simple = |size| Ok(Layout { size, alignment: size });
        match field.c_type.as_str() {
            "int" | "unsigned" | "float" => simple(4),
            "*" | "unsigned long long" => simple(8),
            "CUtensorMap" => Ok(Layout { size: 128, alignment: 64 }),
            name => match self.structs.iter().find(|other| other.name == name) {
                Some(other) => self.layout(other),
                None => Err(format!("{}: a type that has no mirror: {name}", field.name)),
            },
        }
    }

    fn length(&self, field: &Field) -> Result<usize, String> {
        let Some(length) = &field.length else { return Ok(1) };
        let number = length.parse().ok().or_else(|| self.constants.get(length).copied());
        number.ok_or_else(|| {
            format!("{}: expected a length that is a number or of tile.h, found {length}", field.name)
        })
    }
}

/// The Rust type with the layout of a C++ type.
fn rust_type(c_type: &str) -> &str {
    match c_type {
        "int" => "i32",
        "unsigned" => "u32",
        "float" => "f32",
        "*" => "DevicePointer",
        "unsigned long long" => "u64",
        "CUtensorMap" => "TensorMap",
        name => name,
    }
}
