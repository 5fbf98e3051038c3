//! Communicators.

use std::collections::HashMap;
use std::net::{SocketAddr, TcpStream};
use std::sync::atomic::Ordering;
use std::sync::mpsc::{self, Receiver, Sender};
use std::sync::{Arc, Mutex};
use std::thread::{self, ThreadId};
use std::time::Duration;

use crate::api::{
    CUDA_ERROR, IN_PROGRESS, INVALID_ARGUMENT, INVALID_USAGE, REMOTE_ERROR, SUCCESS, SYSTEM_ERROR,
};
use crate::driver::Driver;
use crate::fault::{Fault, Kind, Random};
use crate::hub;
use crate::launch::{Ends, Op, Shared, lock, work};
use crate::wire::{Call, receive_outcome, send_bytes, send_numbers};

/// Most questions that are answered with "in progress" though nothing is missing.
const LATEST: u64 = 4;

/// Why a call is refused, with the result it has.
pub type Refusal = (i32, String);

/// A collective that was called and has not begun.
pub type Called = (Call, Ends);

/// A rank among others.
pub struct Comm {
    pub rank: i32,
    pub ranks: i32,
    /// The context in which it was made.
    pub context: usize,
    thread: ThreadId,
    fault: Option<Fault>,
    shared: Arc<Shared>,
    inner: Mutex<Inner>,
}

struct Inner {
    state: i32,
    /// Why, if it is an error.
    why: String,
    /// Questions until what was called begins.
    late: u64,
    pending: Pending,
    /// Collectives so far.
    calls: u64,
    ops: Vec<&'static Op>,
    worker: Option<Sender<&'static Op>>,
    hub: Option<TcpStream>,
    ended: bool,
    random: Random,
}

/// What was called.
enum Pending {
    Nothing,
    Connect(Receiver<Result<TcpStream, String>>),
    Launch(Vec<Called>),
    End,
}

static COMMS: Mutex<Option<HashMap<usize, Arc<Comm>>>> = Mutex::new(None);

/// Where handles begin: nothing lies there, and none is given out twice.
const FIRST: usize = 0x10;

/// The communicator of a handle.
pub fn find(handle: usize) -> Result<Arc<Comm>, Refusal> {
    let comms = lock(&COMMS);
    let found = comms.as_ref().and_then(|comms| comms.get(&handle).cloned());
    found.ok_or((INVALID_ARGUMENT, "a communicator that was given up, or never made".to_owned()))
}

fn forget(handle: usize) {
    lock(&COMMS).as_mut().and_then(|comms| comms.remove(&handle));
}

impl Comm {
    /// Begins to connect a rank; returns the handle.
    pub fn connect(ranks: i32, place: SocketAddr, rank: i32) -> Result<usize, Refusal> {
        let driver = |text| (CUDA_ERROR, text);
        let fault = Fault::of_process();
        let context = Driver::get().and_then(Driver::context).map_err(driver)?;
        let gpu = Driver::get().and_then(Driver::gpu).map_err(driver)?;
        let (tell, told) = mpsc::channel();
        let never = fault.is_some_and(|fault| fault.is(rank, Kind::InitHang));
        if !never {
            thread::spawn(move || meet(place, rank, ranks, &gpu).map(|met| tell.send(met)));
        }
        let mut random = Random::of_process(rank as u64 + 1000);
        let inner = Inner {
            state: IN_PROGRESS,
            why: String::new(),
            late: random.below(LATEST),
            pending: Pending::Connect(told),
            calls: 0,
            ops: Vec::new(),
            worker: None,
            hub: None,
            ended: false,
            random,
        };
        let comm = Comm {
            rank,
            ranks,
            context,
            thread: thread::current().id(),
            fault,
            shared: Arc::default(),
            inner: Mutex::new(inner),
        };
        let mut comms = lock(&COMMS);
        let comms = comms.get_or_insert_default();
        static COUNT: Mutex<usize> = Mutex::new(0);
        let mut count = lock(&COUNT);
        *count += 1;
        comms.insert(FIRST * *count, Arc::new(comm));
        Ok(FIRST * *count)
    }

    /// Refuses a call that may not be made now, or not here.
    pub fn check_usable(&self) -> Result<(), Refusal> {
        let inner = lock(&self.inner);
        if thread::current().id() != self.thread {
            return Err((INVALID_USAGE, "in another thread than the one that has made it".to_owned()));
        }
        match inner.state {
            IN_PROGRESS => Err((INVALID_USAGE, "while the call before is in progress".to_owned())),
            SUCCESS if inner.ended => Err((INVALID_USAGE, "after ncclCommFinalize".to_owned())),
            SUCCESS => Ok(()),
            state => Err((state, format!("after a failure: {}", inner.why))),
        }
    }

    /// Takes collectives to begin with.
    pub fn begin(&self, calls: Vec<Called>) {
        let mut inner = lock(&self.inner);
        inner.pending_from_here(Pending::Launch(calls));
    }

    /// Begins the end.
    pub fn finalize(&self) {
        lock(&self.inner).pending_from_here(Pending::End);
    }

