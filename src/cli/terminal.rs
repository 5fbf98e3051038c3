//! Standard output and standard error: what a terminal shows, and a reader that may have gone.

use std::fmt;
use std::io::Write;

use anstream::stream::RawStream;
use anstream::{AutoStream, ColorChoice};
use indicatif::{ProgressBar, ProgressStyle};

use crate::error::{Error, Result};
pub(super) use crate::platform::has_reader;

/// Whether standard output shows colours.
pub(super) fn colours() -> bool {
    has_style(&std::io::stdout())
}

/// Whether standard error shows bars; elsewhere, lines tell of the progress.
pub(super) fn shows_bars() -> bool {
    has_style(&std::io::stderr()) && !ProgressBar::no_length().is_hidden()
}

/// Gives a bar a look. A template that is none leaves it as it was.
pub(super) fn set_style(bar: &ProgressBar, template: &str) {
    if let Ok(style) = ProgressStyle::with_template(template) {
        bar.set_style(style);
    }
}

/// The rule of clap's help: a terminal, unless TERM is `dumb` or unset or NO_COLOR is set and not empty.
/// CLICOLOR and CLICOLOR_FORCE decide otherwise.
fn has_style<S: RawStream>(stream: &S) -> bool {
    AutoStream::choice(stream) != ColorChoice::Never
}

/// The end of a command whose output nobody reads any more. It is no failure: the exit code is 0.
#[derive(Debug)]
pub(super) struct ReaderGone;

impl fmt::Display for ReaderGone {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("its reader has gone")
    }
}

impl std::error::Error for ReaderGone {}

impl ReaderGone {
    /// Whether `error` is this end.
    pub(super) fn is_cause_of(error: &(dyn std::error::Error + 'static)) -> bool {
        std::iter::successors(Some(error), |error| error.source()).any(|cause| cause.is::<ReaderGone>())
    }
}

impl From<ReaderGone> for Error {
    fn from(gone: ReaderGone) -> Self {
        Error::device("standard output").with_source(gone)
    }
}

/// Writes data to standard output.
///
/// # Errors
/// [`ReaderGone`] where nobody reads it, kind `Device` where it cannot be written.
pub(super) fn print(text: &str) -> Result<()> {
    let mut out = std::io::stdout().lock();
    let written = out.write_all(text.as_bytes()).and_then(|()| out.flush());
    written.map_err(|e| match e.kind() {
        std::io::ErrorKind::BrokenPipe => ReaderGone.into(),
        _ => Error::device("cannot write to standard output").with_source(e),
    })
}

/// Ends a command whose output nobody will read, before there is any to write.
///
/// # Errors
/// [`ReaderGone`].
pub(super) fn require_reader() -> Result<()> {
    if has_reader() { Ok(()) } else { Err(ReaderGone.into()) }
}
