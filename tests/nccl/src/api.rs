//! The functions of NCCL, which look at what they are called with.

use std::cell::RefCell;
use std::ffi::{CString, c_char, c_int, c_void};
use std::sync::{Arc, Mutex};

use crate::comm::{Called, Comm, Refusal, find};
use crate::driver::Driver;
use crate::hub;
use crate::launch::{Ends, RUBBISH, lock};
use crate::wire::{Call, Kind};

/// `ncclSuccess`
pub const SUCCESS: c_int = 0;
/// `ncclUnhandledCudaError`
pub const CUDA_ERROR: c_int = 1;
/// `ncclSystemError`
pub const SYSTEM_ERROR: c_int = 2;
/// `ncclInternalError`
pub const INTERNAL_ERROR: c_int = 3;
/// `ncclInvalidArgument`
pub const INVALID_ARGUMENT: c_int = 4;
/// `ncclInvalidUsage`
pub const INVALID_USAGE: c_int = 5;
/// `ncclRemoteError`
pub const REMOTE_ERROR: c_int = 6;
/// `ncclInProgress`
pub const IN_PROGRESS: c_int = 7;
/// `ncclTimeout`
pub const TIMEOUT: c_int = 8;
/// A result of a release to come.
pub const UNKNOWN: c_int = 17;

/// `ncclInt64`
pub const INT64: c_int = 4;

/// Bytes of each `ncclDataType_t`.
pub const SIZES: [u64; 10] = [1, 1, 4, 4, 8, 8, 2, 4, 8, 2];

/// How many `ncclRedOp_t` there are.
const OPS: c_int = 5;

/// What identities of this library begin with.
const MAGIC: &[u8] = b"nccl-stand-in ";

/// `ncclUniqueId`
#[repr(C)]
#[derive(Clone, Copy)]
pub struct UniqueId(pub [u8; 128]);

/// The beginning of `ncclConfig_t`.
#[repr(C)]
pub struct Config {
    /// Bytes.
    pub size: usize,
    /// `NCCL_API_MAGIC`
    pub magic: u32,
    /// The release that it was compiled for.
    pub version: u32,
    /// Whether calls return only when they are done.
    pub blocking: c_int,
}

/// The group that a thread is in.
struct Group {
    /// How deep; 0 for none.
    depth: usize,
    /// Collectives so far.
    calls: Vec<(Arc<Comm>, Called)>,
}

thread_local! {
    static GROUP: RefCell<Group> = const { RefCell::new(Group { depth: 0, calls: Vec::new() }) };
}

static LAST_ERROR: Mutex<Option<CString>> = Mutex::new(None);

/// Keeps why something was refused, and tells it.
fn told((code, text): Refusal) -> c_int {
    eprintln!("nccl-stand-in: {text}");
    // Texts that were returned stay good.
    std::mem::forget(lock(&LAST_ERROR).replace(CString::new(text).unwrap_or_default()));
    code
}

/// The result of a function of this name, or why it is refused.
fn answer(name: &str, body: impl FnOnce() -> Result<c_int, Refusal>) -> c_int {
    let caught = std::panic::catch_unwind(std::panic::AssertUnwindSafe(body));
    let answered = caught.unwrap_or_else(|_| Err((INTERNAL_ERROR, "a panic".to_owned())));
    answered.unwrap_or_else(|(code, text)| told((code, format!("{name}: {text}"))))
}

fn refused<T>(code: c_int, text: impl Into<String>) -> Result<T, Refusal> {
    Err((code, text.into()))
}

/// Refuses what may not be in a group.
fn check_no_group() -> Result<(), Refusal> {
    match GROUP.with_borrow(|group| group.depth) {
        0 => Ok(()),
        _ => refused(INVALID_USAGE, "in a group"),
    }
}

fn has_overlap((a, a_len): (u64, u64), (b, b_len): (u64, u64)) -> bool {
    a < b + b_len && b < a + a_len
}

