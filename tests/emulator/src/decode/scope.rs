//! Names: registers, variables and labels, each visible in its block.

use std::collections::HashMap;

use cuda_emulator_alu::row::Kind;

use super::program::Space;

/// A register.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Register {
    /// First row, or number of the predicate.
    pub index: u32,
    /// Its kind.
    pub kind: Kind,
}

/// What a name stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Symbol {
    /// A register.
    Register(Register),
    /// A variable: its space and its address there.
    Variable(Space, u64),
    /// Dynamic shared memory, whose offset is known at the end.
    DynamicShared,
}

/// Nested blocks. Indices stay valid, so that a label can be looked up from the block it was used in.
#[derive(Default)]
pub struct Scopes {
    scopes: Vec<Scope>,
    current: usize,
}

#[derive(Default)]
struct Scope {
    parent: Option<usize>,
    symbols: HashMap<String, Symbol>,
    labels: HashMap<String, u32>,
    branch_targets: HashMap<String, Vec<String>>,
}

impl Scopes {
    /// The outermost block, for variables of the module.
    pub fn new() -> Self {
        Scopes { scopes: vec![Scope::default()], current: 0 }
    }

    /// Enters a block.
    pub fn open(&mut self) {
        self.scopes.push(Scope { parent: Some(self.current), ..Scope::default() });
        self.current = self.scopes.len() - 1;
    }

    /// Leaves it.
    pub fn close(&mut self) {
        self.current = self.scopes[self.current].parent.unwrap_or(0);
    }

    /// Enters a new block below the outermost one, for the body of a function; returns where to go back to.
    pub fn enter_function(&mut self) -> usize {
        let caller = self.current;
        self.current = 0;
        self.open();
        caller
    }

    /// Goes back to where [`Scopes::enter_function`] came from.
    pub fn leave_function(&mut self, caller: usize) {
        self.current = caller;
    }

    /// The current block.
    pub fn current(&self) -> usize {
        self.current
    }

    /// Declares a name in the current block.
    pub fn declare(&mut self, name: &str, symbol: Symbol) {
        self.scopes[self.current].symbols.insert(name.to_owned(), symbol);
    }

    /// Declares a label in the current block.
    pub fn label(&mut self, name: &str, at: u32) {
        self.scopes[self.current].labels.insert(name.to_owned(), at);
    }

    /// Declares targets of an indexed branch in the current block.
    pub fn branch_targets(&mut self, name: &str, targets: &[String]) {
        self.scopes[self.current].branch_targets.insert(name.to_owned(), targets.to_vec());
    }

    /// The symbol of that name visible in the current block.
    pub fn find(&self, name: &str) -> Option<Symbol> {
        self.up(self.current).find_map(|scope| scope.symbols.get(name).copied())
    }

    /// The label of that name visible in block `from`.
    pub fn find_label(&self, from: usize, name: &str) -> Option<u32> {
        self.up(from).find_map(|scope| scope.labels.get(name).copied())
    }

    /// The targets of that name visible in block `from`.
    pub fn find_targets(&self, from: usize, name: &str) -> Option<Vec<String>> {
        self.up(from).find_map(|scope| scope.branch_targets.get(name).cloned())
    }

    fn up(&self, from: usize) -> impl Iterator<Item = &Scope> {
        std::iter::successors(Some(&self.scopes[from]), |scope| scope.parent.map(|p| &self.scopes[p]))
    }
}
