//! Threads that stay awake between the operations of a pass.
//!
//! A decoding pass is hundreds of operations of some ten microseconds each. Waking a sleeping thread for each
//! of them costs as much as the operation, so the workers of the rayon pool that help a caller once go on
//! watching for its next operation for a while, and return to the pool when none comes.

use std::any::Any;
use std::cell::{Cell, UnsafeCell};
use std::hint::spin_loop;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

/// How long a helper watches for the next operation: longer than what a pass does between two on one thread.
const PATIENCE: Duration = Duration::from_micros(200);
/// How long it does so without offering its core to others.
const EAGERNESS: Duration = Duration::from_micros(50);
/// Glances at the shared state between two looks at the clock or offers of the core.
const GLANCES: usize = 64;

/// Runs `task(0)`, `task(1)`, … `task(count − 1)`, each once, in any order, on the calling thread and the
/// other workers of the current rayon pool. Inside a task, everything runs on the task's thread.
pub fn run(count: usize, task: impl Fn(usize) + Sync) {
    let helpers = rayon::current_num_threads() - 1;
    if count <= 1 || helpers == 0 || BUSY.get() {
        return (0..count).for_each(task);
    }
    TEAM.with(|team| team.run(count, helpers.min(count - 1), &task));
}

thread_local! {
    /// The helpers of this thread.
    static TEAM: Arc<Team> = Arc::default();
    /// Whether this thread runs tasks of an operation.
    static BUSY: Cell<bool> = const { Cell::new(false) };
}

/// An operation in progress.
#[derive(Clone, Copy)]
struct Job {
    task: *const (dyn Fn(usize) + Sync),
    count: usize,
}

/// One caller and its helpers. The caller owns `job` while `epoch` is even and `active` is 0; while `epoch`
/// is odd, helpers that have entered read it.
#[derive(Default)]
struct Team {
    /// Odd while an operation accepts helpers; grows with every change.
    epoch: AtomicUsize,
    /// Helpers that have entered the operation.
    active: AtomicUsize,
    /// The next task that nobody has taken.
    next: AtomicUsize,
    job: UnsafeCell<Option<Job>>,
    /// Helpers invited that have not left.
    present: AtomicUsize,
    /// Payload of a panic in a helper's task.
    panic: Mutex<Option<Box<dyn Any + Send>>>,
}

// SAFETY: `job` is the only part that is not `Sync`. The caller writes it while the operation is closed and
// no helper is inside; helpers read it only between entering and leaving, with the operation seen open after
// entering. The task it points to is `Sync`.
unsafe impl Sync for Team {}
// SAFETY: as above; what `job` points to may be called from any thread.
unsafe impl Send for Team {}

impl Team {
    fn run(self: &Arc<Self>, count: usize, helpers: usize, task: &(dyn Fn(usize) + Sync)) {
        // SAFETY: only the lifetime changes. `Closing` ends the operation before `task` goes out of scope,
        // also when it panics, and nobody calls the task after that.
        let task =
            unsafe { std::mem::transmute::<&(dyn Fn(usize) + Sync), &'static (dyn Fn(usize) + Sync)>(task) };
        let job = Job { task, count };
        // SAFETY: the last operation is closed and has no helpers inside, so that `job` is the caller's.
        unsafe { *self.job.get() = Some(job) };
        self.next.store(0, Ordering::Relaxed);
        self.epoch.fetch_add(1, Ordering::SeqCst);
        BUSY.set(true);
        let closing = Closing(self);
        self.invite(helpers);
        self.work(job);
        drop(closing);
        let panic = self.panic.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(panic) = panic {
            resume_unwind(panic);
        }
    }

    /// Makes up for helpers that have left.
    fn invite(self: &Arc<Self>, helpers: usize) {
        for _ in self.present.load(Ordering::Relaxed)..helpers {
            self.present.fetch_add(1, Ordering::Relaxed);
            let team = self.clone();
            rayon::spawn(move || team.help());
        }
    }

    /// Takes tasks until there are no more.
    fn work(&self, job: Job) {
        loop {
            let index = self.next.fetch_add(1, Ordering::Relaxed);
            if index >= job.count {
                return;
            }
            // SAFETY: the caller has not closed the operation, or waits for this helper: the task still
            // exists.
            unsafe { (*job.task)(index) };
        }
    }

    /// A helper's life: it takes part in operations until none has come for a while.
    fn help(&self) {
        let before = BUSY.replace(true);
        let mut served = 0;
        let mut idle_since = Instant::now();
        loop {
            let epoch = self.epoch.load(Ordering::Relaxed);
            if epoch % 2 == 1 && epoch != served {
                served = epoch;
                self.take_part();
                idle_since = Instant::now();
            }
            if !self.watch(served, idle_since) {
                break;
            }
        }
        BUSY.set(before);
        self.present.fetch_sub(1, Ordering::Relaxed);
    }

    /// Waits a moment for an operation other than `served`. Returns whether to go on.
    fn watch(&self, served: usize, idle_since: Instant) -> bool {
        for _ in 0..GLANCES {
            let epoch = self.epoch.load(Ordering::Relaxed);
            if epoch % 2 == 1 && epoch != served {
                return true;
            }
            spin_loop();
        }
        let idle = idle_since.elapsed();
        if idle > EAGERNESS {
            std::thread::yield_now();
        }
        idle < PATIENCE
    }

    /// Enters the operation, unless it has been closed, and works.
    fn take_part(&self) {
        // Sequentially consistent, like the caller's closing: either the helper sees that the operation is
        // closed, or the caller sees that the helper is inside.
        self.active.fetch_add(1, Ordering::SeqCst);
        if self.epoch.load(Ordering::SeqCst) % 2 == 1 {
            // SAFETY: the operation is open and this helper inside, so that the caller does not write.
            if let Some(job) = unsafe { *self.job.get() }
                && let Err(panic) = catch_unwind(AssertUnwindSafe(|| self.work(job)))
            {
                *self.panic.lock().unwrap_or_else(PoisonError::into_inner) = Some(panic);
            }
        }
        self.active.fetch_sub(1, Ordering::Release);
    }
}

/// Ends an operation when dropped: no helper enters any more, and those inside have left.
struct Closing<'a>(&'a Team);

