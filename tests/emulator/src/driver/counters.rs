//! Counters of kernels, and the functions by which a test reads them.

use std::collections::BTreeMap;
use std::ffi::{c_char, c_int};

use super::abi::{Out, Text};
use super::queue::Chooser;
use super::status::{Result, Status};
use super::{DRIVER, api, with_driver};
use crate::counters::{Class, Counters};

/// A column of the table: its title, and what stands in it.
type Column = (&'static str, fn(&Counters) -> u64);

/// What kernels did since the start, or since it was set back.
#[derive(Default)]
pub struct Tally {
    kernels: BTreeMap<String, Counters>,
    /// Whether there is something that was not reported.
    fresh: bool,
}

impl Tally {
    /// Adds what a launch did.
    pub fn add(&mut self, kernel: &str, counters: &Counters) {
        *self.kernels.entry(kernel.to_owned()).or_default() += counters;
        self.fresh = true;
    }

    /// All kernels together.
    fn total(&self) -> Counters {
        let mut total = Counters::default();
        self.kernels.values().for_each(|counters| total += counters);
        total
    }

    /// Prints a table if the environment asks for one and there is news.
    pub fn report(&mut self) {
        if self.fresh && std::env::var("DG_EMULATOR_COUNTERS").is_ok_and(|value| value == "1") {
            eprint!("{}", self.table());
            self.fresh = false;
        }
    }

    fn table(&self) -> String {
        let columns: [Column; 9] = [
            ("launches", |c| c.launches),
            ("blocks", |c| c.blocks),
            ("instructions", Counters::warp_instructions),
            ("ld sectors", |c| c.global_load_sectors),
            ("st sectors", |c| c.global_store_sectors),
            ("bulk bytes", |c| c.bulk_load_bytes + c.bulk_store_bytes),
            ("sh waves", |c| c.shared_wavefronts),
            ("sh ideal", |c| c.shared_wavefronts_ideal),
            ("tensor flops", |c| c.tensor_flops),
        ];
        let width = self.kernels.keys().map(String::len).max().unwrap_or(0).clamp(6, 48);
        let mut table = format!("{:<width$}", "kernel");
        columns.iter().for_each(|(name, _)| table += &format!(" {name:>14}"));
        table += &format!(" {:>14}\n", "barriers");
        for (name, counters) in &self.kernels {
            table += &format!("{name:<width$}");
            columns.iter().for_each(|(_, get)| table += &format!(" {:>14}", get(counters)));
            table += &format!(" {:>14}\n", counters.class(Class::Sync));
        }
        table
    }
}

unsafe extern "C" {
    fn atexit(function: extern "C" fn()) -> c_int;
}

extern "C" fn at_exit() {
    let report = || {
        // Whoever exits in the middle of the driver, in a function that a stream called, gets no table.
        if let Ok(mut driver) = DRIVER.try_lock()
            && let Some(driver) = driver.as_mut()
        {
            driver.tally.report();
        }
    };
    // Nobody is left to tell.
    let _ = std::panic::catch_unwind(report);
}

/// Has the table printed when the process ends.
pub fn report_at_exit() {
    // SAFETY: the function takes nothing and does not unwind.
    unsafe { atexit(at_exit) };
}

fn last_fault(buffer: Out<c_char>, len: usize) -> Result<usize> {
    let text = with_driver(|driver| Ok(driver.last_fault.clone()))?;
    if len > 0 && !buffer.is_null() {
        let bytes = text.bytes().take(len - 1).chain([0]);
        buffer.set_all(bytes.map(|byte| byte as c_char))?;
    }
    Ok(text.len())
}

api! {
    /// Counters of all kernels; with `reset` they begin at zero again.
    fn dgemu_counters(out: Out<Counters>, reset: c_int) {
        with_driver(|driver| {
            out.set_if_wanted(driver.tally.total());
            if reset != 0 {
                driver.tally.kernels.clear();
            }
            Ok(())
        })
    }

    /// Counters of a kernel; one that never ran is not found.
    fn dgemu_kernel_counters(name: Text, out: Out<Counters>) {
        let name = name.get()?;
        with_driver(|driver| out.set(*driver.tally.kernels.get(name).ok_or(Status::NOT_FOUND)?))
    }

    /// How often an entry point, such as `cuLaunchKernel`, was called.
    fn dgemu_calls(name: Text, out: Out<u64>) {
        out.set(super::calls(name.get()?).count)
    }

    /// The number of an entry point's last call among the calls of all entry points; 0 without one.
    fn dgemu_last_call(name: Text, out: Out<u64>) {
        out.set(super::calls(name.get()?).last)
    }

    /// Nanoseconds that the program had spent outside the driver, since its first call, when it called an
    /// entry point last.
    fn dgemu_time_outside(name: Text, out: Out<u64>) {
        out.set(super::calls(name.get()?).between.as_nanos() as u64)
    }

    /// The seed for what comes next, of the current context and of those to be made.
    fn dgemu_set_seed(seed: u64) {
        with_driver(|driver| {
            driver.seed = seed;
            if let Ok(context) = driver.current_context()
                && let Some(context) = driver.contexts.get_mut(&context)
            {
                context.chooser = Chooser::new(seed);
            }
            Ok(())
        })
    }

    /// Whether kernels run from here on.
    fn dgemu_set_executes(executes: c_int) {
        with_driver(|driver| {
            driver.executes = executes != 0;
            Ok(())
        })
    }

    /// Whether launches count what takes a record of every access, and how many blocks a multiprocessor runs
    /// at the same time: as many as fit for 0.
    fn dgemu_set_traffic(counted: c_int, blocks_per_processor: u32) {
        with_driver(|driver| {
            driver.machine.options.traffic = counted != 0;
            driver.machine.options.blocks_per_processor =
                (blocks_per_processor != 0).then_some(blocks_per_processor);
            Ok(())
        })
    }

    /// The last fault in words, cut off where the buffer ends; `needed` is its length without the terminator.
    fn dgemu_last_fault(buffer: Out<c_char>, len: usize, needed: Out<usize>) {
        let length = last_fault(buffer, len)?;
        needed.set_if_wanted(length);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kernels_are_added_up() {
        let mut tally = Tally::default();
        let launch = Counters { launches: 1, blocks: 3, ..Counters::default() };
        tally.add("a", &launch);
        tally.add("a", &launch);
        tally.add("b", &launch);
        assert_eq!((tally.total().launches, tally.total().blocks), (3, 9));
        let table = tally.table();
        let cells =
            |line: usize| table.lines().nth(line).map(|l| l.split_whitespace().take(3).collect::<Vec<_>>());
        assert_eq!(cells(1), Some(vec!["a", "2", "6"]));
        assert_eq!(cells(2), Some(vec!["b", "1", "3"]));
    }
}
