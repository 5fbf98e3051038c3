//! SIGINT and SIGTERM. While there is nothing to save, one ends the program at once; a training run is asked
//! to stop, and only a second one ends the program there. Windows knows the first of them alone, as Ctrl-C.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicUsize, Ordering};

use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::low_level;

use crate::error::{Context, ErrorKind, Result};
use crate::files;

/// What the next signal does.
#[repr(u8)]
enum Answer {
    /// The signal ends the program.
    Leave,
    /// The signal ends the program with the exit code of a run that goes on from a checkpoint.
    LeavePreempted,
    /// The signal is kept for [`Signals::received`].
    Keep,
}

/// What has been received, and what it does.
pub struct Signals {
    state: Arc<State>,
}

#[derive(Default)]
struct State {
    /// An [`Answer`].
    answer: AtomicU8,
    /// Number of the last signal that was kept; 0 for none.
    received: AtomicUsize,
    /// Whether the program is ending already.
    leaving: AtomicBool,
}

impl Signals {
    /// From now on signals are handled here, by a thread.
    pub fn install() -> Result<Self> {
        let signals = Signals { state: Arc::default() };
        signals.listen().kind(ErrorKind::Internal, || "cannot handle signals".into())?;
        Ok(signals)
    }

    #[cfg(unix)]
    fn listen(&self) -> std::io::Result<()> {
        let state = self.state.clone();
        let mut received = signal_hook::iterator::Signals::new([SIGINT, SIGTERM])?;
        let wait = move || received.forever().for_each(|number| state.receive(Signal(number as usize)));
        std::thread::Builder::new().name("signals".into()).spawn(wait)?;
        // A file over the limit of `ulimit -f` is a write that fails, with a message.
        signal_hook::flag::register(signal_hook::consts::SIGXFSZ, Arc::default()).map(drop)
    }

    /// Where there is nothing to wait on, a thread looks every now and then.
    #[cfg(not(unix))]
    fn listen(&self) -> std::io::Result<()> {
        const EVERY: std::time::Duration = std::time::Duration::from_millis(50);
        let (state, received) = (self.state.clone(), Arc::new(AtomicUsize::new(0)));
        for number in [SIGINT, SIGTERM] {
            signal_hook::flag::register_usize(number, received.clone(), number as usize)?;
        }
        let wait = move || {
            loop {
                std::thread::sleep(EVERY);
                match received.swap(0, Ordering::SeqCst) {
                    0 => {}
                    number => state.receive(Signal(number)),
                }
            }
        };
        std::thread::Builder::new().name("signals".into()).spawn(wait).map(drop)
    }

    /// From now on there is a checkpoint from which the run goes on.
    pub fn can_resume(&self) {
        self.state.answer.store(Answer::LeavePreempted as u8, Ordering::SeqCst);
    }

    /// From now on the first signal is a request, which [`Self::received`] tells of.
    pub fn request(&self) {
        self.state.answer.store(Answer::Keep as u8, Ordering::SeqCst);
    }

    /// The signal that was received since the last time, if any.
    pub fn take(&self) -> Option<Signal> {
        match self.state.received.swap(0, Ordering::SeqCst) {
            0 => None,
            number => Some(Signal(number)),
        }
    }

    /// The signal that was received, if any.
    pub fn received(&self) -> Option<Signal> {
        match self.state.received.load(Ordering::SeqCst) {
            0 => None,
            number => Some(Signal(number)),
        }
    }
}

impl State {
    fn receive(&self, signal: Signal) {
        let answer = self.answer.swap(Answer::Leave as u8, Ordering::SeqCst);
        if answer == Answer::Keep as u8 {
            self.received.store(signal.0, Ordering::SeqCst);
            return;
        }
        let preempted = answer == Answer::LeavePreempted as u8;
        let code = if preempted { ErrorKind::Preempted.exit_code() } else { signal.exit_code() };
        let leave = move || low_level::exit(code.into());
        // Gigabytes take a while to remove; another signal does not wait for that.
        if self.leaving.swap(true, Ordering::SeqCst) {
            leave();
        }
        let clean_up = move || {
            files::abandon();
            leave();
        };
        if std::thread::Builder::new().spawn(clean_up).is_err() {
            leave();
        }
    }
}

/// SIGINT or SIGTERM.
#[derive(Clone, Copy)]
pub struct Signal(usize);

impl Signal {
    /// Name of the signal.
    pub fn name(self) -> &'static str {
        if self.0 == SIGINT as usize { "SIGINT" } else { "SIGTERM" }
    }

    /// The exit code of a program that it ends.
    pub fn exit_code(self) -> u8 {
        128 + self.0 as u8
    }
}