impl Drop for Closing<'_> {
    fn drop(&mut self) {
        let team = self.0;
        // A caller that panics leaves tasks; nobody needs them.
        team.next.store(usize::MAX / 2, Ordering::Relaxed);
        team.epoch.fetch_add(1, Ordering::SeqCst);
        let mut glances = 0usize;
        while team.active.load(Ordering::SeqCst) != 0 {
            spin_loop();
            glances += 1;
            // A helper that the system has taken off its core may need this one.
            if glances.is_multiple_of(16 * GLANCES) {
                std::thread::yield_now();
            }
        }
        BUSY.set(false);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::AtomicBool;

    fn pool(threads: usize) -> rayon::ThreadPool {
        rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap()
    }

    #[test]
    fn every_task_runs_once_and_is_over_on_return() {
        for threads in [1, 2, 5] {
            pool(threads).install(|| {
                for count in (0..40).chain([1000]).cycle().take(4000) {
                    let done: Vec<AtomicUsize> = (0..count).map(|_| AtomicUsize::new(0)).collect();
                    run(count, |i| {
                        done[i].fetch_add(1, Ordering::Relaxed);
                    });
                    assert!(done.iter().all(|n| n.load(Ordering::Relaxed) == 1), "{count} on {threads}");
                }
            });
        }
    }

    #[test]
    fn helpers_take_part() {
        pool(2).install(|| {
            let (first, second) = (AtomicBool::new(false), AtomicBool::new(false));
            // Each task waits for the other: one thread alone would never finish.
            run(2, |i| {
                let (own, other) = if i == 0 { (&first, &second) } else { (&second, &first) };
                own.store(true, Ordering::SeqCst);
                while !other.load(Ordering::SeqCst) {
                    std::thread::yield_now();
                }
            });
        });
    }

    #[test]
    fn tasks_may_have_tasks() {
        let total = AtomicUsize::new(0);
        pool(3).install(|| {
            run(10, |_| {
                run(10, |i| {
                    total.fetch_add(i, Ordering::Relaxed);
                });
            });
        });
        assert_eq!(total.into_inner(), 450);
    }

    #[test]
    fn a_panic_of_any_task_reaches_the_caller() {
        pool(2).install(|| {
            for bad in 0..50 {
                let panics = catch_unwind(|| run(50, |i| assert_ne!(i, bad)));
                assert!(panics.is_err(), "task {bad}");
            }
            let done = AtomicUsize::new(0);
            run(50, |_| {
                done.fetch_add(1, Ordering::Relaxed);
            });
            assert_eq!(done.into_inner(), 50);
        });
    }

    #[test]
    fn callers_do_not_disturb_each_other() {
        let pool = pool(3);
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    for round in 1..500 {
                        let sum = AtomicUsize::new(0);
                        let add = || {
                            run(round, |i| {
                                sum.fetch_add(i, Ordering::Relaxed);
                            })
                        };
                        if round % 2 == 0 {
                            pool.install(add)
                        } else {
                            add()
                        }
                        assert_eq!(sum.into_inner(), round * (round - 1) / 2);
                    }
                });
            }
        });
    }
}
