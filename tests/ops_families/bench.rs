//! Inputs, outputs and comparisons on any backend.

use deepguard::model::Weights;
use deepguard::ops::philox::{DROPOUT_GROUP, philox, unit};
use deepguard::ops::{Arena, Backend, Buffer, Dropout, DropoutKey, Element, Mut, Ref};
use half::{bf16, f16};
use safetensors::tensor::{Dtype, TensorView, serialize_to_file};

use crate::emulator::checked;

/// A buffer on the device and what it holds: rounded to the device's type, so that a reference sees the same
/// numbers.
pub struct Tensor<B: Backend, T> {
    pub buffer: Buffer<B, T>,
    pub host: Vec<f64>,
}

impl<B: Backend, T: Element> Tensor<B, T> {
    pub fn view(&self) -> Ref<'_, B, T> {
        self.buffer.view()
    }

    pub fn view_mut(&mut self) -> Mut<'_, B, T> {
        self.buffer.view_mut()
    }
}

pub type Act<B> = Tensor<B, <B as deepguard::ops::Device>::Act>;

/// Makes inputs and outputs on one backend.
pub struct Bench<'b, B: Backend> {
    pub backend: &'b B,
    count: u32,
}

impl<'b, B: Backend> Bench<'b, B> {
    pub fn new(backend: &'b B) -> Self {
        Bench { backend, count: 0 }
    }

    /// In [-1, 1).
    pub fn random(&mut self) -> f64 {
        self.count += 1;
        f64::from(2.0 * unit(philox(2024, [self.count, 0, 0, 0])[0]) - 1.0)
    }

    /// Values that are neither centred nor symmetric: a forgotten mean or sign shows.
    pub fn values(&mut self, len: usize, scale: f64) -> Vec<f64> {
        (0..len).map(|_| scale * (self.random() + 0.2)).collect()
    }

    pub fn buffer<T: Element>(&self, len: usize) -> Buffer<B, T> {
        Arena::build(self.backend, |arena| arena.buffer("test", &[len])).expect("memory").0
    }

    /// An input of activations.
    pub fn act_of(&self, values: &[f64]) -> Act<B> {
        let mut buffer = self.buffer(values.len());
        let values: Vec<f32> = values.iter().map(|&v| v as f32).collect();
        self.backend.upload_act(buffer.view_mut(), &values);
        let host = self.backend.download_act(buffer.view()).into_iter().map(f64::from).collect();
        Tensor { buffer, host }
    }

    pub fn act(&mut self, len: usize, scale: f64) -> Act<B> {
        let values = self.values(len, scale);
        self.act_of(&values)
    }

    /// An input that is f32 on every backend.
    pub fn f32_of(&self, values: &[f64]) -> Tensor<B, f32> {
        let mut buffer = self.buffer(values.len());
        let values: Vec<f32> = values.iter().map(|&v| v as f32).collect();
        self.backend.upload(buffer.view_mut(), &values);
        Tensor { buffer, host: values.into_iter().map(f64::from).collect() }
    }

    pub fn f32(&mut self, len: usize, scale: f64) -> Tensor<B, f32> {
        let values = self.values(len, scale);
        self.f32_of(&values)
    }

    pub fn integers<T: Element>(&self, values: &[T]) -> Buffer<B, T> {
        let mut buffer = self.buffer(values.len());
        self.backend.upload(buffer.view_mut(), values);
        buffer
    }

    /// An output of activations, full of NaN.
    pub fn act_out(&self, len: usize) -> Buffer<B, B::Act> {
        self.act_of(&vec![f64::NAN; len]).buffer
    }

    /// An f32 output, full of NaN.
    pub fn f32_out(&self, len: usize) -> Buffer<B, f32> {
        self.f32_of(&vec![f64::NAN; len]).buffer
    }

    /// Compares an output of activations.
    pub fn check(&self, what: &str, found: &Buffer<B, B::Act>, expected: &[f64]) {
        self.finish();
        self.close(what, &self.backend.download_act(found.view()), expected);
    }

    /// Compares an f32 output, which is made of activations all the same.
    pub fn check_f32(&self, what: &str, found: &Buffer<B, f32>, expected: &[f64]) {
        self.finish();
        self.close(what, &self.backend.to_host(found.view()), expected);
    }

    /// Nothing has failed.
    pub fn finish(&self) {
        checked(self.backend.finish());
    }

    fn close(&self, what: &str, found: &[f32], expected: &[f64]) {
        assert_eq!(found.len(), expected.len(), "{what}: length");
        match size_of::<B::Act>() {
            2 => within_twice_the_rounding(what, found, expected),
            _ => within_a_few_roundings(what, found, expected),
        }
    }

    /// A frozen weight stacked from parts `[rows, cols]`, stored as `dtype`, and its values.
    pub fn weight(&mut self, parts: &[usize], cols: usize, dtype: Dtype) -> (B::Weight, Vec<f64>) {
        let dir = tempfile::tempdir().expect("a folder");
        let tensors: Vec<(String, usize, Vec<u8>, Vec<f64>)> = parts
            .iter()
            .enumerate()
            .map(|(i, &rows)| {
                let (bytes, values) = encode(&self.values(rows * cols, 0.7), dtype);
                (format!("part{i}"), rows, bytes, values)
            })
            .collect();
        let views = tensors.iter().map(|(name, rows, bytes, _)| {
            (name.as_str(), TensorView::new(dtype, vec![*rows, cols], bytes).expect("a tensor"))
        });
        serialize_to_file(views, None, &dir.path().join("model.safetensors")).expect("a file");
        let weights = Weights::open(dir.path()).expect("weights");
        let parts: Vec<_> = tensors.iter().map(|t| weights.tensor(&t.0).expect("a part")).collect();
        let values = tensors.into_iter().flat_map(|t| t.3).collect();
        (self.backend.load_weight(&parts).expect("a weight"), values)
    }
}

