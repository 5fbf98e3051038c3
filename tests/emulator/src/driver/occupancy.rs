//! How many blocks fit on a multiprocessor, as far as PTX tells: registers count only where a kernel changes
//! their number.

use super::abi::{Handle, In, LaunchConfig, Out};
use super::attributes::{Limits, limits};
use super::function::LoadedFunction;
use super::launch::{Geometry, MAX_CLUSTER, MAX_PORTABLE_CLUSTER};
use super::status::{Result, Status};
use super::{api, with_context};
use crate::machine::{RESERVED_SHARED, SHARED_UNIT};

/// Blocks of a multiprocessor.
pub fn blocks_per_multiprocessor(
    function: &LoadedFunction,
    limits: &Limits,
    threads: u32,
    dynamic: u32,
) -> u32 {
    if threads == 0 || threads > function.function.max_threads {
        return 0;
    }
    let shared = u64::from(function.function.static_shared) + u64::from(dynamic);
    if shared > u64::from(limits.shared_opt_in) {
        return 0;
    }
    function.function.resident_blocks(limits.profile, threads, dynamic)
}

type BlockToShared = Option<unsafe extern "C" fn(i32) -> usize>;

/// The block that fills a multiprocessor best, the greater of equals, and the blocks that fill the device.
fn potential(
    function: &LoadedFunction,
    limits: &Limits,
    shared_of: impl Fn(u32) -> u32,
    greatest: u32,
) -> (u32, u32) {
    let greatest = match greatest {
        0 => function.function.max_threads,
        limit => limit.min(function.function.max_threads),
    };
    let mut best = (0, 0, 0);
    for threads in (1..=greatest.div_ceil(32)).map(|warps| (warps * 32).min(greatest)) {
        let blocks = blocks_per_multiprocessor(function, limits, threads, shared_of(threads));
        best = best.max((blocks * threads, threads, blocks));
    }
    (best.2 * limits.multiprocessors, best.1)
}

fn active_blocks(out: Out<i32>, function: Handle, threads: i32, dynamic: usize) -> Result {
    out.check()?;
    let threads = u32::try_from(threads).ok().filter(|threads| *threads > 0).ok_or(Status::INVALID_VALUE)?;
    let dynamic = u32::try_from(dynamic).map_err(|_| Status::INVALID_VALUE)?;
    with_context(|driver, _| {
        let limits = limits(driver.machine.options.profile);
        out.set(blocks_per_multiprocessor(driver.function(function)?, &limits, threads, dynamic) as i32)
    })
}

fn potential_size(
    grid: Out<i32>,
    block: Out<i32>,
    function: Handle,
    shared_of: BlockToShared,
    dynamic: usize,
    greatest: i32,
) -> Result {
    let greatest = u32::try_from(greatest).map_err(|_| Status::INVALID_VALUE)?;
    with_context(|driver, _| {
        let limits = limits(driver.machine.options.profile);
        let shared = |threads: u32| match shared_of {
            // SAFETY: the caller passes a function from threads of a block to bytes.
            Some(shared_of) => unsafe { shared_of(threads as i32) as u32 },
            None => dynamic as u32,
        };
        let (blocks, threads) = potential(driver.function(function)?, &limits, shared, greatest);
        grid.set(blocks as i32)?;
        block.set(threads as i32)
    })
}

api! {
    fn cuOccupancyMaxActiveBlocksPerMultiprocessor(out: Out<i32>, function: Handle, threads: i32, dynamic: usize) {
        active_blocks(out, function, threads, dynamic)
    }

    fn cuOccupancyMaxActiveBlocksPerMultiprocessorWithFlags(
        out: Out<i32>, function: Handle, threads: i32, dynamic: usize, flags: u32,
    ) {
        if flags > 1 {
            return Err(Status::INVALID_VALUE);
        }
        active_blocks(out, function, threads, dynamic)
    }

    fn cuOccupancyMaxPotentialBlockSize(
        grid: Out<i32>, block: Out<i32>, function: Handle, shared_of: BlockToShared, dynamic: usize, greatest: i32,
    ) {
        potential_size(grid, block, function, shared_of, dynamic, greatest)
    }

    fn cuOccupancyMaxPotentialBlockSizeWithFlags(
        grid: Out<i32>, block: Out<i32>, function: Handle, shared_of: BlockToShared, dynamic: usize, greatest: i32,
        flags: u32,
    ) {
        if flags > 1 {
            return Err(Status::INVALID_VALUE);
        }
        potential_size(grid, block, function, shared_of, dynamic, greatest)
    }

    fn cuOccupancyAvailableDynamicSMemPerBlock(out: Out<usize>, function: Handle, blocks: i32, threads: i32) {
        let blocks = u32::try_from(blocks).ok().filter(|blocks| *blocks > 0).ok_or(Status::INVALID_VALUE)?;
        let threads = u32::try_from(threads).map_err(|_| Status::INVALID_VALUE)?;
        with_context(|driver, _| {
            let limits = limits(driver.machine.options.profile);
            let function = driver.function(function)?;
            if blocks_per_multiprocessor(function, &limits, threads, 0) < blocks {
                return Err(Status::INVALID_VALUE);
            }
            let share = (limits.shared_per_multiprocessor / blocks / SHARED_UNIT * SHARED_UNIT) - RESERVED_SHARED;
            out.set(share.saturating_sub(function.function.static_shared) as usize)
        })
    }

    fn cuOccupancyMaxPotentialClusterSize(out: Out<i32>, function: Handle, config: In<LaunchConfig>) {
        let config = config.get()?;
        with_context(|driver, _| {
            let limits = limits(driver.machine.options.profile);
            if !limits.clusters {
                return Err(Status::NOT_SUPPORTED);
            }
            let function = driver.function(function)?;
            let greatest = if function.non_portable_cluster { MAX_CLUSTER } else { MAX_PORTABLE_CLUSTER };
            let threads = config.block.iter().product();
            let fits = blocks_per_multiprocessor(function, &limits, threads, config.dynamic_shared) > 0;
            out.set(if fits { greatest as i32 } else { 0 })
        })
    }

    fn cuOccupancyMaxActiveClusters(out: Out<i32>, function: Handle, config: In<LaunchConfig>) {
        let config = config.get()?;
        let geometry = Geometry::from_config(&config)?;
        with_context(|driver, _| {
            let limits = limits(driver.machine.options.profile);
            if !limits.clusters {
                return Err(Status::NOT_SUPPORTED);
            }
            let function = driver.function(function)?;
            let threads = geometry.block.iter().product();
            let blocks = blocks_per_multiprocessor(function, &limits, threads, geometry.dynamic_shared);
            let cluster: u32 = geometry.cluster.iter().product();
            out.set((blocks * limits.multiprocessors / cluster.max(1)) as i32)
        })
    }
}
