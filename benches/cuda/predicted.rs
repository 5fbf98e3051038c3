//! Predictions of `tests/roofline.rs`, for the machine that is measured.

use deepguard::cuda::DeviceInfo;

/// Lines of its table for a machine.
pub struct Predictions {
    lines: Vec<Line>,
}

/// Launches of a kernel with one grid, or the sum of all, in a model's work.
struct Line {
    model: &'static str,
    work: &'static str,
    kernel: &'static str,
    /// Operations of tensor cores of a launch.
    flops: f64,
    /// Microseconds of a launch, or of the whole work.
    us: f64,
}

impl Predictions {
    /// An H200's kernels are an H100's.
    pub fn of(device: &DeviceInfo) -> Self {
        let machines: &[&str] = match device.capability {
            90 if device.name.contains("H200") => &["h200", "h100"],
            90 => &["h100"],
            _ => &[],
        };
        let table = include_str!("../../tests/roofline/predicted.csv");
        let mut lines = Vec::new();
        for machine in machines {
            lines.extend(table.lines().filter_map(|line| Line::read(line, machine)));
        }
        Predictions { lines }
    }

    /// Microseconds of a work of a model: `step`, `token of 16`.
    pub fn work(&self, model: &str, work: &str) -> Option<f64> {
        let found =
            self.lines.iter().find(|line| (line.model, line.work, line.kernel) == (model, work, "sum"));
        found.map(|line| line.us)
    }

    /// Microseconds of the longest launches of these kernels in a 7B step, one each.
    pub fn kernels(&self, names: &[&str]) -> Option<f64> {
        let longest = |name: &&str| {
            self.step().filter(|line| line.kernel == *name).map(|line| line.us).max_by(f64::total_cmp)
        };
        names.iter().map(longest).sum()
    }

    /// Microseconds of a product in a 7B step, of the kernel that begins with this name, whose operations are
    /// closest; tiles that are not full make some difference.
    pub fn product(&self, name: &str, flops: f64) -> Option<f64> {
        let off = |line: &Line| (line.flops / flops).ln().abs();
        let close = self.step().filter(|line| line.kernel.starts_with(name) && off(line) < 0.1);
        close.min_by(|a, b| off(a).total_cmp(&off(b))).map(|line| line.us)
    }

    fn step(&self) -> impl Iterator<Item = &Line> {
        self.lines.iter().filter(|line| (line.model, line.work) == ("7B", "step") && line.kernel != "sum")
    }
}

impl Line {
    /// A line of the table, if it is of this machine.
    fn read(text: &'static str, machine: &str) -> Option<Line> {
        let fields: Vec<&str> = text.split(';').collect();
        let &[of, model, work, kernel, blocks, mflop, launches, ms, _] = fields.as_slice() else {
            return None;
        };
        let number = |text: &str| text.parse::<f64>().ok();
        let launches = if kernel == "sum" { 1.0 } else { number(launches)? };
        let flops = 1e6 * number(blocks).unwrap_or(0.0) * number(mflop).unwrap_or(0.0);
        (of == machine).then_some(Line { model, work, kernel, flops, us: 1e3 * number(ms)? / launches })
    }
}
