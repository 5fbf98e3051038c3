//! A kernel, decoded once, executed many times.

use crate::counters::Class;
use crate::memory::access::Width;
use crate::tensor::matrix::MatrixOp;
use crate::tensor::mma::MmaOp;
use crate::tensor::wgmma::{Immediates, WgmmaOp};
use cuda_emulator_alu::row::{AluArgs, AluFn, Kind, Row};

/// An operand that is not there.
pub const NONE: u32 = u32::MAX;

/// A decoded kernel.
pub struct Program {
    /// Its name.
    pub name: String,
    /// Instructions; labels are indices into them.
    pub instructions: Vec<Instruction>,
    /// Where each instruction stands.
    pub sites: Vec<Site>,
    /// The register file of a warp at its start: constants in their rows, zeros elsewhere.
    pub template: Vec<Row>,
    /// Rows of it that may be read before they are written.
    pub initial: Vec<std::ops::Range<usize>>,
    /// Predicates of a warp at its start.
    pub predicates: Vec<u32>,
    /// Rows that hold special registers.
    pub specials: Vec<(u32, Special)>,
    /// Lines of the PTX that have instructions, by number.
    pub text: std::collections::HashMap<u32, String>,
    /// Names of the source files by their number.
    pub files: std::collections::BTreeMap<u32, String>,
    /// Bytes of static shared memory; dynamic shared memory follows.
    pub static_shared: u32,
    /// Bytes of local memory of a thread.
    pub local: u32,
    /// Offset that dynamic shared memory starts at.
    pub dynamic_shared_at: u32,
    /// log₂ of the narrowest access to shared memory in bytes, at most 2.
    pub shared_granule: u32,
    /// Registers of a thread at the start, if the kernel changes their number.
    pub registers: Option<u32>,
    /// Whether it loads from memory what other blocks may be writing, and so may be waiting for them.
    pub polls: bool,
    /// Whether it synchronises through memory: fences, or loads and stores with an order.
    pub has_fences: bool,
    /// Whether it asks memory what other blocks have done, and so may be handed values by them: strong loads,
    /// atomics with a result.
    pub exchanges: bool,
}

impl Program {
    /// A line of the PTX.
    pub fn text(&self, line: u32) -> &str {
        self.text.get(&line).map_or("", String::as_str)
    }
}

/// Where an instruction stands.
#[derive(Clone, Copy, Debug, Default)]
pub struct Site {
    /// Line of the PTX.
    pub ptx_line: u32,
    /// `.file` number and line, from `.loc`.
    pub source: Option<(u32, u32)>,
}

/// An instruction.
pub struct Instruction {
    /// Predicate that guards it, or [`NONE`].
    pub guard: u32,
    /// All bits set if the guard is negated.
    pub guard_xor: u32,
    /// What it does.
    pub op: Op,
    /// What it counts as.
    pub class: Class,
    /// Whether it touches rows that some `wgmma` uses.
    pub touches_wgmma: bool,
    /// Whether it touches rows that some load of global memory writes.
    pub touches_loaded: bool,
    /// Whether it only copies registers.
    pub is_move: bool,
    /// Rows it reads or writes: first and number.
    pub rows: Box<[(u32, u32)]>,
    /// Rows it writes.
    pub written: Box<[(u32, u32)]>,
}

/// Special registers that a warp gets at its start.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Special {
    /// `%tid.x`, y, z
    Tid(u8),
    /// `%ntid`
    Ntid(u8),
    /// `%ctaid`
    Ctaid(u8),
    /// `%nctaid`
    Nctaid(u8),
    /// `%clusterid`
    ClusterId(u8),
    /// `%nclusterid`
    NclusterId(u8),
    /// `%cluster_ctaid`
    ClusterCtaid(u8),
    /// `%cluster_nctaid`
    ClusterNctaid(u8),
    /// `%cluster_ctarank`
    ClusterCtarank,
    /// `%cluster_nctarank`
    ClusterNctarank,
    /// `%laneid`
    LaneId,
    /// `%warpid`
    WarpId,
    /// `%nwarpid`
    NwarpId,
    /// `%smid`
    SmId,
    /// `%nsmid`
    NsmId,
    /// `%gridid`, 64 bits
    GridId,
    /// `%lanemask_eq`
    LanemaskEq,
    /// `%lanemask_lt`
    LanemaskLt,
    /// `%lanemask_le`
    LanemaskLe,
    /// `%lanemask_gt`
    LanemaskGt,
    /// `%lanemask_ge`
    LanemaskGe,
    /// `%dynamic_smem_size`
    DynamicShared,
    /// `%total_smem_size`
    TotalShared,
    /// Half of the address of a cooperative launch's workspace: the high one for true.
    Workspace(bool),
}

