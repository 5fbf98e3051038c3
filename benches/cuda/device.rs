//! Timing on the device, and what it can do at best.

use std::time::Duration;

use criterion::Criterion;
use cudarc::driver::sys::{CUdevice_attribute as Attribute, CUevent_flags};
use deepguard::cuda::Cuda;
use deepguard::ops::philox::philox;
use deepguard::ops::{Arena, Buffer, Device as _, Element};
use half::bf16;

/// More than any second-level cache holds.
const FLUSH_BYTES: usize = 256 << 20;
/// Random numbers before the same ones come again: not a power of two, so that rows differ.
const PERIOD: usize = 1_000_003;
/// Multiply-adds in bf16 of a multiprocessor's tensor cores in a cycle, by compute capability.
const TENSOR: [(u32, f64); 6] =
    [(80, 1024.0), (86, 512.0), (89, 512.0), (90, 2048.0), (100, 4096.0), (120, 512.0)];

/// A device and how large the cases may be on it.
pub struct Device {
    pub cuda: Cuda,
    /// Once each and small, to see that everything runs.
    pub testing: bool,
    flush: std::cell::RefCell<Buffer<Cuda, u32>>,
}

/// The bound of a case: floating-point operations or bytes of memory.
#[derive(Clone, Copy)]
pub enum Work {
    Flops(f64),
    Bytes(f64),
}

impl Device {
    pub fn new(cuda: Cuda, testing: bool) -> Self {
        let words = if testing { 64 } else { FLUSH_BYTES / 4 };
        let flush = Arena::build(&cuda, |arena| arena.buffer("flush", &[words])).expect("memory").0;
        Device { cuda, testing, flush: flush.into() }
    }

    fn attribute(&self, attribute: Attribute) -> f64 {
        f64::from(self.cuda.stream().context().attribute(attribute).unwrap_or(0))
    }

    /// Bytes a second of the memory: two transfers a cycle.
    fn peak_bytes(&self) -> f64 {
        let clock = self.attribute(Attribute::CU_DEVICE_ATTRIBUTE_MEMORY_CLOCK_RATE) * 1e3;
        2.0 * clock * self.attribute(Attribute::CU_DEVICE_ATTRIBUTE_GLOBAL_MEMORY_BUS_WIDTH) / 8.0
    }

    /// Operations a second of the tensor cores in bf16 at the highest clock.
    fn peak_flops(&self) -> f64 {
        let info = self.cuda.info();
        let per_cycle = TENSOR.iter().rev().find(|(capability, _)| info.capability >= *capability);
        let clock = self.attribute(Attribute::CU_DEVICE_ATTRIBUTE_CLOCK_RATE) * 1e3;
        2.0 * per_cycle.map_or(0.0, |(_, n)| *n) * f64::from(info.multiprocessors) * clock
    }

    pub fn describe(&self) -> String {
        format!(
            "{}: peak {:.0} TFLOP/s in bf16, {:.0} GB/s",
            self.cuda.info().name,
            self.peak_flops() / 1e12,
            self.peak_bytes() / 1e9
        )
    }

    /// Rows, or 16 of them where everything only has to run.
    pub fn rows(&self, rows: usize) -> usize {
        if self.testing { 16 } else { rows }
    }

    /// A width, or a small one where everything only has to run.
    pub fn width(&self, width: usize) -> usize {
        if self.testing { 64 } else { width }
    }

    pub fn zeros<T: Element>(&self, shape: &[usize]) -> Buffer<Cuda, T> {
        Arena::build(&self.cuda, |arena| arena.buffer("bench", shape)).expect("memory").0
    }

    /// Random numbers in [-0.5, 0.5), again after a million; a GPU is faster on zeros.
    pub fn random(&self, shape: &[usize]) -> Buffer<Cuda, bf16> {
        let mut out = self.zeros::<bf16>(shape);
        let number = |i: usize| philox(1, [i as u32, 0, 0, 0])[0] as f32 / u32::MAX as f32 - 0.5;
        let period: Vec<f32> = (0..out.len().min(PERIOD)).map(number).collect();
        let values: Vec<f32> = period.iter().copied().cycle().take(out.len()).collect();
        self.cuda.upload_act(out.view_mut(), &values);
        out
    }

    pub fn random_f32(&self, shape: &[usize]) -> Buffer<Cuda, f32> {
        let mut out = self.zeros::<f32>(shape);
        let number = |i: usize| philox(2, [i as u32, 0, 0, 0])[0] as f32 / u32::MAX as f32 - 0.5;
        let period: Vec<f32> = (0..out.len().min(PERIOD)).map(number).collect();
        let values: Vec<f32> = period.iter().copied().cycle().take(out.len()).collect();
        self.cuda.upload(out.view_mut(), &values);
        out
    }

    /// Device time of one run, after the cache has been filled with something else.
    fn time(&self, run: &mut dyn FnMut()) -> Duration {
        let stream = self.cuda.stream();
        let flags = Some(CUevent_flags::CU_EVENT_DEFAULT);
        self.cuda.zero(self.flush.borrow_mut().view_mut());
        let start = stream.record_event(flags).expect("an event");
        run();
        let end = stream.record_event(flags).expect("an event");
        self.cuda.finish().expect("a run without errors");
        Duration::from_secs_f32(start.elapsed_ms(&end).expect("two events that are over") / 1e3)
    }

    /// Time of `run`, which ends with a wait, by the host's clock; prints how many of `items` that is a
    /// second.
    pub fn measure_steps(
        &self,
        criterion: &mut Criterion,
        name: &str,
        items: (f64, &str),
        mut run: impl FnMut() -> Duration,
    ) {
        let mut best = Duration::MAX;
        criterion.bench_function(name, |bencher| {
            bencher.iter_custom(|iterations| {
                let times: Vec<Duration> = (0..iterations).map(|_| run()).collect();
                best = times.iter().copied().fold(best, Duration::min);
                times.iter().sum()
            });
        });
        if !self.testing {
            let (count, what) = items;
            let seconds = best.as_secs_f64();
            println!("{name}: best {:.2} ms, {:.0} {what}/s", seconds * 1e3, count / seconds);
        }
    }

    /// Measures `run` and prints its rate as well.
    pub fn measure(&self, criterion: &mut Criterion, name: &str, work: Work, mut run: impl FnMut()) {
        let mut best = Duration::MAX;
        criterion.bench_function(name, |bencher| {
            bencher.iter_custom(|iterations| {
                let times: Vec<Duration> = (0..iterations).map(|_| self.time(&mut run)).collect();
                best = times.iter().copied().fold(best, Duration::min);
                times.iter().sum()
            });
        });
        if self.testing {
            return;
        }
        let seconds = best.as_secs_f64();
        let (rate, unit, peak) = match work {
            Work::Flops(flops) => (flops / seconds, "TFLOP/s", self.peak_flops()),
            Work::Bytes(bytes) => (bytes / seconds, "GB/s", self.peak_bytes()),
        };
        let scale = if unit == "TFLOP/s" { 1e12 } else { 1e9 };
        let per_cent = 100.0 * rate / peak;
        println!(
            "{name}: best {:.1} µs, {:.1} {unit}, {per_cent:.0} % of the peak",
            seconds * 1e6,
            rate / scale
        );
    }
}
