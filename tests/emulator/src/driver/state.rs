//! Everything the driver remembers.

use std::collections::{BTreeMap, HashMap};
use std::thread::ThreadId;

use super::abi::{Device, Handle};
use super::capture::Capture;
use super::complain;
use super::context::{Context, Primary};
use super::counters::Tally;
use super::event::Event;
use super::function::LoadedFunction;
use super::graph::Graph;
use super::graph_exec::GraphExec;
use super::memory::Allocation;
use super::module::LoadedModule;
use super::pool::Pool;
use super::queue::Queue;
use super::sample::Sample;
use super::status::{Result, Status};
use super::stream::Stream;
use crate::machine::{Machine, Options, Profile};

/// Kinds of handles.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// `CUcontext`.
    Context = 1,
    /// `CUstream`.
    Stream,
    /// `CUevent`.
    Event,
    /// `CUmodule`.
    Module,
    /// `CUfunction`.
    Function,
    /// `CUgraph`.
    Graph,
    /// `CUgraphNode`.
    Node,
    /// `CUgraphExec`.
    GraphExec,
    /// `CUmemoryPool`.
    Pool,
}

/// Most devices: as many as their bus ids tell apart.
const MAX_DEVICES: i32 = 16;

/// Handles look like addresses that nothing lies at.
const FIRST_HANDLE: u64 = 0x6000_0000_0000;

/// The driver.
pub struct Driver {
    /// The device.
    pub machine: Machine,
    /// Seed of the random orders.
    pub seed: u64,
    /// Whether kernels run; if not, they only take their place in queues and graphs.
    pub executes: bool,
    /// Of sampled execution: clusters of a launch that run, and what was launched.
    pub sample: Option<Sample>,
    /// Contexts that exist.
    pub contexts: HashMap<Handle, Context>,
    /// The primary context.
    pub primary: Primary,
    /// The device that contexts are on, once there has been one.
    pub device: Option<Device>,
    /// Streams that exist.
    pub streams: HashMap<Handle, Stream>,
    /// Default streams of threads, by context.
    pub thread_streams: HashMap<(Handle, ThreadId), Handle>,
    /// Events that exist.
    pub events: HashMap<Handle, Event>,
    /// Loaded modules.
    pub modules: HashMap<Handle, LoadedModule>,
    /// Their functions.
    pub functions: HashMap<Handle, LoadedFunction>,
    /// Graphs.
    pub graphs: HashMap<Handle, Graph>,
    /// The graph that each node is in.
    pub nodes: HashMap<Handle, Handle>,
    /// Executable graphs.
    pub execs: HashMap<Handle, GraphExec>,
    /// Captures under way, by number.
    pub captures: HashMap<u64, Capture>,
    /// Memory pools.
    pub pools: HashMap<Handle, Pool>,
    /// The device's default pool and the one in use.
    pub device_pools: [Handle; 2],
    /// Allocations by address.
    pub allocations: BTreeMap<u64, Allocation>,
    /// What was queued.
    pub queue: Queue,
    /// What kernels did.
    pub tally: Tally,
    /// The last fault, in words.
    pub last_fault: String,
    next_handle: u64,
}

impl Driver {
    /// Refuses a function that came with a later version of the API.
    pub fn require_version(&self, since: i32) -> Result {
        if self.machine.options.version >= since {
            return Ok(());
        }
        complain(&format!("a function of a driver of {}.{}", since / 1000, since % 1000 / 10));
        Err(Status::NOT_FOUND)
    }

    /// A driver for a device as the environment describes it.
    pub fn from_environment() -> std::result::Result<Box<Self>, String> {
        let options = options_from(|name| std::env::var(name).ok())?;
        let seed = options.seed;
        let mut driver = Box::new(Driver {
            machine: Machine::new(options),
            seed,
            executes: true,
            sample: None,
            contexts: HashMap::new(),
            primary: Primary::default(),
            device: None,
            streams: HashMap::new(),
            thread_streams: HashMap::new(),
            events: HashMap::new(),
            modules: HashMap::new(),
            functions: HashMap::new(),
            graphs: HashMap::new(),
            nodes: HashMap::new(),
            execs: HashMap::new(),
            captures: HashMap::new(),
            pools: HashMap::new(),
            device_pools: [0; 2],
            allocations: BTreeMap::new(),
            queue: Queue::default(),
            tally: Tally::default(),
            last_fault: String::new(),
            next_handle: 0,
        });
        driver.primary.handle = driver.new_handle(Kind::Context);
        let pool = driver.new_pool();
        driver.device_pools = [pool, pool];
        Ok(driver)
    }

    /// A handle that was never given out before, so that one of something destroyed is known to be stale.
    pub fn new_handle(&mut self, kind: Kind) -> Handle {
        self.next_handle += 1;
        FIRST_HANDLE | (kind as u64) << 40 | self.next_handle << 4
    }

    /// Whether this is or was a handle of that kind.
    pub fn was_issued(&self, kind: Kind, handle: Handle) -> bool {
        let first = FIRST_HANDLE | (kind as u64) << 40;
        (first + 16..=first + (self.next_handle << 4)).contains(&handle) && handle.is_multiple_of(16)
    }

    /// Refuses a context in which a kernel failed: by the same error, ever after.
    pub fn check_sound(&self, context: Handle) -> Result {
        match self.context(context)?.fault {
            Some(fault) => Err(fault),
            None => Ok(()),
        }
    }

