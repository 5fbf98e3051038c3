//! A `dg-run` that is watched.

use std::io::{BufRead, BufReader, Read};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

use crate::tiny::Tiny;

const PATIENCE: Duration = Duration::from_secs(120);

/// A process, killed when dropped.
pub struct Running {
    child: Child,
    lines: Receiver<String>,
    stderr: String,
}

impl Running {
    /// Starts `dg-run` in the temporary folder with words separated by spaces.
    pub fn start(tiny: &Tiny, arguments: &str) -> Self {
        let mut command = Command::new(env!("CARGO_BIN_EXE_dg-run"));
        command.args(arguments.split_whitespace());
        Running::spawn(tiny, command)
    }

    /// Starts any program there.
    pub fn spawn(tiny: &Tiny, mut command: Command) -> Self {
        command.current_dir(tiny.path("")).stdin(Stdio::piped()).stdout(Stdio::piped());
        // A shell has what it starts in the background ignore SIGINT, and with it all that this starts.
        // SAFETY: between fork and exec there is one system call.
        unsafe {
            command.pre_exec(|| {
                libc::signal(libc::SIGINT, libc::SIG_DFL);
                Ok(())
            });
        }
        let mut child = command.stderr(Stdio::piped()).spawn().unwrap();
        let (sender, lines) = channel();
        let stderr = BufReader::new(child.stderr.take().unwrap());
        std::thread::spawn(move || {
            stderr.lines().map_while(Result::ok).for_each(|line| drop(sender.send(line)));
        });
        Running { child, lines, stderr: String::new() }
    }

    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// Waits for a line on standard error with `text` in it; without one if the process ends before.
    pub fn wait_for(&mut self, text: &str) -> Option<String> {
        loop {
            let line = self.lines.recv_timeout(PATIENCE);
            let line = match line {
                Ok(line) => line,
                Err(std::sync::mpsc::RecvTimeoutError::Disconnected) => return None,
                Err(e) => panic!("{text}: {e}: {}", self.stderr),
            };
            self.stderr += &format!("{line}\n");
            if line.contains(text) {
                return Some(line);
            }
        }
    }

    /// Waits for the first byte on standard output.
    pub fn wait_for_output(&mut self) {
        self.child.stdout.as_mut().unwrap().read_exact(&mut [0]).unwrap();
    }

    pub fn is_running(&mut self) -> bool {
        self.child.try_wait().unwrap().is_none()
    }

    pub fn signal(&self, signal: Signal) {
        // A process that has ended, but has not been waited for, can still be signalled.
        kill_process(Pid::from_raw(self.child.id() as i32).unwrap(), signal).unwrap();
    }

    /// Waits for the end; 128 and the signal's number for a process that one ended, as a shell says it.
    pub fn exit_code(&mut self) -> i32 {
        let started = Instant::now();
        while self.is_running() {
            assert!(started.elapsed() < PATIENCE, "still running: {}", self.stderr());
            std::thread::sleep(Duration::from_millis(1));
        }
        let status = self.child.wait().unwrap();
        self.lines.iter().for_each(|line| self.stderr += &format!("{line}\n"));
        assert!(!self.stderr.contains("panicked"), "{}", self.stderr);
        status.code().or(status.signal().map(|signal| 128 + signal)).unwrap()
    }

    /// The lines of standard error that have been read.
    pub fn stderr(&self) -> &str {
        &self.stderr
    }

    /// Waits for the end, which must be a good one.
    #[track_caller]
    pub fn succeeds(&mut self) {
        let code = self.exit_code();
        assert_eq!(code, 0, "{}", self.stderr);
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A number from 0 to 1 that is another one each time.
pub fn random() -> f64 {
    use std::hash::{BuildHasher, RandomState};
    RandomState::new().hash_one(0) as f64 / u64::MAX as f64
}
