//! The emulated device, random operands, and comparisons.

use std::sync::OnceLock;

use cudarc::driver::{CudaSlice, DeviceRepr};
use deepguard::cpu::Cpu;
use deepguard::cuda::Cuda;
use deepguard::ops::philox::{philox, unit};
use deepguard::ops::{Arena, Buffer, Device, Element};
use half::bf16;

/// The emulator's device, with the kernels as PTX.
pub fn cuda() -> &'static Cuda {
    static CUDA: OnceLock<Cuda> = OnceLock::new();
    CUDA.get_or_init(|| {
        cuda_emulator::load().expect("the emulator");
        Cuda::with_ptx(0).expect("an emulated device; make toolkit, if there are no kernels")
    })
}

/// Unwraps, adding what the emulator has to say about a kernel that failed.
pub fn checked<T, E: std::fmt::Display>(result: Result<T, E>) -> T {
    result.unwrap_or_else(|error| {
        let fault = cuda_emulator::load().and_then(|emulator| emulator.last_fault());
        panic!("{error}\n{}", fault.unwrap_or_else(|e| e));
    })
}

/// Reproducible numbers in [-0.8, 1.2), neither centred nor symmetric: a forgotten sign shows.
pub struct Random {
    seed: u64,
    count: u32,
}

impl Random {
    pub fn new(seed: u64) -> Self {
        Random { seed, count: 0 }
    }

    fn next(&mut self) -> f32 {
        self.count += 1;
        2.0 * unit(philox(self.seed, [self.count, 0, 0, 0])[0]) - 0.8
    }

    pub fn f32s(&mut self, len: usize, scale: f32) -> Vec<f32> {
        (0..len).map(|_| scale * self.next()).collect()
    }

    pub fn bf16s(&mut self, len: usize, scale: f32) -> Vec<bf16> {
        self.f32s(len, scale).into_iter().map(bf16::from_f32).collect()
    }
}

pub fn wide(values: &[bf16]) -> Vec<f32> {
    values.iter().map(|v| v.to_f32()).collect()
}

/// The values on the device.
pub fn up<T: DeviceRepr>(values: &[T]) -> CudaSlice<T> {
    checked(cuda().stream().clone_htod(values))
}

/// Waits for everything and returns the values.
pub fn down<T: DeviceRepr>(values: &CudaSlice<T>) -> Vec<T> {
    checked(cuda().stream().clone_dtoh(values))
}

pub fn nans(len: usize) -> CudaSlice<f32> {
    up(&vec![f32::NAN; len])
}

pub fn bf16_nans(len: usize) -> CudaSlice<bf16> {
    up(&vec![bf16::NAN; len])
}

/// The values in a buffer of the CPU backend.
pub fn on_cpu<T: Element>(cpu: &Cpu, values: &[T]) -> Buffer<Cpu, T> {
    let (mut buffer, _) = Arena::build(cpu, |arena| arena.buffer("test", &[values.len()])).expect("memory");
    cpu.upload(buffer.view_mut(), values);
    buffer
}

/// Largest and root of the mean squared difference.
fn errors(found: &[f64], exact: &[f64]) -> [f64; 2] {
    assert_eq!(found.len(), exact.len());
    let differences = || found.iter().zip(exact).map(|(f, e)| (f - e).abs());
    // A comparison that NaN fails: `max` would skip it.
    let largest = differences().fold(0.0, |largest: f64, d| if d <= largest { largest } else { d });
    [largest, (differences().map(|d| d * d).sum::<f64>() / exact.len() as f64).sqrt()]
}

/// `found` may be off by twice what `baseline` is off by, at its worst and on average.
pub fn check(what: &str, found: &[f64], baseline: &[f64], exact: &[f64]) {
    assert!(exact.iter().all(|e| e.is_finite()), "{what}: the reference is not finite");
    let (found, allowed) = (errors(found, exact), errors(baseline, exact));
    for (name, found, allowed) in [("largest", found[0], allowed[0]), ("mean", found[1], allowed[1])] {
        assert!(
            found <= 2.0 * allowed,
            "{what}: {name} error {found:.3e}, that of the baseline {allowed:.3e}"
        );
    }
}

/// A bf16 result against f32 numbers of the CPU; the baseline is those numbers rounded.
pub fn check_bf16(what: &str, found: &[bf16], exact: &[f32]) {
    let rounded: Vec<f64> = exact.iter().map(|&e| bf16::from_f32(e).to_f64()).collect();
    let found: Vec<f64> = found.iter().map(|f| f.to_f64()).collect();
    check(what, &found, &rounded, &f64s(exact));
}

pub fn f64s(values: &[f32]) -> Vec<f64> {
    values.iter().map(|&v| f64::from(v)).collect()
}
