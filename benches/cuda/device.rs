//! Timing on the device, beside what it can do at best.

use std::cell::RefCell;
use std::time::{Duration, Instant};

use cudarc::driver::sys::{CUdevice_attribute as Attribute, CUevent_flags};
use deepguard::cuda::Cuda;
use deepguard::ops::philox::philox;
use deepguard::ops::{Arena, Buffer, Device as _, Element};
use half::bf16;

use super::machine::Clock;
use super::predicted::Predictions;

/// More than any second-level cache holds.
const FLUSH_BYTES: usize = 256 << 20;
/// Random numbers before the same ones come again: not a power of two, so that rows differ.
const PERIOD: usize = 1_000_003;
/// A case runs as often as this time allows, within the limits.
const CASE: Duration = Duration::from_millis(250);
const RUNS: std::ops::RangeInclusive<usize> = 3..=100;

/// Multiply-adds in bf16 of a multiprocessor's tensor cores in a cycle, by compute capability, and the clock
/// in GHz at which data sheets state their peak, where it was looked up: SXM modules of A100, and of H100 and
/// H200.
const TENSOR: [(u32, f64, Option<f64>); 6] = [
    (80, 1024.0, Some(1.41)),
    (86, 512.0, None),
    (89, 512.0, None),
    (90, 2048.0, Some(1.83)),
    (100, 4096.0, None),
    (120, 512.0, None),
];

/// A device and how large the cases may be on it.
pub struct Device {
    pub cuda: Cuda,
    /// Once each and small, to see that everything runs.
    pub testing: bool,
    pub predictions: Predictions,
    flush: RefCell<Buffer<Cuda, u32>>,
    clock: Clock,
}

/// The bound of a case: floating-point operations or bytes of memory.
#[derive(Clone, Copy)]
pub enum Work {
    Flops(f64),
    Bytes(f64),
}

/// A quotient in per cent, or a dash.
fn per_cent(part: f64, whole: Option<f64>) -> String {
    whole.filter(|whole| *whole > 0.0).map_or("–".into(), |whole| format!("{:.0} %", 100.0 * part / whole))
}

impl Device {
    pub fn new(cuda: Cuda, testing: bool) -> Self {
        let words = if testing { 64 } else { FLUSH_BYTES / 4 };
        let flush = Arena::build(&cuda, |arena| arena.buffer("flush", &[words])).expect("memory").0;
        let clock = Clock::new(&cuda, testing);
        let predictions = Predictions::of(cuda.info());
        Device { cuda, testing, predictions, flush: flush.into(), clock }
    }

    fn attribute(&self, attribute: Attribute) -> f64 {
        f64::from(self.cuda.stream().context().attribute(attribute).unwrap_or(0))
    }

    /// Bytes a second of the memory: two transfers a cycle.
    pub fn peak_bytes(&self) -> f64 {
        let clock = self.attribute(Attribute::CU_DEVICE_ATTRIBUTE_MEMORY_CLOCK_RATE) * 1e3;
        2.0 * clock * self.attribute(Attribute::CU_DEVICE_ATTRIBUTE_GLOBAL_MEMORY_BUS_WIDTH) / 8.0
    }

