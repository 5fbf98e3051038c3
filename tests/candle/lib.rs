//! Our kernels as custom operations of candle, such as `x.apply_op2(&w, Linear(cuda))`.

use candle_core::backend::BackendStorage;
use candle_core::{CpuStorage, CudaStorage, CustomOp2, CustomOp3, Error, Layout, Result, Shape};
use deepguard::cuda::Cuda;
use deepguard::cuda::cudarc::driver::CudaView;
use deepguard::ops::Device;
use deepguard::ops::attention::{Attention as _, Heads, Qkv, Segment};
use deepguard::ops::linear::{Linear as _, Write};
use deepguard::ops::matrix::Matrix;
use half::bf16;

/// Rows, columns and stride of a tensor's matrix, and its elements from the first to the last.
fn matrix<'s>(storage: &'s CudaStorage, layout: &Layout) -> Result<([usize; 3], CudaView<'s, bf16>)> {
    let (rows, cols) = layout.shape().dims2()?;
    let &[stride, 1] = layout.stride() else {
        return Err(Error::msg("expected columns beside each other"));
    };
    let start = layout.start_offset();
    let end = start + rows.saturating_sub(1) * stride + cols;
    Ok(([rows, cols, stride], storage.as_cuda_slice::<bf16>()?.slice(start..end)))
}

/// `x Wᵀ`, x `[rows, in]` without gaps and W `[out, in]` in bf16.
pub struct Linear(pub Cuda);

impl CustomOp2 for Linear {
    fn name(&self) -> &'static str {
        "deepguard linear"
    }

    fn cpu_fwd(&self, _: &CpuStorage, _: &Layout, _: &CpuStorage, _: &Layout) -> Result<(CpuStorage, Shape)> {
        Err(Error::msg("on CUDA only"))
    }

    fn cuda_fwd(
        &self,
        x: &CudaStorage,
        x_layout: &Layout,
        w: &CudaStorage,
        w_layout: &Layout,
    ) -> Result<(CudaStorage, Shape)> {
        let Linear(cuda) = self;
        let ([rows, ..], x_view) = matrix(x, x_layout)?;
        let ([out, columns, stride], w_view) = matrix(w, w_layout)?;
        let mut y = x.device().alloc_zeros::<bf16>(rows * out)?;
        {
            let (x, w) = (cuda.view(&x_view).map_err(Error::wrap)?, cuda.view(&w_view).map_err(Error::wrap)?);
            let mut y = cuda.view_mut(&mut y).map_err(Error::wrap)?;
            let weight = cuda.weight(Matrix::strided(w.get(), out, columns, stride)).map_err(Error::wrap)?;
            cuda.linear(y.get(), x.get(), &weight, None, &[], Write::Overwrite);
        }
        Ok((CudaStorage::wrap_cuda_slice(y, x.device().clone()), (rows, out).into()))
    }
}

/// Causal attention of one sequence: q `[rows, q_width]`, k and v `[rows, kv_width]` in bf16, with any
/// strides.
pub struct Attention(pub Cuda, pub Heads);

impl CustomOp3 for Attention {
    fn name(&self) -> &'static str {
        "deepguard attention"
    }

    fn cpu_fwd(
        &self,
        _: &CpuStorage,
        _: &Layout,
        _: &CpuStorage,
        _: &Layout,
        _: &CpuStorage,
        _: &Layout,
    ) -> Result<(CpuStorage, Shape)> {
        Err(Error::msg("on CUDA only"))
    }

    fn cuda_fwd(
        &self,
        q: &CudaStorage,
        q_layout: &Layout,
        k: &CudaStorage,
        k_layout: &Layout,
        v: &CudaStorage,
        v_layout: &Layout,
    ) -> Result<(CudaStorage, Shape)> {
        let (Attention(cuda, heads), device) = (self, q.device());
        let [(q, q_view), (k, k_view), (v, v_view)] =
            [matrix(q, q_layout)?, matrix(k, k_layout)?, matrix(v, v_layout)?];
        let [rows, width, _] = q;
        let mut o = device.alloc_zeros::<bf16>(rows * width)?;
        let mut lse = device.alloc_zeros::<f32>(rows * heads.query)?;
        {
            let views = [cuda.view(&q_view), cuda.view(&k_view), cuda.view(&v_view)];
            let views = views.into_iter().collect::<std::result::Result<Vec<_>, _>>().map_err(Error::wrap)?;
            let of = |i: usize, [rows, cols, stride]: [usize; 3]| Matrix::strided(views[i].get(), rows, cols, stride);
            let qkv = Qkv { q: of(0, q), k: of(1, k), v: of(2, v) };
            let mut o = cuda.view_mut(&mut o).map_err(Error::wrap)?;
            let mut lse = cuda.view_mut(&mut lse).map_err(Error::wrap)?;
            let all = Segment { start: 0, len: rows as u32, prefix_start: 0, prefix_len: 0 };
            cuda.attention(o.get(), lse.get(), qkv, &[all], *heads);
        }
        Ok((CudaStorage::wrap_cuda_slice(o, device.clone()), (rows, width).into()))
    }
}

/// What operations have refused so far, if anything.
pub fn finish(cuda: &Cuda) -> Result<()> {
    cuda.finish().map_err(Error::wrap)
}
