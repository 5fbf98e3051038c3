//! Launching kernels. Nothing else here starts code on the device.
//!
//! Rust cannot see into a kernel, so a launch is safe as far as three things agree: the number and sizes of
//! the parameters, which are compared with those that the compiler reports (structs are generated from the
//! kernels' own declarations); the elements behind every pointer, of which [`Launch::read`] and
//! [`Launch::write`] are told how many the kernel accesses; and the meaning of both, for which kernel and
//! wrapper have to be read side by side.

use std::ffi::c_void;
use std::sync::Arc;

use cudarc::driver::sys::{self, CUfunction_attribute};
use cudarc::driver::{CudaContext, CudaFunction, CudaModule, result};
use cudarc::nvrtc::Ptx;
use half::bf16;

use super::Cuda;
use super::driver::complaint;
use super::graph::Node;
use super::images::{Code, Image, KernelInfo, lowered};
use crate::error::{Error, Result};
use crate::ops::matrix::Matrix;
use crate::ops::{Element, Mut, Ref};

/// Alignment that kernels with 16-byte accesses require.
pub(super) const VECTOR: usize = 16;

/// Elements from one row of a frozen weight to the next.
pub(super) fn weight_stride(columns: usize) -> usize {
    columns.next_multiple_of(VECTOR / size_of::<bf16>())
}

/// A compiled file on a device.
pub(super) struct Module {
    module: Arc<CudaModule>,
}

impl Module {
    /// Hands the code to the driver, PTX in an older version if the driver is older than the compiler.
    pub fn load(context: &Arc<CudaContext>, image: &'static Image, older_driver: bool) -> Result<Self> {
        let code = match image.code {
            Code::Cubin(bytes) => Ptx::from_binary(bytes.to_vec()),
            Code::Ptx(text) if older_driver => Ptx::from_src(lowered(text)),
            Code::Ptx(text) => Ptx::from_src(text),
        };
        let module = context.load_module(code).map_err(|e| {
            complaint(format!("kernels/{}.cu ({} for sm_{})", image.file, image.code.name(), image.arch), e)
        })?;
        Ok(Module { module })
    }

    /// A kernel of the file, which may use up to `shared` bytes of shared memory: more than 48 KiB have to be
    /// asked for beforehand.
    pub fn kernel(&self, info: &'static KernelInfo, shared: usize) -> Result<Kernel> {
        let what = || format!("kernel {}", info.name);
        let function = self.module.load_function(info.name).map_err(|e| complaint(what(), e))?;
        let own = function.get_attribute(CUfunction_attribute::CU_FUNC_ATTRIBUTE_SHARED_SIZE_BYTES);
        let dynamic = shared as i32 - own.map_err(|e| complaint(what(), e))?;
        let attribute = CUfunction_attribute::CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES;
        function.set_attribute(attribute, dynamic).map_err(|e| complaint(what(), e))?;
        Ok(Kernel { info, function })
    }
}

/// A kernel on a device.
pub(super) struct Kernel {
    info: &'static KernelInfo,
    function: CudaFunction,
}

/// Grid, block and dynamic shared memory of a launch.
#[derive(Clone, Copy, Debug)]
pub(super) struct Shape {
    /// Blocks along x, y and z.
    pub grid: (usize, usize, usize),
    /// Threads of a block.
    pub block: usize,
    /// Bytes of dynamic shared memory.
    pub shared: usize,
}

impl Shape {
    /// Blocks along x alone, without dynamic shared memory.
    pub fn line(blocks: usize, block: usize) -> Self {
        Shape { grid: (blocks, 1, 1), block, shared: 0 }
    }

    /// Whether the grid has no blocks.
    fn is_empty(self) -> bool {
        let (x, y, z) = self.grid;
        x * y * z == 0
    }
}

/// A builder of a launch: parameters in the kernel's order, then [`run`](Self::run), which reports the first
/// problem found.
#[must_use]
pub(super) struct Launch<'a> {
    cuda: &'a Cuda,
    name: &'static str,
    /// All parameters, each at a multiple of 16 bytes.
    bytes: Vec<Block>,
    /// Start in `bytes`, and length in bytes.
    parameters: Vec<(usize, usize)>,
    cooperative: bool,
    problem: Option<Error>,
}

/// Keeps parameters aligned.
#[derive(Clone, Copy, bytemuck::Pod, bytemuck::Zeroable)]
#[repr(C, align(16))]
struct Block([u8; 16]);

