//! From the syntax tree to a program: names become rows, opcodes become operations.

pub mod access;
mod arithmetic;
mod call;
mod control;
mod initial;
pub mod operands;
pub mod program;
mod scope;
mod sync;
mod tensor;

use std::collections::HashMap;

use crate::counters::Class;
use crate::machine::compiled_registers;
use crate::ptx::ast;
use cuda_emulator_alu::row::{Kind, Row};

use initial::initial_rows;
use program::{Instruction, NONE, Op, Program, Site, Space, Special};
use scope::{Register, Scopes, Symbol};

/// First byte of shared memory that a kernel may use, as on sm_90: address 0 is nobody's.
pub const SHARED_BASE: u32 = 1024;

/// 32-bit registers of a kernel, those of the functions it calls included, at most.
const MOST_ROWS: usize = 1 << 18;
/// Instructions at most.
const MOST_INSTRUCTIONS: usize = 1 << 21;
/// Bytes of local memory of a thread at most, as on the device.
const MOST_LOCAL: u32 = 512 << 10;

type Result<T> = std::result::Result<T, String>;

/// Decodes a kernel. `variables` are the addresses of the module's variables in global memory.
///
/// # Errors
/// A message with the line for every instruction that is not supported.
pub fn decode(
    module: &ast::Module,
    function: &ast::Function,
    variables: &HashMap<String, u64>,
) -> Result<Program> {
    let mut decoder = Decoder::new(module, variables);
    decoder.registers = compiled_registers(function);
    decoder.module_variables()?;
    decoder.kernel_params(function)?;
    decoder.function_body(function)?;
    decoder.finish(function)
}

/// Offsets of parameters in `.param` space, and its size.
pub fn layout_params(params: &[ast::Variable]) -> (Vec<usize>, usize) {
    let mut end = 0usize;
    let offsets = params
        .iter()
        .map(|param| {
            let offset = end.next_multiple_of(param.align);
            end = offset + param.size;
            offset
        })
        .collect();
    (offsets, end)
}

struct Decoder<'a> {
    module: &'a ast::Module,
    variables: &'a HashMap<String, u64>,
    scopes: Scopes,
    template: Vec<Row>,
    predicates: Vec<u32>,
    constants: HashMap<(Kind, u128), u32>,
    specials: Vec<(u32, Special)>,
    instructions: Vec<Instruction>,
    sites: Vec<Site>,
    site: Site,
    /// Branches whose labels are resolved at the end of the function: instruction, block, label.
    branches: Vec<(usize, usize, Vec<String>)>,
    /// Rows that the current instruction touches.
    touched: Vec<(u32, u32)>,
    /// Rows that it writes.
    written: Vec<(u32, u32)>,
    shared_end: u32,
    shared_align: u32,
    dynamic_shared: Vec<u32>,
    local_end: u32,
    shared_granule: u32,
    /// Registers of a thread that the kernel is compiled for, and whether it changes them.
    registers: Option<u32>,
    changes_registers: bool,
    has_fences: bool,
    exchanges: bool,
    polls: bool,
    carry: u32,
    /// Functions whose bodies are being decoded, outermost first.
    inlining: Vec<String>,
    /// Branches of `ret` to the end of the function that is being inlined.
    returns: Vec<usize>,
}

impl<'a> Decoder<'a> {
    fn new(module: &'a ast::Module, variables: &'a HashMap<String, u64>) -> Self {
        Decoder {
            module,
            variables,
            scopes: Scopes::new(),
            template: Vec::new(),
            predicates: vec![0, u32::MAX], // constants: false and true
            constants: HashMap::new(),
            specials: Vec::new(),
            instructions: Vec::new(),
            sites: Vec::new(),
            site: Site::default(),
            branches: Vec::new(),
            touched: Vec::new(),
            written: Vec::new(),
            shared_end: SHARED_BASE,
            shared_align: 16,
            dynamic_shared: Vec::new(),
            local_end: 0,
            shared_granule: 2,
            registers: None,
            changes_registers: false,
            has_fences: false,
            exchanges: false,
            polls: false,
            carry: NONE,
            inlining: Vec::new(),
            returns: Vec::new(),
        }
    }

    fn module_variables(&mut self) -> Result<()> {
        for variable in &self.module.variables {
            self.variable(variable).map_err(|e| format!("line {}: {e}", variable.line))?;
        }
        Ok(())
    }

    fn kernel_params(&mut self, function: &ast::Function) -> Result<()> {
        self.scopes.open();
        let (offsets, _) = layout_params(&function.params);
        for (param, offset) in function.params.iter().zip(offsets) {
            self.scopes.declare(&param.name, Symbol::Variable(Space::Param, offset as u64));
        }
        Ok(())
    }

