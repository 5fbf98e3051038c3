//! Designs of public kernels with published times: what predictions make of our own kernels of that design.

use deepguard::ops::philox::{philox, unit};
use half::bf16;
use serde::Deserialize;

use super::designs::{DIM, Design, WIDTH};
use super::launch::predict_code;
use super::launches::{launched, sample};
use super::machine::Machine;

/// A design and its published time.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Published {
    pub name: String,
    #[serde(default = "h100")]
    machine: String,
    /// Of `kernels/`.
    file: String,
    kernel: String,
    /// Whether blocks stay for all their tiles.
    #[serde(default)]
    persistent: bool,
    shape: Vec<usize>,
    tflops: Option<f64>,
    us: Option<f64>,
}

fn h100() -> String {
    "h100".to_owned()
}

/// What a design is run on.
enum Work {
    Product([usize; 3]),
    Attention([usize; 2]),
    Norm(usize),
}

impl Published {
    /// All of a machine that `calibration.toml` lists.
    pub fn of(machine: &str) -> Vec<Self> {
        #[derive(Deserialize)]
        struct File {
            design: Vec<Published>,
        }
        let File { mut design } = toml::from_str(include_str!("calibration.toml")).expect("calibration.toml");
        design.retain(|one: &Published| one.machine == machine);
        design
    }

    fn work(&self) -> Work {
        match *self.shape.as_slice() {
            [m, n, k] => Work::Product([m, n, k]),
            [heads, rows] => Work::Attention([heads, rows]),
            [rows] => Work::Norm(rows),
            _ => panic!("{}: {:?}", self.name, self.shape),
        }
    }

    /// Floating-point operations of tensor cores.
    fn flops(&self) -> f64 {
        match self.work() {
            Work::Product([m, n, k]) => 2.0 * (m * n * k) as f64,
            Work::Attention([heads, rows]) => 4.0 * (heads * rows * rows * DIM) as f64,
            Work::Norm(_) => 0.0,
        }
    }

    /// Microseconds.
    pub fn us(&self) -> f64 {
        self.us.unwrap_or_else(|| self.flops() / self.tflops.expect("a time or a rate") / 1e6)
    }

    /// Kernels of the same kind of work can be compared.
    pub fn kind(&self) -> usize {
        self.shape.len()
    }

    /// Microseconds.
    pub fn predict(&self, machine: &Machine) -> f64 {
        let design = Design::new(&machine.arch, &self.file, &self.kernel);
        // Of products that stay for several tiles a block does much.
        sample(&[("product", 2), ("attention", 1), ("", 64)]);
        let stay = self.persistent.then_some(machine.multiprocessors as usize);
        run(&design, &self.work(), stay, &mut |len| vec![bf16::ZERO; len]);
        let launches = launched();
        let [(_, launched)] = launches.as_slice() else { panic!("{} launches", launches.len()) };
        let tiles = match self.work() {
            Work::Product([m, n, _]) if self.persistent => (m / 128 * (n / 256)) as f64,
            _ => launched.blocks as f64,
        };
        predict_code(machine, &self.kernel, launched, &design.code(), tiles).us
    }
}

/// Runs a design on inputs of so many elements each; a product by so many blocks that stay, if any.
fn run(
    design: &Design,
    work: &Work,
    stay: Option<usize>,
    input: &mut dyn FnMut(usize) -> Vec<bf16>,
) -> Vec<bf16> {
    match *work {
        Work::Product([m, n, k]) => design.product([m, n, k], stay, &input(m * k), &input(n * k)),
        Work::Attention([heads, rows]) => {
            let [q, k, v] = [(); 3].map(|()| input(heads * rows * DIM));
            design.attention([heads, rows], &q, &k, &v)
        }
        Work::Norm(rows) => design.norm(rows, &input(rows * WIDTH), &input(WIDTH)),
    }
}

/// What the same inputs should give.
fn expected(work: &Work, inputs: &[Vec<bf16>]) -> Vec<f64> {
    let at = &|input: usize, i: usize| f64::from(inputs[input][i]);
    match *work {
        Work::Product([m, n, k]) => {
            let y = |i: usize| (0..k).map(|at_k| at(0, i / n * k + at_k) * at(1, i % n * k + at_k)).sum();
            (0..m * n).map(y).collect()
        }
        Work::Attention([heads, rows]) => (0..heads * rows)
            .flat_map(|row| {
                let of_head = row / rows * rows..(row / rows + 1) * rows;
                let score = |key: usize| -> f64 {
                    (0..DIM).map(|d| at(0, row * DIM + d) * at(1, key * DIM + d)).sum::<f64>()
                        / (DIM as f64).sqrt()
                };
                let weights: Vec<f64> = of_head.clone().map(|key| score(key).exp()).collect();
                let sum: f64 = weights.iter().sum();
                let value = move |d: usize| {
                    let keys = of_head.clone().zip(&weights);
                    keys.map(|(key, weight)| weight * at(2, key * DIM + d)).sum::<f64>() / sum
                };
                (0..DIM).map(value).collect::<Vec<f64>>()
            })
            .collect(),
        Work::Norm(rows) => (0..rows)
            .flat_map(|row| {
                let value = move |i: usize| at(0, row * WIDTH + i);
                let squares: f64 = (0..WIDTH).map(|i| value(i) * value(i)).sum();
                let root = (squares / WIDTH as f64 + 1e-6).sqrt();
                (0..WIDTH).map(move |i| value(i) * at(1, i) / root)
            })
            .collect(),
    }
}

/// The designs compute what they should.
pub fn check_results() {
    for published in Published::of("h100") {
        let design = Design::new("90a", &published.file, &published.kernel);
        sample(&[("", u64::MAX)]);
        // More tiles than stages, and blocks with several tiles where they stay.
        let work = match published.work() {
            Work::Product(_) => Work::Product([256, 4 * 256, 7 * 64]),
            Work::Attention(_) => Work::Attention([2, 5 * 128]),
            Work::Norm(_) => Work::Norm(2),
        };
        let mut inputs = Vec::new();
        let stay = published.persistent.then_some(4);
        let y = run(&design, &work, stay, &mut |len| {
            let number = inputs.len() as u32;
            let value = |i: usize| bf16::from_f32(2.0 * unit(philox(7, [i as u32, number, 0, 0])[0]) - 1.0);
            inputs.push((0..len).map(value).collect::<Vec<bf16>>());
            inputs[inputs.len() - 1].clone()
        });
        let expected = expected(&work, &inputs);
        let most = expected.iter().fold(0.0f64, |most, y| most.max(y.abs()));
        for (i, (found, expected)) in y.iter().zip(&expected).enumerate() {
            let off = (f64::from(*found) - expected).abs() / most;
            assert!(off < 0.01, "{}: {found} at {i}, expected {expected}", published.name);
        }
    }
}