impl Cuda {
    /// Starts to build a launch of a kernel.
    pub(super) fn launch(&self, name: &'static str) -> Launch<'_> {
        let (bytes, parameters) = (Vec::new(), Vec::new());
        Launch { cuda: self, name, bytes, parameters, cooperative: false, problem: None }
    }
}

impl Launch<'_> {
    /// A buffer, at a multiple of `alignment` bytes, of which the kernel writes up to `len` elements.
    pub fn write<T: Element>(
        self,
        name: &str,
        buffer: &Mut<'_, Cuda, T>,
        len: usize,
        alignment: usize,
    ) -> Self {
        self.pointer(name, (buffer.address(), buffer.len()), len, alignment)
    }

    /// A buffer, at a multiple of `alignment` bytes, of which the kernel reads up to `len` elements.
    pub fn read<T: Element>(
        self,
        name: &str,
        buffer: Ref<'_, Cuda, T>,
        len: usize,
        alignment: usize,
    ) -> Self {
        self.pointer(name, (buffer.address(), buffer.len()), len, alignment)
    }

    /// A buffer that the kernel reads, or a null pointer.
    pub fn read_optional<T: Element>(
        self,
        name: &str,
        buffer: Option<Ref<'_, Cuda, T>>,
        len: usize,
        alignment: usize,
    ) -> Self {
        match buffer {
            Some(buffer) => self.read(name, buffer, len, alignment),
            None => self.value(0u64),
        }
    }

    /// A buffer that the kernel writes, or a null pointer.
    pub fn write_optional<T: Element>(
        self,
        name: &str,
        buffer: Option<&Mut<'_, Cuda, T>>,
        len: usize,
        alignment: usize,
    ) -> Self {
        self.read_optional(name, buffer.map(Mut::view), len, alignment)
    }

    /// A buffer that the kernel reads, whose address goes into a structure that is passed by value.
    pub fn reads<T: Element>(
        self,
        to: &mut u64,
        name: &str,
        buffer: Ref<'_, Cuda, T>,
        len: usize,
        alignment: usize,
    ) -> Self {
        *to = buffer.address() as u64;
        self.check(name, (buffer.address(), buffer.len()), len, alignment)
    }

    /// A buffer that the kernel writes, whose address goes into a structure that is passed by value.
    pub fn writes<T: Element>(
        self,
        to: &mut u64,
        name: &str,
        buffer: &Mut<'_, Cuda, T>,
        len: usize,
        alignment: usize,
    ) -> Self {
        self.reads(to, name, buffer.view(), len, alignment)
    }

    /// A tensor map of a matrix that the kernel reads.
    pub fn read_tiled(self, name: &str, buffer: Ref<'_, Cuda, bf16>, matrix: &TiledMatrix) -> Self {
        let address = buffer.address();
        self.check(name, (address, buffer.len()), matrix.rows * matrix.columns, VECTOR)
            .tiled(name, address, matrix)
    }

    /// A tensor map for a structure passed by value.
    pub fn tensor_map(
        self,
        to: &mut TensorMap,
        name: &str,
        buffer: Ref<'_, Cuda, bf16>,
        matrix: &TiledMatrix,
    ) -> Self {
        let address = buffer.address();
        let checked = self.check(name, (address, buffer.len()), matrix.rows * matrix.columns, VECTOR);
        let map = matrix.encode(checked.cuda, name, address as u64);
        checked.keep_map(to, map)
    }

    /// A tensor map of heads that the kernel reads, for a structure passed by value.
    pub fn heads_map(self, to: &mut TensorMap, name: &str, heads: &PackedHeads<'_>) -> Self {
        let (data, extent) = (heads.matrix.data, heads.matrix.extent());
        let checked = self.check(name, (data.address(), data.len()), extent, VECTOR);
        let map = heads.encode(checked.cuda, name);
        checked.keep_map(to, map)
    }

    fn keep_map(self, to: &mut TensorMap, map: Result<TensorMap>) -> Self {
        match map {
            Ok(map) => {
                *to = map;
                self
            }
            Err(error) => self.fail(error),
        }
    }

    /// Two parameters for a matrix that the kernel writes: its tensor map, which is empty if the number of
    /// columns is no multiple of 8, as such rows cannot be described; and its address.
    pub fn write_tiled(self, name: &str, buffer: &Mut<'_, Cuda, bf16>, matrix: &TiledMatrix) -> Self {
        let address = buffer.address();
        let checked = self.check(name, (address, buffer.len()), matrix.rows * matrix.columns, VECTOR);
        let mapped = match matrix.columns.is_multiple_of(8) {
            true => checked.tiled(name, address, matrix),
            false => checked.value([0u64; 16]),
        };
        mapped.value(address as u64)
    }

    /// The same without its address, of as many columns as can be described.
    pub fn write_map(self, name: &str, buffer: &Mut<'_, Cuda, bf16>, matrix: &TiledMatrix) -> Self {
        self.read_tiled(name, buffer.view(), matrix)
    }

