//! One emulated device: its properties, its memory, and launches.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::counters::Counters;
use crate::decode;
use crate::decode::program::{Program, Special};
use crate::memory::exchange::Exchange;
use crate::memory::global::GlobalMemory;
use crate::memory::l2::L2;
use crate::ptx::ast;
use crate::report::{Fault, FaultKind};
use crate::schedule::beside::{self, Beside};
use crate::schedule::state::Grid;
use crate::schedule::{self, Plan};

/// Which device is emulated.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Profile {
    /// A100, compute capability 8.0.
    A100,
    /// H100, compute capability 9.0.
    H100,
}

impl Profile {
    /// Multiprocessors.
    pub fn processors(self) -> u32 {
        match self {
            Profile::A100 => 108,
            Profile::H100 => 132,
        }
    }

    /// Bytes of shared memory of a multiprocessor.
    pub fn shared_per_processor(self) -> u32 {
        match self {
            Profile::A100 => 167_936,
            Profile::H100 => 233_472,
        }
    }

    /// Bytes of L2 cache that a multiprocessor's accesses have to themselves. Both devices have two
    /// partitions, each of which caches what its half of the multiprocessors accesses, so that what all of
    /// them read is there twice: 40 MB, NVIDIA A100 Tensor Core GPU Architecture, "A100 L2 Cache"; 50 MB,
    /// NVIDIA H100 Tensor Core GPU Architecture, "H100 L2 cache".
    pub fn l2_partition_bytes(self) -> u64 {
        match self {
            Profile::A100 => 20 << 20,
            Profile::H100 => 25 << 20,
        }
    }
}

/// Threads, blocks and 32-bit registers of a multiprocessor.
const THREADS: u32 = 2048;
const BLOCKS: u32 = 32;
pub(crate) const REGISTERS: u32 = 1 << 16;
/// Shared memory is given out in units of this size, and every block takes some besides its own.
pub(crate) const SHARED_UNIT: u32 = 128;
pub(crate) const RESERVED_SHARED: u32 = 1024;
/// Registers of a thread are given out in units of this size.
pub(crate) const REGISTER_UNIT: u32 = 8;
/// The most registers of a thread that a kernel can be compiled for.
const MOST_REGISTERS: u32 = 255;

/// How a machine runs.
#[derive(Clone, Debug)]
pub struct Options {
    /// The device.
    pub profile: Profile,
    /// Whether there is a device at all.
    pub present: bool,
    /// Devices, all alike, of which a process uses one.
    pub devices: i32,
    /// Compute capability that the device claims, times ten, where it is not its own.
    pub capability: Option<u32>,
    /// Version of the driver API, as in 13000 for 13.0.
    pub version: i32,
    /// Bytes of global memory.
    pub memory: u64,
    /// Seed of every random order.
    pub seed: u64,
    /// Threads that blocks run on.
    pub threads: usize,
    /// Instructions of one warp after which a kernel is stopped.
    pub instruction_limit: u64,
    /// Whether launches count what takes a record of every access: bytes that DRAM sees, loads in flight.
    pub traffic: bool,
    /// Blocks that a multiprocessor runs at the same time, for that record: as many as threads and shared
    /// memory allow where this does not say it, as registers are not known from PTX.
    pub blocks_per_processor: Option<u32>,
    /// Clusters of a launch that run: where there are more, so many of them at equal distances; of a
    /// cooperative launch the first, which have to wait for nobody else. Counters are those of what ran. What
    /// blocks leave for each other is not checked then, and atomics leave global memory as it is, but those
    /// of a cooperative launch: those that count arrivals would be counted on. The L2 cache is smaller by as
    /// much.
    pub most_clusters: u64,
}

impl Default for Options {
    fn default() -> Self {
        Options {
            profile: Profile::H100,
            present: true,
            devices: 1,
            capability: None,
            version: 13000,
            memory: 4 << 30,
            seed: 0,
            threads: std::thread::available_parallelism().map_or(1, |n| n.get()),
            instruction_limit: 1 << 32,
            traffic: false,
            blocks_per_processor: None,
            most_clusters: u64::MAX,
        }
    }
}

