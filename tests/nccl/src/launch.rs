//! A collective on its way: out of the device, through the hub, and back, in the order of a stream.

use std::ffi::{c_int, c_void};
use std::net::TcpStream;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::Receiver;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

use crate::api::INVALID_USAGE;
use crate::driver::{Driver, Result};
use crate::fault::Kind as Fault;
use crate::wire::{Call, receive_outcome, send_bytes, send_numbers};

/// What destinations hold until a collective is done.
pub const RUBBISH: u8 = 0xa5;

/// What a communicator has in common with the threads that work for it.
#[derive(Default)]
pub struct Shared {
    /// The result that it has come to, and why.
    pub failure: Mutex<Option<(i32, String)>>,
    /// Whether it was aborted.
    pub given_up: AtomicBool,
    /// Page-locked memory that no collective uses: address and bytes.
    pool: Mutex<Vec<(usize, usize)>>,
}

/// A lock, whoever has panicked with it.
pub fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Shared {
    /// Page-locked memory of this length or more.
    fn take(&self, driver: &Driver, len: usize) -> Result<(usize, usize)> {
        let mut pool = lock(&self.pool);
        match pool.iter().position(|(_, there)| *there >= len) {
            Some(place) => Ok(pool.swap_remove(place)),
            None => Ok((driver.alloc_host(len)?, len)),
        }
    }
}

/// Where a collective reads and writes.
#[derive(Clone, Copy)]
pub struct Ends {
    /// First byte of what is sent, and how many; none on ranks that send nothing.
    pub send: (u64, usize),
    /// First byte of what comes out, and how many.
    pub receive: (u64, usize),
    /// The stream.
    pub stream: usize,
}

/// A collective that a stream has begun.
pub struct Op {
    call: Call,
    sent: usize,
    received: usize,
    input: (usize, usize),
    output: (usize, usize),
    fault: Option<Fault>,
    shared: Arc<Shared>,
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    /// What is sent has left the device.
    staged: bool,
    /// What comes out is there.
    done: bool,
    /// How often it is said to be not done after that.
    late: u64,
    /// It is on the device.
    retired: bool,
}

impl Op {
    /// Puts a collective into its stream. It is kept for good, as the stream has its address.
    pub fn launch(
        call: Call,
        ends: Ends,
        late: u64,
        fault: Option<Fault>,
        shared: &Arc<Shared>,
    ) -> Result<&'static Op> {
        let driver = Driver::get()?;
        let Ends { send, receive, stream } = ends;
        let op: &'static Op = Box::leak(Box::new(Op {
            call,
            sent: send.1,
            received: receive.1,
            input: shared.take(driver, send.1)?,
            output: shared.take(driver, receive.1)?,
            fault,
            shared: shared.clone(),
            state: Mutex::new(State { late, ..State::default() }),
            changed: Condvar::new(),
        }));
        let data = std::ptr::from_ref(op) as usize;
        if send.1 > 0 {
            driver.to_host(op.input.0, send.0, send.1, stream)?;
        }
        driver.call(stream, staged, data)?;
        if receive.1 > 0 {
            driver.fill(receive.0, RUBBISH, receive.1, stream)?;
        }
        driver.outside(stream, is_done, wait, data)?;
        if receive.1 > 0 {
            driver.to_device(receive.0, op.output.0, receive.1, stream)?;
        }
        driver.call(stream, retired, data)?;
        Ok(op)
    }

    /// Whether everything has come to the device.
    pub fn is_retired(&self) -> bool {
        lock(&self.state).retired
    }

    fn is_given_up(&self) -> bool {
        self.shared.given_up.load(Ordering::Relaxed)
    }

    /// Waits until what is sent has left the device; `false` if it never will.
    fn await_input(&self) -> bool {
        let mut state = lock(&self.state);
        while !state.staged && !self.is_given_up() {
            let waited = self.changed.wait_timeout(state, Duration::from_millis(20));
            state = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
        state.staged
    }

    fn is_done(&self) -> bool {
        let mut state = lock(&self.state);
        let done = state.done && state.late == 0;
        if state.done {
            state.late = state.late.saturating_sub(1);
        }
        done || self.is_given_up()
    }

    /// Sends, waits for what comes out, and keeps it; `None` where nothing more comes.
    fn exchange(&self, hub: &mut TcpStream) -> Option<()> {
        if !self.await_input() {
            return None;
        }
        // SAFETY: so long is the memory, and the stream has written it and waits for this thread.
        let input = unsafe { std::slice::from_raw_parts(self.input.0 as *const u8, self.sent) };
        send_numbers(hub, &self.call.encode()).and_then(|()| send_bytes(hub, input)).ok()?;
        let mut bytes = match receive_outcome(hub).ok()? {
            Ok(bytes) => bytes,
            Err(text) => {
                *lock(&self.shared.failure) = Some((INVALID_USAGE, text));
                return None;
            }
        };
        match self.fault {
            Some(Fault::Hang) => return None,
            Some(Fault::Slow(time)) => thread::sleep(time),
            Some(Fault::FlipBit) => bytes[0] ^= 1,
            _ => {}
        }
        let len = self.received.min(bytes.len());
        // SAFETY: as above, and the stream reads it only once this is done.
        unsafe { std::ptr::copy_nonoverlapping(bytes.as_ptr(), self.output.0 as *mut u8, len) };
        lock(&self.state).done = true;
        Some(())
    }
}

/// Does the collectives of a rank, one after the other. A rank that is gone is waited for, as NCCL does.
pub fn work(mut hub: TcpStream, ops: &Receiver<&'static Op>) {
    for op in ops {
        if op.exchange(&mut hub).is_none() {
            return;
        }
    }
}

/// # Safety
/// `data` is the address of an [`Op`].
unsafe fn op_at(data: *mut c_void) -> &'static Op {
    // SAFETY: by the caller; it is never freed.
    unsafe { &*data.cast::<Op>() }
}

unsafe extern "C" fn staged(data: *mut c_void) {
    // SAFETY: `Op::launch` passes it.
    let op = unsafe { op_at(data) };
    lock(&op.state).staged = true;
    op.changed.notify_all();
}

unsafe extern "C" fn is_done(data: *mut c_void) -> c_int {
    // SAFETY: as above.
    unsafe { op_at(data) }.is_done().into()
}

unsafe extern "C" fn wait(data: *mut c_void) {
    // SAFETY: as above.
    while !unsafe { op_at(data) }.is_done() {
        thread::sleep(Duration::from_micros(50));
    }
}

unsafe extern "C" fn retired(data: *mut c_void) {
    // SAFETY: as above.
    let op = unsafe { op_at(data) };
    lock(&op.state).retired = true;
    lock(&op.shared.pool).extend([op.input, op.output]);
}
