//! The syntax tree.

use std::collections::BTreeMap;

/// State spaces that variables are declared in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Space {
    /// `.global`
    Global,
    /// `.const`
    Const,
    /// `.shared`
    Shared,
    /// `.local`
    Local,
    /// `.param`
    Param,
}

/// A translation unit.
#[derive(Debug, Default)]
pub struct Module {
    /// `.target`, without its options.
    pub target: String,
    /// `.file` numbers and names.
    pub files: BTreeMap<u32, String>,
    /// Variables outside functions.
    pub variables: Vec<Variable>,
    /// Functions that have a body.
    pub functions: Vec<Function>,
    /// Names of functions that are only declared.
    pub declared: Vec<String>,
}

/// A variable of any space but registers.
#[derive(Clone, Debug)]
pub struct Variable {
    /// Its space.
    pub space: Space,
    /// Its name.
    pub name: String,
    /// Alignment in bytes.
    pub align: usize,
    /// Bytes of one element.
    pub element: usize,
    /// Bytes of all; 0 for `name[]`.
    pub size: usize,
    /// Initial values of its elements, the rest being zero.
    pub init: Vec<Init>,
    /// Line of the PTX, from 1.
    pub line: u32,
}

/// One element of an initialiser.
#[derive(Clone, Debug, PartialEq)]
pub enum Init {
    /// The element's bits.
    Bits(u64),
    /// The generic address of a variable, and bytes added to it.
    Address(String, i64),
}

/// A kernel or a device function.
#[derive(Debug, Default)]
pub struct Function {
    /// Its name.
    pub name: String,
    /// `.entry` rather than `.func`.
    pub entry: bool,
    /// What a device function returns.
    pub returns: Vec<Variable>,
    /// Parameters in order.
    pub params: Vec<Variable>,
    /// `.maxntid`
    pub max_threads: Option<[u32; 3]>,
    /// `.maxnreg`
    pub max_registers: Option<u32>,
    /// `.minnctapersm`
    pub min_blocks: Option<u32>,
    /// `.reqntid`
    pub required_threads: Option<[u32; 3]>,
    /// `.reqnctapercluster`
    pub required_cluster: Option<[u32; 3]>,
    /// The statements.
    pub body: Vec<Statement>,
}

/// A statement of a body.
#[derive(Debug)]
pub enum Statement {
    /// `{`
    Open,
    /// `}`
    Close,
    /// `name:`
    Label(String),
    /// `name: .branchtargets …`
    BranchTargets(String, Vec<String>),
    /// `.reg .type name` or `name<count>`
    Registers {
        /// The type, without its dot.
        ty: String,
        /// The name, or what comes before the number.
        name: String,
        /// How many, for `name<count>`.
        count: Option<u32>,
        /// Line of the PTX, from 1.
        line: u32,
    },
    /// A variable.
    Variable(Variable),
    /// `.loc file line …`
    Location(u32, u32),
    /// An instruction.
    Instruction(Instruction),
}

/// An instruction as it is written.
#[derive(Clone, Debug)]
pub struct Instruction {
    /// Line of the PTX, from 1.
    pub line: u32,
    /// `@p` or `@!p`: the predicate, and whether it is negated.
    pub guard: Option<(String, bool)>,
    /// The opcode up to its first dot.
    pub base: String,
    /// What follows, split at dots.
    pub modifiers: Vec<String>,
    /// Operands in order.
    pub operands: Vec<Operand>,
}

impl Instruction {
    /// Whether a modifier is there.
    pub fn has(&self, modifier: &str) -> bool {
        self.modifiers.iter().any(|m| m == modifier)
    }

    /// The opcode with its modifiers.
    pub fn opcode(&self) -> String {
        std::iter::once(&self.base).chain(&self.modifiers).map(String::as_str).collect::<Vec<_>>().join(".")
    }
}

/// An operand.
#[derive(Clone, Debug, PartialEq)]
pub enum Operand {
    /// A register, special register, variable, label or function.
    Name(String),
    /// `!p`
    Not(String),
    /// A name and a constant: `name + 4`
    Offset(String, i64),
    /// An integer.
    Integer(i128),
    /// `0f…`: the bits of an f32.
    Float(u32),
    /// `0d…` or a decimal fraction: the bits of an f64.
    Double(u64),
    /// `p|q`
    Pair(Box<Operand>, Box<Operand>),
    /// `{a, b}`
    Vector(Vec<Operand>),
    /// `[base + offset]`, or `[base + offset, {c0, c1}]` with the coordinates of a tensor.
    Address {
        /// Register or variable; empty for an absolute address.
        base: String,
        /// Bytes added to it.
        offset: i64,
        /// Coordinates of a tensor.
        coordinates: Vec<Operand>,
    },
    /// `(a, b)` of a call.
    List(Vec<Operand>),
}