/// Where an address points.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Space {
    /// Decided by the address.
    Generic,
    /// Global memory, constants included.
    Global,
    /// Shared memory of the block (`.shared::cta`) or of a block of the cluster.
    Shared,
    /// Local memory of the thread.
    Local,
    /// Parameters of the kernel.
    Param,
}

/// `[base + offset]`
#[derive(Clone, Copy, Debug)]
pub struct Address {
    /// Its space.
    pub space: Space,
    /// Row of the base.
    pub row: u32,
    /// Whether the base has 64 bits.
    pub wide: bool,
    /// Bytes added to it.
    pub offset: i64,
}

/// Order of an access among those of other threads.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Order {
    /// `.volatile`, `.relaxed`, `.acquire`, `.release`: no data race.
    pub strong: bool,
    /// The same, among all blocks of a grid.
    pub across: bool,
    /// `.acquire` or `.acq_rel`, among all blocks of a grid.
    pub acquire: bool,
    /// `.release` or `.acq_rel`, among all blocks of a grid.
    pub release: bool,
}

/// How a loaded value fills its register.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Extend {
    /// With zeros.
    Zero,
    /// With the sign bit, up to 32 or 64 bits.
    Sign,
}

/// One register of a load or store.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Slot {
    /// First row, or [`NONE`] for `_`.
    pub row: u32,
    /// Its kind.
    pub kind: Kind,
}

/// A load or store of one register or a vector of them.
#[derive(Clone, Debug)]
pub struct Access {
    /// Where.
    pub address: Address,
    /// Bytes of one element.
    pub width: Width,
    /// Registers of the elements.
    pub slots: Box<[Slot]>,
    /// How loaded values fill registers.
    pub extend: Extend,
    /// Its order.
    pub order: Order,
    /// Whether its elements are words that go to 32-bit registers, as most do.
    pub words: bool,
}

impl Access {
    /// Bytes of all elements.
    pub fn bytes(&self) -> u32 {
        (self.width.bytes() * self.slots.len()) as u32
    }
}

/// What an atomic does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AtomicOp {
    /// `.add`
    Add,
    /// `.min`
    Min,
    /// `.max`
    Max,
    /// `.inc`
    Inc,
    /// `.dec`
    Dec,
    /// `.and`
    And,
    /// `.or`
    Or,
    /// `.xor`
    Xor,
    /// `.exch`
    Exch,
    /// `.cas`
    Cas,
}

/// Type of an atomic's elements.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum AtomicType {
    B16,
    B32,
    B64,
    B128,
    U32,
    S32,
    U64,
    S64,
    F16,
    Bf16,
    F16x2,
    Bf16x2,
    F32,
    F64,
}

/// `st.async`
#[derive(Clone, Debug)]
pub struct StoreAsync {
    /// Where to, in shared memory.
    pub address: Address,
    /// Bytes of an element.
    pub width: Width,
    /// The values.
    pub slots: Box<[Slot]>,
    /// The mbarrier it completes on.
    pub mbarrier: Address,
}

/// `atom` and `red`.
#[derive(Clone, Debug)]
pub struct Atomic {
    /// Where.
    pub address: Address,
    /// What.
    pub op: AtomicOp,
    /// Of which type.
    pub ty: AtomicType,
    /// Where the old values go; empty for `red`.
    pub dst: Box<[Slot]>,
    /// Operands of the elements.
    pub src: Box<[Slot]>,
    /// The value to exchange with, of `cas`.
    pub swap: Slot,
    /// Its order.
    pub order: Order,
}

/// Modes of `shfl`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum ShuffleMode {
    Up,
    Down,
    Butterfly,
    Index,
}

/// `shfl.sync`
#[derive(Clone, Debug)]
pub struct Shuffle {
    /// Its mode.
    pub mode: ShuffleMode,
    /// Destination row.
    pub dst: u32,
    /// Predicate: whether the source lane was in range; or [`NONE`].
    pub in_range: u32,
    /// Source row.
    pub src: u32,
    /// Row of the lane or distance.
    pub lane: u32,
    /// Row of clamp and segment mask.
    pub clamp: u32,
    /// Row of the member mask.
    pub members: u32,
}

/// Warp-wide votes, matches and reductions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum WarpOp {
    VoteAll,
    VoteAny,
    VoteUni,
    VoteBallot,
    MatchAny,
    MatchAll,
    ReduceAdd,
    ReduceMinU,
    ReduceMinS,
    ReduceMaxU,
    ReduceMaxS,
    ReduceAnd,
    ReduceOr,
    ReduceXor,
    ReduceMinF,
    ReduceMaxF,
    Elect,
}

