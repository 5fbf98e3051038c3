//! SIGINT and SIGTERM. While there is nothing to save, one ends the program at once; a training run is asked to stop, and
//! only a second one ends the program there.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use signal_hook::consts::{SIGINT, SIGTERM, SIGXFSZ};
use signal_hook::flag;

use crate::error::{Context, ErrorKind, Result};

/// What has been received, and what it does.
pub struct Signals {
    /// Whether the next signal ends the program.
    leave: Arc<AtomicBool>,
    /// Number of the last signal; 0 for none.
    received: Arc<AtomicUsize>,
}

impl Signals {
    /// From now on signals are handled here.
    pub fn install() -> Result<Self> {
        let signals =
            Signals { leave: Arc::new(AtomicBool::new(true)), received: Arc::new(AtomicUsize::new(0)) };
        signals.register().kind(ErrorKind::Internal, || "cannot handle signals".into())?;
        Ok(signals)
    }

    fn register(&self) -> std::io::Result<()> {
        for signal in [SIGINT, SIGTERM] {
            // In this order: the first one sets what makes the second one leave.
            flag::register_conditional_shutdown(signal, 128 + signal, self.leave.clone())?;
            flag::register(signal, self.leave.clone())?;
            flag::register_usize(signal, self.received.clone(), signal as usize)?;
        }
        // A file over the limit of `ulimit -f` is a write that fails, with a message.
        flag::register(SIGXFSZ, Arc::default())?;
        Ok(())
    }

    /// From now on the first signal is a request, which [`Self::received`] tells of.
    pub fn request(&self) {
        self.leave.store(false, Ordering::SeqCst);
    }

    /// The signal that was received, if any.
    pub fn received(&self) -> Option<Signal> {
        match self.received.load(Ordering::SeqCst) {
            0 => None,
            number => Some(Signal(number)),
        }
    }
}

/// SIGINT or SIGTERM.
#[derive(Clone, Copy)]
pub struct Signal(usize);

impl Signal {
    /// Its name.
    pub fn name(self) -> &'static str {
        if self.0 == SIGINT as usize { "SIGINT" } else { "SIGTERM" }
    }

    /// The exit code of a program that it ends.
    pub fn exit_code(self) -> u8 {
        128 + self.0 as u8
    }
}
