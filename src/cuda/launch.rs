//! Launching kernels. Nothing else here talks to the device unchecked.
//!
//! Rust cannot see into a kernel, so a launch is safe as far as three things agree: the number and sizes of the
//! parameters, which are compared with those that the compiler reports; the elements behind every pointer, of which
//! [`Launch::read`] and [`Launch::write`] are told how many the kernel touches; and the meaning of both, for which
//! kernel and wrapper have to be read side by side.

use std::ffi::c_void;
use std::sync::Arc;

use cudarc::driver::sys::{self, CUfunction_attribute};
use cudarc::driver::{
    CudaContext, CudaFunction, CudaModule, CudaStream, DevicePtr, DevicePtrMut, SyncOnDrop, result,
};
use cudarc::nvrtc::Ptx;
use half::bf16;

use super::driver::complaint;
use super::images::{Code, Image, KERNELS};
use crate::error::{Error, Result};

/// Alignment that kernels with 16-byte accesses ask for.
pub(super) const VECTOR: usize = 16;

/// Room for the largest parameter, a tensor map.
const LARGEST_PARAMETER: usize = 128;

/// A compiled file on a device.
pub(super) struct Module {
    module: Arc<CudaModule>,
    image: &'static Image,
}

impl Module {
    /// Hands the code to the driver.
    pub fn load(context: &Arc<CudaContext>, image: &'static Image) -> Result<Self> {
        let code = match image.code {
            Code::Cubin(bytes) => Ptx::from_binary(bytes.to_vec()),
            Code::Ptx(text) => Ptx::from_src(text),
        };
        let module = context.load_module(code).map_err(|e| {
            complaint(format!("kernels/{}.cu ({} for sm_{})", image.file, image.code.name(), image.arch), e)
        })?;
        Ok(Module { module, image })
    }

    /// A kernel of the file.
    pub fn kernel(&self, name: &'static str) -> Result<Kernel> {
        let info = KERNELS.iter().find(|info| info.name == name && info.arch == self.image.arch);
        let info =
            info.ok_or_else(|| Error::internal(format!("kernel {name} is not in the table of kernels")))?;
        let function = self.module.load_function(name).map_err(|e| complaint(format!("kernel {name}"), e))?;
        Ok(Kernel { name, parameters: info.parameters, function })
    }
}

/// A kernel on a device.
pub(super) struct Kernel {
    name: &'static str,
    parameters: &'static [usize],
    function: CudaFunction,
}

impl Kernel {
    /// Allows launches with this much dynamic shared memory; more than 48 KiB have to be asked for.
    pub fn allow_shared(self, bytes: usize) -> Result<Self> {
        let attribute = CUfunction_attribute::CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES;
        let what = || format!("kernel {}: {bytes} bytes of shared memory", self.name);
        self.function.set_attribute(attribute, bytes as i32).map_err(|e| complaint(what(), e))?;
        Ok(self)
    }
}

/// How many threads run, and what they share.
pub(super) struct Shape {
    /// Blocks along x and y.
    pub grid: (usize, usize),
    /// Threads of a block.
    pub block: usize,
    /// Bytes of dynamic shared memory.
    pub shared: usize,
}

/// The value of one parameter.
#[repr(C, align(128))]
struct Parameter {
    bytes: [u8; LARGEST_PARAMETER],
    len: usize,
}

/// A launch being put together: parameters in the kernel's order, then [`run`](Self::run).
pub(super) struct Launch<'a> {
    kernel: &'a Kernel,
    stream: &'a Arc<CudaStream>,
    parameters: Vec<Parameter>,
    /// Tell cudarc, when dropped after the launch, that the buffers have been used.
    uses: Vec<SyncOnDrop<'a>>,
}

impl<'a> Launch<'a> {
    pub fn new(kernel: &'a Kernel, stream: &'a Arc<CudaStream>) -> Self {
        Launch { kernel, stream, parameters: Vec::new(), uses: Vec::new() }
    }

    /// A buffer of exactly `len` elements, at a multiple of `alignment` bytes, that the kernel writes.
    pub fn write<T>(
        mut self,
        name: &str,
        buffer: &'a mut impl DevicePtrMut<T>,
        len: usize,
        alignment: usize,
    ) -> Result<Self> {
        let found = buffer.len();
        let (address, used) = buffer.device_ptr_mut(self.stream);
        self.uses.push(used);
        self.pointer(name, address, found, len, alignment)
    }

    /// The same for a buffer that the kernel reads.
    pub fn read<T>(
        mut self,
        name: &str,
        buffer: &'a impl DevicePtr<T>,
        len: usize,
        alignment: usize,
    ) -> Result<Self> {
        let found = buffer.len();
        let (address, used) = buffer.device_ptr(self.stream);
        self.uses.push(used);
        self.pointer(name, address, found, len, alignment)
    }

    /// A tensor map of a matrix that the kernel reads.
    pub fn read_tiled(
        mut self,
        name: &str,
        buffer: &'a impl DevicePtr<bf16>,
        matrix: &TiledMatrix,
    ) -> Result<Self> {
        let found = buffer.len();
        let (address, used) = buffer.device_ptr(self.stream);
        self.uses.push(used);
        self.check(name, address, found, matrix.rows * matrix.columns, VECTOR)?;
        Ok(self.value(matrix.encode(name, address)?))
    }