    fn tiled(self, name: &str, address: usize, matrix: &TiledMatrix) -> Self {
        match matrix.encode(self.cuda, name, address as u64) {
            Ok(map) => self.value(map),
            Err(error) => self.fail(error),
        }
    }

    fn pointer(self, name: &str, found: (usize, usize), len: usize, alignment: usize) -> Self {
        let address = found.0 as u64;
        self.check(name, found, len, alignment).value(address)
    }

    fn check(self, name: &str, (address, found): (usize, usize), len: usize, alignment: usize) -> Self {
        let problem = if found < len {
            format!("expected {len} elements, found {found}")
        } else if !address.is_multiple_of(alignment) {
            format!("expected a start at a multiple of {alignment} bytes, found {address:#x}")
        } else {
            return self;
        };
        let error = Error::internal(format!("kernel {}: {name}: {problem}", self.name));
        self.fail(error)
    }

    fn fail(mut self, error: Error) -> Self {
        self.problem.get_or_insert(error);
        self
    }

    /// A parameter that is passed by value.
    pub fn value<T: bytemuck::Pod>(mut self, value: T) -> Self {
        let from = bytemuck::bytes_of(&value);
        let start = self.bytes.len();
        self.bytes.resize(start + from.len().div_ceil(size_of::<Block>()), Block([0; 16]));
        bytemuck::cast_slice_mut(&mut self.bytes[start..])[..from.len()].copy_from_slice(from);
        self.parameters.push((start * size_of::<Block>(), from.len()));
        self
    }

    /// A number of rows or columns, which a kernel takes as `int`.
    pub fn int(self, name: &str, number: usize) -> Self {
        match i32::try_from(number) {
            Ok(number) => self.value(number),
            Err(_) => {
                let error = Error::internal(format!("kernel {}: {name}: {number} are too many", self.name));
                self.value(0i32).fail(error)
            }
        }
    }

    /// Where the kernel leaves what it refuses.
    pub fn refusal(self) -> Self {
        let address = self.cuda.refusals().address();
        self.value(address)
    }

    /// Makes the launch a cooperative one: all blocks are resident at the same time, so that they may wait
    /// for each other. A grid that the device cannot hold is an error.
    pub fn cooperative(mut self) -> Self {
        self.cooperative = true;
        self
    }

    /// Starts the kernel, which runs when all earlier work of the stream is done. What goes wrong is kept for
    /// [`finish`](crate::ops::Device::finish); nothing is started after that. An empty grid is no launch.
    pub fn run(mut self, shape: Shape) {
        let cuda = self.cuda;
        if shape.is_empty() || cuda.has_failed() {
            return;
        }
        if let Err(error) = self.start(shape) {
            cuda.fail(error);
        }
    }

    fn start(&mut self, shape: Shape) -> Result<()> {
        let (cuda, name) = (self.cuda, self.name);
        if let Some(problem) = self.problem.take() {
            return Err(problem);
        }
        let kernel = cuda.kernel(name)?;
        let found: Vec<usize> = self.parameters.iter().map(|&(_, len)| len).collect();
        if found != kernel.info.parameters {
            let expected = kernel.info.parameters;
            let sizes = format!("expected parameters of {expected:?} bytes, found {found:?}");
            return Err(Error::internal(format!("kernel {name}: {sizes}")));
        }
        let (x, y, z) = shape.grid;
        let what =
            || format!("kernel {name}: a grid of {x} × {y} × {z} blocks, {} threads each", shape.block);
        let number = |n: usize| u32::try_from(n).map_err(|_| Error::usage(format!("{}: too many", what())));
        let (grid, block) = ((number(x)?, number(y)?, number(z)?), (number(shape.block)?, 1, 1));
        let shared = number(shape.shared)?;
        let base: *mut u8 = self.bytes.as_mut_ptr().cast();
        // SAFETY: `value` put every start inside of `bytes`.
        let pointer = |&(start, _): &(usize, usize)| unsafe { base.add(start) }.cast::<c_void>();
        let mut pointers: Vec<*mut c_void> = self.parameters.iter().map(pointer).collect();
        cuda.stream().context().bind_to_thread().map_err(|e| complaint(what(), e))?;
        let (function, stream) = (kernel.function.cu_function(), cuda.stream().cu_stream());
        // SAFETY: the function's module is kept alive by the kernel. Parameters are as many and as large as
        // the compiler says, and are copied before the call returns. Buffers are pieces of an allocation that
        // is only freed after a wait for the stream (`Memory`), or memory that stays as `Ref::from_raw` asks
        // (of a slice of cudarc: until the use that its view records is over); they are as long as the
        // wrapper says that the kernel needs, and those that it writes are borrowed exclusively.
        let launched = unsafe {
            match self.cooperative {
                true => {
                    result::launch_cooperative_kernel(function, grid, block, shared, stream, &mut pointers)
                }
                false => result::launch_kernel(function, grid, block, shared, stream, &mut pointers),
            }
        };
        launched.map_err(|e| complaint(what(), e))?;
        cuda.recorded(if self.cooperative { Node::CooperativeKernel } else { Node::Kernel });
        cuda.launched(name)
    }
}

