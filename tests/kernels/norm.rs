use deepguard::ErrorKind;
use deepguard::cpu::Cpu;
use deepguard::ops::Device;
use deepguard::ops::norm::Norm;
use half::bf16;

use super::support::*;

const EPS: f32 = 1e-5;

/// Rows and widths: single elements; in 16-byte vectors and not; less than a warp; more than a thread keeps in
/// registers, both ways.
const SHAPES: [(usize, usize); 8] =
    [(1, 1), (3, 7), (5, 8), (2, 31), (7, 576), (3, 1000), (2, 1303), (2, 8200)];

/// The rstd of a row, in f64.
fn exact_rstd(x: &[f32]) -> f64 {
    let squares: f64 = x.iter().map(|&x| f64::from(x) * f64::from(x)).sum();
    1.0 / (squares / x.len() as f64 + f64::from(EPS)).sqrt()
}

#[test]
fn rms_norm() {
    let (cuda, cpu) = (cuda(), Cpu::new());
    for (rows, width) in SHAPES {
        let mut random = Random::new(width as u64);
        let (x, weight) = (random.bf16s(rows * width, 3.0), random.f32s(width, 1.0));
        let (mut y, mut rstd) = (bf16_nans(rows * width), nans(rows));
        checked(cuda.rms_norm(&mut y, &mut rstd, &up(&x), &up(&weight), EPS));

        let (mut cpu_y, mut cpu_rstd) =
            (on_cpu(&cpu, &vec![f32::NAN; rows * width]), on_cpu(&cpu, &vec![f32::NAN; rows]));
        let (cpu_x, cpu_weight) = (on_cpu(&cpu, &wide(&x)), on_cpu(&cpu, &weight));
        cpu.rms_norm(cpu_y.view_mut(), cpu_rstd.view_mut(), cpu_x.view(), cpu_weight.view(), EPS);
        check_bf16(&format!("y of {rows} × {width}"), &down(&y), &cpu.to_host(cpu_y.view()));
        for (row, (found, x)) in down(&rstd).into_iter().zip(wide(&x).chunks(width)).enumerate() {
            // The sum of squares has no cancellation; four roundings end the computation.
            let (found, exact) = (f64::from(found), exact_rstd(x));
            let off = (found - exact).abs() / exact;
            assert!(
                off <= 4.0 * f64::from(f32::EPSILON),
                "rstd of row {row}, {rows} × {width}: {found} {exact}"
            );
        }
    }
}

#[test]
fn rms_norm_backward() {
    let (cuda, cpu) = (cuda(), Cpu::new());
    for (rows, width) in SHAPES {
        let mut random = Random::new(1000 + width as u64);
        let (x, dy) = (random.bf16s(rows * width, 3.0), random.bf16s(rows * width, 1.0));
        let (dx, weight) = (random.bf16s(rows * width, 0.5), random.f32s(width, 1.0));
        let rstd: Vec<f32> = wide(&x).chunks(width).map(|x| exact_rstd(x) as f32).collect();
        let mut dx_acc = up(&dx);
        checked(cuda.rms_norm_backward(&mut dx_acc, &up(&dy), &up(&x), &up(&rstd), &up(&weight)));

        let mut cpu_dx = on_cpu(&cpu, &wide(&dx));
        let (cpu_dy, cpu_x) = (on_cpu(&cpu, &wide(&dy)), on_cpu(&cpu, &wide(&x)));
        let (cpu_rstd, cpu_weight) = (on_cpu(&cpu, &rstd), on_cpu(&cpu, &weight));
        cpu.rms_norm_backward(
            cpu_dx.view_mut(),
            cpu_dy.view(),
            cpu_x.view(),
            cpu_rstd.view(),
            cpu_weight.view(),
        );
        check_bf16(&format!("dx of {rows} × {width}"), &down(&dx_acc), &cpu.to_host(cpu_dx.view()));
    }
}

#[test]
fn wrong_buffers_are_refused() {
    let cuda = cuda();
    let (x, weight) = (up(&[bf16::ONE; 32]), up(&[1.0f32; 16]));
    let (mut y, mut short, mut rstd) = (bf16_nans(32), bf16_nans(31), nans(2));
    let error = cuda.rms_norm(&mut short, &mut rstd, &x, &weight, EPS).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Usage);
    assert_eq!(error.to_string(), "kernel rms_norm: y: expected 32 elements, found 31");

    let (longer, mut one) = (up(&[bf16::ONE; 17]), nans(1));
    let error =
        cuda.rms_norm(&mut y.slice_mut(..16), &mut one, &longer.slice(1..), &weight, EPS).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Usage);
    assert!(error.to_string().contains("rms_norm: x: expected a start at a multiple of 16 bytes"), "{error}");
    assert!(down(&y).iter().all(|y| y.is_nan()), "a refused launch ran");
}

#[test]
fn no_rows_are_no_launch() {
    let (mut y, mut rstd) = (bf16_nans(1), nans(1));
    let (mut y, mut rstd) = (y.slice_mut(..0), rstd.slice_mut(..0));
    checked(cuda().rms_norm(&mut y, &mut rstd, &bf16_nans(1).slice(..0), &up(&[1.0f32; 8]), EPS));
}