    /// The number of the next collective.
    pub fn next_call(&self) -> u64 {
        lock(&self.inner).calls + 1
    }

    /// The result so far, and why; whoever asks brings it forward.
    pub fn ask(&self) -> Result<i32, Refusal> {
        if thread::current().id() != self.thread {
            return Err((INVALID_USAGE, "in another thread than the one that has made it".to_owned()));
        }
        let mut inner = lock(&self.inner);
        if let Some((code, text)) = lock(&self.shared.failure).take() {
            inner.fail(code, text);
        }
        if inner.state == IN_PROGRESS && inner.late > 0 {
            inner.late -= 1;
        } else if inner.state == IN_PROGRESS {
            self.go_on(&mut inner);
        }
        Ok(inner.state)
    }

    /// Why it has failed.
    pub fn why(&self) -> String {
        lock(&self.inner).why.clone()
    }

    fn go_on(&self, inner: &mut Inner) {
        match std::mem::replace(&mut inner.pending, Pending::Nothing) {
            Pending::Nothing => inner.state = SUCCESS,
            Pending::Connect(told) => match told.try_recv() {
                Ok(Ok(hub)) => self.connected(inner, hub),
                Ok(Err(text)) => inner.fail(INVALID_USAGE, text),
                // Nobody is left who could tell: so it stays.
                Err(_) => inner.pending = Pending::Connect(told),
            },
            Pending::Launch(calls) => {
                inner.state = SUCCESS;
                for called in calls {
                    if let Err((code, text)) = self.launch(inner, called) {
                        return inner.fail(code, text);
                    }
                }
            }
            Pending::End => {
                let hangs = self.fault.is_some_and(|fault| fault.is(self.rank, Kind::FinalizeHang));
                if hangs || !inner.ops.iter().all(|op| op.is_retired()) {
                    inner.pending = Pending::End;
                } else {
                    (inner.state, inner.ended) = (SUCCESS, true);
                }
            }
        }
    }

    fn connected(&self, inner: &mut Inner, hub: TcpStream) {
        if self.fault.is_some_and(|fault| fault.is(self.rank, Kind::InitFail)) {
            return inner.fail(SYSTEM_ERROR, "by DG_NCCL_FAULT".to_owned());
        }
        let (worker, ops) = mpsc::channel();
        inner.hub = hub.try_clone().ok();
        inner.worker = Some(worker);
        thread::spawn(move || work(hub, &ops));
        inner.state = SUCCESS;
    }

    fn launch(&self, inner: &mut Inner, (call, ends): Called) -> Result<(), Refusal> {
        inner.calls += 1;
        let fault = self.fault.and_then(|fault| fault.at(self.rank, inner.calls));
        let by_fault = || "by DG_NCCL_FAULT".to_owned();
        match fault {
            Some(Kind::Result(code)) => return Err((code, by_fault())),
            Some(Kind::AbortHang) => return Err((REMOTE_ERROR, by_fault())),
            Some(Kind::Die) => std::process::abort(),
            _ => {}
        }
        let late = inner.random.below(LATEST);
        let op = Op::launch(call, ends, late, fault, &self.shared).map_err(|text| (CUDA_ERROR, text))?;
        inner.ops.push(op);
        if let Some(worker) = &inner.worker {
            // Where it has ended, this waits for ever.
            let _ = worker.send(op);
        }
        Ok(())
    }

    /// Gives a communicator up whose work is done.
    pub fn destroy(&self, handle: usize) -> Result<(), Refusal> {
        let inner = lock(&self.inner);
        if inner.state == IN_PROGRESS || !inner.ops.iter().all(|op| op.is_retired()) {
            return Err((INVALID_USAGE, "with work pending".to_owned()));
        }
        forget(handle);
        Ok(())
    }

    /// Gives a communicator up, whatever it does.
    pub fn abort(&self, handle: usize) {
        while self.fault.is_some_and(|fault| fault.is(self.rank, Kind::AbortHang)) {
            thread::sleep(Duration::from_secs(1));
        }
        self.shared.given_up.store(true, Ordering::Relaxed);
        if let Some(hub) = &lock(&self.inner).hub {
            let _ = hub.shutdown(std::net::Shutdown::Both);
        }
        forget(handle);
    }
}

impl Inner {
    fn pending_from_here(&mut self, pending: Pending) {
        (self.state, self.pending) = (IN_PROGRESS, pending);
        self.late = self.random.below(LATEST);
    }

    fn fail(&mut self, code: i32, why: String) {
        (self.state, self.why) = (code, why);
    }
}

/// Meets the other ranks: a connection to the hub, or why not; `None` where the hub is gone meanwhile.
fn meet(place: SocketAddr, rank: i32, ranks: i32, gpu: &str) -> Option<Result<TcpStream, String>> {
    let mut hub = match hub::connect(place) {
        Ok(hub) => hub,
        Err(error) => return Some(Err(format!("{place}: {error}"))),
    };
    let told = send_numbers(&mut hub, &[rank as u64, ranks as u64]);
    told.and_then(|()| send_bytes(&mut hub, gpu.as_bytes())).ok()?;
    Some(receive_outcome(&mut hub).ok()?.map(|_| hub))
}