/// `vote`, `match`, `redux`, `elect`
#[derive(Clone, Debug)]
pub struct Collective {
    /// Which.
    pub op: WarpOp,
    /// Destination row, or [`NONE`].
    pub dst: u32,
    /// Destination predicate, or [`NONE`].
    pub dst_pred: u32,
    /// Source row or predicate.
    pub src: u32,
    /// Whether the source of `match` has 64 bits.
    pub wide: bool,
    /// Row of the member mask.
    pub members: u32,
}

/// What a barrier instruction does besides.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BarrierKind {
    /// Arrives and waits.
    Sync,
    /// Arrives.
    Arrive,
    /// Arrives, waits, and counts a predicate.
    Popc,
    /// Arrives, waits; whether all threads' predicates are true.
    And,
    /// Arrives, waits; whether any is.
    Or,
}

/// `bar` and `barrier`
#[derive(Clone, Debug)]
pub struct Barrier {
    /// What it does.
    pub kind: BarrierKind,
    /// Row of its number.
    pub id: u32,
    /// Row of the number of threads, or [`NONE`] for all of the block.
    pub count: u32,
    /// Source predicate of a reduction.
    pub src: u32,
    /// Destination row or predicate of a reduction.
    pub dst: u32,
    /// All lanes of the warp are there together; otherwise they wait for each other first.
    pub aligned: bool,
}

/// `cp.async`
#[derive(Clone, Debug)]
pub struct CpAsync {
    /// Where to, in shared memory.
    pub to: Address,
    /// Where from, in global memory.
    pub from: Address,
    /// Bytes written.
    pub size: u32,
    /// Row of the bytes read, the rest being zero; or [`NONE`].
    pub source_size: u32,
    /// Predicate that says to read nothing; or [`NONE`].
    pub ignore_source: u32,
}

/// What a `mbarrier` instruction does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MbarrierKind {
    /// `.init`
    Init,
    /// `.inval`
    Invalidate,
    /// `.arrive`, with `.expect_tx` if there are bytes
    Arrive,
    /// `.arrive.noComplete` or `.arrive_drop`
    ArriveDrop,
    /// `.expect_tx`
    ExpectTx,
    /// `.complete_tx`
    CompleteTx,
    /// `.test_wait`
    TestWait,
    /// `.test_wait.parity`
    TestWaitParity,
    /// `.try_wait`
    TryWait,
    /// `.try_wait.parity`
    TryWaitParity,
    /// `.pending_count`
    PendingCount,
}

/// `mbarrier`
#[derive(Clone, Debug)]
pub struct Mbarrier {
    /// What it does.
    pub kind: MbarrierKind,
    /// Where the barrier is.
    pub address: Address,
    /// Destination: rows of the state (64 bits), or a predicate; or [`NONE`].
    pub dst: u32,
    /// Row of the count; for waits, rows of the state or row of the parity; or [`NONE`].
    pub count: u32,
    /// Row of the bytes of `.expect_tx`; or [`NONE`].
    pub bytes: u32,
    /// The arrival must not complete the phase.
    pub no_complete: bool,
}

/// Where a bulk copy goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BulkDirection {
    /// Global to shared memory, completing on a mbarrier.
    Load,
    /// Shared to global memory, completing with a bulk group.
    Store,
    /// Shared memory to that of another block of the cluster, completing on a mbarrier there.
    SharedToCluster,
    /// Shared to global memory with a reduction.
    Reduce,
}

/// `cp.async.bulk`, `cp.reduce.async.bulk`, with and without `.tensor`
#[derive(Clone, Debug)]
pub struct Bulk {
    /// Where it goes.
    pub direction: BulkDirection,
    /// Address in shared memory of the side that is there (destination of a load, source of a store).
    pub shared: Address,
    /// Address in global memory or of the tensor map; of the destination, for shared memory to cluster.
    pub global: Address,
    /// Rows of the tensor coordinates; empty without `.tensor`.
    pub coordinates: Box<[u32]>,
    /// Whether there is a tensor map.
    pub tensor: bool,
    /// Row of the bytes, without a tensor map.
    pub size: u32,
    /// The mbarrier.
    pub mbarrier: Option<Address>,
    /// Row of the multicast mask, or [`NONE`].
    pub multicast: u32,
    /// Operation and type of the reduction; the type is empty where the tensor map gives it.
    pub reduction: Option<(String, String)>,
}

/// `wgmma.mma_async`
#[derive(Clone)]
pub struct Wgmma {
    /// The operation.
    pub op: WgmmaOp,
    /// Signs and layouts.
    pub immediates: Immediates,
    /// Rows of the accumulators.
    pub d: Box<[u32]>,
    /// Rows of A, if it is in registers.
    pub a: Box<[u32]>,
    /// Rows of the descriptor of A, if it is in shared memory.
    pub a_descriptor: u32,
    /// Rows of the descriptor of B.
    pub b_descriptor: u32,
    /// Predicate: whether the accumulators are added to.
    pub scale_d: u32,
}

