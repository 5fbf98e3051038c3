//! What strangers send to rank 0: without the job's token, no frame of theirs is accepted.
#![no_main]

use std::io::{self, Read, Write};

use deepguard::dist::frame::{FrameError, Side, greet};
use libfuzzer_sys::fuzz_target;

/// Says what it was given, and hears nothing.
struct Stranger<'a>(&'a [u8]);

impl Read for Stranger<'_> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        self.0.read(into)
    }
}

impl Write for Stranger<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fuzz_target!(|bytes: &[u8]| {
    let refused = greet(&mut Stranger(bytes), Side::Listener, b"token");
    let why = refused.err().expect("a refusal");
    assert!(!matches!(why, FrameError::NotYet), "{why}");
});
