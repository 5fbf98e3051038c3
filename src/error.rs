//! One error type for the whole crate: a kind, which fixes the exit code of `dg-run`, and a message that says
//! what the thing is, what was expected, what was found and what to do next.

use std::fmt;

/// What went wrong, at the granularity a caller (or a shell script) acts on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum ErrorKind {
    /// A defect of deepguard itself. Exit code 1.
    Internal,
    /// Wrong arguments or configuration. Exit code 2.
    Usage,
    /// Training, validation or prompt data that cannot be used. Exit code 3.
    Data,
    /// A model, adapter, tokenizer or checkpoint that cannot be used. Exit code 4.
    Model,
    /// Out of memory or disk, or a device that cannot be used. Exit code 5.
    Device,
    /// A rank that was lost or stalled, that cannot join, or that is not like the others. Exit code 6.
    Cluster,
    /// An evaluation whose verdicts are not complete, a gate that was not passed, or work of which a part was
    /// given up because ranks were lost with it. Exit code 7.
    Verdict,
    /// Stopped on request, after everything was saved. Exit code 75.
    Preempted,
    /// Stopped on request, with nothing to save. Exit code 130, or that of the signal.
    Interrupted,
}

impl ErrorKind {
    /// The process exit code of `dg-run` for this kind.
    pub fn exit_code(self) -> u8 {
        match self {
            ErrorKind::Internal => 1,
            ErrorKind::Usage => 2,
            ErrorKind::Data => 3,
            ErrorKind::Model => 4,
            ErrorKind::Device => 5,
            ErrorKind::Cluster => 6,
            ErrorKind::Verdict => 7,
            ErrorKind::Preempted => 75,
            ErrorKind::Interrupted => 130,
        }
    }

    /// The kind of an exit code, if it is that of one.
    pub(crate) fn of_exit_code(code: u8) -> Option<Self> {
        use ErrorKind::*;
        let kinds = [Internal, Usage, Data, Model, Device, Cluster, Verdict, Preempted, Interrupted];
        kinds.into_iter().find(|kind| kind.exit_code() == code)
    }
}

/// An error with its kind and a message for people.
#[derive(Debug)]
pub struct Error {
    kind: ErrorKind,
    message: String,
    source: Option<Box<dyn std::error::Error + Send + Sync>>,
    /// Whether memory was asked for that is not there.
    lacks_memory: bool,
}

/// `Result` with [`Error`].
pub type Result<T> = std::result::Result<T, Error>;

impl Error {
    /// A new error of `kind`.
    pub fn new(kind: ErrorKind, message: impl Into<String>) -> Self {
        Error { kind, message: message.into(), source: None, lacks_memory: false }
    }

    /// Wrong arguments or configuration (exit code 2).
    pub fn usage(message: impl Into<String>) -> Self {
        Error::new(ErrorKind::Usage, message)
    }

    /// Unusable data (exit code 3).
    pub fn data(message: impl Into<String>) -> Self {
        Error::new(ErrorKind::Data, message)
    }

    /// An unusable model, adapter, tokenizer or checkpoint (exit code 4).
    pub fn model(message: impl Into<String>) -> Self {
        Error::new(ErrorKind::Model, message)
    }

    /// Out of memory or disk, or an unusable device (exit code 5).
    pub fn device(message: impl Into<String>) -> Self {
        Error::new(ErrorKind::Device, message)
    }

    /// Memory that is not there (exit code 5). Whoever asked for it knows what helps:
    /// [`Error::memory_advice`].
    pub fn memory(message: impl Into<String>) -> Self {
        Error { lacks_memory: true, ..Error::device(message) }
    }

    /// A rank that was lost or stalled, that cannot join, or that is not like the others (exit code 6).
    pub fn cluster(message: impl Into<String>) -> Self {
        Error::new(ErrorKind::Cluster, message)
    }

    /// A defect of deepguard itself (exit code 1).
    pub fn internal(message: impl Into<String>) -> Self {
        Error::new(ErrorKind::Internal, message)
    }

    /// Stopped on request, with nothing to save (exit code 130).
    pub fn interrupted() -> Self {
        Error::new(ErrorKind::Interrupted, "stopped on request")
    }

    /// Keeps the underlying error, shown after the message.
    pub fn with_source(mut self, source: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Self {
        self.source = Some(source.into());
        self
    }

    /// Puts `what` in front of the message: `"what: message"`.
    pub fn context(mut self, what: impl fmt::Display) -> Self {
        self.message = format!("{what}: {}", self.message);
        self
    }

    /// Puts what to do next behind everything else: `"message: source; advice"`.
    pub fn advice(self, advice: impl fmt::Display) -> Self {
        Error { message: format!("{self}; {advice}"), source: None, ..self }
    }

    /// [`Error::advice`] for memory that is not there, once: the first to know what helps is the nearest. Any
    /// other error stays as it is.
    pub fn memory_advice(self, advice: impl fmt::Display) -> Self {
        match self.lacks_memory {
            true => Error { lacks_memory: false, ..self.advice(advice) },
            false => self,
        }
    }

    /// The kind, which fixes the exit code.
    pub fn kind(&self) -> ErrorKind {
        self.kind
    }
}

/// The only line as it is; several with a title, one below the other.
pub fn list(title: &str, lines: impl IntoIterator<Item = String>) -> String {
    let lines: Vec<String> = lines.into_iter().collect();
    match lines.as_slice() {
        [line] => line.clone(),
        _ => format!("{title}:\n  {}", lines.join("\n  ")),
    }
}

/// The first `most` lines, and how many more there are.
#[cfg(all(feature = "eval", unix))]
pub(crate) fn at_most(most: usize, lines: impl IntoIterator<Item = String>) -> Vec<String> {
    let mut lines: Vec<String> = lines.into_iter().collect();
    let more = lines.len().saturating_sub(most);
    lines.truncate(most);
    lines.extend((more > 0).then(|| format!("and {more} more")));
    lines
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)?;
        match &self.source {
            Some(source) => write!(f, ": {source}"),
            None => Ok(()),
        }
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        self.source.as_ref().map(|s| s.as_ref() as _)
    }
}

/// Turns any error into an [`Error`] of a given kind with a sentence about what was being done.
pub trait Context<T> {
    /// Adds the kind and the sentence.
    fn kind(self, kind: ErrorKind, what: impl FnOnce() -> String) -> Result<T>;
}

impl<T, E: Into<Box<dyn std::error::Error + Send + Sync>>> Context<T> for std::result::Result<T, E> {
    fn kind(self, kind: ErrorKind, what: impl FnOnce() -> String) -> Result<T> {
        self.map_err(|e| Error::new(kind, what()).with_source(e))
    }
}
