//! A CUDA device with the kernels on it.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock};

use cudarc::driver::{CudaContext, CudaStream, DriverError};

use super::branch::Branch;
use super::driver::{self, DeviceInfo, complaint};
use super::fetch::StagingBuffers;
use super::graph::{Graphs, Side};
use super::images::{self, IMAGES, KERNELS};
use super::inputs::Staging;
use super::launch::{Kernel, Module};
use super::lock::lock;
use super::memory::{Counters, Scratch};
use super::refusal::Refusals;
use super::shards::Shards;
use crate::error::{Error, Result};

/// A CUDA device: its context, a stream that all work goes to in order, and the kernels loaded for it. Clones
/// share it.
///
/// The operations are those of [`crate::ops`]; they return before the device is done. What goes wrong with
/// one is kept, nothing is started after it, and [`finish`](crate::ops::Device::finish) reports it.
#[derive(Clone)]
pub struct Cuda {
    shared: Arc<Shared>,
}

struct Shared {
    stream: Arc<CudaStream>,
    kernels: HashMap<&'static str, Kernel>,
    info: DeviceInfo,
    /// Whether each kernel is waited for, so that an error is that of one.
    blocking: bool,
    failed: AtomicBool,
    failure: Mutex<Option<Error>>,
    /// Kernels started since the last wait, in order.
    launched: Mutex<Vec<&'static str>>,
    scratch: Mutex<Scratch>,
    counters: Mutex<Counters>,
    staging: Mutex<Staging>,
    graphs: Mutex<Graphs>,
    branch: Mutex<Branch>,
    staging_buffers: Mutex<StagingBuffers>,
    /// Allocations that have been freed.
    freed: Arc<AtomicU64>,
    refusals: Mutex<Refusals>,
    /// What this device keeps of a model's blocks, if it shares them with others.
    shards: OnceLock<Arc<Shards>>,
}

impl Cuda {
    /// Opens a device with the code that suits it best: machine code for exactly its architecture, else PTX,
    /// which the driver compiles. Under `DG_EMULATOR`, PTX.
    ///
    /// Device errors: no driver, no such device, or no kernels that run on it.
    pub fn new(ordinal: usize) -> Result<Self> {
        Self::open(ordinal, driver::emulator().is_some())
    }

    /// As [`new`](Self::new), but with PTX in any case.
    pub fn with_ptx(ordinal: usize) -> Result<Self> {
        Self::open(ordinal, true)
    }

    /// As [`new`](Self::new), on a stream of the program's own, whose slices can be used with
    /// [`view`](Self::view) and [`view_mut`](Self::view_mut) and whose order all work takes part in.
    ///
    /// Usage error: the default stream of a context, which cannot be recorded, or of a thread, which is not
    /// one stream.
    pub fn on_stream(stream: Arc<CudaStream>) -> Result<Self> {
        Self::open_on(stream, driver::emulator().is_some())
    }

    /// As [`on_stream`](Self::on_stream), but with PTX in any case.
    pub fn on_stream_with_ptx(stream: Arc<CudaStream>) -> Result<Self> {
        Self::open_on(stream, true)
    }

    fn open_on(stream: Arc<CudaStream>, ptx_only: bool) -> Result<Self> {
        // The default stream cannot be recorded; that of a thread is another one in each.
        const DEFAULT_STREAMS: usize = 2;
        if stream.cu_stream() as usize <= DEFAULT_STREAMS {
            return Err(Error::usage(
                "expected a stream of CudaContext::new_stream, found a default one of the context or of a thread",
            ));
        }
        start()?;
        let info = driver::device(stream.context().ordinal())?;
        Self::with_stream(stream, info, ptx_only)
    }

    fn open(ordinal: usize, ptx_only: bool) -> Result<Self> {
        start()?;
        let info = driver::device(ordinal)?;
        let stream = CudaContext::new(ordinal).and_then(|context| context.new_stream());
        Self::with_stream(stream.map_err(|e| complaint(title(&info), e))?, info, ptx_only)
    }

