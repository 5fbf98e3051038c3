//! Constants of a machine.

use std::collections::HashMap;

use serde::Deserialize;

use super::emulator::DEVICE_VARIABLE;

/// A constant with where it comes from.
#[derive(Clone, Deserialize)]
#[serde(deny_unknown_fields)]
struct Constant {
    value: f64,
    /// Per cent.
    error: f64,
    source: String,
}

/// What the file says of a machine.
#[derive(Clone, Deserialize)]
struct Entry {
    /// Another machine, whose constants hold where there are none.
    like: Option<String>,
    arch: Option<String>,
    #[serde(flatten)]
    constants: HashMap<String, Constant>,
}

/// What a GPU can do.
pub struct Machine {
    pub name: &'static str,
    /// Architecture of its machine code.
    pub arch: String,
    pub multiprocessors: f64,
    /// Clocks a microsecond.
    pub clocks: f64,
    /// Of dense bf16 by the data sheet.
    pub peak_tflops: f64,
    /// Of a multiprocessor's tensor cores at their peak.
    pub flops_per_clock: f64,
    /// What of it products of warp groups sustain, and those of warps.
    pub tensor_share: f64,
    pub mma_share: f64,
    /// From L2 to a multiprocessor while all of them fetch.
    pub l2_bytes_per_clock: f64,
    /// Warp instructions.
    pub issue_per_clock: f64,
    /// Results of special functions.
    pub special_per_clock: f64,
    /// Shared memory of a multiprocessor.
    pub shared_bytes: usize,
    pub hbm_bytes_per_us: f64,
    pub memory_latency_us: f64,
    /// From the end of a kernel to the start of the next of a graph.
    pub launch_us: f64,
    /// Microseconds of a block outside of its main loop, which nothing overlaps.
    pub block_us: f64,
    /// The same of a tile of a block that goes on to the next.
    pub persistent_block_us: f64,
}

impl Machine {
    /// That which this process emulates.
    pub fn emulated() -> Self {
        Machine::new(match std::env::var(DEVICE_VARIABLE).as_deref() {
            Ok("a100") => "a100",
            _ => "h100",
        })
    }

    /// That, and those that run the same machine code on as many multiprocessors.
    pub fn like_emulated() -> Vec<Self> {
        let emulated = Machine::emulated();
        let others = if emulated.name == "h100" { &["h200"][..] } else { &[] };
        std::iter::once(emulated).chain(others.iter().map(|name| Machine::new(name))).collect()
    }

    /// `h100`, `h200` or `a100`.
    pub fn new(name: &'static str) -> Self {
        let file: HashMap<String, Entry> =
            toml::from_str(include_str!("machine.toml")).expect("machine.toml");
        let own = file.get(name).expect(name);
        let like = own.like.as_ref().map(|like| file.get(like).expect(like));
        let value = |constant: &str| {
            let found = own.constants.get(constant).or_else(|| like?.constants.get(constant));
            let Constant { value, error, source } = found.expect(constant);
            assert!((0.0..=50.0).contains(error) && !source.is_empty(), "{constant}");
            *value
        };
        let arch = own.arch.as_ref().or_else(|| like?.arch.as_ref()).expect("an architecture");
        let (multiprocessors, clocks) = (value("multiprocessors"), 1e3 * value("clock_ghz"));
        Machine {
            name,
            arch: arch.to_owned(),
            multiprocessors,
            clocks,
            peak_tflops: value("peak_tflops"),
            flops_per_clock: value("tensor_flops_per_clock"),
            tensor_share: value("tensor_share"),
            mma_share: value("mma_share"),
            l2_bytes_per_clock: 1e6 * value("l2_tbytes") / multiprocessors / clocks,
            issue_per_clock: value("issue_per_clock"),
            special_per_clock: value("special_per_clock"),
            shared_bytes: value("shared_bytes") as usize,
            hbm_bytes_per_us: 1e6 * value("hbm_tbytes"),
            memory_latency_us: value("memory_latency_us"),
            launch_us: value("launch_us"),
            block_us: value("block_us"),
            persistent_block_us: value("persistent_block_us"),
        }
    }
}
