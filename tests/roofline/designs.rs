//! Kernels of our own in the designs of public ones (`kernels/*.cu`), compiled and launched.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Arc, Mutex, PoisonError};

use cudarc::driver::sys::{self, CUfunction_attribute as Attribute};
use cudarc::driver::{CudaSlice, DeviceRepr, LaunchConfig, PushKernelArg};
use cudarc::nvrtc::Ptx;
use deepguard::cuda::Cuda;
use half::bf16;

use super::disassembly::{listing_of, tool};
use super::emulator::{checked, own_cuda};
use super::launch::Code;
use super::sass::of_listing;

/// Columns of a head, and of a row that is normalised.
pub const DIM: usize = 128;
pub const WIDTH: usize = 16384;

/// A file of kernels, as PTX and as machine code.
struct Compiled {
    ptx: String,
    cubin: Vec<u8>,
    log: String,
}

impl Compiled {
    /// A file for an architecture, which is compiled once.
    fn of(arch: &str, file: &str) -> Arc<Self> {
        static ALL: Mutex<BTreeMap<(String, String), Arc<Compiled>>> = Mutex::new(BTreeMap::new());
        let mut all = ALL.lock().unwrap_or_else(PoisonError::into_inner);
        let key = (arch.to_owned(), file.to_owned());
        all.entry(key).or_insert_with(|| Arc::new(Compiled::new(arch, file))).clone()
    }

    fn new(arch: &str, file: &str) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let root = Path::new(env!("CARGO_MANIFEST_DIR"));
        let source = root.join("tests/roofline/kernels").join(file).with_extension("cu");
        let to = |extension: &str| folder.path().join(file).with_extension(extension);
        let compile = |options: &[&str], from: &PathBuf, to: &PathBuf| {
            let mut nvcc = Command::new(tool("nvcc"));
            nvcc.arg("-std=c++17").arg(format!("-arch=sm_{arch}")).args(options).arg(from).arg("-o").arg(to);
            let output = nvcc.arg("-I").arg(root.join("kernels")).output().expect("nvcc runs: make toolkit");
            let said = String::from_utf8_lossy(&output.stderr).into_owned();
            assert!(output.status.success(), "{said}");
            said
        };
        compile(&["-ptx"], &source, &to("ptx"));
        let log = compile(&["-cubin", "-Xptxas", "-v"], &to("ptx"), &to("cubin"));
        let ptx = std::fs::read_to_string(to("ptx")).expect("PTX");
        Compiled { ptx, cubin: std::fs::read(to("cubin")).expect("machine code"), log }
    }

    /// What a prediction has to know of a kernel.
    fn code(&self, kernel: &str) -> Code {
        let loops = of_listing(&listing_of(&self.cubin)).into_iter().find(|(name, _)| name == kernel);
        let (_, of_kernel) = self.log.split_once(&format!("'{kernel}'")).expect(kernel);
        let (_, used) = of_kernel.split_once("Used ").expect("a number of registers");
        let registers = used.split(' ').next().expect("a number").parse().expect("a number");
        Code { registers, loops: loops.expect(kernel).1 }
    }
}

/// A kernel that can be launched.
pub struct Design {
    cuda: Cuda,
    kernel: String,
    compiled: Arc<Compiled>,
}

/// A tensor map as an argument.
#[repr(C, align(64))]
struct Map(sys::CUtensorMap);

// SAFETY: it is plain data, which kernels take by value.
unsafe impl DeviceRepr for Map {}

impl Design {
    /// A kernel of a file, for an architecture as in `sm_…`.
    pub fn new(arch: &str, file: &str, kernel: &str) -> Self {
        Design { cuda: own_cuda(), kernel: kernel.to_owned(), compiled: Compiled::of(arch, file) }
    }

    pub fn code(&self) -> Code {
        self.compiled.code(&self.kernel)
    }

    /// y of x [m, k] and w [n, k]; by so many blocks that stay for all tiles, or by one for each.
    pub fn product(&self, [m, n, k]: [usize; 3], stay: Option<usize>, x: &[bf16], w: &[bf16]) -> Vec<bf16> {
        let (x, w, mut y) = (self.upload(x), self.upload(w), self.upload(&vec![bf16::ZERO; m * n]));
        let (tile_n, threads, shared) = match self.kernel.as_str() {
            "product_128" => (128, 256, 5 * 32 * 1024),
            _ => (256, 384, 4 * 48 * 1024),
        };
        let together = if self.kernel.ends_with("cluster") { 2 } else { 1 };
        let tiles = m / 128 * (n / tile_n);
        let blocks = stay.unwrap_or(tiles);
        let maps = [self.map(&x, m, k, 128), self.map(&w, n, k, tile_n / together)];
        let sizes = [m, n, k].map(|size| size as i32);
        let (function, stream) = (self.function(shared + 256), self.cuda.stream());
        let mut launch = stream.launch_builder(&function);
        launch.arg(&maps[0]).arg(&maps[1]).arg(&mut y);
        sizes.iter().for_each(|size| _ = launch.arg(size));
        // SAFETY: these are the arguments of the kernels of product_sm90.cu, and y has m · n elements.
        checked(unsafe { launch.launch(config([blocks, 1], threads, shared + 256)) });
        self.download(&y)
    }

