//! CUDA driver API: the entry points that a program finds when it opens `libcuda.so`.
//!
//! Work is queued and done as late as possible: when the host waits for something, asks whether something is
//! done, or frees memory. Among the operations that no stream order and no event holds back, a seeded random
//! choice decides which is next. A missing event therefore shows itself by the wrong order, sooner or later.

#![allow(non_snake_case)]

use std::cell::Cell;
use std::collections::BTreeMap;
use std::io::Write;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

pub mod abi;
pub mod attributes;
pub mod capture;
pub mod context;
pub mod copy;
pub mod counters;
pub mod device;
pub mod event;
pub mod function;
pub mod graph;
pub mod graph_exec;
pub mod graph_nodes;
pub mod host_memory;
pub mod image;
pub mod ipc;
pub mod launch;
pub mod memory;
pub mod module;
pub mod occupancy;
pub mod peer;
pub mod pool;
pub mod proc_address;
pub mod queue;
pub mod sample;
pub mod state;
pub mod status;
pub mod stream;
pub mod tensor_map;
pub mod work;

use state::Driver;
use status::{Code, Result, Status, code};

/// Address of an entry point.
#[derive(Clone, Copy)]
pub struct EntryPoint(pub *const ());

/// Defines entry points, and `ENTRIES`, the table of them.
macro_rules! api {
    ($($(#[$meta:meta])* fn $name:ident($($arg:ident: $type:ty),* $(,)?) $body:block)*) => {
        $(
            #[doc = concat!("`", stringify!($name), "` of the driver API.")]
            $(#[$meta])*
            ///
            /// # Safety
            /// Pointers are null or valid for what the API reads and writes through them, by the time that it
            /// does.
            #[unsafe(no_mangle)]
            #[allow(clippy::too_many_arguments)]
            pub unsafe extern "C" fn $name($($arg: $type),*) -> $crate::driver::status::Code {
                $crate::driver::guard(stringify!($name), move || $body)
            }
        )*

        /// The entry points of this room.
        pub(super) const ENTRIES: &[(&str, $crate::driver::EntryPoint)] =
            &[$((stringify!($name), $crate::driver::EntryPoint($name as *const ()))),*];
    };
}
pub(crate) use api;

static DRIVER: Mutex<Option<Box<Driver>>> = Mutex::new(None);

thread_local! {
    /// Whether this thread is in a function that a stream called, which may not call the driver.
    static IN_HOST_FUNCTION: Cell<bool> = const { Cell::new(false) };
}

/// Calls of entry points since the library was loaded.
struct Calls {
    /// How many there were.
    all: u64,
    of: BTreeMap<&'static str, Called>,
    /// When the last one returned.
    returned: Option<Instant>,
    /// Time between calls so far.
    between: Duration,
}

/// Calls of an entry point.
#[derive(Clone, Copy, Default)]
struct Called {
    count: u64,
    /// The number of the last among the calls of all.
    last: u64,
    /// Time that the program had spent between calls by then.
    between: Duration,
}

static CALLS: Mutex<Calls> =
    Mutex::new(Calls { all: 0, of: BTreeMap::new(), returned: None, between: Duration::ZERO });

fn lock_calls() -> MutexGuard<'static, Calls> {
    CALLS.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Calls of an entry point since the library was loaded.
fn calls(name: &str) -> Called {
    lock_calls().of.get(name).copied().unwrap_or_default()
}

/// Counts a call of an entry point.
fn count_call(name: &'static str) {
    let mut calls = lock_calls();
    let since = calls.returned.take().map(|returned| returned.elapsed());
    calls.between += since.unwrap_or_default();
    calls.all += 1;
    let (last, between) = (calls.all, calls.between);
    let count = calls.of.get(name).map_or(0, |called| called.count) + 1;
    calls.of.insert(name, Called { count, last, between });
}

/// Runs an entry point; a panic becomes an error, for it must not cross into C.
pub fn guard(name: &'static str, body: impl FnOnce() -> Result) -> Code {
    count_call(name);
    let result = catch_unwind(AssertUnwindSafe(body));
    lock_calls().returned = Some(Instant::now());
    match result {
        Ok(result) => code(result),
        Err(panic) => {
            complain(&format!("{name} panicked: {}", panic_message(&*panic)));
            Status::UNKNOWN.0
        }
    }
}

/// What a panic said.
fn panic_message(panic: &(dyn std::any::Any + Send)) -> &str {
    let text = panic.downcast_ref::<&str>().copied();
    text.or_else(|| panic.downcast_ref::<String>().map(String::as_str)).unwrap_or("no message")
}

/// Says on stderr what an error code cannot say.
fn complain(message: &str) {
    // In one piece, so that what other threads say stands before or after it. Nobody is told if stderr is
    // closed.
    let _ = std::io::stderr().write_all(format!("cuda-emulator: {message}\n").as_bytes());
}

/// Refuses something by name.
fn unsupported<T>(what: &str) -> Result<T> {
    complain(&format!("{what} is not supported"));
    Err(Status::NOT_SUPPORTED)
}

fn lock() -> MutexGuard<'static, Option<Box<Driver>>> {
    DRIVER.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Gives access to the driver's state once `cuInit` was called.
fn with_driver<T>(body: impl FnOnce(&mut Driver) -> Result<T>) -> Result<T> {
    if IN_HOST_FUNCTION.get() {
        return Err(Status::NOT_PERMITTED);
    }
    let mut driver = lock();
    body(driver.as_mut().ok_or(Status::NOT_INITIALIZED)?)
}

/// As [`with_driver`], with the thread's current context, which must exist and not have failed.
fn with_context<T>(body: impl FnOnce(&mut Driver, abi::Handle) -> Result<T>) -> Result<T> {
    with_driver(|driver| {
        let context = driver.current_context()?;
        driver.check_sound(context)?;
        body(driver, context)
    })
}
