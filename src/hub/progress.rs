//! How far a download is.

use std::time::Duration;

/// How far the download of a file is.
#[derive(Clone, Copy, Debug)]
pub struct Progress<'a> {
    /// The file's name.
    pub file: &'a str,
    /// Bytes that have come, those of earlier tries included.
    pub received: u64,
    /// Bytes in all.
    pub size: u64,
}

/// What happens in a download.
#[derive(Clone, Copy, Debug)]
pub enum Event<'a> {
    /// Bytes have come.
    Received(Progress<'a>),
    /// The next try has to wait.
    Waiting {
        /// What was the matter with the last one.
        problem: &'a str,
        /// How long.
        wait: Duration,
    },
    /// Another process downloads a file of this name, and is waited for.
    Locked(&'a str),
}