/// A descriptor for the tensor memory accelerator; opaque.
pub(super) type TensorMap = [u64; 16];

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
    fn encode(&self, cuda: &Cuda, name: &str, address: u64) -> Result<TensorMap> {
        let (rows, columns) = (self.rows, self.columns);
        let tensor = Tensor {
            address,
            dims: [columns as u64, rows as u64],
            strides: [0, columns * size_of::<bf16>()].map(|bytes| bytes as u64),
            box_dims: [self.box_shape.1, self.box_shape.0].map(|n| n as u32),
        };
        tensor.encode(cuda, || format!("tensor map of {name} [{rows}, {columns}]"))
    }
}

/// Heads of packed rows as the tensor memory accelerator sees them. Boxes have 64 elements of some heads, and
/// rows that may end before the box does, after any row: the rest of it is zeros.
pub(super) struct PackedHeads<'a> {
    /// `[rows, heads · dim]`.
    pub matrix: Matrix<'a, Cuda, bf16>,
    /// Elements of a head, a multiple of 8.
    pub dim: usize,
    /// Rows and heads of a box.
    pub box_shape: (usize, usize),
}

impl PackedHeads<'_> {
    /// The descriptor. Row `r` is the sum of two coordinates: one of as many as a box has rows, at whose end
    /// the rows end, and one that begins as many rows before the matrix.
    fn encode(&self, cuda: &Cuda, name: &str) -> Result<TensorMap> {
        let Matrix { data, rows, cols, stride } = self.matrix;
        let what = || format!("tensor map of {name} [{rows}, {cols}]");
        let (box_rows, box_heads) = self.box_shape;
        // A single row has no next one, and so any stride.
        let row = size_of::<bf16>() * if rows > 1 { stride } else { cols };
        let address = (data.address() as u64).checked_sub((box_rows * row) as u64);
        let tensor = Tensor {
            address: address.ok_or_else(|| Error::internal(format!("{}: too long a stride", what())))?,
            dims: [self.dim, cols / self.dim, box_rows, rows + 1].map(|n| n as u64),
            strides: [0, self.dim * size_of::<bf16>(), row, row].map(|bytes| bytes as u64),
            box_dims: [BOX_COLUMNS, box_heads, box_rows, 1].map(|n| n as u32),
        };
        tensor.encode(cuda, what)
    }
}

/// Elements of the 128 bytes of the swizzle.
const BOX_COLUMNS: usize = 64;

/// A tensor of bf16, its innermost dimension first.
struct Tensor<const RANK: usize> {
    address: u64,
    dims: [u64; RANK],
    /// In bytes; that of the innermost dimension is not used.
    strides: [u64; RANK],
    box_dims: [u32; RANK],
}

impl<const RANK: usize> Tensor<RANK> {
    fn encode(&self, cuda: &Cuda, what: impl Fn() -> String) -> Result<TensorMap> {
        // The driver may ask for a context, and this may be the thread's first call.
        cuda.stream().context().bind_to_thread().map_err(|e| complaint(what(), e))?;
        let mut map = sys::CUtensorMap { opaque: [0; 16] };
        // SAFETY: the arrays have as many elements as the rank asks for; the address is only noted.
        let encoded = unsafe {
            sys::cuTensorMapEncodeTiled(
                &raw mut map,
                sys::CUtensorMapDataType::CU_TENSOR_MAP_DATA_TYPE_BFLOAT16,
                RANK as u32,
                self.address as *mut c_void,
                self.dims.as_ptr(),
                self.strides[1..].as_ptr(),
                self.box_dims.as_ptr(),
                [1; RANK].as_ptr(),
                sys::CUtensorMapInterleave::CU_TENSOR_MAP_INTERLEAVE_NONE,
                sys::CUtensorMapSwizzle::CU_TENSOR_MAP_SWIZZLE_128B,
                sys::CUtensorMapL2promotion::CU_TENSOR_MAP_L2_PROMOTION_L2_256B,
                sys::CUtensorMapFloatOOBfill::CU_TENSOR_MAP_FLOAT_OOB_FILL_NONE,
            )
        };
        encoded.result().map_err(|e| complaint(what(), e))?;
        Ok(map.opaque)
    }
}
