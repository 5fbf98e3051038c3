//! AdamW and the gradient norm, as written in `ops/optim.rs`.

use cudarc::driver::{DevicePtr, DevicePtrMut};

use super::Cuda;
use super::driver::complaint;
use super::launch::{Launch, Shape, VECTOR};
use super::tile::{ELEMENT_THREADS, SUM_CHUNK, SUM_THREADS};
use crate::error::{Error, Result};
use crate::ops::optim::AdamW;

/// Blocks for each multiprocessor in kernels that go over everything with a fixed grid: enough to keep it busy.
const BLOCKS_PER_MULTIPROCESSOR: usize = 8;

/// What the kernel needs of an update; the same fields in the same order as `AdamWConstants` in `kernels/optim.cu`.
/// Derived in f64, as 1 − 0.999 has only four good digits in f32.
#[derive(Clone, Copy, bytemuck::Pod, bytemuck::Zeroable)]
#[repr(C)]
struct Constants {
    keep: f32,
    step: f32,
    root_correction: f32,
    beta1: f32,
    beta2: f32,
    gain1: f32,
    gain2: f32,
    eps: f32,
    grad_scale: f32,
}

impl Constants {
    fn new(s: AdamW) -> Self {
        Constants {
            keep: (1.0 - s.lr * s.weight_decay) as f32,
            step: (s.lr / (1.0 - s.beta1.powi(s.t as i32))) as f32,
            root_correction: (1.0 / (1.0 - s.beta2.powi(s.t as i32)).sqrt()) as f32,
            beta1: s.beta1 as f32,
            beta2: s.beta2 as f32,
            gain1: (1.0 - s.beta1) as f32,
            gain2: (1.0 - s.beta2) as f32,
            eps: s.eps as f32,
            grad_scale: s.grad_scale as f32,
        }
    }
}

impl Cuda {
    /// Updates params, m and v in place from grads; all `[n]`.
    ///
    /// Usage errors: different lengths, or a start that is not at a multiple of 16 bytes.
    pub fn adamw(
        &self,
        params: &mut impl DevicePtrMut<f32>,
        m: &mut impl DevicePtrMut<f32>,
        v: &mut impl DevicePtrMut<f32>,
        grads: &impl DevicePtr<f32>,
        step: AdamW,
    ) -> Result<()> {
        let n = params.len();
        if n == 0 {
            return Ok(());
        }
        let busy = self.info.multiprocessors as usize * BLOCKS_PER_MULTIPROCESSOR;
        let blocks = n.div_ceil(4 * ELEMENT_THREADS).min(busy);
        Launch::new(&self.kernels.adamw, &self.stream)
            .write("params", params, n, VECTOR)?
            .write("m", m, n, VECTOR)?
            .write("v", v, n, VECTOR)?
            .read("grads", grads, n, VECTOR)?
            .value(n as u64)
            .value(Constants::new(step))
            .run(Shape { grid: (blocks, 1), block: ELEMENT_THREADS, shared: 0 })
    }

    /// `Σ x²` in f64, in an order that depends on the length alone; NaN or infinite if any element is. Waits for it.
    ///
    /// Usage errors: a start that is not at a multiple of 16 bytes. Device errors: no memory for the partial sums.
    pub fn sum_of_squares(&self, x: &impl DevicePtr<f32>) -> Result<f64> {
        let n = x.len();
        if n == 0 {
            return Ok(0.0);
        }
        let what = |e| complaint("sum of squares", e);
        let blocks = n.div_ceil(SUM_CHUNK);
        let number = i32::try_from(blocks);
        let number = number.map_err(|_| Error::usage(format!("sum of {n} squares: too many")))?;
        let mut partial = self.stream.alloc_zeros::<f64>(blocks).map_err(what)?;
        let mut total = self.stream.alloc_zeros::<f64>(1).map_err(what)?;
        Launch::new(&self.kernels.sum_of_squares, &self.stream)
            .write("partial", &mut partial, blocks, 8)?
            .read("x", x, n, VECTOR)?
            .value(n as u64)
            .run(Shape { grid: (blocks, 1), block: SUM_THREADS, shared: 0 })?;
        Launch::new(&self.kernels.sum_of_partials, &self.stream)
            .write("total", &mut total, 1, 8)?
            .read("partial", &partial, blocks, 8)?
            .value(number)
            .run(Shape { grid: (1, 1), block: SUM_THREADS, shared: 0 })?;
        Ok(self.stream.clone_dtoh(&total).map_err(what)?[0])
    }
}