/// Refuses bytes that do not lie in one allocation.
fn check_range(what: &str, (address, len): (u64, u64)) -> Result<(), Refusal> {
    if len == 0 {
        return Ok(());
    }
    let of_driver = |text| (INVALID_ARGUMENT, format!("{what} in no memory of the device: {text}"));
    let (base, there) = Driver::get().and_then(|driver| driver.allocation(address)).map_err(of_driver)?;
    match address - base + len <= there {
        true => Ok(()),
        false => {
            let beyond = address - base + len - there;
            refused(INVALID_ARGUMENT, format!("{what} goes {beyond} bytes beyond its allocation"))
        }
    }
}

/// A collective as it is called.
struct Collective {
    call: Call,
    send: u64,
    receive: u64,
    comm: usize,
    stream: usize,
}

impl Collective {
    fn begin(self) -> Result<c_int, Refusal> {
        let comm = find(self.comm)?;
        let place = |(code, text)| (code, format!("rank {}, call {}: {text}", comm.rank, comm.next_call()));
        let ends = self.check(&comm).map_err(place)?;
        let called = (self.call, ends);
        GROUP.with_borrow_mut(|group| match group.depth {
            0 => {
                comm.begin(vec![called]);
                Ok(IN_PROGRESS)
            }
            _ => {
                group.calls.push((comm.clone(), called));
                Ok(SUCCESS)
            }
        })
    }

    /// Where it reads and writes, if it may. What it writes holds rubbish from now on, unless it is to be
    /// read before.
    fn check(&self, comm: &Comm) -> Result<Ends, Refusal> {
        let Collective { call, send, receive, stream, .. } = *self;
        comm.check_usable()?;
        let size = usize::try_from(call.data_type).ok().and_then(|number| SIZES.get(number));
        let Some(size) = size else { return refused(INVALID_ARGUMENT, "a data type that there is not") };
        if !(0..OPS).contains(&call.op) {
            return refused(INVALID_ARGUMENT, "an operation that there is not");
        }
        if !(0..comm.ranks).contains(&call.root) {
            return refused(INVALID_ARGUMENT, format!("root {} of {} ranks", call.root, comm.ranks));
        }
        self.check_stream(comm)?;
        let part = call.count * size;
        let all = if call.kind == Kind::AllGather { part * comm.ranks as u64 } else { part };
        let own = receive + part * comm.rank as u64;
        let (sends, in_place) = match call.kind {
            Kind::AllReduce => (true, send == receive),
            Kind::AllGather => (true, send == own),
            Kind::Broadcast => (comm.rank == call.root, send == receive),
        };
        let sent = (send, if sends { part } else { 0 });
        check_range("what is sent", sent)?;
        check_range("what comes out", (receive, all))?;
        if !in_place && has_overlap(sent, (receive, all)) {
            return refused(INVALID_ARGUMENT, "what is sent and what comes out overlap, and not in place");
        }
        if !in_place || !sends {
            let driver = Driver::get().map_err(|text| (CUDA_ERROR, text))?;
            let filled = driver.fill(receive, RUBBISH, all as usize, stream);
            filled.map_err(|text| (CUDA_ERROR, text))?;
        }
        Ok(Ends { send: (send, sent.1 as usize), receive: (receive, all as usize), stream })
    }

    fn check_stream(&self, comm: &Comm) -> Result<(), Refusal> {
        if self.stream == 0 {
            return refused(INVALID_ARGUMENT, "no stream of its own");
        }
        let context = Driver::get().and_then(|driver| driver.context_of(self.stream));
        match context {
            Ok(context) if context == comm.context => Ok(()),
            Ok(_) => refused(INVALID_ARGUMENT, "a stream of another context"),
            Err(text) => refused(INVALID_ARGUMENT, format!("a stream that there is not: {text}")),
        }
    }
}

