//! The constants that predictions of `tests/roofline.rs` take from elsewhere, measured: memory, L2 to shared
//! memory, tensor cores, the bus, and graphs.

use std::time::Instant;

use cudarc::driver::sys::{self, CUfunction_attribute};
use cudarc::driver::{CudaFunction, LaunchConfig, PushKernelArg, result};
use cudarc::nvrtc::Ptx;
use deepguard::cuda::Cuda;
use deepguard::ops::{Arena, Buffer, Device as _};

use super::device::{Device, Measured};
use super::ptx;

/// A kernel of [`ptx`].
struct Kernel {
    cuda: Cuda,
    function: CudaFunction,
    shape: LaunchConfig,
}

impl Kernel {
    fn new(cuda: &Cuda, code: &str, name: &str, [blocks, threads, shared]: [u32; 3]) -> Self {
        let module = cuda.stream().context().load_module(Ptx::from_src(code)).expect("PTX that is right");
        let function = module.load_function(name).expect("a kernel of it");
        let attribute = CUfunction_attribute::CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES;
        function.set_attribute(attribute, shared as i32).expect("shared memory");
        let shape =
            LaunchConfig { grid_dim: (blocks, 1, 1), block_dim: (threads, 1, 1), shared_mem_bytes: shared };
        Kernel { cuda: cuda.clone(), function, shape }
    }

    /// # Safety
    /// Types and values are those that the kernel expects, and its addresses are valid.
    unsafe fn launch(&self, wide: &[u64], narrow: &[u32], last: &[u64]) {
        let mut launch = self.cuda.stream().launch_builder(&self.function);
        wide.iter().for_each(|argument| _ = launch.arg(argument));
        narrow.iter().for_each(|argument| _ = launch.arg(argument));
        last.iter().for_each(|argument| _ = launch.arg(argument));
        // SAFETY: by the caller.
        unsafe { launch.launch(self.shape) }.expect("a launch");
    }
}

/// Reads the clock of the multiprocessors.
pub struct Clock {
    kernel: Kernel,
    out: Buffer<Cuda, u32>,
    nanoseconds: u64,
}

impl Clock {
    pub fn new(cuda: &Cuda, testing: bool) -> Self {
        let kernel = Kernel::new(cuda, &ptx::anywhere(), "clock", [1, 1, 0]);
        let out = Arena::build(cuda, |arena| arena.buffer("clock", &[4])).expect("memory").0;
        Clock { kernel, out, nanoseconds: if testing { 10 } else { 1_000_000 } }
    }

    /// GHz.
    pub fn read(&self, cuda: &Cuda) -> f64 {
        // SAFETY: `clock(out, ns)` writes 16 bytes.
        unsafe { self.kernel.launch(&[self.out.view().address() as u64, self.nanoseconds], &[], &[]) };
        let words = cuda.to_host(self.out.view());
        let wide = |i: usize| (u64::from(words[i + 1]) << 32 | u64::from(words[i])) as f64;
        wide(2) / wide(0)
    }
}

pub fn run(device: &Device) {
    println!("\n### Constants of the machine\n");
    println!("| constant | in machine.toml | measured |");
    println!("|---|---|---|");
    memory(device);
    if device.cuda.info().capability == 90 {
        cache(device);
        tensor_cores(device, 128);
        tensor_cores(device, 256);
    }
    graphs(device);
    upload(device);
}

/// A value of `tests/roofline/machine.toml`, where it has this constant.
fn assumed(key: &str) -> String {
    let file: toml::Table = include_str!("../../tests/roofline/machine.toml").parse().expect("machine.toml");
    let value =
        file.get("h100").and_then(|machine| machine.get(key)?.get("value")).map(toml::Value::to_string);
    value.map_or("–".into(), |value| format!("{key} = {value}"))
}

fn print(name: &str, found: &Measured, value: String, key: &str) {
    found.print(&[name, &assumed(key)], &[&value]);
}

