use cudarc::driver::{CudaSlice, CudaView};
use deepguard::cpu::Cpu;
use deepguard::cuda::{Cuda, Gemm};
use deepguard::ops::Device;
use deepguard::ops::gemm::{Gemm as _, Matrix, MatrixMut, Transpose};
use deepguard::{ErrorKind, Result};
use half::bf16;

use super::support::*;

/// One of the two kernels.
type Product = fn(
    &Cuda,
    &mut CudaSlice<bf16>,
    &CudaSlice<bf16>,
    &CudaSlice<bf16>,
    Option<&CudaView<'_, f32>>,
    Gemm,
) -> Result<()>;

/// Less than a tile, a tile, several, each with and without a rest; rows of y that start on 16 bytes and that do not;
/// more tiles along k than there are stages.
const SHAPES: [Gemm; 8] = [
    Gemm { m: 1, n: 1, k: 8 },
    Gemm { m: 5, n: 24, k: 16 },
    Gemm { m: 128, n: 128, k: 64 },
    Gemm { m: 129, n: 67, k: 40 },
    Gemm { m: 3, n: 257, k: 136 },
    Gemm { m: 77, n: 136, k: 72 },
    Gemm { m: 200, n: 264, k: 520 },
    Gemm { m: 300, n: 131, k: 328 },
];

/// `x wᵀ + bias` on the CPU, unrounded.
fn twin(x: &[bf16], w: &[bf16], bias: Option<&[f32]>, size: Gemm) -> Vec<f32> {
    let Gemm { m, n, k } = size;
    let cpu = Cpu::new();
    let (x, w) = (on_cpu(&cpu, &wide(x)), on_cpu(&cpu, &wide(w)));
    let mut y = on_cpu(&cpu, &vec![f32::NAN; m * n]);
    let (x, w) = (Matrix::new(x.view(), m, k), Matrix::new(w.view(), n, k));
    cpu.matmul(MatrixMut::new(y.view_mut(), m, n), x, w, Transpose::Second, 1.0, 0.0);
    let mut y = cpu.to_host(y.view());
    for row in y.chunks_mut(n) {
        row.iter_mut().zip(bias.unwrap_or_default()).for_each(|(y, bias)| *y += bias);
    }
    y
}

fn products_are_right(name: &str, product: Product) {
    for (i, size) in SHAPES.into_iter().enumerate() {
        let Gemm { m, n, k } = size;
        let mut random = Random::new(i as u64);
        let (x, w, bias) = (random.bf16s(m * k, 2.0), random.bf16s(n * k, 0.5), random.f32s(n, 3.0));
        let (device_x, device_w, device_bias) = (up(&x), up(&w), up(&bias));
        for bias in [None, Some(&bias[..])] {
            let mut y = bf16_nans(m * n);
            let view = bias.map(|_| device_bias.as_view());
            checked(product(cuda(), &mut y, &device_x, &device_w, view.as_ref(), size));
            let what = format!("{name}, {size:?}, bias: {}", bias.is_some());
            check_bf16(&what, &down(&y), &twin(&x, &w, bias, size));
        }
    }
}

/// Small integers are exact in bf16 and so are their sums: any element in a wrong place shows, whatever the rounding.
fn integers_are_exact(name: &str, product: Product) {
    let size = Gemm { m: 133, n: 139, k: 200 };
    let Gemm { m, n, k } = size;
    let integers = |len: usize, step: usize, modulus: usize| -> Vec<bf16> {
        (0..len).map(|i| bf16::from_f32((i * step / 7 % modulus) as f32 - 1.0)).collect()
    };
    // Sparse enough that no sum leaves the 256 integers that bf16 holds exactly.
    let mut x = integers(m * k, 5, 3);
    x.iter_mut().enumerate().for_each(|(i, x)| {
        if i % 3 != 0 {
            *x = bf16::ZERO
        }
    });
    let w = integers(n * k, 11, 4);
    let mut y = bf16_nans(m * n);
    checked(product(cuda(), &mut y, &up(&x), &up(&w), None, size));
    let expected = twin(&x, &w, None, size);
    assert!(expected.iter().all(|e| e.abs() <= 256.0) && expected.iter().any(|e| *e != 0.0));
    assert_eq!(wide(&down(&y)), expected, "{name}");
}

fn what_does_not_fit_is_refused(product: Product) {
    let (x, w) = (up(&[bf16::ONE; 64]), up(&[bf16::ONE; 64]));
    let mut y = bf16_nans(64);
    let refused = |y: &mut CudaSlice<bf16>, m, n, k| {
        let error = product(cuda(), y, &x, &w, None, Gemm { m, n, k }).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Usage, "{error}");
        error.to_string()
    };
    for k in [0, 7, 9] {
        let error = refused(&mut y, 2, 2, k);
        assert!(
            error.ends_with(&format!("expected an inner dimension that is a multiple of 8, found {k}")),
            "{error}"
        );
    }
    assert!(refused(&mut y, 7, 8, 8).contains("expected 56 elements, found 64"));
    assert!(refused(&mut y, 1 << 40, 8, 8).ends_with("too large"));
    assert!(refused(&mut y, 8, 1 << 30, 8).ends_with("too large"));
    assert!(down(&y).iter().all(|y| y.is_nan()), "a refused launch ran");
}

#[test]
fn gemm_nt() {
    products_are_right("gemm_nt", Cuda::gemm_nt);
    integers_are_exact("gemm_nt", Cuda::gemm_nt);
    what_does_not_fit_is_refused(Cuda::gemm_nt);
}

#[test]
fn gemm_nt_sm90() {
    let info = cuda().info();
    if info.capability == 90 {
        products_are_right("gemm_nt_sm90", Cuda::gemm_nt_sm90);
        integers_are_exact("gemm_nt_sm90", Cuda::gemm_nt_sm90);
        what_does_not_fit_is_refused(Cuda::gemm_nt_sm90);
        return;
    }
    let (x, w) = (up(&[bf16::ONE; 64]), up(&[bf16::ONE; 64]));
    let error = cuda().gemm_nt_sm90(&mut bf16_nans(64), &x, &w, None, Gemm { m: 8, n: 8, k: 8 }).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Device);
    assert!(error.to_string().contains("expected compute capability 9.0, found 8.0"), "{error}");
}
