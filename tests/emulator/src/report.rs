//! What a kernel did wrong.

use std::fmt;

/// Kind of a fault; decides which CUDA error the driver reports.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum FaultKind {
    /// Outside every allocation, or in one that was freed.
    OutOfBounds,
    /// In an allocation that was freed.
    UseAfterFree,
    /// Address is no multiple of the access size.
    Misaligned,
    /// Bytes nobody has written.
    Uninitialised,
    /// Two threads, no order between their accesses.
    Race,
    /// Written through the generic proxy, read through the async proxy, no `fence.proxy.async` between.
    MissingProxyFence,
    /// Bytes or registers that an asynchronous operation still writes or reads.
    InFlight,
    /// A barrier used with other counts or by other threads than it allows.
    Barrier,
    /// A `.sync` or `.aligned` instruction that not all of its lanes reach together.
    NotConverged,
    /// Nobody can move.
    Deadlock,
    /// Too many instructions without an end.
    Timeout,
    /// `trap`, a failed `assert`, or an instruction whose operands it does not allow.
    Trap,
    /// Something that the emulator does not do.
    Unsupported,
}

/// A fault with everything that is known about it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fault {
    /// What kind of fault.
    pub kind: FaultKind,
    /// What happened and what was expected.
    pub message: String,
    /// The kernel.
    pub kernel: String,
    /// Source file and line, from `.loc`.
    pub source: Option<(String, u32)>,
    /// Line of the PTX, from 1.
    pub ptx_line: u32,
    /// The instruction as it stands in the PTX.
    pub instruction: String,
    /// `%ctaid`.
    pub block: [u32; 3],
    /// `%tid`, where one thread is to blame.
    pub thread: Option<[u32; 3]>,
    /// The address, where there is one.
    pub address: Option<u64>,
}

impl Fault {
    /// A fault whose place is filled in by the scheduler.
    pub fn new(kind: FaultKind, message: impl Into<String>) -> Box<Fault> {
        Box::new(Fault {
            kind,
            message: message.into(),
            kernel: String::new(),
            source: None,
            ptx_line: 0,
            instruction: String::new(),
            block: [0; 3],
            thread: None,
            address: None,
        })
    }

    /// The same fault at `address`.
    pub fn at(mut self: Box<Self>, address: u64) -> Box<Fault> {
        self.address = Some(address);
        self
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [x, y, z] = self.block;
        write!(f, "{:?} in kernel {}", self.kind, self.kernel)?;
        if let Some((file, line)) = &self.source {
            write!(f, " at {file}:{line}")?;
        }
        write!(f, " (PTX line {}: {}), block ({x},{y},{z})", self.ptx_line, self.instruction)?;
        if let Some([x, y, z]) = self.thread {
            write!(f, ", thread ({x},{y},{z})")?;
        }
        if let Some(address) = self.address {
            write!(f, ", address {address:#x}")?;
        }
        write!(f, ": {}", self.message)
    }
}

impl std::error::Error for Fault {}