fn encode(values: &[f64], dtype: Dtype) -> (Vec<u8>, Vec<f64>) {
    let encode_one = |&value: &f64| match dtype {
        Dtype::F32 => ((value as f32).to_le_bytes().to_vec(), f64::from(value as f32)),
        Dtype::BF16 => (bf16::from_f64(value).to_le_bytes().to_vec(), bf16::from_f64(value).to_f64()),
        Dtype::F16 => (f16::from_f64(value).to_le_bytes().to_vec(), f16::from_f64(value).to_f64()),
        other => panic!("{other:?} is no type of weights"),
    };
    let (bytes, values): (Vec<Vec<u8>>, Vec<f64>) = values.iter().map(encode_one).unzip();
    (bytes.concat(), values)
}

/// Every element within a few roundings of the largest. Sums here are short (at most some hundred terms of
/// like size), so their error is a few units in the last place of the largest.
fn within_a_few_roundings(what: &str, found: &[f32], expected: &[f64]) {
    let largest = expected.iter().fold(0.0f64, |m, x| m.max(x.abs()));
    let tolerance = 2e-6 * largest + 1e-30;
    for (i, (&x, &y)) in found.iter().zip(expected).enumerate() {
        let error = (f64::from(x) - y).abs();
        assert!(error <= tolerance, "{what}[{i}]: found {x:e}, expected {y:e} ± {tolerance:e}");
    }
}

/// The largest error, and the mean one, at most twice what rounding to bf16 would make of the expected
/// values; that is half a unit in the last place of the largest, where there are too few of them for luck to
/// be ruled out.
fn within_twice_the_rounding(what: &str, found: &[f32], expected: &[f64]) {
    const FEW: usize = 32;
    let largest = expected.iter().fold(0.0f64, |m, x| m.max(x.abs()));
    let half_unit = largest / 512.0;
    let rounding = |y: &f64| match expected.len() < FEW {
        true => half_unit,
        false => (bf16::from_f64(*y).to_f64() - y).abs(),
    };
    let root_mean_square = |sum: f64| (sum / expected.len().max(1) as f64).sqrt();
    let most = 2.0 * expected.iter().map(rounding).fold(0.0, f64::max) + 1e-30;
    let usual = 2.0 * root_mean_square(expected.iter().map(|y| rounding(y).powi(2)).sum()) + 1e-30;
    let mut squares = 0.0;
    for (i, (&x, &y)) in found.iter().zip(expected).enumerate() {
        let error = (f64::from(x) - y).abs();
        assert!(error <= most, "{what}[{i}]: found {x:e}, expected {y:e} ± {most:e}");
        squares += error * error;
    }
    let error = root_mean_square(squares);
    assert!(error <= usual, "{what}: a mean error of {error:e}, expected at most {usual:e}");
}

/// Central differences in f64 of `f` at `x`.
pub fn gradient(x: &[f64], f: impl Fn(&[f64]) -> f64) -> Vec<f64> {
    const H: f64 = 1e-5;
    let (mut x, len) = (x.to_vec(), x.len());
    let slope = |i: usize| {
        let middle = x[i];
        x[i] = middle + H;
        let above = f(&x);
        x[i] = middle - H;
        let below = f(&x);
        x[i] = middle;
        (above - below) / (2.0 * H)
    };
    (0..len).map(slope).collect()
}

pub fn dot(a: &[f64], b: &[f64]) -> f64 {
    assert_eq!(a.len(), b.len());
    a.iter().zip(b).map(|(a, b)| a * b).sum()
}

pub fn add(a: &[f64], b: &[f64]) -> Vec<f64> {
    assert_eq!(a.len(), b.len());
    a.iter().zip(b).map(|(a, b)| a + b).collect()
}

/// `a bᵀ`; a `[m, k]`, b `[n, k]`.
pub fn product(a: &[f64], b: &[f64], k: usize) -> Vec<f64> {
    a.chunks(k).flat_map(|a| b.chunks(k).map(move |b| dot(a, b))).collect()
}

pub fn transposed(a: &[f64], cols: usize) -> Vec<f64> {
    (0..cols).flat_map(|j| a.iter().skip(j).step_by(cols).copied()).collect()
}

/// A dropout with keys for `rows` rows that are neither sorted nor dense.
pub struct TestDropout<B: Backend> {
    key: DropoutKey,
    keys: Vec<u32>,
    buffer: Buffer<B, u32>,
}

impl<B: Backend> TestDropout<B> {
    pub fn new(bench: &Bench<'_, B>, rows: usize) -> Self {
        Self::with_site(bench, rows, 2)
    }

    pub fn with_site(bench: &Bench<'_, B>, rows: usize, site: u32) -> Self {
        let keys: Vec<u32> = (0..rows as u32).map(|i| (i * 7919) ^ 0x55).collect();
        let key = DropoutKey::new(0.3, 99, 4, site).expect("something to drop");
        TestDropout { key, buffer: bench.integers(&keys), keys }
    }

    pub fn argument(&self) -> Dropout<'_, B> {
        Dropout { key: self.key, row_keys: self.buffer.view() }
    }

    /// Factor of every element of `[rows, width]`.
    pub fn factors(&self, width: usize) -> Vec<f64> {
        let scale = f64::from(self.key.scale());
        let factor = |key: u32, column: usize| {
            let kept = self.key.keep(key, (column / DROPOUT_GROUP) as u32)[column % DROPOUT_GROUP];
            if kept { scale } else { 0.0 }
        };
        self.keys.iter().flat_map(|&key| (0..width).map(move |column| factor(key, column))).collect()
    }
}