    /// A context that exists.
    pub fn context(&self, context: Handle) -> Result<&Context> {
        self.contexts.get(&context).ok_or_else(|| {
            if self.was_issued(Kind::Context, context) {
                Status::CONTEXT_IS_DESTROYED
            } else {
                Status::INVALID_CONTEXT
            }
        })
    }
}

/// Reads the options from the environment.
fn options_from(variable: impl Fn(&str) -> Option<String>) -> std::result::Result<Options, String> {
    let mut options = Options::default();
    if let Some(name) = variable("DG_EMULATOR_DEVICE") {
        match name.to_ascii_lowercase().as_str() {
            "a100" => options.profile = Profile::A100,
            "h100" => options.profile = Profile::H100,
            "none" => options.present = false,
            _ => return Err(format!("DG_EMULATOR_DEVICE is {name:?}; there are a100, h100 and none")),
        }
    }
    if let Some(text) = variable("DG_EMULATOR_DEVICES") {
        options.devices = match text.parse() {
            Ok(devices) if (1..=MAX_DEVICES).contains(&devices) => devices,
            _ => {
                return Err(format!("DG_EMULATOR_DEVICES is {text:?}, not a number from 1 to {MAX_DEVICES}"));
            }
        };
    }
    if let Some(text) = variable("DG_EMULATOR_CAPABILITY") {
        let capability = parse_version(&text).map(|(major, minor)| major * 10 + minor);
        let invalid = || format!("DG_EMULATOR_CAPABILITY is {text:?}, not a compute capability such as 7.5");
        options.capability = Some(capability.ok_or_else(invalid)?);
    }
    if let Some(text) = variable("DG_EMULATOR_VERSION") {
        let version = parse_version(&text).map(|(major, minor)| (major * 1000 + minor * 10) as i32);
        options.version =
            version.ok_or_else(|| format!("DG_EMULATOR_VERSION is {text:?}, not a version such as 12.8"))?;
    }
    if let Some(text) = variable("DG_EMULATOR_MEMORY") {
        options.memory = parse_bytes(&text)
            .ok_or_else(|| format!("DG_EMULATOR_MEMORY is {text:?}, not a size such as 512M or 2G"))?;
    }
    if let Some(text) = variable("DG_EMULATOR_SEED") {
        options.seed =
            text.parse().map_err(|_| format!("DG_EMULATOR_SEED is {text:?}, not a 64-bit number"))?;
    }
    if let Some(text) = variable("DG_EMULATOR_THREADS") {
        options.threads = match text.parse() {
            Ok(threads) if threads > 0 => threads,
            _ => return Err(format!("DG_EMULATOR_THREADS is {text:?}, not a number of threads")),
        };
    }
    Ok(options)
}

/// Major and minor number.
fn parse_version(text: &str) -> Option<(u32, u32)> {
    let (major, minor) = text.split_once('.')?;
    let number = |text: &str| text.parse().ok().filter(|n| *n < 100);
    Some((number(major)?, number(minor)?))
}

/// Bytes, with `K`, `M` or `G` for powers of 1024.
fn parse_bytes(text: &str) -> Option<u64> {
    let (digits, shift) = match text.trim().as_bytes().last()? {
        b'k' | b'K' => (&text.trim()[..text.trim().len() - 1], 10),
        b'm' | b'M' => (&text.trim()[..text.trim().len() - 1], 20),
        b'g' | b'G' => (&text.trim()[..text.trim().len() - 1], 30),
        _ => (text.trim(), 0),
    };
    let number: u64 = digits.parse().ok()?;
    number.checked_mul(1 << shift).filter(|bytes| *bytes > 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn options(pairs: &[(&str, &str)]) -> std::result::Result<Options, String> {
        options_from(|name| pairs.iter().find(|(key, _)| *key == name).map(|(_, value)| (*value).to_owned()))
    }

    #[test]
    fn the_environment_is_read() {
        let options = options(&[
            ("DG_EMULATOR_DEVICE", "A100"),
            ("DG_EMULATOR_MEMORY", "512M"),
            ("DG_EMULATOR_SEED", "7"),
            ("DG_EMULATOR_DEVICES", "2"),
            ("DG_EMULATOR_THREADS", "3"),
            ("DG_EMULATOR_CAPABILITY", "7.5"),
            ("DG_EMULATOR_VERSION", "12.8"),
        ])
        .expect("valid options");
        assert_eq!(options.profile, Profile::A100);
        assert_eq!((options.memory, options.seed, options.threads, options.devices), (512 << 20, 7, 3, 2));
        assert_eq!((options.capability, options.version, options.present), (Some(75), 12080, true));
    }

    #[test]
    fn there_may_be_no_device() {
        assert!(!options(&[("DG_EMULATOR_DEVICE", "none")]).expect("a valid option").present);
    }

    #[test]
    fn nonsense_in_the_environment_is_refused() {
        for (name, value) in [
            ("DG_EMULATOR_DEVICE", "v100"),
            ("DG_EMULATOR_MEMORY", "much"),
            ("DG_EMULATOR_MEMORY", "0"),
            ("DG_EMULATOR_MEMORY", "99999999999G"),
            ("DG_EMULATOR_SEED", "-1"),
            ("DG_EMULATOR_THREADS", "0"),
            ("DG_EMULATOR_DEVICES", "0"),
            ("DG_EMULATOR_DEVICES", "17"),
            ("DG_EMULATOR_CAPABILITY", "80"),
            ("DG_EMULATOR_VERSION", "13.x"),
        ] {
            let message = options(&[(name, value)]).expect_err("must be refused");
            assert!(message.contains(name), "{message}");
        }
    }
}
