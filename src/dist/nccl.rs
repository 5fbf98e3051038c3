//! Collectives between GPUs by NCCL, which is looked for when the program runs.
//!
//! Values of a GPU are added up where they are; those of the host go through a part of the GPU's memory.
//! Calls return at once, and are asked about until they are done, so that nothing waits in the library for a
//! rank that is gone.

use std::ffi::{c_int, c_void};
use std::io::Write;
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

pub use self::api::NCCL_VARIABLE;
use self::api::{
    Api, Code, Comm, Config, ID_BYTES, IN_PROGRESS, INT64, OfComm, SUCCESS, SUM, UINT8, UniqueId,
};
use super::control::{Control, Invitation};
use super::fabric::Fabric;
use super::launch::Launch;
pub use super::library::Found;
use super::pace::pause;
use crate::cuda::BounceBuffer;
use crate::error::{Context, Error, ErrorKind, Result};

mod api;

/// Bytes of the GPU's memory through which values of the host go.
const BUFFER: usize = 32 << 20;

/// How long the library has to end what it has begun.
const LAST_WAIT: Duration = Duration::from_secs(10);

/// What to do about ranks that NCCL does not connect.
const UNREACHED: &str = "see whether the machines reach each other: NCCL_DEBUG=INFO shows what NCCL tries, and \
                         NCCL_SOCKET_IFNAME chooses the interface; or wait longer with --dist-timeout";

/// The NCCL that would be used.
///
/// # Errors
/// Of kind `Cluster`, with everything that was tried.
pub fn find() -> Result<Found> {
    let api = Api::load()?;
    Ok(Found::of(&api.name, api.title.trim_start_matches("NCCL ").to_owned()))
}

/// NCCL before the ranks have met.
pub(super) struct Prepared {
    api: Api,
    gpu: usize,
    invitation: Option<Invitation>,
}

impl Prepared {
    /// Loads NCCL for a rank that computes on the GPU of this number.
    ///
    /// # Errors
    /// Of kind `Cluster`: no NCCL, or one that is too old.
    pub(super) fn new(launch: &Launch, gpu: usize) -> Result<Self> {
        let api = Api::load()?;
        let is_root = launch.rank == 0;
        let id = is_root.then(|| api.unique_id()).transpose()?;
        Ok(Prepared { api, gpu, invitation: id.map(|id| Invitation(id.to_vec())) })
    }

    /// Name and version of the library.
    pub(super) fn title(&self) -> &str {
        &self.api.title
    }

    /// What the others need of rank 0.
    pub(super) fn invitation(&self) -> Option<Invitation> {
        self.invitation.clone()
    }

    /// Connects all ranks, which have met.
    ///
    /// # Errors
    /// Of kind `Cluster` if they are not connected until `deadline`, or NCCL refuses.
    pub(super) fn connect(self, launch: &Launch, control: &Control, deadline: Instant) -> Result<Nccl> {
        let complain = || "rank 0 does not say how NCCL reaches it".to_owned();
        let Invitation(id) = control.invitation().ok_or_else(|| Error::cluster(complain()))?;
        let id: [u8; ID_BYTES] = id.as_slice().try_into().kind(ErrorKind::Cluster, complain)?;
        let buffer = BounceBuffer::new(self.gpu, BUFFER)?;
        let (rank, world) = (launch.rank, launch.world);
        let (mut comm, mut config): (Comm, _) = (std::ptr::null_mut(), Config::nonblocking());
        // SAFETY: the pointers are valid for the call, the current context is that of the rank's GPU, and the
        // configuration has the layout that it claims.
        let code = unsafe {
            (self.api.init_rank)(&mut comm, world as c_int, UniqueId(id), rank as c_int, &mut config)
        };
        let failed = control.sentinel();
        let mut nccl = Nccl {
            api: self.api,
            comm,
            buffer,
            rank,
            world,
            failed,
            deadline: Some(deadline),
            failure: None,
        };
        nccl.wait("ncclCommInitRankConfig", code).map_err(|error| error.advice(UNREACHED))?;
        nccl.deadline = None;
        match nccl.api.place(comm)? {
            place if place == (rank, world) => Ok(nccl),
            (found, of) => Err(Error::cluster(format!(
                "{} says rank {found} of {of}, and {} rank {rank} of {world}",
                nccl.api.title, launch.launcher
            ))),
        }
    }
}