/// `ldmatrix` and `stmatrix`
#[derive(Clone, Debug)]
pub struct MatrixAccess {
    /// Number of matrices and whether they are transposed.
    pub op: MatrixOp,
    /// Rows of eight elements, one address per lane.
    pub address: Address,
    /// Registers.
    pub rows: Box<[u32]>,
}

/// `mma`
#[derive(Clone)]
pub struct Mma {
    /// The operation.
    pub op: MmaOp,
    /// Rows of d.
    pub d: Box<[u32]>,
    /// Rows of a.
    pub a: Box<[u32]>,
    /// Rows of b.
    pub b: Box<[u32]>,
    /// Rows of c.
    pub c: Box<[u32]>,
}

/// `tensormap.replace`
#[derive(Clone, Debug)]
pub struct TensorMapReplace {
    /// The tensor map.
    pub address: Address,
    /// The field.
    pub field: String,
    /// The ordinal of fields that have several, else 0.
    pub ordinal: u32,
    /// Row of the new value.
    pub value: u32,
    /// Whether it has 64 bits.
    pub wide: bool,
}

/// Proxy that a fence is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fence {
    /// `fence`, `membar`: memory order only.
    Memory,
    /// The same within a block or cluster.
    Near,
    /// `fence.proxy.async`
    ProxyAsync,
    /// `fence.mbarrier_init`
    MbarrierInit,
    /// `fence.proxy.tensormap`, `fence.proxy.alias`: order only.
    Other,
}

/// What an instruction does.
#[allow(missing_docs)]
pub enum Op {
    Alu(AluFn, AluArgs),
    Load(Box<Access>),
    Store(Box<Access>),
    StoreAsync(Box<StoreAsync>),
    Atomic(Box<Atomic>),
    Prefetch(Address),
    /// Packs elements of equal width into one register.
    Pack {
        dst: Slot,
        src: Box<[Slot]>,
        part: u32,
    },
    /// Unpacks one register.
    Unpack {
        dst: Box<[Slot]>,
        src: Slot,
        part: u32,
    },
    /// Adds (`to_generic`) or removes the window of a space.
    Cvta {
        dst: Slot,
        src: Slot,
        space: Space,
        to_generic: bool,
    },
    IsSpace {
        dst: u32,
        src: Slot,
        space: Space,
        own_only: bool,
    },
    Mapa {
        dst: Slot,
        src: Slot,
        rank: u32,
        generic: bool,
    },
    CtaRank {
        dst: u32,
        src: Slot,
    },
    Clock {
        dst: Slot,
    },
    ActiveMask {
        dst: u32,
    },
    Branch(u32),
    BranchIndexed {
        index: u32,
        targets: Box<[u32]>,
    },
    Exit,
    Trap(&'static str),
    /// Offsets in local memory of the addresses of format and values.
    Printf {
        format: u32,
        values: u32,
    },
    /// Offsets in local memory of the addresses of message and file, and of the line.
    Assert {
        message: u32,
        file: u32,
        line: u32,
    },
    Nop,
    Yield,
    Barrier(Box<Barrier>),
    BarWarp {
        members: u32,
    },
    ClusterArrive {
        aligned: bool,
        relaxed: bool,
    },
    ClusterWait {
        aligned: bool,
    },
    Fence(Fence),
    /// `griddepcontrol.wait`
    GridWait,
    /// `griddepcontrol.launch_dependents`
    LaunchDependents,
    /// `setmaxnreg`: to so many registers of a thread.
    SetRegisters {
        each: u32,
        more: bool,
    },
    Shuffle(Box<Shuffle>),
    Collective(Box<Collective>),
    CpAsync(Box<CpAsync>),
    CpCommit,
    CpWait(u32),
    CpWaitAll,
    CpArrive {
        address: Address,
        noinc: bool,
    },
    Mbarrier(Box<Mbarrier>),
    Bulk(Box<Bulk>),
    BulkCommit,
    BulkWait {
        groups: u32,
        read: bool,
    },
    LoadMatrix(Box<MatrixAccess>),
    StoreMatrix(Box<MatrixAccess>),
    MoveMatrix {
        dst: u32,
        src: u32,
    },
    Mma(Box<Mma>),
    Wgmma(Box<Wgmma>),
    WgmmaFence,
    WgmmaCommit,
    WgmmaWait(u32),
    TensorMapReplace(Box<TensorMapReplace>),
    TensorMapCopy {
        to: Address,
        from: Address,
    },
}
