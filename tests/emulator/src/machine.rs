//! One emulated device: its properties, its memory, and launches.

use std::sync::Arc;

use crate::counters::Counters;
use crate::memory::global::GlobalMemory;
use crate::report::{Fault, FaultKind};

/// Which device is emulated.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Profile {
    /// A100, compute capability 8.0.
    A100,
    /// H100, compute capability 9.0.
    H100,
}

/// How a machine runs.
#[derive(Clone, Debug)]
pub struct Options {
    /// The device.
    pub profile: Profile,
    /// Bytes of global memory.
    pub memory: u64,
    /// Seed of every random order.
    pub seed: u64,
    /// Threads that blocks run on.
    pub threads: usize,
    /// Instructions of one warp after which a kernel is stopped.
    pub instruction_limit: u64,
}

impl Default for Options {
    fn default() -> Self {
        Options {
            profile: Profile::H100,
            memory: 4 << 30,
            seed: 0,
            threads: std::thread::available_parallelism().map_or(1, |n| n.get()),
            instruction_limit: 1 << 32,
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

/// A loaded module.
pub struct Module {
    _private: (),
}

/// A variable in global memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct GlobalVariable {
    /// Address.
    pub address: u64,
    /// Bytes.
    pub size: u64,
}

impl Module {
    /// Parses and decodes PTX and allocates its global variables.
    ///
    /// # Errors
    /// A message with the line for everything that is not understood; nothing is ignored.
    pub fn load(_ptx: &str, _memory: &Arc<GlobalMemory>) -> Result<Arc<Module>, String> {
        Err("not yet".into())
    }

    /// A kernel by name.
    pub fn function(self: &Arc<Self>, _name: &str) -> Option<Arc<Function>> {
        None
    }

    /// Names of the kernels.
    pub fn functions(&self) -> Vec<&str> {
        Vec::new()
    }

    /// A variable by name.
    pub fn global(&self, _name: &str) -> Option<GlobalVariable> {
        None
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
}

/// One emulated device.
pub struct Machine {
    /// How it runs.
    pub options: Options,
    /// Its memory.
    pub memory: Arc<GlobalMemory>,
}

impl Machine {
    /// A machine.
    pub fn new(options: Options) -> Self {
        let memory = Arc::new(GlobalMemory::new(options.memory));
        Machine { options, memory }
    }

    /// Runs a kernel to its end. The caller has checked geometry and sizes against the device's limits.
    ///
    /// # Errors
    /// The first fault.
    pub fn launch(&self, _function: &Function, _launch: &Launch) -> Result<Counters, Box<Fault>> {
        Err(Fault::new(FaultKind::Unsupported, "not yet"))
    }
}