/// Ranks on GPUs, connected by NCCL.
pub struct Nccl {
    api: Api,
    /// Null once it has been given up.
    comm: Comm,
    buffer: BounceBuffer,
    rank: usize,
    world: usize,
    failed: Box<dyn Fn() -> bool + Send>,
    /// Until when what is being waited for has to be done, where nobody else watches it.
    deadline: Option<Instant>,
    /// The last words of a process that can't be ended otherwise.
    failure: Option<String>,
}

// SAFETY: a communicator may be used by any thread, one at a time.
unsafe impl Send for Nccl {}

impl Nccl {
    /// Waits until the communicator has done what a call has begun with `code`, and the stream too.
    fn wait(&mut self, call: &str, code: Code) -> Result<()> {
        let waited = self.api.check(call, code, self.comm).and_then(|()| self.wait_for(call));
        waited.inspect_err(|error| self.failure = Some(error.to_string()))
    }

    fn wait_for(&self, call: &str) -> Result<()> {
        let began = Instant::now();
        loop {
            match self.api.state(self.comm)? {
                SUCCESS if self.buffer.is_idle()? => return Ok(()),
                SUCCESS | IN_PROGRESS => {}
                code => return Err(self.api.complaint(call, code, self.comm)),
            }
            if (self.failed)() {
                return Err(Error::cluster("another rank has failed"));
            }
            if self.deadline.is_some_and(|deadline| Instant::now() > deadline) {
                return Err(Error::cluster(format!(
                    "{}: {call} is not done in time, after {} s",
                    self.api.title,
                    began.elapsed().as_secs()
                )));
            }
            pause(began.elapsed());
        }
    }

    fn reduce(&mut self, values: &mut [i64]) -> Result<()> {
        self.buffer.upload(0, bytemuck::cast_slice(values))?;
        // SAFETY: so many values are in the buffer, which stays until the stream has done it.
        unsafe { self.reduce_in_place(self.buffer.address(0), values.len()) }?;
        self.buffer.download(0, bytemuck::cast_slice_mut(values))
    }

    /// # Safety
    /// So many values are at `at` in the GPU's memory, which stays until the stream has done it or the
    /// communicator is given up.
    unsafe fn reduce_in_place(&mut self, at: *mut c_void, len: usize) -> Result<()> {
        let stream = self.buffer.stream();
        // SAFETY: the caller's promise.
        let code = unsafe { (self.api.all_reduce)(at, at, len, INT64, SUM, self.comm, stream) };
        self.wait("ncclAllReduce", code)
    }

    fn send(&mut self, root: usize, bytes: &mut [u8]) -> Result<()> {
        if root == self.rank {
            self.buffer.upload(0, bytes)?;
        }
        let (at, stream) = (self.buffer.address(0), self.buffer.stream());
        // SAFETY: as above.
        let code =
            unsafe { (self.api.broadcast)(at, at, bytes.len(), UINT8, root as c_int, self.comm, stream) };
        self.wait("ncclBroadcast", code)?;
        if root == self.rank { Ok(()) } else { self.buffer.download(0, bytes) }
    }

    /// As many bytes of every rank, one after the other.
    fn gather(&mut self, own: &[u8]) -> Result<Vec<u8>> {
        let mut all = vec![0; self.world * own.len()];
        let place = self.rank * own.len();
        self.buffer.upload(place, own)?;
        let (from, to, stream) = (self.buffer.address(place), self.buffer.address(0), self.buffer.stream());
        // SAFETY: as above; the own bytes lie where they lie in the result.
        let code = unsafe { (self.api.all_gather)(from, to, own.len(), UINT8, self.comm, stream) };
        self.wait("ncclAllGather", code)?;
        self.buffer.download(0, &mut all)?;
        Ok(all)
    }

    /// Gives up what is under way, so that the GPU neither waits for the others nor writes what they send.
    fn abort(&mut self) {
        if self.give_up(self.api.abort).is_none() {
            end_process(self.failure.as_deref().unwrap_or("ncclCommAbort does not end"));
        }
    }

