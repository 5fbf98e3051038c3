//! Waiting for what only answers when it is asked.

use std::thread;
use std::time::Duration;

/// Pauses between two questions, `waited` after the first: some may come late, and others need the processor.
pub(super) fn pause(waited: Duration) {
    const MICROSECOND: Duration = Duration::from_micros(1);
    match waited {
        waited if waited > 20_000 * MICROSECOND => thread::sleep(500 * MICROSECOND),
        waited if waited > 200 * MICROSECOND => thread::sleep(50 * MICROSECOND),
        _ => thread::yield_now(),
    }
}