    fn with_stream(stream: Arc<CudaStream>, info: DeviceInfo, ptx_only: bool) -> Result<Self> {
        let kernels = load(stream.context(), &info, ptx_only).map_err(|e| e.context(title(&info)))?;
        stream.context().bind_to_thread().map_err(|e| complaint(title(&info), e))?;
        let refusals = Mutex::new(Refusals::new()?);
        let branch = Mutex::new(Branch::new(Side::Inputs, stream.context())?);
        let cuda = Cuda {
            shared: Arc::new(Shared {
                stream,
                kernels,
                info,
                blocking: blocking(),
                failed: AtomicBool::new(false),
                failure: Mutex::new(None),
                launched: Mutex::new(Vec::new()),
                scratch: Mutex::new(Scratch::default()),
                counters: Mutex::new(Counters::default()),
                staging: Mutex::new(Staging::default()),
                graphs: Mutex::new(Graphs::default()),
                branch,
                staging_buffers: Mutex::new(StagingBuffers::default()),
                freed: Arc::default(),
                refusals,
                shards: OnceLock::new(),
            }),
        };
        cuda.scratch().reserve(&cuda)?;
        cuda.counters().reserve(&cuda)?;
        Ok(cuda)
    }

    /// The driver's description of the device.
    pub fn info(&self) -> &DeviceInfo {
        &self.shared.info
    }

    /// The stream of all work: allocate, copy and wait with it.
    pub fn stream(&self) -> &Arc<CudaStream> {
        &self.shared.stream
    }

    pub(super) fn kernel(&self, name: &'static str) -> Result<&Kernel> {
        let missing = || {
            let found = self.info().capability;
            Error::internal(format!("there is no kernel {name} for sm_{found}"))
        };
        self.shared.kernels.get(name).ok_or_else(missing)
    }

    pub(super) fn scratch(&self) -> MutexGuard<'_, Scratch> {
        lock(&self.shared.scratch)
    }

    pub(super) fn counters(&self) -> MutexGuard<'_, Counters> {
        lock(&self.shared.counters)
    }

    pub(super) fn staging(&self) -> MutexGuard<'_, Staging> {
        lock(&self.shared.staging)
    }

    pub(super) fn graphs(&self) -> MutexGuard<'_, Graphs> {
        lock(&self.shared.graphs)
    }

    pub(super) fn branch(&self) -> MutexGuard<'_, Branch> {
        lock(&self.shared.branch)
    }

    pub(super) fn staging_buffers(&self) -> MutexGuard<'_, StagingBuffers> {
        lock(&self.shared.staging_buffers)
    }

    /// What allocations count themselves in when they are freed.
    pub(super) fn freed(&self) -> &Arc<AtomicU64> {
        &self.shared.freed
    }

    /// Allocations that have been freed.
    pub(super) fn freed_allocations(&self) -> u64 {
        self.shared.freed.load(Ordering::Acquire)
    }

    pub(super) fn refusals(&self) -> MutexGuard<'_, Refusals> {
        lock(&self.shared.refusals)
    }

    /// What this device keeps of blocks that it shares with others, if it does.
    pub(super) fn shards(&self) -> Option<&Arc<Shards>> {
        self.shared.shards.get()
    }

    /// From here on blocks are shared with others. `false` if they were already.
    pub(super) fn set_shards(&self, shards: Shards) -> bool {
        self.shared.shards.set(Arc::new(shards)).is_ok()
    }

    /// Whether something has gone wrong, so that starting more makes no sense.
    pub(super) fn has_failed(&self) -> bool {
        self.shared.failed.load(Ordering::Relaxed)
    }

    /// Keeps the first error.
    pub(super) fn fail(&self, error: Error) {
        lock(&self.shared.failure).get_or_insert(error);
        self.shared.failed.store(true, Ordering::Relaxed);
    }

    /// Keeps the error of something that was started, if it has one.
    pub(super) fn keep<T>(&self, result: Result<T>) -> Option<T> {
        result.map_err(|error| self.fail(error)).ok()
    }

    /// The first error, which is over with that.
    pub(super) fn take_failure(&self) -> Option<Error> {
        self.shared.failed.store(false, Ordering::Relaxed);
        lock(&self.shared.failure).take()
    }

    /// Whether each kernel is waited for.
    pub(super) fn is_blocking(&self) -> bool {
        self.shared.blocking
    }

    /// A kernel has been started.
    pub(super) fn launched(&self, name: &'static str) -> Result<()> {
        lock(&self.shared.launched).push(name);
        if self.is_blocking() { self.wait() } else { Ok(()) }
    }

    /// The kernels started or recorded since the last wait, each once, the first first.
    pub(super) fn kernels_since_wait(&self) -> Vec<&'static str> {
        let mut kernels = last_first(&lock(&self.shared.launched));
        kernels.reverse();
        kernels
    }

    /// Kernels have been started again.
    pub(super) fn suspect(&self, kernels: &[&'static str]) {
        let mut launched = lock(&self.shared.launched);
        for kernel in kernels {
            if !launched.contains(kernel) {
                launched.push(kernel);
            }
        }
    }

    /// An error of the driver that shows while the host waits, as that of the kernels that may be the cause.
    pub(super) fn kernel_complaint(&self, error: DriverError) -> Error {
        complaint(suspects(&lock(&self.shared.launched)), error)
    }

    /// An error of the driver while a graph is made or started: as its own, or as that of a kernel before it.
    pub(super) fn graph_complaint(&self, what: &str, error: DriverError) -> Error {
        let launched = last_first(&lock(&self.shared.launched));
        if launched.is_empty() {
            return complaint(what, error);
        }
        complaint(what, error).advice(format!(
            "kernels started or recorded since the last wait: {}; {BLOCKING}=1 tells which failed, if one did",
            launched.join(", ")
        ))
    }

    /// Waits for all work. An error of a kernel shows only here, so it names those that may be the one; and
    /// so does what a kernel has refused.
    pub(super) fn wait(&self) -> Result<()> {
        self.end_recording(None)?;
        let waited = self.stream().synchronize();
        let launched = std::mem::take(&mut *lock(&self.shared.launched));
        waited.map_err(|e| complaint(suspects(&launched), e))?;
        self.refusals().take().map_or(Ok(()), Err)
    }
}

