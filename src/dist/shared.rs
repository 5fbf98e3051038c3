//! What the threads of the control plane and its owner have in common.

use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use super::message::Progress;
use crate::error::{Error, ErrorKind};

/// What happens to a rank when another one fails: called once, by a thread of the control plane, with an
/// error of kind `Cluster`. It should end the process, as nothing else ends what waits for the ranks that are
/// gone.
pub type OnFailure = Box<dyn FnOnce(Error) + Send>;

/// What to do next, if nobody knows better.
const ADVICE: &str = "start all ranks again";

/// Where this rank is, and how it ends.
pub(super) struct Shared {
    own: Mutex<Own>,
    changed: Condvar,
    outcome: Mutex<Option<Outcome>>,
    decided: Condvar,
    on_failure: Mutex<Option<OnFailure>>,
}

struct Own {
    progress: Progress,
    advice: String,
}

/// How it ends.
pub(super) enum Outcome {
    Finished,
    /// This rank has left with an error of its own.
    Left,
    Failed(ErrorKind, String),
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Shared {
    pub(super) fn new(on_failure: OnFailure) -> Self {
        let progress = Progress { phase: "start".to_owned(), ..Progress::default() };
        Shared {
            own: Mutex::new(Own { progress, advice: ADVICE.to_owned() }),
            changed: Condvar::new(),
            outcome: Mutex::new(None),
            decided: Condvar::new(),
            on_failure: Mutex::new(Some(on_failure)),
        }
    }

    pub(super) fn advise(&self, advice: String) {
        lock(&self.own).advice = advice;
    }

    pub(super) fn wait_for_outcome(&self) {
        let outcome = lock(&self.outcome);
        drop(self.decided.wait_while(outcome, |outcome| outcome.is_none()));
    }

    pub(super) fn progress(&self) -> Progress {
        lock(&self.own).progress.clone()
    }

    pub(super) fn advance(&self, change: impl FnOnce(&mut Progress)) {
        change(&mut lock(&self.own).progress);
        self.changed.notify_all();
    }

    /// Waits until this rank is somewhere else than `known`, but no longer than `limit`.
    pub(super) fn wait_for_change(&self, known: &Progress, limit: Duration) {
        let own = lock(&self.own);
        let waited =
            self.changed.wait_timeout_while(own, limit, |own| own.progress == *known && !self.is_over());
        drop(waited);
    }

    pub(super) fn advice(&self) -> String {
        lock(&self.own).advice.clone()
    }

    pub(super) fn is_over(&self) -> bool {
        lock(&self.outcome).is_some()
    }

    pub(super) fn finish(&self) {
        self.set(Outcome::Finished);
    }

    /// All ranks have to end: the owner hears of it, unless it has ended itself. Those who wait here hear of
    /// it after that, so that one of them alone tells it.
    pub(super) fn fail(&self, error: Error) {
        if self.is_over() {
            return;
        }
        let failed = Outcome::Failed(error.kind(), error.to_string());
        let on_failure = lock(&self.on_failure).take();
        if let Some(on_failure) = on_failure {
            on_failure(error);
        }
        self.set(failed);
    }

    /// Whether this is the first outcome, which counts.
    pub(super) fn set(&self, outcome: Outcome) -> bool {
        let mut known = lock(&self.outcome);
        let is_first = known.is_none();
        known.get_or_insert(outcome);
        drop(known);
        self.decided.notify_all();
        self.changed.notify_all();
        is_first
    }

    pub(super) fn failure(&self) -> Option<Error> {
        match &*lock(&self.outcome) {
            Some(Outcome::Failed(kind, text)) => Some(Error::new(*kind, text.clone())),
            _ => None,
        }
    }
}

/// The error that rank 0 tells with its exit code.
pub(super) fn told(code: u8, message: String) -> Error {
    let kind = ErrorKind::of_exit_code(code);
    Error::new(kind.unwrap_or(ErrorKind::Cluster), message)
}
