//! Constants of a machine.

use std::collections::HashMap;

use serde::Deserialize;

/// A constant with where it comes from.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Constant {
    value: f64,
    /// Per cent.
    error: f64,
    source: String,
}

/// What a GPU can do.
pub struct Machine {
    pub multiprocessors: f64,
    /// Clocks a microsecond.
    pub clocks: f64,
    /// Of a multiprocessor's tensor cores, sustained.
    pub flops_per_clock: f64,
    /// From L2 to a multiprocessor while all of them fetch.
    pub l2_bytes_per_clock: f64,
    pub shared_bytes_per_clock: f64,
    /// Warp instructions.
    pub issue_per_clock: f64,
    /// Microseconds of a block outside of its main loop, which nothing overlaps.
    pub block_us: f64,
    /// The same of a tile of a block that goes on to the next.
    pub persistent_block_us: f64,
}

impl Machine {
    pub fn h100() -> Self {
        let file = include_str!("machine.toml");
        let mut machines: HashMap<String, HashMap<String, Constant>> =
            toml::from_str(file).expect("machine.toml");
        let constants = machines.remove("h100").expect("an H100");
        let value = |name: &str| {
            let Constant { value, error, source } = constants.get(name).expect(name);
            assert!((0.0..=50.0).contains(error) && !source.is_empty(), "{name}");
            *value
        };
        let (multiprocessors, clocks) = (value("multiprocessors"), 1e3 * value("clock_ghz"));
        Machine {
            multiprocessors,
            clocks,
            flops_per_clock: value("tensor_flops_per_clock") * value("tensor_share"),
            l2_bytes_per_clock: 1e6 * value("l2_tbytes") / multiprocessors / clocks,
            shared_bytes_per_clock: value("shared_bytes_per_clock"),
            issue_per_clock: value("issue_per_clock"),
            block_us: value("block_us"),
            persistent_block_us: value("persistent_block_us"),
        }
    }
}