    /// Declares a variable and gives it an address.
    fn variable(&mut self, variable: &ast::Variable) -> Result<()> {
        let align = variable.align as u32;
        let symbol = match variable.space {
            ast::Space::Global | ast::Space::Const => {
                let address = self.variables.get(&variable.name);
                let address = address.ok_or(format!("variable {} has no address", variable.name))?;
                Symbol::Variable(Space::Global, *address)
            }
            ast::Space::Shared if variable.size == 0 => {
                self.shared_align = self.shared_align.max(align);
                Symbol::DynamicShared
            }
            ast::Space::Shared => {
                let at = place(&mut self.shared_end, align, variable)?;
                Symbol::Variable(Space::Shared, u64::from(at))
            }
            ast::Space::Local | ast::Space::Param => {
                let at = place(&mut self.local_end, align, variable)?;
                if self.local_end > MOST_LOCAL {
                    return Err(format!(
                        "more than {MOST_LOCAL} bytes of local memory with variable {}",
                        variable.name
                    ));
                }
                Symbol::Variable(Space::Local, u64::from(at))
            }
        };
        self.scopes.declare(&variable.name, symbol);
        Ok(())
    }

    fn function_body(&mut self, function: &ast::Function) -> Result<()> {
        self.scopes.open();
        let first_branch = self.branches.len();
        for statement in &function.body {
            self.statement(statement)?;
        }
        self.scopes.close();
        self.resolve_branches(first_branch)
    }

    fn statement(&mut self, statement: &ast::Statement) -> Result<()> {
        match statement {
            ast::Statement::Open => self.scopes.open(),
            ast::Statement::Close => self.scopes.close(),
            ast::Statement::Label(name) => self.scopes.label(name, self.instructions.len() as u32),
            ast::Statement::BranchTargets(name, targets) => self.scopes.branch_targets(name, targets),
            ast::Statement::Location(file, line) => self.site.source = Some((*file, *line)),
            ast::Statement::Variable(variable) => {
                self.variable(variable).map_err(|e| format!("line {}: {e}", variable.line))?;
            }
            ast::Statement::Registers { ty, name, count, line } => {
                self.registers(ty, name, *count).map_err(|e| format!("line {line}: {e}"))?;
            }
            ast::Statement::Instruction(instruction) => {
                self.site.ptx_line = instruction.line;
                self.instruction(instruction)
                    .map_err(|e| format!("line {}: {}: {e}", instruction.line, instruction.opcode()))?;
            }
        }
        Ok(())
    }

    fn registers(&mut self, ty: &str, name: &str, count: Option<u32>) -> Result<()> {
        let kind = match ty {
            "pred" => Kind::Pred,
            "b8" | "u8" | "s8" | "b16" | "u16" | "s16" | "f16" | "bf16" => Kind::B32,
            "b32" | "u32" | "s32" | "f32" | "f16x2" | "bf16x2" => Kind::B32,
            "b64" | "u64" | "s64" | "f64" => Kind::B64,
            "b128" => Kind::B128,
            _ => return Err(format!("registers of type .{ty} are not supported")),
        };
        if self.template.len() + (count.unwrap_or(1) * rows_of(kind)) as usize > MOST_ROWS {
            return Err(format!("more than {MOST_ROWS} registers"));
        }
        for i in 0..count.unwrap_or(1) {
            let index = self.allocate(kind);
            let name = if count.is_some() { format!("{name}{i}") } else { name.to_owned() };
            self.scopes.declare(&name, Symbol::Register(Register { index, kind }));
        }
        Ok(())
    }

    /// Rows, or a predicate, that nobody has.
    fn allocate(&mut self, kind: Kind) -> u32 {
        if kind == Kind::Pred {
            self.predicates.push(0);
            return self.predicates.len() as u32 - 1;
        }
        let first = self.template.len();
        self.template.resize(first + rows_of(kind) as usize, Row::ZERO);
        first as u32
    }

    fn instruction(&mut self, i: &ast::Instruction) -> Result<()> {
        self.touched.clear();
        self.written.clear();
        match i.base.as_str() {
            "ld" | "ldu" | "st" | "atom" | "red" | "prefetch" | "prefetchu" | "applypriority" | "discard" => {
                self.memory_access(i)
            }
            "bra" | "brx" | "ret" | "exit" | "trap" | "brkpt" | "nanosleep" | "pmevent" => self.control(i),
            "call" => self.call(i),
            "bar" | "barrier" | "fence" | "membar" | "griddepcontrol" | "setmaxnreg" => {
                self.synchronisation(i)
            }
            "shfl" | "vote" | "match" | "redux" | "activemask" | "elect" => self.warp_operation(i),
            "mbarrier" => self.mbarrier(i),
            "cp" => self.copy(i),
            "ldmatrix" | "stmatrix" | "movmatrix" | "mma" | "wgmma" | "tensormap" => self.tensor(i),
            "cvta" | "isspacep" | "mapa" | "getctarank" | "createpolicy" => self.address_operation(i),
            "mov" => self.mov(i),
            _ => self.arithmetic(i),
        }
    }

