//! A hub on this machine, with one model, that can be made to misbehave.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::sync::{Arc, Mutex};

use serde_json::{Value, json};
use sha1::Sha1;
use sha2::{Digest, Sha256};

/// The model's commit.
pub const COMMIT: &str = "0123456789abcdef0123456789abcdef01234567";

/// The revision that names this commit in an address.
const REVISIONS: [&str; 4] = ["main", "v1.0", "refs%2Fpr%2F1", COMMIT];

/// The model's id.
pub const ID: &str = "org/tiny";

/// A request that the server has seen.
#[derive(Clone, Debug)]
pub struct Request {
    pub path: String,
    /// The first byte wanted.
    pub from: Option<usize>,
    pub token: Option<String>,
    /// How the content may be packed.
    pub encoding: Option<String>,
}

/// How the server misbehaves instead of serving a request.
pub enum Mischief {
    /// Another answer: status, body.
    Answer(u16, Vec<u8>),
    /// An answer without a body: status, lines of the head.
    Refuse(u16, String),
    /// Another address is named, or a path on the same host.
    Redirect(String),
    /// One more file is listed, as it is here.
    List(Value),
    /// The connection breaks after so many bytes.
    Break(usize),
    /// A range request is answered with the whole file.
    Whole,
    /// Other bytes are sent instead, from the requested offset on.
    Instead(Vec<u8>),
}

type Plan = Box<dyn Fn(&Request, usize) -> Option<Mischief> + Send + Sync>;

/// The files and settings of the hub.
struct State {
    files: BTreeMap<String, Vec<u8>>,
    /// Where large contents are: another host, to who asks.
    contents: String,
    requests: Mutex<Vec<Request>>,
    plan: Plan,
}

/// A running hub. It ends with the process.
pub struct Server {
    address: String,
    state: Arc<State>,
}

impl Server {
    /// Serves the files of `model`, as `plan` has it: it gets a request and how many of the same path were
    /// before.
    pub fn new(
        model: &Path,
        plan: impl Fn(&Request, usize) -> Option<Mischief> + Send + Sync + 'static,
    ) -> Self {
        let read = |entry: std::io::Result<std::fs::DirEntry>| {
            let entry = entry.unwrap();
            (entry.file_name().into_string().unwrap(), std::fs::read(entry.path()).unwrap())
        };
        let files = std::fs::read_dir(model).unwrap().map(read).collect();
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let (address, contents) =
            (format!("http://127.0.0.1:{port}"), format!("http://localhost:{port}/content"));
        let state = Arc::new(State { files, contents, requests: Mutex::default(), plan: Box::new(plan) });
        let shared = state.clone();
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let state = shared.clone();
                // A client that goes away is none of the hub's business.
                std::thread::spawn(move || stream.and_then(|stream| state.serve(stream)));
            }
        });
        Server { address, state }
    }

    pub fn address(&self) -> &str {
        &self.address
    }

    /// The requests whose path ends in `name`.
    pub fn requests(&self, name: &str) -> Vec<Request> {
        let all = self.state.requests.lock().unwrap();
        all.iter().filter(|request| request.path.ends_with(name)).cloned().collect()
    }
}

impl State {
    /// One request per connection.
    fn serve(&self, stream: TcpStream) -> std::io::Result<()> {
        let Some(request) = read_request(&stream)? else { return Ok(()) };
        let before = {
            let mut all = self.requests.lock().unwrap();
            let before = all.iter().filter(|other| other.path == request.path).count();
            all.push(request.clone());
            before
        };
        let mischief = (self.plan)(&request, before);
        match &mischief {
            Some(Mischief::Answer(status, body)) => return reply(&stream, *status, "", body, body.len()),
            Some(Mischief::Refuse(status, head)) => return reply(&stream, *status, head, b"", 0),
            Some(Mischief::Redirect(to)) => return redirect(&stream, 307, to),
            _ => {}
        }
        let path = request.path.as_str();
        let large = path.strip_prefix(&format!("/{ID}/resolve/{COMMIT}/")).filter(|name| is_large(name));
        if let Some(name) = large {
            return redirect(&stream, 302, &format!("{}/{name}", self.contents));
        }
        let Some(content) = self.content(path, &mischief) else {
            return reply(&stream, 404, "", b"", 0);
        };
        match mischief {
            Some(Mischief::Break(bytes)) => part(&stream, &content, request.from, bytes),
            Some(Mischief::Whole) => part(&stream, &content, None, usize::MAX),
            Some(Mischief::Instead(other)) => part(&stream, &other, request.from, usize::MAX),
            _ => part(&stream, &content, request.from, usize::MAX),
        }
    }

