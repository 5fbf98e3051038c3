//! What the stand-in refuses, and how late it is.

use std::ffi::{CStr, c_int, c_void};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use cudarc::driver::{CudaContext, CudaStream, result};
use nccl_stand_in::*;

/// `rank folder case` of a process of these tests.
const CASE: &str = "DG_TEST_RANK";

/// Floats, as a data type.
const FLOAT: c_int = 7;

/// A rank on a device, with 1024 bytes there.
struct Rank {
    comm: *mut c_void,
    stream: Arc<CudaStream>,
    memory: u64,
}

fn config() -> Config {
    Config { size: size_of::<Config>(), magic: 0xcafe_beef, version: 21_700, blocking: 0 }
}

fn identity() -> UniqueId {
    let mut id = UniqueId([0; 128]);
    // SAFETY: the pointer is valid.
    assert_eq!(unsafe { ncclGetUniqueId(&mut id) }, SUCCESS);
    id
}

fn last_error() -> String {
    // SAFETY: the text stays.
    unsafe { CStr::from_ptr(ncclGetLastError(std::ptr::null_mut())) }.to_string_lossy().into_owned()
}

impl Rank {
    fn begin(ranks: c_int, id: UniqueId, rank: c_int, device: usize) -> Rank {
        cuda_emulator::load().expect("the emulator");
        let context = CudaContext::new(device).expect("a context");
        let stream = context.new_stream().expect("a stream");
        // SAFETY: freed with the process.
        let memory = unsafe { result::malloc_sync(1024) }.expect("memory");
        let mut comm = std::ptr::null_mut();
        // SAFETY: the pointers are valid.
        let code = unsafe { ncclCommInitRankConfig(&mut comm, ranks, id, rank, &mut config()) };
        assert_eq!(code, IN_PROGRESS);
        Rank { comm, stream, memory }
    }

    fn alone() -> Rank {
        let rank = Rank::begin(1, identity(), 0, 0);
        assert_eq!(rank.settle(), SUCCESS);
        rank
    }

    /// The communicator's result once it is not in progress any more.
    fn settle(&self) -> c_int {
        let until = Instant::now() + Duration::from_secs(20);
        loop {
            let mut state = INTERNAL_ERROR;
            // SAFETY: the pointer is valid.
            assert_eq!(unsafe { ncclCommGetAsyncError(self.comm, &mut state) }, SUCCESS);
            if state != IN_PROGRESS {
                return state;
            }
            assert!(Instant::now() < until, "in progress for ever");
            std::thread::sleep(Duration::from_micros(100));
        }
    }

    fn stream(&self) -> *mut c_void {
        self.stream.cu_stream().cast()
    }

    /// A sum of 8-byte integers from and to these bytes of the memory.
    fn sum(&self, from: u64, to: u64, count: usize) -> c_int {
        self.sum_in(self.stream(), from, to, count)
    }

    fn sum_in(&self, stream: *mut c_void, from: u64, to: u64, count: usize) -> c_int {
        let [from, to] = [from, to].map(|at| (self.memory + at) as *mut c_void);
        // SAFETY: the stand-in looks at the ranges.
        unsafe { ncclAllReduce(from, to, count, INT64, 0, self.comm, stream) }
    }

    fn write(&self, at: u64, values: &[i64]) {
        // SAFETY: inside the memory.
        unsafe { result::memcpy_htod_async(self.memory + at, values, self.stream.cu_stream()) }
            .expect("a copy");
    }

    fn read(&self, at: u64) -> i64 {
        let mut value = [0];
        // SAFETY: inside the memory, and waited for.
        unsafe { result::memcpy_dtoh_async(&mut value, self.memory + at, self.stream.cu_stream()) }
            .expect("a copy");
        self.stream.synchronize().expect("done");
        value[0]
    }
}

const RUBBISH: i64 = i64::from_ne_bytes([0xa5; 8]);

#[test]
fn who_does_not_ask_reads_rubbish() {
    let rank = Rank::alone();
    rank.write(0, &[42]);
    assert_eq!(rank.sum(0, 512, 1), IN_PROGRESS);
    assert_eq!(rank.read(512), RUBBISH);
    assert_eq!((rank.settle(), rank.read(512), rank.read(0)), (SUCCESS, 42, 42));
    assert_eq!((rank.sum(0, 0, 1), rank.settle(), rank.read(0)), (IN_PROGRESS, SUCCESS, 42));
}