/// Geometry and arguments of a launch.
#[derive(Clone, Debug)]
pub struct Launch {
    /// Blocks in x, y, z.
    pub grid: [u32; 3],
    /// Threads of a block in x, y, z.
    pub block: [u32; 3],
    /// Blocks of a cluster in x, y, z; `[1, 1, 1]` without clusters.
    pub cluster: [u32; 3],
    /// Bytes of dynamic shared memory.
    pub dynamic_shared: u32,
    /// The parameters as they lie in `.param` space: see [`Function::params`].
    pub params: Vec<u8>,
    /// Whether all blocks run at the same time (cooperative launch).
    pub cooperative: bool,
}

/// A parameter of a kernel.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Param {
    /// Name in the PTX.
    pub name: String,
    /// Offset in the parameter space.
    pub offset: usize,
    /// Bytes.
    pub size: usize,
}

/// A variable in global memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct GlobalVariable {
    /// Address.
    pub address: u64,
    /// Bytes.
    pub size: u64,
}

/// A loaded module.
pub struct Module {
    functions: BTreeMap<String, Arc<Function>>,
    globals: BTreeMap<String, GlobalVariable>,
    memory: Arc<GlobalMemory>,
}

impl Drop for Module {
    fn drop(&mut self) {
        for variable in self.globals.values() {
            // Cannot fail: they were allocated by `load`.
            let _ = self.memory.free(variable.address);
        }
    }
}

impl Module {
    /// Parses and decodes PTX and allocates its global variables.
    ///
    /// # Errors
    /// A message with the line for everything that is not understood; nothing is ignored.
    pub fn load(ptx: &str, memory: &Arc<GlobalMemory>) -> Result<Arc<Module>, String> {
        let ast = crate::ptx::parse(ptx)?;
        let mut module =
            Module { functions: BTreeMap::new(), globals: BTreeMap::new(), memory: Arc::clone(memory) };
        module.allocate(&ast)?;
        let addresses = module.globals.iter().map(|(name, g)| (name.clone(), g.address)).collect();
        let lines: Vec<&str> = ptx.lines().collect();
        for function in ast.functions.iter().filter(|f| f.entry) {
            let mut program = decode::decode(&ast, function, &addresses)
                .map_err(|message| format!("kernel {}: {message}", function.name))?;
            for site in &program.sites {
                let text = lines.get((site.ptx_line as usize).wrapping_sub(1)).map_or("", |line| line.trim());
                program.text.entry(site.ptx_line).or_insert_with(|| text.to_owned());
            }
            module.functions.insert(function.name.clone(), Arc::new(Function::new(function, program)));
        }
        Ok(Arc::new(module))
    }

    fn allocate(&mut self, ast: &ast::Module) -> Result<(), String> {
        let in_global = |v: &&ast::Variable| matches!(v.space, ast::Space::Global | ast::Space::Const);
        for variable in ast.variables.iter().filter(in_global) {
            let size = variable.size as u64;
            let line = variable.line;
            let failed = |_| {
                format!("line {line}: variable {} of {size} bytes does not fit into memory", variable.name)
            };
            let address = self.memory.alloc(size.max(1)).map_err(failed)?;
            let variable_at = GlobalVariable { address, size };
            if let Some(first) = self.globals.insert(variable.name.clone(), variable_at) {
                // Cannot fail: it was allocated above.
                let _ = self.memory.free(first.address);
                return Err(format!("line {line}: variable {} is defined twice", variable.name));
            }
        }
        for variable in ast.variables.iter().filter(in_global) {
            self.initialise(variable)?;
        }
        Ok(())
    }