    /// The answer for `path`.
    fn content(&self, path: &str, mischief: &Option<Mischief>) -> Option<Vec<u8>> {
        let listing = path.strip_prefix(&format!("/api/models/{ID}/revision/"));
        let revision = listing.and_then(|rest| rest.strip_suffix("?blobs=true"));
        if revision.is_some_and(|revision| REVISIONS.contains(&revision)) {
            let mut listing = self.listing();
            if let (Some(Mischief::List(file)), Some(files)) = (mischief, listing["siblings"].as_array_mut())
            {
                files.push(file.clone());
            }
            return Some(listing.to_string().into_bytes());
        }
        let name = path.strip_prefix(&format!("/{ID}/resolve/{COMMIT}/"));
        self.files.get(name.or(path.strip_prefix("/content/"))?).cloned()
    }

    fn listing(&self) -> Value {
        let files: Vec<_> = self.files.iter().map(|(name, content)| listed(name, content)).collect();
        json!({"id": ID, "sha": COMMIT, "siblings": files})
    }
}

/// As the hub lists a file: large ones are in LFS.
fn listed(name: &str, content: &[u8]) -> Value {
    let header = format!("blob {}\0", content.len());
    let mut file = json!({"rfilename": name, "size": content.len(),
                          "blobId": hex(&Sha1::new_with_prefix(header).chain_update(content).finalize())});
    if is_large(name) {
        file["lfs"] =
            json!({"sha256": hex(&Sha256::digest(content)), "size": content.len(), "pointerSize": 134});
    }
    file
}

fn is_large(name: &str) -> bool {
    name.ends_with(".safetensors")
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn read_request(stream: &TcpStream) -> std::io::Result<Option<Request>> {
    let mut lines = BufReader::new(stream).lines();
    let Some(first) = lines.next().transpose()? else { return Ok(None) };
    let path = first.split(' ').nth(1).unwrap_or_default().to_owned();
    let mut request = Request { path, from: None, token: None, encoding: None };
    for line in lines {
        let line = line?.to_lowercase();
        if let Some(range) = line.strip_prefix("range: bytes=") {
            request.from = range.trim_end_matches('-').parse().ok();
        }
        if let Some(token) = line.strip_prefix("authorization: bearer ") {
            request.token = Some(token.to_owned());
        }
        if let Some(encoding) = line.strip_prefix("accept-encoding: ") {
            request.encoding = Some(encoding.to_owned());
        }
        if line.is_empty() {
            break;
        }
    }
    Ok(Some(request))
}

/// Sends a content from a byte on, but at most `limit` bytes of what is promised.
fn part(stream: &TcpStream, content: &[u8], from: Option<usize>, limit: usize) -> std::io::Result<()> {
    let size = content.len();
    let rest = &content[from.unwrap_or(0).min(size)..];
    let sent = &rest[..rest.len().min(limit)];
    match from {
        Some(from) => {
            let range = format!("content-range: bytes {from}-{}/{size}\r\n", size - 1);
            reply(stream, 206, &range, sent, rest.len())
        }
        None => reply(stream, 200, "", sent, rest.len()),
    }
}

fn redirect(stream: &TcpStream, status: u16, to: &str) -> std::io::Result<()> {
    reply(stream, status, &format!("location: {to}\r\n"), b"", 0)
}

fn reply(
    mut stream: &TcpStream,
    status: u16,
    headers: &str,
    body: &[u8],
    length: usize,
) -> std::io::Result<()> {
    let head =
        format!("HTTP/1.1 {status} Answer\r\n{headers}content-length: {length}\r\nconnection: close\r\n\r\n");
    stream.write_all(head.as_bytes())?;
    stream.write_all(body)
}