/// CUDA's variable, with which each kernel is waited for.
const BLOCKING: &str = "CUDA_LAUNCH_BLOCKING";

fn blocking() -> bool {
    std::env::var_os(BLOCKING).is_some_and(|value| !value.is_empty() && value != "0")
}

/// Each of the names once, the last first.
fn last_first(launched: &[&'static str]) -> Vec<&'static str> {
    let mut names = Vec::new();
    for &name in launched.iter().rev() {
        if !names.contains(&name) {
            names.push(name);
        }
    }
    names
}

/// The kernels that may have failed, of those started since the last wait.
fn suspects(launched: &[&'static str]) -> String {
    match last_first(launched).as_slice() {
        [] => "CUDA failed, and no kernel was running".into(),
        [name] => format!("kernel {name} failed"),
        names => {
            format!("one of the kernels {} failed; {BLOCKING}=1 tells which", names.join(", "))
        }
    }
}

/// As messages call it.
fn title(info: &DeviceInfo) -> String {
    format!("CUDA device {} ({})", info.ordinal, info.name)
}

/// Starts the driver, if there are kernels for it.
fn start() -> Result<()> {
    if IMAGES.is_empty() {
        return Err(Error::device(
            "this deepguard has no CUDA kernels: there was no nvcc when it was built; make toolkit gets one, then build \
             again",
        ));
    }
    driver::start()
}

/// Loads everything at the start: a kernel that does not load is an error here, not in the middle of a run.
fn load(
    context: &Arc<CudaContext>,
    info: &DeviceInfo,
    ptx_only: bool,
) -> Result<HashMap<&'static str, Kernel>> {
    let older_driver = driver::is_older_than_compiler()?;
    let ptx_only = ptx_only || older_driver;
    let mut kernels = HashMap::new();
    let mut files: Vec<&'static str> = IMAGES.iter().map(|image| image.file).collect();
    files.sort_unstable();
    files.dedup();
    for file in files {
        // Files for one architecture alone are missing on the others.
        let Some(image) = images::choose(IMAGES, file, info.capability, ptx_only) else { continue };
        let module = Module::load(context, image, older_driver)?;
        for kernel in KERNELS.iter().filter(|k| k.file == file && k.arch == image.arch) {
            kernels.insert(kernel.name, module.kernel(kernel, info.shared_memory)?);
        }
    }
    if kernels.is_empty() { Err(no_kernels(info)) } else { Ok(kernels) }
}

fn no_kernels(info: &DeviceInfo) -> Error {
    let there = images::architectures(IMAGES).join(", sm_");
    let found = info.capability;
    Error::device(if found < 80 {
        format!("expected compute capability 8.0 or later, found {}.{}", found / 10, found % 10)
    } else {
        format!("no kernels for sm_{found}, only for sm_{there}; build with DG_CUDA_ARCHS={found}")
    })
}

#[cfg(test)]
mod tests {
    use super::suspects;

    #[test]
    fn the_last_kernel_is_suspected_first() {
        assert_eq!(suspects(&["rms_norm"]), "kernel rms_norm failed");
        let text = suspects(&["rms_norm", "gemm", "rms_norm", "adamw"]);
        assert!(text.starts_with("one of the kernels adamw, rms_norm, gemm failed"), "{text}");
    }
}