    /// Two parameters for a matrix that the kernel writes: its tensor map, which is empty if the number of columns is
    /// no multiple of 8, as such rows cannot be described; and its address.
    pub fn write_tiled(
        mut self,
        name: &str,
        buffer: &'a mut impl DevicePtrMut<bf16>,
        matrix: &TiledMatrix,
    ) -> Result<Self> {
        let found = buffer.len();
        let (address, used) = buffer.device_ptr_mut(self.stream);
        self.uses.push(used);
        self.check(name, address, found, matrix.rows * matrix.columns, VECTOR)?;
        let describable = matrix.columns.is_multiple_of(8);
        let map = if describable { matrix.encode(name, address)? } else { [0; 16] };
        Ok(self.value(map).value(address))
    }

    fn pointer(self, name: &str, address: u64, found: usize, len: usize, alignment: usize) -> Result<Self> {
        self.check(name, address, found, len, alignment)?;
        Ok(self.value(address))
    }

    fn check(&self, name: &str, address: u64, found: usize, len: usize, alignment: usize) -> Result<()> {
        let what = |problem| Error::usage(format!("kernel {}: {name}: {problem}", self.kernel.name));
        if found != len {
            return Err(what(format!("expected {len} elements, found {found}")));
        }
        if !address.is_multiple_of(alignment as u64) {
            return Err(what(format!(
                "expected a start at a multiple of {alignment} bytes, found {address:#x}"
            )));
        }
        Ok(())
    }

    /// A parameter that is passed by value.
    pub fn value<T: bytemuck::Pod>(mut self, value: T) -> Self {
        let from = bytemuck::bytes_of(&value);
        let mut parameter = Parameter { bytes: [0; LARGEST_PARAMETER], len: from.len() };
        parameter.bytes[..from.len()].copy_from_slice(from);
        self.parameters.push(parameter);
        self
    }

    /// Starts the kernel; it runs when all earlier work of the stream is done.
    pub fn run(mut self, shape: Shape) -> Result<()> {
        let name = self.kernel.name;
        let found: Vec<usize> = self.parameters.iter().map(|parameter| parameter.len).collect();
        if found != self.kernel.parameters {
            let expected = self.kernel.parameters;
            let sizes = format!("expected parameters of {expected:?} bytes, found {found:?}");
            return Err(Error::internal(format!("kernel {name}: {sizes}")));
        }
        let (x, y) = shape.grid;
        let what = || format!("kernel {name}: a grid of {x} × {y} blocks, {} threads each", shape.block);
        let number = |n: usize| u32::try_from(n).map_err(|_| Error::usage(format!("{}: too many", what())));
        let (grid, block) = ((number(x)?, number(y)?, 1), (number(shape.block)?, 1, 1));
        let shared = number(shape.shared)?;
        let mut pointers: Vec<*mut c_void> =
            self.parameters.iter_mut().map(|p| p.bytes.as_mut_ptr().cast()).collect();
        self.stream.context().bind_to_thread().map_err(|e| complaint(what(), e))?;
        let (function, stream) = (self.kernel.function.cu_function(), self.stream.cu_stream());
        // SAFETY: the function's module is kept alive by the kernel. Parameters are as many and as large as the
        // compiler says, and are copied before the call returns. Buffers live at least until `uses` is dropped, after
        // the launch, which makes cudarc wait before it frees them; they are as long as the wrapper says that the
        // kernel needs, and those that it writes are borrowed exclusively.
        let launched = unsafe { result::launch_kernel(function, grid, block, shared, stream, &mut pointers) };
        launched.map_err(|e| complaint(what(), e))
    }
}

/// A matrix of bf16 as the tensor memory accelerator sees it.
pub(super) struct TiledMatrix {
    /// Number of rows.
    pub rows: usize,
    /// Number of columns, a multiple of 8.
    pub columns: usize,
    /// Rows and columns of the box that one instruction copies; 64 columns are the 128 bytes of the swizzle.
    pub box_shape: (usize, usize),
}

impl TiledMatrix {
    /// The descriptor of this matrix at `address`.
    fn encode(&self, name: &str, address: u64) -> Result<[u64; 16]> {
        let dims = [self.columns as u64, self.rows as u64];
        let strides = [(self.columns * size_of::<bf16>()) as u64];
        let box_dims = [self.box_shape.1 as u32, self.box_shape.0 as u32];
        let mut map = sys::CUtensorMap { opaque: [0; 16] };
        // SAFETY: the arrays have as many elements as the rank asks for; the address is only noted.
        let encoded = unsafe {
            sys::cuTensorMapEncodeTiled(
                &raw mut map,
                sys::CUtensorMapDataType::CU_TENSOR_MAP_DATA_TYPE_BFLOAT16,
                dims.len() as u32,
                address as *mut c_void,
                dims.as_ptr(),
                strides.as_ptr(),
                box_dims.as_ptr(),
                [1, 1].as_ptr(),
                sys::CUtensorMapInterleave::CU_TENSOR_MAP_INTERLEAVE_NONE,
                sys::CUtensorMapSwizzle::CU_TENSOR_MAP_SWIZZLE_128B,
                sys::CUtensorMapL2promotion::CU_TENSOR_MAP_L2_PROMOTION_L2_256B,
                sys::CUtensorMapFloatOOBfill::CU_TENSOR_MAP_FLOAT_OOB_FILL_NONE,
            )
        };
        let (rows, columns) = (self.rows, self.columns);
        encoded.result().map_err(|e| complaint(format!("tensor map of {name} [{rows}, {columns}]"), e))?;
        Ok(map.opaque)
    }
}
