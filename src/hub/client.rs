//! Requests to the hub.

use std::fs::{File, OpenOptions};
use std::io::{ErrorKind, Read, Write};
use std::path::Path;
use std::time::Duration;

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use serde::Deserialize;
use ureq::config::RedirectAuthHeaders;
use ureq::http::{HeaderMap, Response, StatusCode, header};
use ureq::tls::{RootCerts, TlsConfig};
use ureq::{Agent, Body, Timeout};

use super::Settings;
use super::file::RemoteFile;
use super::progress::{Event, Progress};
use super::retry::{Failure, persist};
use crate::error::{Error, Result};

/// What may stand in a part of a path as it is.
const ESCAPED: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');

/// Time limit for a connection, and for the next bytes on it.
const PATIENCE: Duration = Duration::from_secs(30);

/// Most characters that are shown of what a server says about a refusal.
const MAX_TOLD: usize = 300;

/// The files of a model at a commit.
#[derive(Deserialize)]
pub(super) struct Listing {
    /// The commit.
    pub sha: String,
    /// Files of the repository, as they came: most are not needed, and what they look like is of no concern.
    siblings: Vec<serde_json::Value>,
}

impl Listing {
    /// The paths of all files.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.siblings.iter().filter_map(|listed| listed["rfilename"].as_str())
    }

    /// The file called `name`, if there is one.
    pub fn file(&self, name: &str) -> Option<Result<RemoteFile>> {
        let listed = self.siblings.iter().find(|listed| listed["rfilename"] == name)?;
        let unusable = |e: serde_json::Error| {
            let message = format!("the hub's list of files: {name} cannot be downloaded");
            Error::model(message).with_source(e)
        };
        Some(RemoteFile::deserialize(listed).map_err(unusable))
    }
}

/// A connection to the hub.
pub(super) struct Client<'a> {
    settings: &'a Settings,
    agent: Agent,
}

impl<'a> Client<'a> {
    pub fn new(settings: &'a Settings) -> Self {
        // Companies have certificates of their own, which the system knows.
        let tls = TlsConfig::builder().root_certs(RootCerts::PlatformVerifier).build();
        let config = Agent::config_builder()
            .tls_config(tls)
            .user_agent(concat!("deepguard/", env!("CARGO_PKG_VERSION")))
            // What comes is counted and hashed as it is.
            .accept_encoding("identity")
            .redirect_auth_headers(RedirectAuthHeaders::SameHost)
            .http_status_as_error(false)
            .timeout_connect(Some(PATIENCE))
            .timeout_recv_response(Some(PATIENCE))
            .timeout_per_read(Some(PATIENCE))
            .build();
        Client { settings, agent: config.into() }
    }