fn memory(device: &Device) {
    const THREADS: u32 = 512;
    let blocks = 4 * device.cuda.info().multiprocessors;
    let at_once = (blocks * THREADS * ptx::AT_ONCE) as usize;
    let vectors = at_once * if device.testing { 1 } else { (4usize << 30) / 16 / at_once };
    let (from, out) = (device.zeros::<u32>(&[4 * vectors]), device.zeros::<u32>(&[1]));
    let kernel = Kernel::new(&device.cuda, &ptx::anywhere(), "read_all", [blocks, THREADS, 0]);
    let found = device.cold(|| {
        // SAFETY: `read_all(from, count, out)`, of as many vectors as there are.
        unsafe {
            kernel.launch(
                &[from.view().address() as u64, vectors as u64, out.view().address() as u64],
                &[],
                &[],
            )
        };
    });
    let rate = 16.0 * vectors as f64 / found.seconds / 1e12;
    print("memory, read once, TB/s", &found, format!("{rate:.2}"), "hbm_tbytes");
}

/// What reaches shared memory from the L2 cache while all multiprocessors ask.
fn cache(device: &Device) {
    /// A part of the cache, of a size that is a power of two.
    const WINDOW: u32 = 16 << 20;
    let blocks = device.cuda.info().multiprocessors;
    let stages: u32 = if device.testing { 6 } else { 4096 };
    let from = device.random(&[WINDOW as usize / 2]);
    let elsewhere = WINDOW / blocks / ptx::STAGE * ptx::STAGE;
    let ring = ptx::BARRIERS + ptx::RING * ptx::STAGE;
    for (name, what, apart, share, key) in [
        ("fill", "L2 to shared memory, each block elsewhere, TB/s", elsewhere, 1.0, "l2_tbytes"),
        ("fill", "the same, all blocks the same bytes, TB/s", 0, 1.0, ""),
        (
            "fill_multicast",
            "the same by multicast to clusters of two, TB/s that leave L2",
            elsewhere,
            0.5,
            "",
        ),
        ("fill_multicast", "the same, all clusters the same bytes, TB/s that leave L2", 0, 0.5, ""),
    ] {
        let kernel = Kernel::new(&device.cuda, &ptx::fill(), name, [blocks / 2 * 2, 32, ring]);
        let launch = || {
            // SAFETY: `fill(from, mask, apart, stages)`, which stays in the window.
            unsafe { kernel.launch(&[from.view().address() as u64], &[WINDOW - 1, apart, stages], &[]) };
        };
        launch();
        let found = device.measured(|| device.elapsed(&mut || launch()));
        let bytes = f64::from(blocks / 2 * 2) * f64::from(stages) * f64::from(ptx::STAGE) * share;
        print(what, &found, format!("{:.2}", bytes / found.seconds / 1e12), key);
    }
}

/// wgmma on random numbers, without anything else.
fn tensor_cores(device: &Device, n: u32) {
    let blocks = device.cuda.info().multiprocessors;
    let rounds: u32 = if device.testing { 2 } else { 20_000 };
    let shared = ptx::product_bytes(n);
    let (from, out) = (
        device.random(&[shared as usize / 2]),
        device.zeros::<u32>(&[(blocks * ptx::PRODUCT_THREADS) as usize]),
    );
    let code = ptx::products(n);
    let kernel = Kernel::new(&device.cuda, &code, "products", [blocks, ptx::PRODUCT_THREADS, shared]);
    let found = device.measured(|| {
        device.elapsed(&mut || {
            // SAFETY: `products(from, rounds, out)`, of a block's bytes and a float for each thread.
            unsafe {
                kernel.launch(&[from.view().address() as u64], &[rounds], &[out.view().address() as u64])
            };
        })
    });
    let flops = 2.0 * 128.0 * f64::from(n * ptx::PRODUCT_K) * f64::from(rounds) * f64::from(blocks);
    let rate = flops / found.seconds;
    let share = device.flops_at(found.ghz).map_or(0.0, |peak| rate / peak);
    let value = format!("{share:.2}: {:.0} TFLOP/s at {:.2} GHz", rate / 1e12, found.ghz);
    print(&format!("wgmma of n = {n}, share of the peak at the clock read"), &found, value, "tensor_share");
    print(&format!("clock under that load, n = {n}, GHz"), &found, format!("{:.2}", found.ghz), "clock_ghz");
}