    /// Adds an operation, guarded as the instruction is.
    fn push(&mut self, i: &ast::Instruction, class: Class, op: Op) -> Result<()> {
        let (guard, guard_xor) = match &i.guard {
            None => (NONE, 0),
            Some((name, negated)) => (self.predicate_register(name)?, if *negated { u32::MAX } else { 0 }),
        };
        if self.instructions.len() == MOST_INSTRUCTIONS {
            return Err(format!(
                "more than {MOST_INSTRUCTIONS} instructions, those of called functions included"
            ));
        }
        let (rows, written) = (self.touched.clone().into(), self.written.clone().into());
        self.instructions.push(Instruction {
            guard,
            guard_xor,
            op,
            class,
            touches_wgmma: false,
            touches_loaded: false,
            is_move: i.base == "mov",
            rows,
            written,
        });
        self.sites.push(self.site);
        Ok(())
    }

    fn finish(mut self, function: &ast::Function) -> Result<Program> {
        // Falling off the end of a kernel exits.
        self.instructions.push(Instruction {
            guard: NONE,
            guard_xor: 0,
            op: Op::Exit,
            class: Class::Control,
            touches_wgmma: false,
            touches_loaded: false,
            is_move: false,
            rows: Box::default(),
            written: Box::default(),
        });
        self.sites.push(self.site);
        self.mark_wgmma_rows();
        self.mark_loaded_rows();
        let dynamic_shared_at = self.shared_end.next_multiple_of(self.shared_align);
        for row in self.dynamic_shared {
            // The row holds the offset from the start of dynamic shared memory; it may have 64 bits.
            self.template[row as usize]
                .0
                .iter_mut()
                .for_each(|lane| *lane = lane.wrapping_add(dynamic_shared_at));
        }
        Ok(Program {
            name: function.name.clone(),
            initial: initial_rows(&self.instructions, self.template.len()),
            instructions: self.instructions,
            sites: self.sites,
            template: self.template,
            predicates: self.predicates,
            specials: self.specials,
            text: HashMap::new(),
            files: self.module.files.clone(),
            static_shared: self.shared_end - SHARED_BASE,
            local: self.local_end,
            dynamic_shared_at,
            shared_granule: self.shared_granule,
            registers: self.registers.filter(|_| self.changes_registers),
            has_fences: self.has_fences,
            exchanges: self.exchanges,
            polls: self.polls,
        })
    }

    /// Flags every instruction that touches a register of some `wgmma`, or a copy of one: it may have to
    /// wait.
    fn mark_wgmma_rows(&mut self) {
        let mut used = vec![false; self.template.len()];
        for instruction in &self.instructions {
            if let Op::Wgmma(wgmma) = &instruction.op {
                wgmma.d.iter().chain(&wgmma.a).for_each(|&row| used[row as usize] = true);
            }
        }
        while self.mark_copies(&mut used) {}
        for instruction in &mut self.instructions {
            let mut rows = instruction.rows.iter().flat_map(|&(first, count)| first..first + count);
            instruction.touches_wgmma = rows.any(|row| used[row as usize]);
        }
    }
}

impl Decoder<'_> {
    /// Flags every instruction that touches a register that a load of global memory may write.
    fn mark_loaded_rows(&mut self) {
        let mut loaded = vec![false; self.template.len()];
        let from_global = |op: &Op| match op {
            Op::Load(access) => matches!(access.address.space, Space::Global | Space::Generic),
            _ => false,
        };
        let rows_of = |rows: &[(u32, u32)]| {
            rows.iter().flat_map(|&(first, count)| first..first + count).collect::<Vec<_>>()
        };
        for load in self.instructions.iter().filter(|i| from_global(&i.op)) {
            rows_of(&load.written).into_iter().for_each(|row| loaded[row as usize] = true);
        }
        for instruction in &mut self.instructions {
            instruction.touches_loaded =
                rows_of(&instruction.rows).into_iter().any(|row| loaded[row as usize]);
        }
    }

    /// Adds the rows that moves copy marked rows to; whether there were new ones.
    fn mark_copies(&self, used: &mut [bool]) -> bool {
        let mut grew = false;
        for instruction in self.instructions.iter().filter(|i| i.is_move) {
            let mut rows = instruction.rows.iter().flat_map(|&(first, count)| first..first + count);
            if !rows.any(|row| used[row as usize]) {
                continue;
            }
            for row in instruction.written.iter().flat_map(|&(first, count)| first..first + count) {
                grew |= !std::mem::replace(&mut used[row as usize], true);
            }
        }
        grew
    }
}

/// Rows of a register.
fn rows_of(kind: Kind) -> u32 {
    match kind {
        Kind::None | Kind::Pred => 0,
        Kind::B32 => 1,
        Kind::B64 => 2,
        Kind::B128 => 4,
    }
}

fn place(end: &mut u32, align: u32, variable: &ast::Variable) -> Result<u32> {
    let too_large = || format!("variable {} of {} bytes is too large", variable.name, variable.size);
    let at = end.checked_next_multiple_of(align).ok_or_else(too_large)?;
    let size = u32::try_from(variable.size).map_err(|_| too_large())?;
    *end = at.checked_add(size).filter(|&end| end < 1 << 24).ok_or_else(too_large)?;
    Ok(at)
}
