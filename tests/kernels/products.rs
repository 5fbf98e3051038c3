use cuda_emulator::counters::Counters;
use deepguard::cuda::Cuda;
use deepguard::ops::matmul::{Matmul, Transpose};
use deepguard::ops::matrix::{Matrix, MatrixMut};
use deepguard::ops::{Arena, Buffer, Device, Element};
use half::bf16;

use crate::emulator::{self, checked, cuda};

fn buffer<T: Element>(len: usize) -> Buffer<Cuda, T> {
    checked(Arena::build(cuda(), |arena| arena.buffer("test", &[len]))).0
}

fn counted(kernel: &str) -> Counters {
    checked(cuda().finish());
    let counters = checked(checked(cuda_emulator::load()).kernel_counters(kernel));
    assert!(counters.launches > 0, "{kernel} was not used");
    counters
}

/// Shared memory without bank conflicts, global memory in whole sectors, and nothing multiplied in vain.
#[test]
fn cuda_products_waste_nothing() {
    if emulator::on_a_gpu() {
        return emulator::skipped("the emulator counts");
    }
    let (m, n, k) = (1536, 1664, 64);
    for (transpose, kernel) in [
        (Transpose::Second, "gemm_nt_large"),
        (Transpose::None, "gemm_nn_large"),
        (Transpose::First, "gemm_tn_large"),
    ] {
        let (a, b, mut c) = (buffer::<bf16>(m * k), buffer::<bf16>(n * k), buffer::<bf16>(m * n));
        let a = if transpose == Transpose::First { (k, m, a) } else { (m, k, a) };
        let b = if transpose == Transpose::Second { (n, k, b) } else { (k, n, b) };
        let c = MatrixMut::new(c.view_mut(), m, n);
        cuda().matmul(
            c,
            Matrix::new(a.2.view(), a.0, a.1),
            Matrix::new(b.2.view(), b.0, b.1),
            transpose,
            // A factor, which the kernels for Hopper do not take.
            0.5,
            0.0,
        );
        let found = counted(kernel);
        assert_eq!(found.shared_wavefronts, found.shared_wavefronts_ideal, "{kernel}");
        assert_eq!(found.tensor_flops, (2 * m * n * k) as u64, "{kernel}");
        assert_eq!(found.global_load_sectors * 32, found.global_load_bytes, "{kernel}");
        assert_eq!(found.global_store_sectors * 32, (m * n * 2) as u64, "{kernel}");
        assert_eq!(found.local_bytes, 0, "{kernel}");
    }
}