/// Defines functions of NCCL.
macro_rules! nccl {
    ($(fn $name:ident($($argument:ident: $type:ty),*) $body:block)*) => {$(
        #[doc = concat!("`", stringify!($name), "` of NCCL.")]
        ///
        /// # Safety
        /// Pointers are valid for what NCCL reads and writes through them.
        #[unsafe(no_mangle)]
        pub unsafe extern "C" fn $name($($argument: $type),*) -> c_int {
            answer(stringify!($name), || $body)
        }
    )*};
}

nccl! {
    fn ncclGetVersion(release: *mut c_int) {
        let given = std::env::var("DG_NCCL_RELEASE").ok().and_then(|text| text.parse().ok());
        // SAFETY: valid, as the caller promises.
        unsafe { *release = given.unwrap_or(22_703) };
        Ok(SUCCESS)
    }

    fn ncclGetUniqueId(id: *mut UniqueId) {
        let place = hub::open().map_err(|error| (SYSTEM_ERROR, error.to_string()))?;
        let mut bytes = [MAGIC, place.to_string().as_bytes()].concat();
        bytes.resize(size_of::<UniqueId>(), 0);
        // SAFETY: valid, as the caller promises, and as long.
        unsafe { std::ptr::copy_nonoverlapping(bytes.as_ptr(), id.cast(), bytes.len()) };
        Ok(SUCCESS)
    }

    fn ncclCommInitRankConfig(
        comm: *mut *mut c_void, ranks: c_int, id: UniqueId, rank: c_int, config: *mut Config
    ) {
        check_no_group()?;
        if config.is_null() {
            return refused(INVALID_ARGUMENT, "without a configuration, only nonblocking communicators");
        }
        // SAFETY: valid, as the caller promises.
        let Config { size, magic, version, blocking } = unsafe { config.read() };
        if magic != 0xcafe_beef || size < size_of::<Config>() || version < 21_400 {
            return refused(INVALID_ARGUMENT, "a configuration that was not initialised");
        }
        if blocking != 0 {
            return refused(INVALID_ARGUMENT, "a blocking communicator, which waits for ranks that are gone");
        }
        if !(0..ranks).contains(&rank) {
            return refused(INVALID_ARGUMENT, format!("rank {rank} of {ranks}"));
        }
        let text = id.0.strip_prefix(MAGIC).and_then(|rest| rest.split(|byte| *byte == 0).next());
        let Some(place) = text.and_then(|text| str::from_utf8(text).ok()?.parse().ok()) else {
            return refused(INVALID_ARGUMENT, "an identity that is not of ncclGetUniqueId");
        };
        let handle = Comm::connect(ranks, place, rank)?;
        // SAFETY: valid, as the caller promises.
        unsafe { *comm = handle as *mut c_void };
        Ok(IN_PROGRESS)
    }

    fn ncclCommGetAsyncError(comm: *mut c_void, state: *mut c_int) {
        let comm = find(comm as usize)?;
        let found = comm.ask()?;
        if ![SUCCESS, IN_PROGRESS].contains(&found) {
            told((found, format!("rank {}: {}", comm.rank, comm.why())));
        }
        // SAFETY: valid, as the caller promises.
        unsafe { *state = found };
        Ok(SUCCESS)
    }

    fn ncclCommFinalize(comm: *mut c_void) {
        check_no_group()?;
        let comm = find(comm as usize)?;
        comm.check_usable()?;
        comm.finalize();
        Ok(IN_PROGRESS)
    }

    fn ncclCommDestroy(comm: *mut c_void) {
        check_no_group()?;
        find(comm as usize)?.destroy(comm as usize).map(|()| SUCCESS)
    }

    fn ncclCommAbort(comm: *mut c_void) {
        find(comm as usize)?.abort(comm as usize);
        Ok(SUCCESS)
    }

    fn ncclCommCount(comm: *mut c_void, count: *mut c_int) {
        let comm = find(comm as usize)?;
        comm.check_usable()?;
        // SAFETY: valid, as the caller promises.
        unsafe { *count = comm.ranks };
        Ok(SUCCESS)
    }

    fn ncclCommUserRank(comm: *mut c_void, rank: *mut c_int) {
        let comm = find(comm as usize)?;
        comm.check_usable()?;
        // SAFETY: valid, as the caller promises.
        unsafe { *rank = comm.rank };
        Ok(SUCCESS)
    }

    fn ncclAllReduce(
        send: *const c_void, receive: *mut c_void, count: usize, data_type: c_int, op: c_int,
        comm: *mut c_void, stream: *mut c_void
    ) {
        let call = Call { kind: Kind::AllReduce, count: count as u64, data_type, op, root: 0 };
        let (send, receive, comm, stream) = (send as u64, receive as u64, comm as usize, stream as usize);
        Collective { call, send, receive, comm, stream }.begin()
    }

    fn ncclAllGather(
        send: *const c_void, receive: *mut c_void, count: usize, data_type: c_int,
        comm: *mut c_void, stream: *mut c_void
    ) {
        let call = Call { kind: Kind::AllGather, count: count as u64, data_type, op: 0, root: 0 };
        let (send, receive, comm, stream) = (send as u64, receive as u64, comm as usize, stream as usize);
        Collective { call, send, receive, comm, stream }.begin()
    }

    fn ncclBroadcast(
        send: *const c_void, receive: *mut c_void, count: usize, data_type: c_int, root: c_int,
        comm: *mut c_void, stream: *mut c_void
    ) {
        let call = Call { kind: Kind::Broadcast, count: count as u64, data_type, op: 0, root };
        let (send, receive, comm, stream) = (send as u64, receive as u64, comm as usize, stream as usize);
        Collective { call, send, receive, comm, stream }.begin()
    }

    fn ncclGroupStart() {
        GROUP.with_borrow_mut(|group| group.depth += 1);
        Ok(SUCCESS)
    }

    fn ncclGroupEnd() {
        let ended = GROUP.with_borrow_mut(|group| {
            group.depth = match group.depth.checked_sub(1) {
                Some(depth) => depth,
                None => return refused(INVALID_USAGE, "without ncclGroupStart"),
            };
            Ok(if group.depth == 0 { std::mem::take(&mut group.calls) } else { Vec::new() })
        })?;
        let mut of_comms: Vec<(Arc<Comm>, Vec<Called>)> = Vec::new();
        for (comm, called) in ended {
            match of_comms.iter_mut().find(|(known, _)| Arc::ptr_eq(known, &comm)) {
                Some((_, calls)) => calls.push(called),
                None => of_comms.push((comm, vec![called])),
            }
        }
        let begins = !of_comms.is_empty();
        of_comms.into_iter().for_each(|(comm, calls)| comm.begin(calls));
        Ok(if begins { IN_PROGRESS } else { SUCCESS })
    }
}

/// `ncclGetErrorString` of NCCL.
#[unsafe(no_mangle)]
pub extern "C" fn ncclGetErrorString(result: c_int) -> *const c_char {
    match result {
        SUCCESS => c"no error",
        CUDA_ERROR => c"unhandled cuda error",
        SYSTEM_ERROR => c"unhandled system error",
        INVALID_ARGUMENT => c"invalid argument",
        INVALID_USAGE => c"invalid usage",
        REMOTE_ERROR => c"remote process exited or there was a network error",
        IN_PROGRESS => c"NCCL operation in progress",
        _ => c"unknown result code",
    }
    .as_ptr()
}

/// `ncclGetLastError` of NCCL: why something was refused, for any communicator.
#[unsafe(no_mangle)]
pub extern "C" fn ncclGetLastError(_: *mut c_void) -> *const c_char {
    lock(&LAST_ERROR).as_ref().map_or(c"".as_ptr(), |text| text.as_ptr())
}
