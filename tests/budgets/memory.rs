//! Budgets of kernels that are bound by memory, and buffers for them.

use cuda_emulator::counters::Counters;
use deepguard::cuda::Cuda;
use deepguard::model::Weights;
use deepguard::ops::philox::{philox, unit};
use deepguard::ops::{Arena, Buffer, Device, Element};
use half::bf16;
use safetensors::tensor::{Dtype, TensorView, serialize_to_file};

use super::counting::{global_bytes, within};

/// Most bytes of global memory, as a part of what has to be read and written once.
const GLOBAL: f64 = 1.05;
/// Most wavefronts of shared memory, as a part of those without bank conflicts.
const SHARED: f64 = 1.05;

/// Holds a kernel to the budget; `bytes` is what has to be read and written.
pub fn check(what: &str, counters: &Counters, bytes: usize) {
    within(&format!("{what}: global memory"), global_bytes(counters), bytes, GLOBAL);
    if counters.shared_wavefronts_ideal > 0 {
        let (taken, ideal) = (counters.shared_wavefronts as usize, counters.shared_wavefronts_ideal as usize);
        within(&format!("{what}: shared memory"), taken, ideal, SHARED);
    }
    assert_eq!(counters.local_bytes, 0, "{what}: local memory");
}

/// Zeros.
pub fn buffer<T: Element>(cuda: &Cuda, len: usize) -> Buffer<Cuda, T> {
    Arena::build(cuda, |arena| arena.buffer("test", &[len])).expect("memory").0
}

/// Activations between −scale and scale.
pub fn random(cuda: &Cuda, len: usize, scale: f32) -> Buffer<Cuda, bf16> {
    let word = |i: usize| philox(5, [(i / 4) as u32, 0, 0, 0])[i % 4];
    let values: Vec<f32> = (0..len).map(|i| scale * (2.0 * unit(word(i)) - 1.0)).collect();
    let mut buffer = buffer(cuda, len);
    cuda.upload_act(buffer.view_mut(), &values);
    buffer
}

/// A frozen weight of zeros.
pub fn weight(cuda: &Cuda, rows: usize, columns: usize) -> <Cuda as Device>::Weight {
    let dir = tempfile::tempdir().expect("a folder");
    let zeros = vec![0; rows * columns * size_of::<bf16>()];
    let view = TensorView::new(Dtype::BF16, vec![rows, columns], &zeros).expect("a tensor");
    serialize_to_file([("weight", view)], None, &dir.path().join("model.safetensors")).expect("a file");
    let weights = Weights::open(dir.path()).expect("weights");
    cuda.load_weight(&[weights.tensor("weight").expect("the weight")]).expect("memory")
}

/// A buffer of given values.
pub fn holding<T: Element>(cuda: &Cuda, values: &[T]) -> Buffer<Cuda, T> {
    let mut buffer = buffer(cuda, values.len());
    cuda.upload(buffer.view_mut(), values);
    buffer
}
