//! Initial values of adapters and guard (METHOD §§2, 5), a pure function of the seed.

use crate::attached::Attached;
use crate::model::params::Param;
use crate::ops::Device;
use crate::ops::philox::{philox, unit};

/// Marks the counters of initial values: no dropout mask of a step has it.
const INIT_STEP: u32 = u32::MAX;

/// How one tensor starts.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Init {
    Constant(f32),
    /// Uniform in ±bound.
    Uniform(f64),
    /// Normal with this standard deviation.
    Normal(f64),
}

/// Sets every parameter: LoRA A Kaiming-uniform(a = √5) and B zero, prefixes zero; the analyzer's linear
/// layers Xavier-uniform with zero bias, its norms 1 and 0, its embedding N(0, 0.02); the aggregator as
/// PyTorch's
/// `Linear`.
pub fn initialize<D: Device>(attached: &mut Attached<D>, seed: u64) {
    let params: Vec<Param> = attached.params.layout().params().to_vec();
    for (index, param) in params.iter().enumerate() {
        let values = draw(rule(param), param.range.len(), seed, index as u32);
        attached.params.upload(param, &values);
    }
}

fn rule(param: &Param) -> Init {
    let (name, shape) = (param.name.as_str(), &param.shape);
    let fan_in = *shape.last().unwrap_or(&1) as f64;
    let is_bias = name.ends_with(".bias");
    if name.contains("lora_B") || name.starts_with("prefix.") {
        Init::Constant(0.0)
    } else if name.contains("lora_A") {
        Init::Uniform(1.0 / fan_in.sqrt())
    } else if name.contains("layer_aggregator") {
        // A square layer's bias has as many elements as the layer has inputs.
        Init::Uniform(1.0 / fan_in.sqrt())
    } else if name.contains("security_embeddings") {
        Init::Normal(0.02)
    } else if shape.len() == 2 {
        Init::Uniform((6.0 / (fan_in + shape[0] as f64)).sqrt())
    } else {
        Init::Constant(if is_bias { 0.0 } else { 1.0 })
    }
}

fn draw(init: Init, len: usize, seed: u64, tensor: u32) -> Vec<f32> {
    let words = |i: usize| philox(seed, [i as u32, (i as u64 >> 32) as u32, tensor, INIT_STEP]);
    (0..len)
        .map(|i| match init {
            Init::Constant(value) => value,
            Init::Uniform(bound) => ((2.0 * f64::from(unit(words(i)[0])) - 1.0) * bound) as f32,
            Init::Normal(deviation) => {
                // Box–Muller; 1 − u is never 0.
                let [a, b, ..] = words(i).map(|w| f64::from(unit(w)));
                (deviation * (-2.0 * (1.0 - a).ln()).sqrt() * (std::f64::consts::TAU * b).cos()) as f32
            }
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn draws_have_the_right_spread() {
        let n = 100_000;
        let deviation = |x: &[f32]| (x.iter().map(|v| f64::from(v * v)).sum::<f64>() / n as f64).sqrt();
        let uniform = draw(Init::Uniform(0.5), n, 1, 0);
        assert!(uniform.iter().all(|v| v.abs() <= 0.5));
        assert!((deviation(&uniform) - 0.5 / 3f64.sqrt()).abs() < 2e-3);
        assert!((deviation(&draw(Init::Normal(0.02), n, 1, 1)) - 0.02).abs() < 2e-4);
        assert_ne!(draw(Init::Uniform(1.0), 4, 1, 0), draw(Init::Uniform(1.0), 4, 1, 1));
    }
}