    /// Variables without an initialiser are zero.
    fn initialise(&self, variable: &ast::Variable) -> Result<(), String> {
        let line = variable.line;
        // Memory is zero as it is allocated: only what has a value is written.
        let mut bytes = vec![0; variable.init.len() * variable.element];
        for (n, init) in variable.init.iter().enumerate() {
            let value = match init {
                ast::Init::Bits(bits) => *bits,
                ast::Init::Address(name, offset) => {
                    let found = self.globals.get(name);
                    let found =
                        found.ok_or_else(|| format!("line {line}: variable {name} is not declared"))?;
                    found.address.wrapping_add_signed(*offset)
                }
            };
            // Elements of 16 bytes are zero-extended.
            let used = variable.element.min(8);
            let from = n * variable.element;
            bytes[from..from + used].copy_from_slice(&value.to_le_bytes()[..used]);
        }
        let GlobalVariable { address, size } = self.globals[&variable.name];
        let failed = |fault: Box<Fault>| format!("line {line}: {}", fault.message);
        if size > 0 {
            self.memory.find(address, size).map_err(failed)?.mark_written(address, size, true);
        }
        self.memory.write(address, &bytes).map_err(failed)
    }

    /// A kernel by name.
    pub fn function(self: &Arc<Self>, name: &str) -> Option<Arc<Function>> {
        self.functions.get(name).cloned()
    }

    /// Names of the kernels.
    pub fn functions(&self) -> Vec<&str> {
        self.functions.keys().map(String::as_str).collect()
    }

    /// A variable by name.
    pub fn global(&self, name: &str) -> Option<GlobalVariable> {
        self.globals.get(name).copied()
    }
}

/// A kernel.
pub struct Function {
    /// Name.
    pub name: String,
    /// Parameters in order.
    pub params: Vec<Param>,
    /// Bytes of static shared memory.
    pub static_shared: u32,
    /// Bytes of local memory of a thread.
    pub local: u32,
    /// `.maxntid`, or 1024 threads.
    pub max_threads: u32,
    /// `.reqntid`.
    pub required_block: Option<[u32; 3]>,
    /// `.reqnctapercluster`.
    pub required_cluster: Option<[u32; 3]>,
    /// Registers of a thread at the start of a kernel that changes their number (`setmaxnreg`). Those of
    /// others are not known from PTX.
    pub registers: Option<u32>,
    program: Program,
}

/// Registers of a thread that a kernel is compiled for by its directives: those that it is allowed, or those
/// that let as many blocks of as many threads run as it promises. A promise of threads alone is not enough.
pub(crate) fn compiled_registers(ast: &ast::Function) -> Option<u32> {
    let threads = ast.max_threads.or(ast.required_threads).map(|t| t.iter().product::<u32>());
    let promised = match (threads, ast.min_blocks) {
        (Some(threads), Some(blocks)) => {
            Some(REGISTERS / (blocks.max(1) * threads.max(1).next_multiple_of(32)))
        }
        _ => None,
    };
    let registers = [promised, ast.max_registers].into_iter().flatten().min()?;
    Some(registers.min(MOST_REGISTERS) / REGISTER_UNIT * REGISTER_UNIT)
}

impl Function {
    fn new(ast: &ast::Function, program: Program) -> Self {
        let (offsets, _) = decode::layout_params(&ast.params);
        let param =
            |(v, offset): (&ast::Variable, usize)| Param { name: v.name.clone(), offset, size: v.size };
        let threads = ast
            .max_threads
            .or(ast.required_threads)
            .map_or(1024, |t| t.iter().fold(1, |n, &x| u32::saturating_mul(n, x)));
        Function {
            name: ast.name.clone(),
            params: ast.params.iter().zip(offsets).map(param).collect(),
            static_shared: program.static_shared,
            local: program.local,
            max_threads: threads,
            required_block: ast.required_threads,
            required_cluster: ast.required_cluster,
            registers: program.registers,
            program,
        }
    }

    /// Bytes of `.param` space.
    pub fn param_bytes(&self) -> usize {
        self.params.last().map_or(0, |param| param.offset + param.size)
    }

