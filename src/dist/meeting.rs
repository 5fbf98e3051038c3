//! Where rank 0 listens, and how the others get there.

use std::io::{Read, Write};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener, TcpStream, ToSocketAddrs};
use std::path::{Path, PathBuf};
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

use super::frame::{FrameError, Opener, Sealer, Side, greet};
use super::launch::{Launch, Rendezvous};
use crate::error::{Context, Error, ErrorKind, Result};
use crate::{files, platform};

/// Gives every rank the bytes that rank 0 calls it with: a broadcast of MPI.
pub type Exchange<'a> = dyn FnMut(Vec<u8>) -> Result<Vec<u8>> + 'a;

/// Name of the file in the folder of a rendezvous.
const FILE: &str = "dg-run.rendezvous";

/// Until a greeting has to be there.
pub(super) const GREETING: Duration = Duration::from_secs(10);

/// Between two attempts, growing from the first to the last.
const PAUSES: [Duration; 2] = [Duration::from_millis(20), Duration::from_millis(500)];

/// What rank 0 lets the others know.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct Address {
    address: SocketAddr,
    /// Name of its machine.
    host: String,
    /// Drawn anew, so that what an earlier job has left behind leads nowhere.
    token: String,
}

/// Rank 0's side.
pub(super) struct Listening {
    pub(super) listener: TcpListener,
    /// What callers have to know.
    pub(super) token: Vec<u8>,
    file: Option<PathBuf>,
}

impl Listening {
    /// Listens where the launch says.
    ///
    /// # Errors
    /// Of kind `Cluster`: a name that leads nowhere until `deadline`, or elsewhere; a port that is taken.
    pub(super) fn start(launch: &Launch, deadline: Instant, exchange: &mut Exchange) -> Result<Self> {
        let token = launch.token.clone().unwrap_or_default();
        match launch.rendezvous.as_ref().ok_or_else(nowhere)? {
            Rendezvous::Tcp { host, port } => {
                let addresses =
                    patiently(deadline, || look_up(host, *port, deadline).map_err(Attempt::Later))?;
                let listener = bind(host, &addresses)?;
                Ok(Listening { listener, token: token.into(), file: None })
            }
            Rendezvous::File(dir) => {
                let (listener, address) = listen_here(&token)?;
                let file = write_private(dir, &address)?;
                Ok(Listening { listener, token: address.token.into(), file: Some(file) })
            }
            Rendezvous::Mpi => {
                let here = listen_here(&token);
                // The others wait for what it tells, and hear nothing if it cannot listen.
                let told = here.as_ref().ok().and_then(|(_, address)| serde_json::to_vec(address).ok());
                exchange(told.unwrap_or_default())?;
                let (listener, address) = here?;
                Ok(Listening { listener, token: address.token.into(), file: None })
            }
        }
    }

    /// Address and port, for people.
    pub(super) fn place(&self) -> String {
        self.listener.local_addr().map_or_else(|_| "an unknown address".to_owned(), |at| at.to_string())
    }

    /// Whether programs of this machine alone can reach it.
    pub(super) fn is_private(&self) -> bool {
        self.listener.local_addr().is_ok_and(|at| at.ip().is_loopback())
    }

    /// Whether other machines can reach it without knowing a secret.
    pub(super) fn is_open(&self) -> bool {
        self.token.is_empty() && !self.is_private()
    }
}

/// Nobody needs the file any more.
impl Drop for Listening {
    fn drop(&mut self) {
        if let Some(file) = &self.file {
            let _ = std::fs::remove_file(file);
        }
    }
}

fn nowhere() -> Error {
    Error::internal("ranks without a rendezvous")
}

fn bind(host: &str, addresses: &[SocketAddr]) -> Result<TcpListener> {
    use std::io::ErrorKind::{AddrInUse, AddrNotAvailable};
    let mut last = None;
    for address in addresses {
        match TcpListener::bind(address) {
            Ok(listener) => return Ok(listener),
            Err(error) if error.kind() == AddrInUse => {
                return Err(Error::cluster(format!(
                    "rank 0 cannot listen at {address}: the port is taken; end what listens there, or choose another port \
                     with --rendezvous HOST:PORT on all ranks"
                )));
            }
            Err(error) => last = Some((address, error)),
        }
    }
    Err(match last {
        Some((address, error)) if error.kind() == AddrNotAvailable => Error::cluster(format!(
            "rank 0 is to listen at {host}, whose address {} is not one of this machine, {}; start rank 0 there, or give \
             --rendezvous HOST:PORT with a name of this machine on all ranks",
            address.ip(),
            platform::host_name()
        )),
        Some((address, error)) => {
            Error::cluster(format!("rank 0 cannot listen at {address}")).with_source(error)
        }
        None => Error::cluster(format!("rank 0 is to listen at {host}, which has no address")),
    })
}