    /// What `id` consists of at `revision`.
    pub fn list(&self, id: &str, revision: &str, watch: &mut dyn FnMut(Event<'_>)) -> Result<Listing> {
        let escaped = utf8_percent_encode(revision, ESCAPED);
        let url = format!("{}/api/models/{id}/revision/{escaped}?blobs=true", self.settings.endpoint);
        let given_up = |problem| {
            Error::model(format!("model {id:?} cannot be fetched: {url}: {problem}; try again later"))
        };
        let body = persist(watch, |_| self.request_list(id, revision, &url), given_up)?;
        serde_json::from_slice(&body).map_err(|e| {
            let expected = format!("{url}: expected the list of a model's files");
            Error::model(format!("{expected}, found something else; check HF_ENDPOINT")).with_source(e)
        })
    }

    fn request_list(&self, id: &str, revision: &str, url: &str) -> std::result::Result<Vec<u8>, Failure> {
        let failed = |e: ureq::Error| match is_out_of_reach(&e) {
            true => Failure::Final(Error::model(format!(
                "model {id:?} cannot be fetched: there is no such directory, it is not in the local cache, and {} \
                 cannot be asked for it: {e}; check network, proxy and HF_ENDPOINT, or pass a model directory",
                self.settings.endpoint
            ))),
            false => Failure::passing(e),
        };
        let mut response = self.get(url, None).map_err(failed)?;
        let endpoint = &self.settings.endpoint;
        let asked = format!("there is no such directory, and {endpoint}, asked for revision {revision:?},");
        self.accept(&response, id, &asked, |status| status == StatusCode::OK)?;
        response.body_mut().read_to_vec().map_err(failed)
    }

    /// Appends to `partial` what is missing of `file`; returns at its full size. What comes is not looked at.
    pub fn receive(
        &self,
        id: &str,
        commit: &str,
        file: &RemoteFile,
        partial: &Path,
        watch: &mut dyn FnMut(Event<'_>),
    ) -> Result<()> {
        let name = utf8_percent_encode(&file.name, ESCAPED);
        let url = format!("{}/{id}/resolve/{commit}/{name}", self.settings.endpoint);
        let mut out =
            OpenOptions::new().create(true).append(true).open(partial).map_err(|e| full(partial, e))?;
        let request = |watch: &mut dyn FnMut(Event<'_>)| {
            let before = length(partial, &out)?;
            let outcome = self.continue_with(id, &url, file, partial, &mut out, watch);
            let progress = length(partial, &out)? > before;
            outcome.map_err(|failure| failure.after(progress))
        };
        let given_up = |problem| {
            let kept = partial.metadata().map_or(0, |meta| meta.len());
            let size = file.size;
            Error::model(format!(
                "{url}: {problem}; the {kept} of {size} bytes that came are kept: try again later"
            ))
        };
        persist(watch, request, given_up)?;
        out.sync_all().map_err(|e| full(partial, e))
    }

    /// One request for the rest of a file.
    fn continue_with(
        &self,
        id: &str,
        url: &str,
        file: &RemoteFile,
        partial: &Path,
        out: &mut File,
        watch: &mut dyn FnMut(Event<'_>),
    ) -> std::result::Result<(), Failure> {
        let on_disk = |e| Failure::Final(full(partial, e));
        let mut received = length(partial, out)?;
        if received > file.size {
            out.set_len(0).map_err(on_disk)?;
            received = 0;
        }
        if received == file.size {
            return Ok(());
        }
        let mut response = self.get(url, Some(received)).map_err(Failure::passing)?;
        let is_part = response.status() == StatusCode::PARTIAL_CONTENT && starts_at(&response, received);
        self.accept(&response, id, url, |status| is_part || status == StatusCode::OK)?;
        if !is_part {
            // All of it, although only the rest was asked for.
            out.set_len(0).map_err(on_disk)?;
            received = 0;
        }
        // A server that sends more than there is would fill the disk.
        let mut body = response.body_mut().as_reader().take(file.size - received);
        let mut chunk = vec![0; 1 << 20];
        while received < file.size {
            watch(Event::Received(Progress { file: &file.name, received, size: file.size }));
            match body.read(&mut chunk) {
                Ok(0) => return Err(Failure::passing("the connection ended early")),
                Ok(n) => out.write_all(&chunk[..n]).map_err(on_disk)?,
                Err(e) => return Err(Failure::passing(e)),
            }
            received = length(partial, out)?;
        }
        watch(Event::Received(Progress { file: &file.name, received, size: file.size }));
        Ok(())
    }

    fn get(&self, url: &str, from: Option<u64>) -> std::result::Result<Response<Body>, ureq::Error> {
        let mut request = self.agent.get(url);
        if let Some(token) = &self.settings.token {
            request = request.header(header::AUTHORIZATION, format!("Bearer {}", token.secret));
        }
        if let Some(from) = from.filter(|from| *from > 0) {
            request = request.header(header::RANGE, format!("bytes={from}-"));
        }
        request.call()
    }

    /// Whether the answer has a status that is good; `asked` is who gave it.
    fn accept(
        &self,
        response: &Response<Body>,
        id: &str,
        asked: &str,
        is_good: impl Fn(StatusCode) -> bool,
    ) -> std::result::Result<(), Failure> {
        let status = response.status();
        if is_good(status) {
            return Ok(());
        }
        let refused = || Failure::Final(self.refused(id, asked, status, response.headers()));
        Err(Failure::of_answer(status, response.headers()).unwrap_or_else(refused))
    }

    fn refused(&self, id: &str, asked: &str, status: StatusCode, headers: &HeaderMap) -> Error {
        let token = self.settings.token.as_ref();
        let advice = match (status, token.map(|token| &token.origin)) {
            (StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN | StatusCode::NOT_FOUND, None) => {
                "check name and revision; for a private or gated model, accept its terms on its page and set HF_TOKEN, or log \
                 in with the hub's own tools"
                    .to_owned()
            }
            (StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN, Some(origin)) => format!(
                "check the name, accept the model's terms on its page, and check that the token of {origin} is valid \
                 and may read it"
            ),
            (StatusCode::NOT_FOUND, Some(origin)) => {
                format!("check name and revision, and that the token of {origin} may read it")
            }
            _ => "try again later, or check HF_ENDPOINT".to_owned(),
        };
        let fate = if status == StatusCode::NOT_FOUND { "not found" } else { "cannot be fetched" };
        let told = told(headers);
        Error::model(format!("model {id:?} {fate}: {asked} answered {status}{told}; {advice}"))
    }
}

/// Whether there is no use in asking the hub again: no network, no such host, or nobody there.
fn is_out_of_reach(e: &ureq::Error) -> bool {
    match e {
        ureq::Error::Timeout(timeout) => matches!(timeout, Timeout::Connect | Timeout::Resolve),
        ureq::Error::Io(e) => !matches!(
            e.kind(),
            ErrorKind::ConnectionReset
                | ErrorKind::ConnectionAborted
                | ErrorKind::BrokenPipe
                | ErrorKind::UnexpectedEof
        ),
        ureq::Error::Protocol(_) => false,
        _ => true,
    }
}

/// What the hub says about its refusal, with a blank before it: it is a stranger's text.
fn told(headers: &HeaderMap) -> String {
    let text = |name: &str| {
        let value = String::from_utf8_lossy(headers.get(name)?.as_bytes()).into_owned();
        let printable = |c: &char| c.is_ascii_graphic() || *c == ' ';
        Some(value.chars().filter(printable).take(MAX_TOLD).collect::<String>())
    };
    let parts = ["x-error-code", "x-error-message"].iter().filter_map(|name| text(name));
    let parts: Vec<String> = parts.filter(|part| !part.is_empty()).collect();
    if parts.is_empty() { String::new() } else { format!(" ({})", parts.join(": ")) }
}

/// Whether a part is the part that was asked for.
fn starts_at(response: &Response<Body>, from: u64) -> bool {
    let range = response.headers().get(header::CONTENT_RANGE).and_then(|range| range.to_str().ok());
    range.is_some_and(|range| range.starts_with(&format!("bytes {from}-")))
}

fn length(path: &Path, file: &File) -> Result<u64> {
    file.metadata().map(|meta| meta.len()).map_err(|e| full(path, e))
}

fn full(path: &Path, e: std::io::Error) -> Error {
    Error::device(format!("cannot write {}", path.display())).with_source(e)
}