    /// Blocks that fit on a multiprocessor at the same time.
    pub fn resident_blocks(&self, profile: Profile, threads: u32, dynamic_shared: u32) -> u32 {
        let threads = threads.max(1).next_multiple_of(32);
        let shared = u64::from(self.static_shared) + u64::from(dynamic_shared) + u64::from(RESERVED_SHARED);
        let by_shared =
            u64::from(profile.shared_per_processor()) / shared.next_multiple_of(SHARED_UNIT.into());
        let by_registers = self.registers.map_or(BLOCKS, |each| REGISTERS / (each * threads));
        BLOCKS.min(THREADS / threads).min(by_registers).min(by_shared as u32)
    }
}

/// Bytes of a cooperative launch's workspace.
const WORKSPACE: u64 = 64;

/// One emulated device.
pub struct Machine {
    /// How it runs.
    pub options: Options,
    /// Its memory.
    pub memory: Arc<GlobalMemory>,
    launches: AtomicU64,
}

impl Machine {
    /// A machine.
    pub fn new(options: Options) -> Self {
        let memory = Arc::new(GlobalMemory::new(options.memory));
        Machine { options, memory, launches: AtomicU64::new(0) }
    }

    /// Runs a kernel to its end. The caller has checked geometry and sizes against the device's limits.
    ///
    /// # Errors
    /// The first fault.
    pub fn launch(&self, function: &Function, launch: &Launch) -> Result<Counters, Box<Fault>> {
        self.run(function, launch, None)
    }

    /// The same for a grid with a part in a programmatic dependent launch, whose primary has ended: what it
    /// does before `griddepcontrol.wait` must not touch what that has touched, as it need not have ended.
    ///
    /// # Errors
    /// The first fault.
    pub fn launch_with(
        &self,
        function: &Function,
        launch: &Launch,
        beside: &Beside,
    ) -> Result<Counters, Box<Fault>> {
        self.run(function, launch, Some(beside))
    }

    /// Runs a kernel and, from when its blocks let dependents start, a second one beside it. Neither launch
    /// is cooperative. `parts` are those of [`beside::pair`].
    ///
    /// # Errors
    /// The first fault of any.
    pub fn launch_beside(
        &self,
        kernels: [(&Function, &Launch); 2],
        parts: [&Beside; 2],
    ) -> Result<[Counters; 2], Box<Fault>> {
        let [(first, first_launch), (second, second_launch)] = kernels;
        let first = self.grid(first, first_launch, Some(parts[0]))?;
        let second = self.grid(second, second_launch, Some(parts[1]))?;
        let plan = Plan {
            seed: self.seed(first.id),
            threads: 1,
            cooperative: false,
            beside: true,
            most_clusters: u64::MAX,
        };
        beside::run([&first, &second], plan)
    }

    /// A seed for the order within a launch.
    fn seed(&self, id: u64) -> u64 {
        self.options.seed.wrapping_add(id.wrapping_mul(0x9E37_79B9))
    }

