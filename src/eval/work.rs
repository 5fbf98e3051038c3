//! Work on several threads whose results come in order, so that a file of them is the same whoever is
//! fastest.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::mpsc;

use super::sandbox::MAX_SLOTS;
use crate::error::Result;

/// Whether all was done, or somebody asked to stop.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Done {
    All,
    Stopped,
}

/// Does `work` for every item on up to `workers` threads, each with a slot of its own. `sink` gets the
/// results in the order of the items; after an error of it, or once `should_stop`, no more work is begun.
pub(super) fn in_order<T: Sync, R: Send>(
    items: &[T],
    workers: usize,
    should_stop: &(dyn Fn() -> bool + Sync),
    work: &(dyn Fn(u32, &T) -> R + Sync),
    sink: &mut dyn FnMut(usize, R) -> Result<()>,
) -> Result<Done> {
    let next = AtomicUsize::new(0);
    let failed = AtomicBool::new(false);
    let (sender, receiver) = mpsc::channel();
    let workers = workers.clamp(1, MAX_SLOTS as usize).min(items.len().max(1));
    std::thread::scope(|scope| {
        for slot in 0..workers as u32 {
            let (sender, next, failed) = (sender.clone(), &next, &failed);
            scope.spawn(move || {
                while !failed.load(Ordering::Relaxed) && !should_stop() {
                    let i = next.fetch_add(1, Ordering::Relaxed);
                    let Some(item) = items.get(i) else { return };
                    if sender.send((i, work(slot, item))).is_err() {
                        return;
                    }
                }
            });
        }
        drop(sender);
        let mut early = BTreeMap::new();
        let mut turn = 0;
        let mut outcome = Ok(());
        for (i, result) in receiver {
            early.insert(i, result);
            while let Some(result) = early.remove(&turn).filter(|_| outcome.is_ok()) {
                outcome = sink(turn, result);
                failed.store(outcome.is_err(), Ordering::Relaxed);
                turn += 1;
            }
        }
        outcome.map(|()| if turn == items.len() { Done::All } else { Done::Stopped })
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::Error;

    #[test]
    fn results_come_in_order_and_an_error_ends_the_work() {
        let items: Vec<u64> = (0..200).collect();
        let mut seen = Vec::new();
        let work = |slot: u32, item: &u64| {
            assert!(slot < 5);
            std::thread::sleep(std::time::Duration::from_micros((item * 7919) % 300));
            item * 2
        };
        let mut sink = |i: usize, result: u64| {
            assert_eq!(result, 2 * i as u64);
            seen.push(i);
            Ok(())
        };
        assert_eq!(in_order(&items, 5, &|| false, &work, &mut sink).unwrap(), Done::All);
        assert_eq!(seen, (0..200).collect::<Vec<_>>());

        let done = AtomicUsize::new(0);
        let work = |_: u32, _: &u64| {
            done.fetch_add(1, Ordering::Relaxed);
        };
        let mut sink = |i: usize, ()| if i == 3 { Err(Error::device("full")) } else { Ok(()) };
        assert!(in_order(&items, 1, &|| false, &work, &mut sink).is_err());
        let stop = || done.load(Ordering::Relaxed) >= 20;
        done.store(0, Ordering::Relaxed);
        assert_eq!(in_order(&items, 2, &stop, &work, &mut |_, ()| Ok(())).unwrap(), Done::Stopped);
    }
}