/// Listens at the address that this machine's name leads to, at any port.
fn listen_here(token: &str) -> Result<(TcpListener, Address)> {
    let host = platform::host_name();
    let named =
        (host.as_str(), 0).to_socket_addrs().into_iter().flatten().filter(|at| !at.ip().is_loopback());
    let local = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
    let bound = named.chain([local]).map(TcpListener::bind).find_map(|bound| bound.ok());
    let listener =
        bound.ok_or_else(|| Error::cluster("rank 0 cannot listen at any address of this machine"))?;
    let address = listener.local_addr().kind(ErrorKind::Cluster, || "rank 0 cannot listen".into())?;
    let mut secret = [0_u8; 32];
    getrandom::fill(&mut secret).kind(ErrorKind::Internal, || "no random numbers".into())?;
    let secret: String = secret.iter().map(|byte| format!("{byte:02x}")).collect();
    Ok((listener, Address { address, host, token: format!("{secret} {token}") }))
}

/// Writes the file that other ranks look for, for this user alone.
fn write_private(dir: &Path, address: &Address) -> Result<PathBuf> {
    let file = dir.join(FILE);
    let complain = || format!("--rendezvous: cannot write {}", file.display());
    files::create_dirs(dir).kind(ErrorKind::Cluster, complain)?;
    let mut temporary = tempfile::NamedTempFile::new_in(dir).kind(ErrorKind::Cluster, complain)?;
    temporary.write_all(files::json_text(address)?.as_bytes()).kind(ErrorKind::Cluster, complain)?;
    temporary.persist(&file).kind(ErrorKind::Cluster, complain)?;
    Ok(file)
}

/// A connection to rank 0, both sides of which know the token.
pub(super) struct Call {
    pub(super) stream: TcpStream,
    pub(super) sealer: Sealer,
    pub(super) opener: Opener,
}

/// Why an attempt has failed.
enum Attempt {
    /// It may succeed later.
    Later(String),
    /// It never will.
    Never(Error),
}

/// Tries until `deadline`.
fn patiently<T>(
    deadline: Instant,
    mut attempt: impl FnMut() -> std::result::Result<T, Attempt>,
) -> Result<T> {
    let began = Instant::now();
    let mut pause = PAUSES[0];
    loop {
        let last = match attempt() {
            Ok(found) => return Ok(found),
            Err(Attempt::Never(error)) => return Err(error),
            Err(Attempt::Later(text)) => text,
        };
        if Instant::now() + pause > deadline {
            let seconds = began.elapsed().as_secs();
            return Err(Error::cluster(format!(
                "{last}, for {seconds} s; see whether rank 0 runs and its machine can be reached, or wait longer with \
                 --dist-timeout"
            )));
        }
        thread::sleep(pause);
        pause = (2 * pause).min(PAUSES[1]);
    }
}

/// Connects to rank 0.
///
/// # Errors
/// Of kind `Cluster`: it is not there until `deadline`, is another program, or knows another token.
pub(super) fn call(launch: &Launch, deadline: Instant, exchange: &mut Exchange) -> Result<Call> {
    let token = launch.token.clone().unwrap_or_default();
    match launch.rendezvous.as_ref().ok_or_else(nowhere)? {
        Rendezvous::Tcp { host, port } => {
            let place = Rendezvous::Tcp { host: host.clone(), port: *port };
            patiently(deadline, || {
                let addresses = look_up(host, *port, deadline).map_err(Attempt::Later)?;
                let called = call_any(&addresses, token.as_bytes(), deadline);
                called.map_err(|error| refusal(&place, error))
            })
        }
        Rendezvous::File(dir) => {
            let file = dir.join(FILE);
            patiently(deadline, || {
                let bytes = std::fs::read(&file).map_err(|error| {
                    Attempt::Later(format!("{}: {error}, which rank 0 writes", file.display()))
                })?;
                let address: Address = serde_json::from_slice(&bytes)
                    .map_err(|_| Attempt::Later(format!("{}: not a rendezvous of dg-run", file.display())))?;
                // What an earlier job has left is written anew once rank 0 is there.
                call_address(&address, deadline)
                    .map_err(|text| Attempt::Later(format!("{}: {text}", file.display())))
            })
        }
        Rendezvous::Mpi => {
            let bytes = exchange(Vec::new())?;
            let address: Address = serde_json::from_slice(&bytes).kind(ErrorKind::Cluster, || {
                "rank 0 tells through MPI where it is, but in other words".into()
            })?;
            patiently(deadline, || call_address(&address, deadline).map_err(Attempt::Later))
        }
    }
}