    fn grid<'a>(
        &'a self,
        function: &'a Function,
        launch: &'a Launch,
        beside: Option<&'a Beside>,
    ) -> Result<Grid<'a>, Box<Fault>> {
        let id = self.launches.fetch_add(1, Ordering::Relaxed);
        let clusters: u64 =
            launch.grid.iter().zip(launch.cluster).map(|(g, c)| u64::from(g / c.max(1))).product();
        let sampled = !launch.cooperative && clusters > self.options.most_clusters;
        let grid = Grid {
            workspace: 0,
            exchange: (!sampled && exchanges(function, launch)).then(Exchange::default),
            sampled,
            program: &function.program,
            memory: &self.memory,
            params: &launch.params,
            grid: launch.grid,
            block: launch.block,
            cluster: launch.cluster,
            dynamic_shared: launch.dynamic_shared,
            l2: self.options.traffic.then(|| self.l2(function, launch)),
            beside,
            id,
            processors: self.options.profile.processors(),
            instruction_limit: self.options.instruction_limit,
        };
        check_geometry(function, &grid)?;
        Ok(grid)
    }

    fn run(
        &self,
        function: &Function,
        launch: &Launch,
        beside: Option<&Beside>,
    ) -> Result<Counters, Box<Fault>> {
        let mut grid = self.grid(function, launch, beside)?;
        grid.workspace = self.workspace(function, launch)?;
        // How often blocks look for each other must depend on the seed alone, and whoever waits for a block
        // that is not promised to run must not be saved by chance.
        let one_by_one = function.program.polls || launch.cooperative;
        let plan = Plan {
            seed: self.seed(grid.id),
            threads: if one_by_one { 1 } else { self.options.threads },
            cooperative: launch.cooperative,
            beside: false,
            most_clusters: self.options.most_clusters,
        };
        let result = schedule::run(&grid, plan);
        if grid.workspace != 0 {
            // Cannot fail: it was allocated above.
            let _ = self.memory.free(grid.workspace);
        }
        result
    }

    /// The L2 cache, for a launch whose traffic is counted.
    fn l2(&self, function: &Function, launch: &Launch) -> L2 {
        let Options { profile, blocks_per_processor, .. } = self.options;
        let threads = launch.block.iter().product();
        let fit = || function.resident_blocks(profile, threads, launch.dynamic_shared);
        let blocks = u64::from(blocks_per_processor.unwrap_or_else(fit).max(1) * profile.processors());
        let [all, cluster] = [launch.grid, launch.cluster]
            .map(|blocks| blocks.iter().map(|&n| u64::from(n)).product::<u64>().max(1));
        let clusters = all / cluster;
        // Of a sample, each block has its share of the cache for itself, and of its wave as many run.
        let ran = clusters.min(self.options.most_clusters);
        let share = |of: u64| of * ran / clusters;
        L2::new(share(profile.l2_partition_bytes()), ran, share(blocks / cluster))
    }

    /// Memory for the barrier of a cooperative grid, zero at first, where the kernel asks for its address.
    fn workspace(&self, function: &Function, launch: &Launch) -> Result<u64, Box<Fault>> {
        let asks =
            function.program.specials.iter().any(|(_, special)| matches!(special, Special::Workspace(_)));
        if !launch.cooperative || !asks {
            return Ok(0);
        }
        let full = |_| Fault::new(FaultKind::Unsupported, "no memory is left for the barrier of the grid");
        let address = self.memory.alloc(WORKSPACE).map_err(full)?;
        self.memory.fill(address, &[0], WORKSPACE)?;
        Ok(address)
    }
}

/// Whether blocks may hand values to each other.
fn exchanges(function: &Function, launch: &Launch) -> bool {
    launch.cooperative || function.program.exchanges && launch.grid != launch.cluster
}

/// What the driver checks too, so that launches without it cannot go wrong.
fn check_geometry(function: &Function, grid: &Grid) -> Result<(), Box<Fault>> {
    let refuse = |message: String| {
        let mut fault = Fault::new(FaultKind::Unsupported, message);
        fault.kernel.clone_from(&function.name);
        Err(fault)
    };
    let threads: u64 = grid.block.iter().map(|&n| u64::from(n)).product();
    if threads == 0 || threads > 1024 || grid.grid.contains(&0) || grid.cluster.contains(&0) {
        return refuse(format!("a grid of {:?} blocks of {:?} threads", grid.grid, grid.block));
    }
    if grid.grid.iter().zip(grid.cluster).any(|(g, c)| g % c != 0)
        || grid.cluster.iter().map(|&n| u64::from(n)).product::<u64>() > 16
    {
        return refuse(format!("a grid of {:?} blocks in clusters of {:?}", grid.grid, grid.cluster));
    }
    if let Some(each) = function.registers
        && u64::from(each) * threads.next_multiple_of(32) > u64::from(REGISTERS)
    {
        return refuse(format!("{each} registers for each of {threads} threads, of {REGISTERS} in all"));
    }
    let shared = u64::from(function.program.dynamic_shared_at) + u64::from(grid.dynamic_shared);
    if shared >= 1 << 24 {
        return refuse(format!("{shared} bytes of shared memory"));
    }
    if grid.params.len() < function.param_bytes() {
        return refuse(format!(
            "{} bytes of parameters, expected {}",
            grid.params.len(),
            function.param_bytes()
        ));
    }
    Ok(())
}
