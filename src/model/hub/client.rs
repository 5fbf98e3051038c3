//! Requests to the hub.

use std::fs::{File, OpenOptions};
use std::io::{Read, Write};
use std::path::Path;
use std::time::Duration;

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use serde::Deserialize;
use ureq::config::RedirectAuthHeaders;
use ureq::http::{Response, StatusCode, header};
use ureq::tls::{RootCerts, TlsConfig};
use ureq::{Agent, Body};

use super::Settings;
use super::download::Progress;
use super::file::RemoteFile;
use crate::error::{Error, Result};

/// What may stand in a part of a path as it is.
const ESCAPED: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');

/// For a connection, and for the next bytes on it.
const PATIENCE: Duration = Duration::from_secs(30);

/// Tries in a row that bring nothing before a download is given up.
const ATTEMPTS: u32 = 5;

/// Before the second try; doubled before each further one.
const FIRST_WAIT: Duration = Duration::from_millis(250);

/// The files of a model at a commit.
#[derive(Deserialize)]
pub(super) struct Listing {
    /// The commit.
    pub sha: String,
    /// All files.
    #[serde(rename = "siblings")]
    pub files: Vec<RemoteFile>,
}

/// A connection to the hub.
pub(super) struct Client<'a> {
    settings: &'a Settings,
    agent: Agent,
}

/// Why a file did not come, or not all of it.
enum Failure {
    /// What may pass: a connection that broke, a server too busy.
    Passing(String),
    /// What will not.
    Final(Error),
}

impl<'a> Client<'a> {
    pub fn new(settings: &'a Settings) -> Self {
        // Companies have certificates of their own, which the system knows.
        let tls = TlsConfig::builder().root_certs(RootCerts::PlatformVerifier).build();
        let config = Agent::config_builder()
            .tls_config(tls)
            .user_agent(concat!("deepguard/", env!("CARGO_PKG_VERSION")))
            .redirect_auth_headers(RedirectAuthHeaders::SameHost)
            .http_status_as_error(false)
            .timeout_connect(Some(PATIENCE))
            .timeout_recv_response(Some(PATIENCE))
            .timeout_per_read(Some(PATIENCE))
            .build();
        Client { settings, agent: config.into() }
    }

    /// What `id` consists of at `revision`.
    pub fn list(&self, id: &str, revision: &str) -> Result<Listing> {
        let revision = utf8_percent_encode(revision, ESCAPED);
        let url = format!("{}/api/models/{id}/revision/{revision}?blobs=true", self.settings.endpoint);
        let unreachable = |e: ureq::Error| {
            Error::model(format!(
                "model {id:?} not found: there is no such directory, it is not in the local cache, and {} cannot be asked \
                 for it: {e}; check network, proxy and HF_ENDPOINT, or pass a model directory",
                self.settings.endpoint
            ))
        };
        let mut response = self.get(&url, None).map_err(unreachable)?;
        if response.status() != StatusCode::OK {
            return Err(self.refused(id, response.status()));
        }
        response.body_mut().read_json().map_err(|e| {
            let expected = format!("{url}: expected the list of a model's files");
            Error::model(format!("{expected}, found something else; check HF_ENDPOINT")).with_source(e)
        })
    }