    /// Calls what gives the communicator up, which may hang: `None` then.
    fn give_up(&mut self, function: OfComm) -> Option<Code> {
        let comm = std::mem::replace(&mut self.comm, std::ptr::null_mut()) as usize;
        let (tell, told) = mpsc::channel();
        let call = move || {
            // SAFETY: the communicator was not given up before, and nobody else uses it any more.
            let _ = tell.send(unsafe { function(comm as Comm) });
        };
        thread::Builder::new().name("nccl".into()).spawn(call).ok()?;
        told.recv_timeout(LAST_WAIT).ok()
    }
}

impl Fabric for Nccl {
    fn name(&self) -> String {
        self.api.title.clone()
    }

    fn rank(&self) -> usize {
        self.rank
    }

    fn world(&self) -> usize {
        self.world
    }

    fn heed(&mut self, failed: Box<dyn Fn() -> bool + Send>) {
        self.failed = failed;
    }

    fn all_reduce(&mut self, values: &mut [i64]) -> Result<()> {
        values.chunks_mut(BUFFER / size_of::<i64>()).try_for_each(|chunk| self.reduce(chunk))
    }

    fn reaches_gpus(&self) -> bool {
        true
    }

    unsafe fn all_reduce_on_gpu(&mut self, address: usize, len: usize) -> Result<()> {
        // SAFETY: the caller's promise, which holds until this returns: what has failed is given up before.
        let reduced = unsafe { self.reduce_in_place(address as *mut c_void, len) };
        reduced.inspect_err(|_| self.abort())
    }

    fn broadcast(&mut self, root: usize, bytes: &mut Vec<u8>) -> Result<()> {
        let mut length = (bytes.len() as u64).to_le_bytes();
        self.send(root, &mut length)?;
        bytes.resize(u64::from_le_bytes(length) as usize, 0);
        bytes.chunks_mut(BUFFER).try_for_each(|chunk| self.send(root, chunk))
    }

    fn all_gather(&mut self, own: &[u8]) -> Result<Vec<Vec<u8>>> {
        let lengths = self.gather(&(own.len() as u64).to_le_bytes())?;
        let (lengths, _) = lengths.as_chunks();
        let lengths: Vec<usize> = lengths.iter().map(|length| u64::from_le_bytes(*length) as usize).collect();
        let longest = lengths.iter().copied().max().unwrap_or(0);
        let piece = longest.min(BUFFER / self.world);
        let mut all = vec![Vec::new(); self.world];
        for begin in (0..longest).step_by(piece.max(1)) {
            let own = own.get(begin..).unwrap_or_default();
            let mut padded = own[..own.len().min(piece)].to_vec();
            padded.resize(piece, 0);
            let gathered = self.gather(&padded)?;
            all.iter_mut()
                .zip(gathered.chunks(piece))
                .for_each(|(bytes, more)| bytes.extend_from_slice(more));
        }
        all.iter_mut().zip(lengths).for_each(|(bytes, length)| bytes.truncate(length));
        Ok(all)
    }

    /// Nobody watches the others any more, so this does not wait for long.
    fn finish(mut self: Box<Self>) -> Result<()> {
        (self.failed, self.deadline) = (Box::new(|| false), Some(Instant::now() + LAST_WAIT));
        // SAFETY: the communicator was not given up, and all its work is done.
        let code = unsafe { (self.api.finalize)(self.comm) };
        self.wait("ncclCommFinalize", code)?;
        match self.give_up(self.api.destroy) {
            Some(code) => self.api.check("ncclCommDestroy", code, std::ptr::null_mut()),
            None => end_process("ncclCommDestroy does not end"),
        }
    }
}

impl Drop for Nccl {
    fn drop(&mut self) {
        if !self.comm.is_null() {
            self.abort();
        }
    }
}

/// The end of a process some of whose threads are held in the library for good.
fn end_process(last_words: &str) -> ! {
    unsafe extern "C" {
        /// Of the C library: ends the process without the last words of libraries, which may wait as well.
        fn _exit(code: c_int) -> !;
    }
    let _ = writeln!(std::io::stderr(), "{last_words}; NCCL does not give it up, so this process ends");
    // SAFETY: takes any number, and does not return.
    unsafe { _exit(ErrorKind::Cluster.exit_code().into()) }
}
