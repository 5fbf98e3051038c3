//! A headless Chromium, and what it sees of a page.

use std::io::{BufRead, BufReader, Write};
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use serde_json::Value;

use super::required::not_tested;

/// Longest time for one page.
const PATIENCE: Duration = Duration::from_secs(120);

pub struct Browser {
    program: PathBuf,
    /// Stands between the browser and any network: its address, and what was asked of it.
    proxy: String,
    requests: Arc<Mutex<Vec<String>>>,
}

/// How a page is looked at.
#[derive(Clone, Copy)]
pub struct Look {
    pub dark: bool,
    pub width: u32,
    pub height: u32,
}

/// The result of a look at a page.
pub struct Seen {
    /// The value that the probe returned.
    pub probe: Value,
    /// Errors and warnings of the console.
    pub console: Vec<String>,
    /// Requests that would have left the machine.
    pub requests: Vec<String>,
}

impl Browser {
    /// `None`, after saying so loudly, where there is none; with `DG_REQUIRE_ALL=1` that is a failure.
    pub fn find() -> Option<Browser> {
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("scripts/get-chromium.sh");
        let output = Command::new(script).stderr(Stdio::inherit()).output().expect("the script runs");
        if !output.status.success() {
            not_tested("there is no Chromium; make browser installs one");
            return None;
        }
        let program = PathBuf::from(String::from_utf8(output.stdout).unwrap().trim());
        let requests = Arc::new(Mutex::new(Vec::new()));
        let proxy = refuse_requests(requests.clone());
        Some(Browser { program, proxy, requests })
    }

    /// Opens a copy of the page with the function body `probe` run in it, which returns a JSON value.
    pub fn look(&self, page: &Path, look: Look, probe: &str) -> Seen {
        let html = std::fs::read_to_string(page).unwrap();
        let script = format!(
            "<script>addEventListener('load', () => {{ const seen = (() => {{ {probe} }})(); \
             document.documentElement.setAttribute('data-seen', encodeURIComponent(JSON.stringify(seen))); }});\
             </script></body>"
        );
        let copy = page.with_extension("probe.html");
        std::fs::write(&copy, html.replacen("</body>", &script, 1)).unwrap();
        let output = self.run(&copy, look, &["--dump-dom", "--virtual-time-budget=3000"]);
        let (_, rest) =
            output.stdout.split_once("data-seen=\"").unwrap_or_else(|| panic!("no probe: {}", output.stderr));
        let probe = decode(rest.split('"').next().unwrap());
        let console =
            output.stderr.lines().filter(|line| line.contains("CONSOLE")).map(str::to_owned).collect();
        Seen {
            probe: serde_json::from_str(&probe).unwrap(),
            console,
            requests: std::mem::take(&mut self.requests.lock().unwrap()),
        }
    }

    /// Takes a picture.
    pub fn screenshot(&self, page: &Path, look: Look, to: &Path) {
        let flag = format!("--screenshot={}", to.display());
        self.run(page, look, &[&flag, "--hide-scrollbars", "--virtual-time-budget=2000"]);
        assert!(std::fs::metadata(to).is_ok_and(|picture| picture.len() > 5_000), "{}", to.display());
    }

    /// Prints to a PDF file.
    pub fn print(&self, page: &Path, to: &Path) {
        let look = Look { dark: true, width: 1000, height: 800 };
        self.run(page, look, &[&format!("--print-to-pdf={}", to.display()), "--no-pdf-header-footer"]);
        assert!(std::fs::read(to).unwrap().starts_with(b"%PDF-"), "{}", to.display());
    }

    fn run(&self, page: &Path, look: Look, what: &[&str]) -> Output {
        let profile = tempfile::tempdir().unwrap();
        let mut command = Command::new(&self.program);
        command
            .args(["--headless", "--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-extensions"])
            .args(["--disable-background-networking", "--disable-component-update", "--disable-sync"])
            .args(["--enable-logging=stderr", "--force-device-scale-factor=1", "--disable-dev-shm-usage"])
            .arg(format!("--user-data-dir={}", profile.path().display()))
            .arg(format!("--proxy-server={}", self.proxy))
            .arg("--proxy-bypass-list=<-loopback>")
            .arg(format!("--window-size={},{}", look.width, look.height))
            .arg(format!("--blink-settings=preferredColorScheme={}", if look.dark { 0 } else { 1 }))
            .args(what)
            .arg(format!("file://{}", page.display()));
        let output = finish(command);
        assert!(output.success, "{}", output.stderr);
        output
    }
}

struct Output {
    success: bool,
    stdout: String,
    stderr: String,
}

/// Runs to the end, or kills what takes too long.
fn finish(mut command: Command) -> Output {
    let (out, err) = (tempfile::NamedTempFile::new().unwrap(), tempfile::NamedTempFile::new().unwrap());
    command.stdin(Stdio::null()).stdout(out.reopen().unwrap()).stderr(err.reopen().unwrap());
    let mut child = command.spawn().unwrap();
    let started = Instant::now();
    let success = loop {
        if let Some(status) = child.try_wait().unwrap() {
            break status.success();
        }
        if started.elapsed() > PATIENCE {
            child.kill().unwrap();
            child.wait().unwrap();
            break false;
        }
        std::thread::sleep(Duration::from_millis(20));
    };
    let text = |file: &tempfile::NamedTempFile| {
        String::from_utf8_lossy(&std::fs::read(file.path()).unwrap()).into_owned()
    };
    Output { success, stdout: text(&out), stderr: text(&err) }
}

/// A proxy that notes what is asked for, and lets nothing through.
fn refuse_requests(requests: Arc<Mutex<Vec<String>>>) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            let mut line = String::new();
            let _ = BufReader::new(&stream).read_line(&mut line);
            requests.lock().unwrap().push(line.trim().to_owned());
            let _ = stream
                .write_all(b"HTTP/1.1 502 No network\r\nContent-Length: 0\r\nConnection: close\r\n\r\n");
        }
    });
    address.to_string()
}

/// Undoes `encodeURIComponent`.
fn decode(text: &str) -> String {
    let mut bytes = Vec::new();
    let mut rest = text.as_bytes();
    while let [first, tail @ ..] = rest {
        rest = tail;
        if *first == b'%' {
            let code = std::str::from_utf8(&tail[..2]).unwrap();
            bytes.push(u8::from_str_radix(code, 16).unwrap());
            rest = &tail[2..];
        } else {
            bytes.push(*first);
        }
    }
    String::from_utf8(bytes).unwrap()
}