#[test]
fn misuse_of_one_rank_is_refused_by_name() {
    let rank = Rank::alone();
    rank.write(0, &[0; 128]);
    let other = CudaContext::new_non_primary(0, 0).expect("a context");
    let foreign = other.new_stream().expect("a stream");
    rank.stream.context().bind_to_thread().expect("bound");
    let (comm, stream, memory) = (rank.comm, rank.stream(), rank.memory as *mut c_void);
    let null = std::ptr::null_mut();
    type Call<'a> = Box<dyn Fn() -> c_int + 'a>;
    // SAFETY: the stand-in looks at everything before it does anything, and may be given anything.
    let cases: Vec<(&str, Call)> = unsafe {
        vec![
            ("no stream of its own", Box::new(|| rank.sum_in(null, 0, 0, 1))),
            ("a stream that there is not", Box::new(|| rank.sum_in(0x1230 as *mut c_void, 0, 0, 1))),
            ("a stream of another context", Box::new(|| rank.sum_in(foreign.cu_stream().cast(), 0, 0, 1))),
            ("goes 8 bytes beyond its allocation", Box::new(|| rank.sum(0, 0, 129))),
            ("what comes out goes 8 bytes beyond", Box::new(|| rank.sum(0, 512, 65))),
            (
                "what is sent in no memory",
                Box::new(|| ncclAllReduce(null, memory, 1, INT64, 0, comm, stream)),
            ),
            ("overlap, and not in place", Box::new(|| rank.sum(0, 8, 2))),
            (
                "a data type that there is not",
                Box::new(|| ncclAllReduce(memory, memory, 1, 10, 0, comm, stream)),
            ),
            (
                "a data type that there is not",
                Box::new(|| ncclAllReduce(memory, memory, 1, -1, 0, comm, stream)),
            ),
            (
                "an operation that there is not",
                Box::new(|| ncclAllReduce(memory, memory, 1, 4, 5, comm, stream)),
            ),
            ("root 1 of 1 ranks", Box::new(|| ncclBroadcast(memory, memory, 1, 4, 1, comm, stream))),
            ("root -1 of 1 ranks", Box::new(|| ncclBroadcast(memory, memory, 1, 4, -1, comm, stream))),
            ("never made", Box::new(|| ncclAllReduce(memory, memory, 1, INT64, 0, null, stream))),
            ("without ncclGroupStart", Box::new(|| ncclGroupEnd())),
        ]
    };
    for (text, call) in cases {
        assert!([INVALID_ARGUMENT, INVALID_USAGE].contains(&call()), "{text}");
        assert!(last_error().contains(text), "{text:?} not in {:?}", last_error());
    }
    // Nothing of it has begun.
    assert_eq!((rank.settle(), rank.read(0)), (SUCCESS, 0));
    refuses_by_time(&rank);
    refuses_to_be_made();
}

#[track_caller]
fn assert_refused(code: c_int, text: &str) {
    assert!([INVALID_ARGUMENT, INVALID_USAGE].contains(&code), "{text}: {code}");
    assert!(last_error().contains(text), "{text:?} not in {:?}", last_error());
}

/// Calls that are right at another time, or in another thread.
fn refuses_by_time(rank: &Rank) {
    let comm = rank.comm as usize;
    let mut count = 0;
    // SAFETY: as above.
    unsafe {
        let elsewhere = move || ncclCommUserRank(comm as *mut c_void, &mut count);
        let code = std::thread::spawn(elsewhere).join().expect("no panic");
        assert_refused(code, "in another thread");
        assert_eq!(rank.sum(0, 0, 1), IN_PROGRESS);
        assert_refused(rank.sum(0, 0, 1), "while the call before is in progress");
        assert_refused(ncclCommFinalize(rank.comm), "while the call before is in progress");
        assert_eq!(rank.settle(), SUCCESS);
        assert_refused(ncclCommDestroy(rank.comm), "with work pending");
        rank.stream.synchronize().expect("done");
        assert_eq!(ncclGroupStart(), SUCCESS);
        assert_refused(ncclCommFinalize(rank.comm), "in a group");
        assert_refused(ncclCommDestroy(rank.comm), "in a group");
        assert_eq!((rank.sum(0, 0, 1), rank.sum(8, 8, 1)), (SUCCESS, SUCCESS));
        assert_eq!((ncclGroupEnd(), rank.settle(), rank.read(0)), (IN_PROGRESS, SUCCESS, 0));
        assert_eq!((ncclCommFinalize(rank.comm), rank.settle()), (IN_PROGRESS, SUCCESS));
        assert_refused(rank.sum(0, 0, 1), "after ncclCommFinalize");
        assert_eq!(ncclCommDestroy(rank.comm), SUCCESS);
        assert_refused(rank.sum(0, 0, 1), "a communicator that was given up");
        assert_refused(ncclCommAbort(rank.comm), "a communicator that was given up");
        let other = Rank::alone();
        assert_eq!(ncclCommAbort(other.comm), SUCCESS);
        assert_refused(other.sum(0, 0, 1), "a communicator that was given up");
    }
}

