//! Rotary position embedding: which frequencies a `config.json` asks for.

use std::f64::consts::TAU;
use std::ops::RangeInclusive;

use super::json::Fields;
use crate::error::{Error, Result};

/// How the rotary frequencies differ from `rope_theta^(-2i/head_dim)`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum RopeScaling {
    /// Not at all.
    None,
    /// All frequencies are divided by `factor`.
    Linear {
        /// A factor of at least 1.
        factor: f64,
    },
    /// Llama 3.1: long wavelengths are stretched by `factor`, short ones kept, those between blended.
    Llama3 {
        /// A factor of at least 1.
        factor: f64,
        /// Wavelengths above `original_max_position_embeddings / low_freq_factor` are stretched.
        low_freq_factor: f64,
        /// Wavelengths below `original_max_position_embeddings / high_freq_factor` are kept.
        high_freq_factor: f64,
        /// Context length, in tokens, before stretching.
        original_max_position_embeddings: usize,
    },
}

impl RopeScaling {
    /// The angle per token `inv_freq` after scaling.
    fn apply(self, inv_freq: f64) -> f64 {
        match self {
            RopeScaling::None => inv_freq,
            RopeScaling::Linear { factor } => inv_freq / factor,
            RopeScaling::Llama3 {
                factor,
                low_freq_factor,
                high_freq_factor,
                original_max_position_embeddings,
            } => {
                // `turns` that the original context makes; the published rule compares wavelengths, its reciprocals.
                let turns = original_max_position_embeddings as f64 * inv_freq / TAU;
                let keep = (turns - low_freq_factor) / (high_freq_factor - low_freq_factor);
                let keep = keep.clamp(0.0, 1.0);
                (1.0 - keep) * inv_freq / factor + keep * inv_freq
            }
        }
    }
}

/// The `head_dim / 2` angles per token, in radians. Computed in f64, rounded once.
pub(super) fn frequencies(head_dim: usize, rope_theta: f64, scaling: RopeScaling) -> Vec<f32> {
    (0..head_dim / 2)
        .map(|i| rope_theta.powf(-2.0 * i as f64 / head_dim as f64))
        .map(|inv_freq| scaling.apply(inv_freq) as f32)
        .collect()
}

/// What Hugging Face assumes where no `rope_theta` is given.
const DEFAULT_ROPE_THETA: f64 = 10_000.0;

/// Published values lie between 1e4 and 1e9; from 1 on every frequency is in (0, 1].
const ROPE_THETA_RANGE: RangeInclusive<f64> = 1.0..=1e12;

/// Scaling stretches; published factors are at most 64.
const FACTOR_RANGE: RangeInclusive<f64> = 1.0..=1e6;

/// `low_freq_factor` and `high_freq_factor` count turns within the original context; published are 1 and 4.
const TURNS_RANGE: RangeInclusive<f64> = 1e-6..=1e6;

/// `(rope_theta, scaling)` from the fields of `config.json`, in the layout of old (`rope_theta` + `rope_scaling`) or new
/// (`rope_parameters`) versions of `transformers`.
pub(super) fn resolve(config: &Fields, max_positions: usize) -> Result<(f64, RopeScaling)> {
    let outer_theta = config.number("rope_theta", ROPE_THETA_RANGE)?;
    let Some(rope) = rope_object(config)? else {
        return Ok((outer_theta.unwrap_or(DEFAULT_ROPE_THETA), RopeScaling::None));
    };
    let inner_theta = rope.number("rope_theta", ROPE_THETA_RANGE)?;
    if let (Some(outer), Some(inner)) = (outer_theta, inner_theta)
        && outer != inner
    {
        return Err(rope.unexpected("rope_theta", &format!("{outer} as outside of it")));
    }
    let theta = inner_theta.or(outer_theta).unwrap_or(DEFAULT_ROPE_THETA);
    Ok((theta, scaling(&rope, max_positions)?))
}

fn rope_object(config: &Fields) -> Result<Option<Fields>> {
    if let (Some(old), Some(new)) = (config.get("rope_scaling"), config.get("rope_parameters"))
        && old != new
    {
        return Err(config.unexpected("rope_scaling", "the same as rope_parameters, or only one of them"));
    }
    match config.object("rope_parameters")? {
        Some(rope) => Ok(Some(rope)),
        None => config.object("rope_scaling"),
    }
}

fn scaling(rope: &Fields, max_positions: usize) -> Result<RopeScaling> {
    match rope_type(rope)? {
        "default" => only_fields(rope, &[]).map(|()| RopeScaling::None),
        "linear" => linear(rope),
        "llama3" => llama3(rope, max_positions),
        _ => Err(unsupported_type(rope)),
    }
}

fn linear(rope: &Fields) -> Result<RopeScaling> {
    only_fields(rope, &["factor"])?;
    Ok(RopeScaling::Linear { factor: rope.required_number("factor", FACTOR_RANGE)? })
}

fn llama3(rope: &Fields, max_positions: usize) -> Result<RopeScaling> {
    only_fields(
        rope,
        &["factor", "low_freq_factor", "high_freq_factor", "original_max_position_embeddings"],
    )?;
    let low_freq_factor = rope.required_number("low_freq_factor", TURNS_RANGE)?;
    let high_freq_factor = rope.required_number("high_freq_factor", TURNS_RANGE)?;
    if high_freq_factor <= low_freq_factor {
        let expected = format!("more than low_freq_factor = {low_freq_factor}");
        return Err(rope.unexpected("high_freq_factor", &expected));
    }
    Ok(RopeScaling::Llama3 {
        factor: rope.required_number("factor", FACTOR_RANGE)?,
        low_freq_factor,
        high_freq_factor,
        original_max_position_embeddings: rope
            .required_size("original_max_position_embeddings", max_positions)?,
    })
}

/// `rope_type`, which older files call `type`; some carry both.
fn rope_type(rope: &Fields) -> Result<&str> {
    match (rope.text("rope_type")?, rope.text("type")?) {
        (Some(new), Some(old)) if new != old => {
            Err(rope.unexpected("type", &format!("{new:?} as in rope_type")))
        }
        (new, old) => Ok(new.or(old).unwrap_or("default")),
    }
}

fn unsupported_type(rope: &Fields) -> Error {
    let field = if rope.get("rope_type").is_some() { "rope_type" } else { "type" };
    rope.unexpected(field, "one of the supported \"default\", \"linear\", \"llama3\"")
}

/// A parameter that the type does not have would be a promise not kept.
fn only_fields(rope: &Fields, of_type: &[&str]) -> Result<()> {
    const OF_EVERY_TYPE: [&str; 3] = ["rope_type", "type", "rope_theta"];
    let known = |name: &str| OF_EVERY_TYPE.contains(&name) || of_type.contains(&name);
    // Rotating all of each head is what is computed; `partial_rotary_factor` may say so.
    let whole_head =
        |name: &str| name == "partial_rotary_factor" && rope.get(name).and_then(|v| v.as_f64()) == Some(1.0);
    match rope.names().find(|&name| rope.get(name).is_some() && !known(name) && !whole_head(name)) {
        None => Ok(()),
        Some(name) => {
            let rope_type = rope_type(rope)?;
            Err(rope.unexpected(name, &format!("no such parameter for the type {rope_type:?}")))
        }
    }
}