    fn tensor(&self) -> Option<&'static (u32, f64, Option<f64>)> {
        let capability = self.cuda.info().capability;
        TENSOR.iter().rev().find(|(of, ..)| capability >= *of)
    }

    /// Operations a second of the tensor cores in bf16 at a clock in GHz.
    pub fn flops_at(&self, ghz: f64) -> Option<f64> {
        let multiprocessors = f64::from(self.cuda.info().multiprocessors);
        self.tensor().map(|(_, per_cycle, _)| 2.0 * per_cycle * multiprocessors * ghz * 1e9)
    }

    /// The same by the data sheet: 989 TFLOP/s of an H100.
    fn data_sheet(&self) -> Option<f64> {
        self.tensor().and_then(|(.., ghz)| *ghz).and_then(|ghz| self.flops_at(ghz))
    }

    /// The multiprocessors' clock now, in GHz.
    pub fn clock(&self) -> f64 {
        self.clock.read(&self.cuda)
    }

    pub fn describe(&self) -> String {
        let info = self.cuda.info();
        let tera =
            |flops: Option<f64>| flops.map_or("unknown".into(), |f| format!("{:.0} TFLOP/s", f / 1e12));
        let highest = self.attribute(Attribute::CU_DEVICE_ATTRIBUTE_CLOCK_RATE) / 1e6;
        format!(
            "{}, {} multiprocessors. Peak of dense bf16: {} by the data sheet, {} at the highest clock of \
             {highest:.2} GHz; each case is also put beside the peak at the clock that was read after it. Peak of \
             the memory: {:.0} GB/s.{}",
            info.name,
            info.multiprocessors,
            tera(self.data_sheet()),
            tera(self.flops_at(highest)),
            self.peak_bytes() / 1e9,
            if self.testing { " Nothing is timed: every case runs once, and small." } else { "" }
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
        let first = PERIOD.min(out.len());
        self.cuda.upload_act(out.first_mut(first), &numbers(1, first));
        let (period, mut rest) = out.view_mut().split_at(first);
        for start in (0..rest.len()).step_by(PERIOD) {
            let end = rest.len().min(start + PERIOD);
            let to = rest.reborrow().slice(start..end);
            self.cuda.copy(to, period.view().slice(0..end - start));
        }
        out
    }

    pub fn random_f32(&self, shape: &[usize]) -> Buffer<Cuda, f32> {
        let mut out = self.zeros::<f32>(shape);
        let values = numbers(2, out.len());
        self.cuda.upload(out.view_mut(), &values);
        out
    }

    /// Device time of one run.
    pub fn elapsed(&self, run: &mut dyn FnMut()) -> Duration {
        let stream = self.cuda.stream();
        let flags = Some(CUevent_flags::CU_EVENT_DEFAULT);
        let start = stream.record_event(flags).expect("an event");
        run();
        let end = stream.record_event(flags).expect("an event");
        self.cuda.finish().expect("a run without errors");
        Duration::from_secs_f32(start.elapsed_ms(&end).expect("two events that are over") / 1e3)
    }

    /// Median time of `run`, which tells its own, of as many as fit the time of a case.
    pub fn measured(&self, mut run: impl FnMut() -> Duration) -> Measured {
        let seconds = if self.testing { run().as_secs_f64() } else { median(&mut run) };
        Measured { seconds, ghz: self.clock(), timed: !self.testing }
    }

    /// The same of `run` by the device's clock, each after the cache has been filled with something else.
    pub fn cold(&self, mut run: impl FnMut()) -> Measured {
        self.measured(|| {
            self.cuda.zero(self.flush.borrow_mut().view_mut());
            self.elapsed(&mut run)
        })
    }

    /// Head of a table of rows by [`Self::row`].
    pub fn table(&self, title: &str) {
        println!("\n### {title}\n");
        println!(
            "| case | predicted µs | µs | measured ÷ predicted | a second | of the data sheet's peak | of the peak \
             at the clock read |"
        );
        println!("|---|---|---|---|---|---|---|");
    }

    /// Measures `run` by the device's clock and prints a row.
    pub fn measure(&self, name: &str, work: Work, run: impl FnMut()) {
        self.measure_beside(name, None, work, run);
    }

    /// The same beside the microseconds that are predicted for it.
    pub fn measure_beside(&self, name: &str, predicted: Option<f64>, work: Work, run: impl FnMut()) {
        let found = self.cold(run);
        self.row(name, predicted, work, "", &found);
    }

    /// A row of a table; `items` begins what is done in a second.
    pub fn row(&self, name: &str, predicted: Option<f64>, work: Work, items: &str, found: &Measured) {
        let [rate, sheet, clocked] = match work {
            Work::Flops(flops) => {
                let [rate, sheet, clocked] = self.rates(flops, found);
                [format!("{rate} TFLOP/s"), sheet, clocked]
            }
            Work::Bytes(bytes) => {
                let rate = bytes / found.seconds;
                [format!("{:.0} GB/s", rate / 1e9), per_cent(rate, Some(self.peak_bytes())), "–".into()]
            }
        };
        let [predicted, us, share] = found.beside(predicted);
        found.print(&[name, &predicted], &[&us, &share, &format!("{items}{rate}"), &sheet, &clocked]);
    }

    /// TFLOP/s of `flops`, and their share of both peaks.
    pub fn rates(&self, flops: f64, found: &Measured) -> [String; 3] {
        let rate = flops / found.seconds;
        let clocked = format!("{} ({:.2} GHz)", per_cent(rate, self.flops_at(found.ghz)), found.ghz);
        [format!("{:.0}", rate / 1e12), per_cent(rate, self.data_sheet()), clocked]
    }
}

/// Seconds, and the multiprocessors' clock behind them.
pub struct Measured {
    pub seconds: f64,
    pub ghz: f64,
    /// Whether this is the time of a GPU, which alone is printed.
    pub timed: bool,
}

impl Measured {
    /// Columns: predicted and measured microseconds, and the quotient of the two.
    pub fn beside(&self, predicted: Option<f64>) -> [String; 3] {
        let us = 1e6 * self.seconds;
        let dash = || "–".to_owned();
        let share = predicted.map_or_else(dash, |predicted| format!("{:.2}", us / predicted));
        [predicted.map_or_else(dash, |predicted| format!("{predicted:.1}")), format!("{us:.1}"), share]
    }

    /// A row of a table: what is known before, and what was measured where something was.
    pub fn print(&self, known: &[&str], found: &[&str]) {
        let found = match self.timed {
            true => found.join(" | "),
            false => format!("not timed{}", " |".repeat(found.len() - 1)),
        };
        println!("| {} | {found} |", known.join(" | "));
    }
}

/// Median of several runs in seconds, after one that is not counted.
fn median(run: &mut dyn FnMut() -> Duration) -> f64 {
    run();
    let started = Instant::now();
    let mut times = Vec::new();
    while times.len() < *RUNS.start() || (times.len() < *RUNS.end() && started.elapsed() < CASE) {
        times.push(run());
    }
    times.sort_unstable();
    times[times.len() / 2].as_secs_f64()
}

/// Random numbers in [-0.5, 0.5).
fn numbers(seed: u64, len: usize) -> Vec<f32> {
    let number = |i: usize| philox(seed, [i as u32, 0, 0, 0])[0] as f32 / u32::MAX as f32 - 0.5;
    let period: Vec<f32> = (0..len.min(PERIOD)).map(number).collect();
    period.iter().copied().cycle().take(len).collect()
}
