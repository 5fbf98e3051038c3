//! The time of a launch: what its blocks ask of a multiprocessor, of the second-level cache and of memory,
//! and which of these it waits for.

use cuda_emulator::client::Launched;
use cuda_emulator::counters::{Class, Counters};
use deepguard::cuda::images::KERNELS;
use deepguard::cuda::tile::{ATTENTION_SM90_KEYS, GEMM_SM90_CONSUMERS};

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
    /// Warps of a scheduler that compute.
    pub warps: f64,
    /// Whether products are those of warpgroups, which run beside all that does not take their results.
    pub asynchronous: bool,
    /// Microseconds of a block outside of its main loop, which nothing overlaps.
    pub overhead_us: f64,
}

/// A predicted time, and what it waits for.
#[derive(Clone, Debug)]
pub struct Prediction {
    pub us: f64,
    pub bound: &'static str,
}

const TENSOR: &str = "tensor cores";
const SPECIAL: &str = "special functions";

impl Work {
    fn resources(&self) -> [(&'static str, f64); 5] {
        [
            (TENSOR, self.tensor),
            ("L2", self.l2),
            ("shared memory", self.shared),
            ("issue", self.issue),
            (SPECIAL, self.special),
        ]
    }

    /// Clocks of a block, and the resource that it needs longest. Warps of a scheduler hide each other's
    /// phases: what does not fit under the longest is the next longest of one of them. Copies and products
    /// of warpgroups have no phases but with what waits for the results, as the softmax does.
    fn clocks(&self, schedule: Schedule) -> (&'static str, f64) {
        let by_clocks = |a: &(&str, f64), b: &(&str, f64)| b.1.total_cmp(&a.1);
        let mut phases = self.resources().to_vec();
        phases.sort_by(by_clocks);
        let longest = phases[0];
        if schedule.asynchronous {
            phases.retain(|(name, _)| [TENSOR, SPECIAL].contains(name));
        }
        let (bound, clocks) = (phases[0].0, phases[0].1 + phases[1].1 / schedule.warps);
        if longest.1 > clocks { longest } else { (bound, clocks) }
    }

    /// The time on a machine, with `bytes` of memory.
    pub fn predict(&self, machine: &Machine, schedule: Schedule, bytes: f64) -> Prediction {
        let (resource, clocks) = self.clocks(schedule);
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
fn resident(machine: &Machine, registers: usize, launched: &Launched) -> usize {
    let threads = (launched.threads as usize).next_multiple_of(32);
    let registers = registers.next_multiple_of(8) * threads;
    let shared = launched.shared as usize + RESERVED_SHARED;
    [BLOCKS, THREADS / threads, REGISTERS / registers, machine.shared_bytes / shared]
        .into_iter()
        .min()
        .expect("four")
}

/// Operations for a byte that a block loads, from which on tiles are so empty that one operand is narrower
/// than they are, and the other is read once.
const NARROW: f64 = 40.0;

/// Bytes of memory: what the second-level cache does not have, where that was counted, or all that goes
/// through it; but of a kernel that reads its operands again and again its weights. What else such a one
/// reads is little where memory could matter, which is where there are few rows.
fn memory_bytes(kernel: &str, launched: &Launched) -> f64 {
    let counters = &launched.counters;
    let of_all = launched.blocks as f64 / counters.blocks as f64;
    let counted = counters.dram_load_bytes + counters.dram_store_bytes;
    if counters.tensor_flops == 0 && counted > 0 {
        return counted as f64 * of_all;
    }
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
        false => bytes * of_all,
    }
}

/// Warp instructions of the machine code that the counted blocks ran.
fn instructions(counters: &Counters, loops: &Loops) -> f64 {
    const SAME: [Class; 6] =
        [Class::Tensor, Class::Special, Class::Global, Class::Shared, Class::Shuffle, Class::Atomic];
    let same: u64 = SAME.into_iter().map(|class| counters.class(class)).sum();
    same as f64 * loops.instructions as f64 / loops.same as f64
}

/// What a prediction has to know of a kernel's machine code.
pub struct Code {
    pub registers: usize,
    pub loops: Loops,
}

/// Predicts a launch of one of our kernels.
pub fn predict(machine: &Machine, kernel: &str, launched: &Launched, loops: &Loops) -> Prediction {
    let info = KERNELS.iter().find(|info| info.name == kernel && info.arch.ends_with(&machine.arch));
    let info = info.unwrap_or_else(|| panic!("{kernel} was not compiled for sm_{}", machine.arch));
    let code = Code { registers: info.registers, loops: *loops };
    predict_code(machine, kernel, launched, &code, tiles(kernel, launched))
}

/// Tiles that the blocks do in all: one each, but those of warpgroups stay for several, and begin a sum for
/// each of them, by all warps; in attention beside the sums of scores.
fn tiles(kernel: &str, launched: &Launched) -> f64 {
    const WARPS: f64 = (GEMM_SM90_CONSUMERS * 4) as f64;
    let Counters { sums_begun, blocks, tensor_flops, .. } = launched.counters;
    let of_each = match kernel.strip_suffix("_sm90") {
        Some(name) if name.starts_with("gemm") => sums_begun as f64 / WARPS / blocks as f64,
        Some(name) if name.starts_with("attention_") => {
            let dim: f64 = name["attention_".len()..].parse().expect("the dimension of a head");
            // Of a warp's scores of a tile of keys, and the sums of weighted values.
            let flops = 4.0 * 16.0 * ATTENTION_SM90_KEYS as f64 * dim;
            (sums_begun as f64 - tensor_flops as f64 / flops) / WARPS / blocks as f64
        }
        _ => 1.0,
    };
    of_each * launched.blocks as f64
}

/// Predicts a launch of a kernel with that code, whose blocks do `tiles` in all.
pub fn predict_code(
    machine: &Machine,
    kernel: &str,
    launched: &Launched,
    code: &Code,
    tiles: f64,
) -> Prediction {
    let Code { registers, loops } = code;
    let Counters { blocks, tensor_flops, bulk_load_bytes, bulk_delivered_bytes, .. } = launched.counters;
    let counters = &launched.counters;
    let (ran, flops) = (blocks as f64, tensor_flops as f64);
    let asynchronous = loops.warpgroup.flops > 0;
    let rate = machine.flops_per_clock * if asynchronous { machine.tensor_share } else { machine.mma_share };
    let mut shared = counters.shared_wavefronts as f64 + counters.class(Class::Shuffle) as f64;
    if asynchronous {
        // Tensor cores read operands from shared memory, where copies have put them.
        let read = flops * loops.warpgroup.shared_bytes as f64 / loops.warpgroup.flops as f64;
        shared += (read + bulk_delivered_bytes as f64) / 128.0;
    }
    let loads = 32.0 * counters.global_load_sectors as f64 + bulk_load_bytes as f64;
    let work = Work {
        tensor: flops / rate / ran,
        l2: loads / machine.l2_bytes_per_clock / ran,
        shared: shared / ran,
        issue: instructions(counters, loops) / machine.issue_per_clock / ran,
        special: 32.0 * counters.class(Class::Special) as f64 / machine.special_per_clock / ran,
    };
    let resident = resident(machine, *registers, launched);
    let warps = (resident * launched.threads as usize).div_ceil(128);
    // Of products by warpgroups one warp or warpgroup loads.
    let warps = if asynchronous { warps - 1 } else { warps } as f64;
    // Of blocks that stay, the loads of the next tile hide behind the stores of the last, and the first ones
    // behind nothing.
    let later = (tiles / launched.blocks as f64).ceil() - 1.0;
    let overhead_us = match asynchronous {
        true => machine.block_us + later * machine.persistent_block_us,
        false => 0.0,
    };
    let (blocks, resident) = (launched.blocks as f64, resident as f64);
    let schedule = Schedule { blocks, resident, warps, asynchronous, overhead_us };
    work.predict(machine, schedule, memory_bytes(kernel, launched))
}