/// What a failed call means where somebody has chosen the address.
fn refusal(place: &Rendezvous, error: FrameError) -> Attempt {
    match error {
        FrameError::Forged => Attempt::Never(Error::cluster(format!(
            "rank 0 at {place} is of another job, or has another token; give all ranks of a job the same DG_DIST_TOKEN, and \
             each job a port of its own"
        ))),
        FrameError::Stranger => Attempt::Never(Error::cluster(format!(
            "what listens at {place} is another program, or another version of dg-run; choose another port with \
             --rendezvous HOST:PORT on all ranks"
        ))),
        error => Attempt::Later(format!("rank 0 cannot be reached at {place}: {error}")),
    }
}

fn call_address(address: &Address, deadline: Instant) -> std::result::Result<Call, String> {
    let Address { address, host, token } = address;
    let here = platform::host_name();
    if address.ip().is_loopback() && *host != here {
        return Err(format!(
            "rank 0 listens at {address} of {host} alone, and this is {here}: give --rendezvous HOST:PORT with a name of \
             {host} that leads to it from elsewhere"
        ));
    }
    let called = call_any(&[*address], token.as_bytes(), deadline);
    called.map_err(|error| format!("rank 0 cannot be reached at {address}: {error}"))
}

/// The first of the addresses where rank 0 is; else what went wrong at the last.
fn call_any(
    addresses: &[SocketAddr],
    token: &[u8],
    deadline: Instant,
) -> std::result::Result<Call, FrameError> {
    let mut last = FrameError::Closed;
    for address in addresses {
        match call_one(address, token, deadline) {
            Ok(call) => return Ok(call),
            Err(error @ (FrameError::Forged | FrameError::Stranger)) => return Err(error),
            Err(error) => last = error,
        }
    }
    Err(last)
}

fn call_one(address: &SocketAddr, token: &[u8], deadline: Instant) -> std::result::Result<Call, FrameError> {
    let left = deadline.saturating_duration_since(Instant::now()).min(GREETING);
    // Neither timeout may be 0.
    let left = left.max(PAUSES[0]);
    let mut stream = TcpStream::connect_timeout(address, left).map_err(FrameError::Io)?;
    let (sealer, opener) = greet_within(&mut stream, Side::Caller, token, left)?;
    Ok(Call { stream, sealer, opener })
}

/// Greets the other side of a new connection.
pub(super) fn greet_within(
    stream: &mut TcpStream,
    side: Side,
    token: &[u8],
    limit: Duration,
) -> std::result::Result<(Sealer, Opener), FrameError> {
    stream.set_nodelay(true)?;
    stream.set_read_timeout(Some(limit))?;
    stream.set_write_timeout(Some(limit))?;
    greet(&mut Limited { stream, until: Instant::now() + limit }, side, token)
}

/// A connection until a point in time: whoever sends a byte now and then would otherwise be waited for
/// forever.
struct Limited<'a> {
    stream: &'a mut TcpStream,
    until: Instant,
}

impl Read for Limited<'_> {
    fn read(&mut self, into: &mut [u8]) -> std::io::Result<usize> {
        match Instant::now() > self.until {
            true => Err(std::io::ErrorKind::TimedOut.into()),
            false => self.stream.read(into),
        }
    }
}

impl Write for Limited<'_> {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.stream.write(bytes)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        self.stream.flush()
    }
}

/// The addresses of a name. The system's resolver knows no deadline, so a thread asks it.
fn look_up(host: &str, port: u16, deadline: Instant) -> std::result::Result<Vec<SocketAddr>, String> {
    if let Ok(address) = host.parse::<IpAddr>() {
        return Ok(vec![(address, port).into()]);
    }
    let (tell, told) = mpsc::channel();
    let name = host.to_owned();
    let ask = move || tell.send((name.as_str(), port).to_socket_addrs().map(Vec::from_iter));
    thread::Builder::new().name("look-up".into()).spawn(ask).map_err(|error| error.to_string())?;
    match told.recv_timeout(deadline.saturating_duration_since(Instant::now())) {
        Ok(Ok(addresses)) if !addresses.is_empty() => Ok(addresses),
        Ok(Err(error)) => Err(format!("the name {host} of rank 0 leads to no address: {error}")),
        _ => Err(format!("the name {host} of rank 0 leads to no address")),
    }
}