fn refuses_to_be_made() {
    let make = |ranks: c_int, id: UniqueId, rank: c_int, config: Option<Config>| {
        let mut comm = std::ptr::null_mut();
        let mut config = config;
        let config = config.as_mut().map_or(std::ptr::null_mut(), std::ptr::from_mut);
        // SAFETY: the pointers are valid or null.
        unsafe { ncclCommInitRankConfig(&mut comm, ranks, id, rank, config) }
    };
    assert_refused(make(1, identity(), 0, None), "without a configuration");
    assert_refused(
        make(1, identity(), 0, Some(Config { blocking: 1, ..config() })),
        "a blocking communicator",
    );
    assert_refused(make(1, identity(), 0, Some(Config { magic: 0, ..config() })), "was not initialised");
    assert_refused(make(1, identity(), 1, Some(config())), "rank 1 of 1");
    assert_refused(make(1, UniqueId([1; 128]), 0, Some(config())), "not of ncclGetUniqueId");
}

/// What a process of the test below does.
#[test]
#[ignore = "a process of the test below"]
fn a_rank() {
    let case = std::env::var(CASE).expect("a case");
    let words: Vec<&str> = case.split(' ').collect();
    let [number, folder, case] = words[..] else { panic!("{case}") };
    let number: c_int = number.parse().expect("a rank");
    let file = std::path::Path::new(folder).join("id");
    if number == 0 {
        std::fs::write(file.with_extension("new"), identity().0).expect("written");
        std::fs::rename(file.with_extension("new"), &file).expect("renamed");
    }
    while !file.exists() {
        std::thread::sleep(Duration::from_millis(1));
    }
    let id = UniqueId(std::fs::read(file).expect("an identity").try_into().expect("128 bytes"));
    let device = if case == "twin" { 0 } else { number as usize };
    let rank = Rank::begin(2, id, number, device);
    if case == "twin" {
        assert_eq!(rank.settle(), INVALID_USAGE);
        return assert_refused(INVALID_USAGE, "are on the same GPU");
    }
    assert_eq!(rank.settle(), SUCCESS);
    rank.write(0, &[1 << number, 7]);
    let at = rank.memory as *mut c_void;
    let count = if case == "count" { 1 + number as usize } else { 2 };
    // SAFETY: the stand-in looks at the ranges.
    let begun = unsafe {
        match (case, number) {
            ("order", 1) => ncclBroadcast(at, at, 2, INT64, 0, rank.comm, rank.stream()),
            ("type", 1) => ncclAllReduce(at, at, 2, FLOAT, 0, rank.comm, rank.stream()),
            _ => rank.sum(0, 0, count),
        }
    };
    assert_eq!((begun, rank.settle()), (IN_PROGRESS, SUCCESS));
    if case == "right" {
        return assert_eq!((rank.read(0), rank.read(8)), (3, 14));
    }
    let until = Instant::now() + Duration::from_secs(20);
    while rank.settle() == SUCCESS {
        assert!(Instant::now() < until, "nobody refuses it");
        // What is in the stream leaves the device when somebody asks.
        // SAFETY: the stream exists.
        let _ = unsafe { cudarc::driver::sys::cuStreamQuery(rank.stream.cu_stream()) };
    }
    assert_refused(rank.settle(), "call 1: Call { kind: AllReduce");
    // SAFETY: the communicator was not given up.
    assert_eq!(unsafe { ncclCommAbort(rank.comm) }, SUCCESS);
}

#[test]
fn ranks_that_differ_are_told() {
    for case in ["right", "twin", "count", "order", "type"] {
        let folder = tempfile::tempdir().expect("a folder");
        let start = |rank: usize| {
            Command::new(std::env::current_exe().expect("this program"))
                .args(["a_rank", "--exact", "--ignored", "--nocapture"])
                .env(CASE, format!("{rank} {} {case}", folder.path().display()))
                .env("DG_EMULATOR_DEVICES", "2")
                .stdin(Stdio::null())
                .stdout(Stdio::null())
                .stderr(Stdio::piped())
                .spawn()
                .expect("a process")
        };
        for rank in [0, 1].map(start) {
            let output = rank.wait_with_output().expect("an end");
            assert!(output.status.success(), "{case}: {}", String::from_utf8_lossy(&output.stderr));
        }
    }
}