    /// The attention of heads with as many rows, each of [heads, rows, DIM].
    pub fn attention(&self, [heads, rows]: [usize; 2], q: &[bf16], k: &[bf16], v: &[bf16]) -> Vec<bf16> {
        let [q, k, v] = [q, k, v].map(|x| self.upload(x));
        let mut o = self.upload(&vec![bf16::ZERO; heads * rows * DIM]);
        let (warpgroups, count) = (self.kernel.ends_with("warpgroups"), rows as i32);
        let (threads, shared) = if warpgroups { (384, (32 + 4 * 32) * 1024 + 256) } else { (128, 64 * 1024) };
        let maps = [&q, &k, &v].map(|x| self.map(x, heads * rows, DIM, 128));
        let (function, stream) = (self.function(shared), self.cuda.stream());
        let mut launch = stream.launch_builder(&function);
        if warpgroups {
            maps.iter().for_each(|map| _ = launch.arg(map));
            launch.arg(&mut o).arg(&count);
        } else {
            launch.arg(&mut o).arg(&q).arg(&k).arg(&v).arg(&count);
        }
        // SAFETY: these are the arguments of that kernel of attention.cu or attention_sm90.cu; all have as
        // many elements.
        checked(unsafe { launch.launch(config([rows / 128, heads], threads, shared)) });
        self.download(&o)
    }

    /// Rows of WIDTH, normalised.
    pub fn norm(&self, rows: usize, x: &[bf16], weight: &[bf16]) -> Vec<bf16> {
        let (x, weight, mut y) =
            (self.upload(x), self.upload(weight), self.upload(&vec![bf16::ZERO; rows * WIDTH]));
        let threads = if self.kernel == "norm_once" { 512 } else { 128 };
        let (function, stream) = (self.function(0), self.cuda.stream());
        let mut launch = stream.launch_builder(&function);
        launch.arg(&mut y).arg(&x).arg(&weight);
        // SAFETY: these are the arguments of the kernels of norm.cu; a block reads and writes a row.
        checked(unsafe { launch.launch(config([rows, 1], threads, 0)) });
        self.download(&y)
    }

    fn function(&self, shared: usize) -> cudarc::driver::CudaFunction {
        let ptx = Ptx::from_src(self.compiled.ptx.as_str());
        let module = checked(self.cuda.stream().context().load_module(ptx));
        let function = checked(module.load_function(&self.kernel));
        let attribute = Attribute::CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES;
        checked(function.set_attribute(attribute, shared as i32));
        function
    }

    fn upload(&self, values: &[bf16]) -> CudaSlice<bf16> {
        checked(self.cuda.stream().clone_htod(values))
    }

    fn download(&self, values: &CudaSlice<bf16>) -> Vec<bf16> {
        checked(self.cuda.stream().clone_dtoh(values))
    }

    /// Of a matrix; boxes are of so many rows and 64 columns, with the 128-byte swizzle.
    fn map(&self, matrix: &CudaSlice<bf16>, rows: usize, columns: usize, box_rows: usize) -> Map {
        use cudarc::driver::DevicePtr;
        let stream = self.cuda.stream();
        let (address, _recorded) = matrix.device_ptr(stream);
        let (sizes, stride) = ([columns as u64, rows as u64], [2 * columns as u64]);
        let mut map = Map(sys::CUtensorMap { opaque: [0; 16] });
        checked(stream.context().bind_to_thread());
        // SAFETY: the arrays have as many elements as the rank asks for; the address is only noted.
        let encoded = unsafe {
            sys::cuTensorMapEncodeTiled(
                &raw mut map.0,
                sys::CUtensorMapDataType::CU_TENSOR_MAP_DATA_TYPE_BFLOAT16,
                2,
                address as *mut std::ffi::c_void,
                sizes.as_ptr(),
                stride.as_ptr(),
                [64, box_rows as u32].as_ptr(),
                [1, 1].as_ptr(),
                sys::CUtensorMapInterleave::CU_TENSOR_MAP_INTERLEAVE_NONE,
                sys::CUtensorMapSwizzle::CU_TENSOR_MAP_SWIZZLE_128B,
                sys::CUtensorMapL2promotion::CU_TENSOR_MAP_L2_PROMOTION_L2_256B,
                sys::CUtensorMapFloatOOBfill::CU_TENSOR_MAP_FLOAT_OOB_FILL_NONE,
            )
        };
        checked(encoded.result());
        map
    }
}

fn config([x, y]: [usize; 2], threads: usize, shared: usize) -> LaunchConfig {
    let [x, y, threads, shared] = [x, y, threads, shared].map(|size| size as u32);
    LaunchConfig { grid_dim: (x, y, 1), block_dim: (threads, 1, 1), shared_mem_bytes: shared }
}
