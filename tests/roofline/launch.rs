//! The time of a launch: what its blocks ask of a multiprocessor, of the second-level cache and of memory,
//! and which of these it waits for.

use cuda_emulator::client::Launched;
use cuda_emulator::counters::{Class, Counters};
use deepguard::cuda::images::{KERNELS, KernelInfo};
use deepguard::cuda::tile::GEMM_SM90_TILE_N;

use super::machine::Machine;
use super::sass::Loops;

/// What a block asks of its multiprocessor, in clocks of each resource.
#[derive(Clone, Copy, Debug, Default)]
pub struct Work {
    pub tensor: f64,
    pub l2: f64,
    pub shared: f64,
    pub issue: f64,
    pub special: f64,
}

/// How blocks are scheduled.
#[derive(Clone, Copy, Debug)]
pub struct Schedule {
    pub blocks: f64,
    /// Blocks that a multiprocessor holds.
    pub resident: f64,
    /// Warps of a scheduler.
    pub warps: f64,
    /// Microseconds of a block outside of its main loop, which nothing overlaps.
    pub overhead_us: f64,
}

/// A predicted time, and what it waits for.
#[derive(Clone, Debug)]
pub struct Prediction {
    pub us: f64,
    pub bound: &'static str,
}

impl Work {
    fn resources(&self) -> [(&'static str, f64); 5] {
        [
            ("tensor cores", self.tensor),
            ("L2", self.l2),
            ("shared memory", self.shared),
            ("issue", self.issue),
            ("special functions", self.special),
        ]
    }

    /// Clocks of a block, and the resource that it needs longest. Warps of a scheduler hide each other's
    /// phases: what does not fit under the longest is the next longest of one of them.
    fn clocks(&self, warps: f64) -> (&'static str, f64) {
        let mut all = self.resources();
        all.sort_by(|a, b| b.1.total_cmp(&a.1));
        (all[0].0, all[0].1 + all[1].1 / warps)
    }

    /// The time on a machine, with `bytes` of memory.
    pub fn predict(&self, machine: &Machine, schedule: Schedule, bytes: f64) -> Prediction {
        let (resource, clocks) = self.clocks(schedule.warps);
        let of_one = (schedule.blocks / machine.multiprocessors).ceil();
        let waves = (schedule.blocks / machine.multiprocessors / schedule.resident).ceil();
        let computing = of_one * clocks / machine.clocks + waves * schedule.overhead_us;
        let all = [
            (resource, computing),
            ("HBM", bytes / machine.hbm_bytes_per_us),
            ("latency", waves * machine.memory_latency_us),
        ];
        let (bound, us) = all.into_iter().max_by(|a, b| a.1.total_cmp(&b.1)).expect("three");
        Prediction { us: us + machine.launch_us, bound }
    }
}

/// Registers of a multiprocessor, its threads, its blocks, and its shared memory, of which each block takes
/// some more than it asks for.
const REGISTERS: usize = 65_536;
const THREADS: usize = 2048;
const BLOCKS: usize = 32;
const RESERVED_SHARED: usize = 1024;

/// Blocks that a multiprocessor holds.
fn resident(machine: &Machine, info: &KernelInfo, launched: &Launched) -> usize {
    let threads = (launched.threads as usize).next_multiple_of(32);
    let registers = info.registers.next_multiple_of(8) * threads;
    let shared = launched.shared as usize + RESERVED_SHARED;
    [BLOCKS, THREADS / threads, REGISTERS / registers, machine.shared_bytes / shared]
        .into_iter()
        .min()
        .expect("four")
}

/// Operations for a byte that a block loads, from which on tiles are so empty that one operand is narrower
/// than they are, and the other is read once.
const NARROW: f64 = 40.0;

/// Bytes of memory: all that goes through the second-level cache, but of a kernel that reads its operands
/// again and again its weights. What else such a one reads is little where memory could matter, which is
/// where there are few rows.
fn memory_bytes(kernel: &str, launched: &Launched) -> f64 {
    let counters = &launched.counters;
    let sectors = 32 * (counters.global_load_sectors + counters.global_store_sectors);
    let bytes = (sectors + counters.bulk_load_bytes + counters.bulk_store_bytes) as f64;
    let flops_of_a_byte = counters.tensor_flops as f64 / bytes;
    let again = match kernel {
        "gemm_grouped" => flops_of_a_byte < NARROW,
        "lora_inputs" | "lora_down_2" | "lora_down_4" => false,
        _ => counters.tensor_flops > 0 && !kernel.starts_with("attention_decode"),
    };
    match again {
        true => launched.held as f64,
        false => bytes * launched.blocks as f64 / counters.blocks as f64,
    }
}

/// Warp instructions of the machine code that the counted blocks ran.
fn instructions(counters: &Counters, loops: &Loops) -> f64 {
    const SAME: [Class; 6] =
        [Class::Tensor, Class::Special, Class::Global, Class::Shared, Class::Shuffle, Class::Atomic];
    let same: u64 = SAME.into_iter().map(|class| counters.class(class)).sum();
    same as f64 * loops.instructions as f64 / loops.same as f64
}

/// Predicts a launch of one of our kernels.
pub fn predict(machine: &Machine, kernel: &str, launched: &Launched, loops: &Loops) -> Prediction {
    let info = KERNELS.iter().find(|info| info.name == kernel && info.arch.ends_with(&machine.arch));
    let info = info.unwrap_or_else(|| panic!("{kernel} was not compiled for sm_{}", machine.arch));
    let counters = &launched.counters;
    let ran = counters.blocks as f64;
    let warpgroups = kernel.ends_with("_sm90") && kernel.starts_with("gemm");
    let loads = 32.0 * counters.global_load_sectors as f64 + counters.bulk_load_bytes as f64;
    let flops = counters.tensor_flops as f64;
    let rate = machine.flops_per_clock * if warpgroups { machine.tensor_share } else { machine.mma_share };
    let mut shared = counters.shared_wavefronts as f64 + counters.class(Class::Shuffle) as f64;
    if warpgroups {
        // Tensor cores read both operands from shared memory, where copies have put them.
        shared += (flops * wgmma_bytes_per_flop(GEMM_SM90_TILE_N) + counters.bulk_load_bytes as f64) / 128.0;
    }
    let work = Work {
        tensor: flops / rate / ran,
        l2: loads / machine.l2_bytes_per_clock / ran,
        shared: shared / ran,
        issue: instructions(counters, loops) / machine.issue_per_clock / ran,
        special: 32.0 * counters.class(Class::Special) as f64 / machine.special_per_clock / ran,
    };
    let resident = resident(machine, info, launched);
    let warps = (resident * launched.threads as usize).div_ceil(128) as f64;
    // Products of warp groups run beside everything else.
    let warps = if warpgroups { f64::INFINITY } else { warps };
    let overhead_us = if warpgroups { machine.block_us } else { 0.0 };
    let schedule = Schedule { blocks: launched.blocks as f64, resident: resident as f64, warps, overhead_us };
    work.predict(machine, schedule, memory_bytes(kernel, launched))
}

/// Bytes that tensor cores read of both operands, m of 64 and n columns, 16 of k at a time, for an operation.
pub fn wgmma_bytes_per_flop(n: usize) -> f64 {
    (2 * 16 * (64 + n)) as f64 / (2 * 64 * n * 16) as f64
}