    /// Appends to `partial` what is missing of `file`; returns at its full size. What comes is not looked at.
    pub fn receive(
        &self,
        id: &str,
        commit: &str,
        file: &RemoteFile,
        partial: &Path,
        watch: &mut dyn FnMut(Progress<'_>),
    ) -> Result<()> {
        let name = utf8_percent_encode(&file.name, ESCAPED);
        let url = format!("{}/{id}/resolve/{commit}/{name}", self.settings.endpoint);
        let mut out =
            OpenOptions::new().create(true).append(true).open(partial).map_err(|e| full(partial, e))?;
        let mut attempt = 0;
        loop {
            let before = length(partial, &out)?;
            let problem = match self.continue_with(id, &url, file, partial, &mut out, watch) {
                Ok(()) => return out.sync_all().map_err(|e| full(partial, e)),
                Err(Failure::Final(error)) => return Err(error),
                Err(Failure::Passing(problem)) => problem,
            };
            let received = length(partial, &out)?;
            attempt = if received > before { 1 } else { attempt + 1 };
            if attempt == ATTEMPTS {
                return Err(Error::model(format!(
                    "{url}: {problem}, {ATTEMPTS} times in a row; the {received} of {} bytes that came are kept: try \
                     again later",
                    file.size
                )));
            }
            std::thread::sleep(FIRST_WAIT * 2u32.pow(attempt - 1));
        }
    }

    /// One request for the rest of a file.
    fn continue_with(
        &self,
        id: &str,
        url: &str,
        file: &RemoteFile,
        partial: &Path,
        out: &mut File,
        watch: &mut dyn FnMut(Progress<'_>),
    ) -> std::result::Result<(), Failure> {
        let on_disk = |e| Failure::Final(full(partial, e));
        let mut received = length(partial, out).map_err(Failure::Final)?;
        if received > file.size {
            out.set_len(0).map_err(on_disk)?;
            received = 0;
        }
        if received == file.size {
            return Ok(());
        }
        let passing = |e: ureq::Error| Failure::Passing(e.to_string());
        let mut response = self.get(url, Some(received)).map_err(passing)?;
        match response.status() {
            StatusCode::PARTIAL_CONTENT if starts_at(&response, received) => {}
            // All of it, although only the rest was asked for.
            StatusCode::OK => {
                out.set_len(0).map_err(on_disk)?;
                received = 0;
            }
            status if status.is_server_error() || status == StatusCode::TOO_MANY_REQUESTS => {
                return Err(Failure::Passing(format!("the server answered {status}")));
            }
            status => return Err(Failure::Final(self.refused(id, status).context(url))),
        }
        // A server that sends more than there is would fill the disk.
        let mut body = response.body_mut().as_reader().take(file.size - received);
        let mut chunk = vec![0; 1 << 20];
        while received < file.size {
            watch(Progress { file: &file.name, received, size: file.size });
            match body.read(&mut chunk) {
                Ok(0) => return Err(Failure::Passing("the connection ended early".into())),
                Ok(n) => out.write_all(&chunk[..n]).map_err(on_disk)?,
                Err(e) => return Err(Failure::Passing(e.to_string())),
            }
            received = length(partial, out).map_err(Failure::Final)?;
        }
        watch(Progress { file: &file.name, received, size: file.size });
        Ok(())
    }

    fn get(&self, url: &str, from: Option<u64>) -> std::result::Result<Response<Body>, ureq::Error> {
        let mut request = self.agent.get(url);
        if let Some(token) = &self.settings.token {
            request = request.header(header::AUTHORIZATION, format!("Bearer {token}"));
        }
        if let Some(from) = from.filter(|from| *from > 0) {
            request = request.header(header::RANGE, format!("bytes={from}-"));
        }
        request.call()
    }

    fn refused(&self, id: &str, status: StatusCode) -> Error {
        let endpoint = &self.settings.endpoint;
        let advice = match (status, &self.settings.token) {
            (StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN | StatusCode::NOT_FOUND, None) => {
                "check the name; for a private or gated model, accept its terms on its page and set HF_TOKEN"
            }
            (StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN, Some(_)) => {
                "accept the model's terms on its page, and check that HF_TOKEN is valid and may read it"
            }
            (StatusCode::NOT_FOUND, Some(_)) => "check the name, and that HF_TOKEN may read it",
            _ => "try again later, or check HF_ENDPOINT",
        };
        Error::model(format!(
            "model {id:?} not found: it is no directory, and {endpoint} answered {status}; {advice}"
        ))
    }
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
