//! Our kernels on memory that candle has allocated, on the emulator, which this program is linked with as its driver.

use beside_candle::{Attention, Linear, finish};
use candle_core::{DType, Device, Result, Tensor};
use deepguard::cuda::Cuda;
use deepguard::ops::attention::Heads;

/// Devices of candle, and ours on the same memory: on candle's stream, or on one beside it. Candle's usual stream is that
/// of a thread, which is not one stream; slices of it are ordered by their events.
fn devices() -> Result<Vec<(Device, Cuda)>> {
    let with_stream = Device::new_cuda_with_stream(0)?;
    let usual = Device::new_cuda(0)?;
    let own = with_stream.as_cuda_device()?.cuda_stream();
    let beside = usual.as_cuda_device()?.cuda_stream().context().new_stream().expect("a stream");
    let open = |stream| Cuda::on_stream_with_ptx(stream).expect("a device with our kernels");
    Ok(vec![(with_stream, open(own)), (usual, open(beside))])
}

/// Waves `[rows, cols]` in bf16, on the CPU.
fn waves(rows: usize, cols: usize, step: f32) -> Result<Tensor> {
    let values: Vec<f32> = (0..rows * cols).map(|i| (i as f32 * step).sin()).collect();
    Tensor::from_vec(values, (rows, cols), &Device::Cpu)?.to_dtype(DType::BF16)
}

fn close(found: &Tensor, expected: &Tensor) -> Result<()> {
    let found = found.to_device(&Device::Cpu)?.to_dtype(DType::F32)?;
    let worst = (found - expected)?.abs()?.max_all()?.to_scalar::<f32>()?;
    let largest = expected.abs()?.max_all()?.to_scalar::<f32>()?;
    assert!(worst <= largest / 100.0, "off by {worst} of {largest}");
    Ok(())
}

#[test]
fn a_linear_layer_of_candle_tensors() -> Result<()> {
    for (device, cuda) in devices()? {
        for rows in [3, 70] {
            let (x, w) = (waves(rows, 64, 0.37)?, waves(40, 96, 0.11)?);
            // Some columns of a wider matrix, which nobody copies.
            let part = |w: &Tensor| w.narrow(1, 16, 64);
            let y = x.to_device(&device)?.apply_op2(&part(&w.to_device(&device)?)?, Linear(cuda.clone()))?;
            let (x, w) = (x.to_dtype(DType::F32)?, part(&w)?.to_dtype(DType::F32)?);
            close(&y, &x.matmul(&w.t()?)?)?;
            finish(&cuda)?;
        }
    }
    Ok(())
}

#[test]
fn attention_of_candle_tensors() -> Result<()> {
    let (heads, rows) = (Heads { query: 4, key_value: 2, dim: 16 }, 37);
    for (device, cuda) in devices()? {
        let qkv = waves(rows, heads.qkv_width(), 0.73)?;
        let parts = |qkv: &Tensor| -> Result<[Tensor; 3]> {
            let (q, kv) = (heads.q_width(), heads.kv_width());
            Ok([qkv.narrow(1, 0, q)?, qkv.narrow(1, q, kv)?, qkv.narrow(1, q + kv, kv)?])
        };
        let [q, k, v] = parts(&qkv.to_device(&device)?)?;
        let o = q.apply_op3(&k, &v, Attention(cuda.clone(), heads))?;
        close(&o, &reference(parts(&qkv.to_dtype(DType::F32)?)?, heads, rows)?)?;
        finish(&cuda)?;
    }
    Ok(())
}

/// The same, head by head, by candle on the CPU.
fn reference([q, k, v]: [Tensor; 3], heads: Heads, rows: usize) -> Result<Tensor> {
    let hidden: Vec<f32> =
        (0..rows * rows).map(|i| if i % rows > i / rows { f32::NEG_INFINITY } else { 0.0 }).collect();
    let hidden = Tensor::from_vec(hidden, (rows, rows), &Device::Cpu)?;
    let head = |head: usize| {
        let of = |x: &Tensor, head: usize| x.narrow(1, head * heads.dim, heads.dim)?.contiguous();
        let kv = head * heads.key_value / heads.query;
        let scores = (of(&q, head)?.matmul(&of(&k, kv)?.t()?)? * f64::from(heads.softmax_scale()))?;
        let weights = (scores + &hidden)?.exp()?;
        weights.broadcast_div(&weights.sum_keepdim(1)?)?.matmul(&of(&v, kv)?)
    };
    Tensor::cat(&(0..heads.query).map(head).collect::<Result<Vec<_>>>()?, 1)
}