/// A graph of kernels that do nothing.
fn graphs(device: &Device) {
    let nodes: u32 = if device.testing { 3 } else { 700 };
    let (cuda, stream) = (&device.cuda, device.cuda.stream());
    let kernel = Kernel::new(cuda, &ptx::anywhere(), "nothing", [1, 32, 0]);
    let of_a_node = |found: &Measured| format!("{:.2}", found.seconds * 1e6 / f64::from(nodes));
    let capture = || {
        let mode = sys::CUstreamCaptureMode::CU_STREAM_CAPTURE_MODE_RELAXED;
        let mut graph = std::ptr::null_mut();
        // SAFETY: the stream is ours; `nothing()` has no arguments.
        unsafe {
            sys::cuStreamBeginCapture_v2(stream.cu_stream(), mode).result().expect("a recording");
            (0..nodes).for_each(|_| kernel.launch(&[], &[], &[]));
            sys::cuStreamEndCapture(stream.cu_stream(), &raw mut graph).result().expect("a graph");
        }
        graph
    };
    let instantiate = |graph| {
        let mut executable = std::ptr::null_mut();
        // SAFETY: the graph is alive.
        unsafe { sys::cuGraphInstantiateWithFlags(&raw mut executable, graph, 0) }.result().expect("memory");
        executable
    };
    let found = device.measured(|| {
        let started = Instant::now();
        let graph = capture();
        let took = started.elapsed();
        // SAFETY: made above.
        let _ = unsafe { sys::cuGraphDestroy(graph) };
        took
    });
    print("graphs: host, recording, µs a node", &found, of_a_node(&found), "");
    let graph = capture();
    let found = device.measured(|| {
        let started = Instant::now();
        let executable = instantiate(graph);
        let took = started.elapsed();
        // SAFETY: made above.
        let _ = unsafe { sys::cuGraphExecDestroy(executable) };
        took
    });
    print("graphs: host, instantiation, µs a node", &found, of_a_node(&found), "");
    let (other, executable) = (capture(), instantiate(graph));
    let found = device.measured(|| {
        let started = Instant::now();
        // SAFETY: plain data, for which all zeros are valid; both handles are alive.
        unsafe {
            let mut why: sys::CUgraphExecUpdateResultInfo = std::mem::zeroed();
            sys::cuGraphExecUpdate_v2(executable, other, &raw mut why).result().expect("the same nodes");
        }
        started.elapsed()
    });
    print("graphs: host, update, µs a node", &found, of_a_node(&found), "");
    // SAFETY: both are alive.
    let launch = || unsafe { sys::cuGraphLaunch(executable, stream.cu_stream()) }.result().expect("a launch");
    let found = device.measured(|| {
        let started = Instant::now();
        launch();
        let took = started.elapsed();
        cuda.finish().expect("a run without errors");
        took
    });
    print("graphs: host, launch, µs a graph", &found, format!("{:.1}", found.seconds * 1e6), "");
    let found = device.measured(|| device.elapsed(&mut || launch()));
    print("graphs: device, from kernel to kernel, µs", &found, of_a_node(&found), "launch_us");
    // SAFETY: made above, and nothing runs any more.
    unsafe {
        let _ = sys::cuGraphExecDestroy(executable);
        let _ = sys::cuGraphDestroy(other);
        let _ = sys::cuGraphDestroy(graph);
    }
}

/// Page-locked memory to the device.
fn upload(device: &Device) {
    let bytes: usize = if device.testing { 64 } else { 256 << 20 };
    let (to, stream) = (device.zeros::<u32>(&[bytes / 4]), device.cuda.stream());
    // SAFETY: a context is current, as memory was just allocated; freed once.
    let from = unsafe { result::malloc_host(bytes, 0) }.expect("page-locked memory").cast::<u8>();
    // SAFETY: ours, and written before it is read.
    let slice = unsafe {
        from.write_bytes(1, bytes);
        std::slice::from_raw_parts(from, bytes)
    };
    let found = device.measured(|| {
        // SAFETY: both have that many bytes, and are there until the copy has been waited for.
        device.elapsed(&mut || unsafe {
            result::memcpy_htod_async(to.view().address() as u64, slice, stream.cu_stream()).expect("a copy");
        })
    });
    // SAFETY: allocated above.
    let _ = unsafe { result::free_host(from.cast()) };
    print(
        "host to device, page-locked, GB/s",
        &found,
        format!("{:.1}", bytes as f64 / found.seconds / 1e9),
        "",
    );
}
