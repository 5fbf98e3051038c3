//! cuBLASLt's product, loaded at run time where there is one, to compare ours with.

use std::ffi::{c_int, c_void};

use cudarc::driver::sys::CUstream;
use deepguard::ops::{Buffer, Mut, Ref};
use half::bf16;
use libloading::Library;

use super::device::Device;

const LIBRARIES: [&str; 3] = ["libcublasLt.so.13", "libcublasLt.so.12", "libcublasLt.so"];
const WORKSPACE: usize = 64 << 20;

// Values of cublasLt.h and library_types.h.
const COMPUTE_32F: c_int = 68;
const R_32F: c_int = 0;
const R_16BF: c_int = 14;
const TRANSA: c_int = 3;
static OP_T: c_int = 1;
const MAX_WORKSPACE_BYTES: c_int = 1;

type Handle = *mut c_void;

/// `cublasLtMatmulHeuristicResult_t`.
#[repr(C)]
#[derive(Clone, Copy, Default)]
struct Heuristic {
    algo: [u64; 8],
    workspace: usize,
    state: c_int,
    waves: f32,
    reserved: [c_int; 4],
}

type Create = unsafe extern "C" fn(*mut Handle) -> c_int;
type DescCreate = unsafe extern "C" fn(*mut Handle, c_int, c_int) -> c_int;
type SetAttribute = unsafe extern "C" fn(Handle, c_int, *const c_void, usize) -> c_int;
type LayoutCreate = unsafe extern "C" fn(*mut Handle, c_int, u64, u64, i64) -> c_int;
type GetHeuristic = unsafe extern "C" fn(
    Handle,
    Handle,
    Handle,
    Handle,
    Handle,
    Handle,
    Handle,
    c_int,
    *mut Heuristic,
    *mut c_int,
) -> c_int;
type Matmul = unsafe extern "C" fn(
    Handle,
    Handle,
    *const f32,
    *const c_void,
    Handle,
    *const c_void,
    Handle,
    *const f32,
    *const c_void,
    Handle,
    *mut c_void,
    Handle,
    *const Heuristic,
    *mut c_void,
    usize,
    CUstream,
) -> c_int;

/// The library and one handle.
pub struct CublasLt {
    library: Library,
    handle: Handle,
    workspace: Buffer<deepguard::cuda::Cuda, u32>,
    stream: CUstream,
}

/// `y = x · wᵀ` of one shape, with the algorithm that the library thinks best.
pub struct Linear<'a> {
    library: &'a CublasLt,
    matmul: Matmul,
    desc: Handle,
    weight: Handle,
    x: Handle,
    y: Handle,
    best: Heuristic,
}

fn check(what: &str, status: c_int) -> Result<(), String> {
    if status == 0 { Ok(()) } else { Err(format!("{what}: status {status}")) }
}

impl CublasLt {
    /// The error says why there is none.
    pub fn open(device: &Device) -> Result<Self, String> {
        // SAFETY: a library of NVIDIA, whose initialisers are meant to run in any program.
        let library = LIBRARIES.iter().find_map(|name| unsafe { Library::new(*name) }.ok());
        let library = library.ok_or_else(|| format!("none of {} is there", LIBRARIES.join(", ")))?;
        let mut this = CublasLt {
            library,
            handle: std::ptr::null_mut(),
            workspace: device.zeros(&[WORKSPACE / 4]),
            stream: device.cuda.stream().cu_stream(),
        };
        // SAFETY: the type is that of the header; a context is current.
        check("cublasLtCreate", unsafe { this.symbol::<Create>("cublasLtCreate")?(&mut this.handle) })?;
        Ok(this)
    }

    /// # Safety
    /// `T` is the type of that function.
    unsafe fn symbol<T: Copy>(&self, name: &str) -> Result<T, String> {
        // SAFETY: by the caller.
        unsafe { self.library.get::<T>(name.as_bytes()) }.map(|symbol| *symbol).map_err(|e| e.to_string())
    }

    /// A row-major matrix is its transpose to the library, which counts by columns.
    fn layout(&self, rows: usize, columns: usize) -> Result<Handle, String> {
        let mut layout = std::ptr::null_mut();
        // SAFETY: the type is that of the header.
        let status = unsafe {
            let create = self.symbol::<LayoutCreate>("cublasLtMatrixLayoutCreate")?;
            create(&mut layout, R_16BF, columns as u64, rows as u64, columns as i64)
        };
        check("cublasLtMatrixLayoutCreate", status).map(|()| layout)
    }

    /// The product of x `[rows, input]` and w `[out, input]` to y `[rows, out]`. Descriptions stay until the
    /// program ends.
    pub fn linear(&self, rows: usize, out: usize, input: usize) -> Result<Linear<'_>, String> {
        let (weight, x, y) = (self.layout(out, input)?, self.layout(rows, input)?, self.layout(rows, out)?);
        let (mut desc, mut preference) = (std::ptr::null_mut(), std::ptr::null_mut());
        let (mut best, mut found) = (Heuristic::default(), 0);
        // SAFETY: types and arguments are those of the header; every pointer is valid during its call.
        unsafe {
            let create = self.symbol::<DescCreate>("cublasLtMatmulDescCreate")?;
            check("cublasLtMatmulDescCreate", create(&mut desc, COMPUTE_32F, R_32F))?;
            let set = self.symbol::<SetAttribute>("cublasLtMatmulDescSetAttribute")?;
            check("transposition", set(desc, TRANSA, (&raw const OP_T).cast(), size_of::<c_int>()))?;
            let create = self.symbol::<Create>("cublasLtMatmulPreferenceCreate")?;
            check("cublasLtMatmulPreferenceCreate", create(&mut preference))?;
            let set = self.symbol::<SetAttribute>("cublasLtMatmulPreferenceSetAttribute")?;
            let size = WORKSPACE as u64;
            check("workspace", set(preference, MAX_WORKSPACE_BYTES, (&raw const size).cast(), 8))?;
            let choose = self.symbol::<GetHeuristic>("cublasLtMatmulAlgoGetHeuristic")?;
            let status = choose(self.handle, desc, weight, x, y, y, preference, 1, &mut best, &mut found);
            check("cublasLtMatmulAlgoGetHeuristic", status)?;
            if found == 0 {
                return Err("there is no algorithm".into());
            }
            let matmul = self.symbol::<Matmul>("cublasLtMatmul")?;
            Ok(Linear { library: self, matmul, desc, weight, x, y, best })
        }
    }
}

impl Linear<'_> {
    pub fn run(
        &self,
        y: Mut<'_, deepguard::cuda::Cuda, bf16>,
        x: Ref<'_, deepguard::cuda::Cuda, bf16>,
        weight: Ref<'_, deepguard::cuda::Cuda, bf16>,
    ) {
        let CublasLt { handle, workspace, stream, .. } = self.library;
        let (one, zero, to) = (1.0f32, 0.0f32, y.address() as *mut c_void);
        // SAFETY: the buffers have the sizes of the layouts, and are used in the order of the stream.
        let status = unsafe {
            (self.matmul)(
                *handle,
                self.desc,
                &one,
                weight.address() as *const c_void,
                self.weight,
                x.address() as *const c_void,
                self.x,
                &zero,
                to,
                self.y,
                to,
                self.y,
                &self.best,
                workspace.view().address() as *mut c_void,
                WORKSPACE,
                *stream,
            )
        };
        check("cublasLtMatmul", status).expect("a product");
    }
}
