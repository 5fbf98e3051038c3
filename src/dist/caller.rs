//! The control plane of every rank but the first: a connection to rank 0.

use std::collections::BTreeMap;
use std::io::Write;
use std::net::{Shutdown, TcpStream};
use std::sync::mpsc::{self, Receiver, Sender};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use super::frame::{FrameError, Opener, Sealer};
use super::launch::Launch;
use super::leases::{Facts, Lease, Unit};
use super::meeting::{Call, Exchange, call};
use super::message::{Member, Progress, ToRank, ToRoot, clipped, pieces, receive, receive_after, send};
use super::shared::{Shared, told};
use super::watch::{Failure, Timing};
use crate::error::{Context, Error, ErrorKind, Result};

/// The shortest time between two signs of life, as a part of the usual one.
const HURRY: u32 = 10;

/// The connection to rank 0.
pub(super) struct Caller {
    writer: Arc<Mutex<Writer>>,
}

struct Writer {
    stream: TcpStream,
    sealer: Sealer,
}

/// What reads from rank 0.
struct Reader {
    stream: TcpStream,
    opener: Opener,
    root: Member,
    timing: Timing,
    shared: Arc<Shared>,
    leases: Sender<Lease>,
}

impl Caller {
    /// Joins, and waits until all others have. Returns rank 0 as well, and where units of work will come
    /// from, until there are no more.
    pub(super) fn join(
        launch: &Launch,
        member: &Member,
        timing: Timing,
        deadline: Instant,
        exchange: &mut Exchange,
        shared: Arc<Shared>,
    ) -> Result<(Member, Self, Receiver<Lease>)> {
        let Call { mut stream, mut sealer, mut opener } = call(launch, deadline, exchange)?;
        let complain = |error| Error::cluster("rank 0 does not answer").with_source(error);
        let join = ToRoot::Join { world: launch.world, member: member.clone() };
        send(&mut stream, &mut sealer, &join).map_err(complain)?;
        let root = welcome(&mut stream, &mut opener, timing)?;

        let writing = stream.try_clone().kind(ErrorKind::Cluster, || "the connection to rank 0".into())?;
        let limits = stream.set_read_timeout(Some(timing.beat() / 2));
        let limits = limits.and_then(|()| writing.set_write_timeout(Some(timing.silence())));
        limits.kind(ErrorKind::Cluster, || "the connection to rank 0".into())?;
        let writer = Arc::new(Mutex::new(Writer { stream: writing, sealer }));
        let (sender, leases) = mpsc::channel();
        let reader =
            Reader { stream, opener, root: root.clone(), timing, shared: shared.clone(), leases: sender };
        let beat = {
            let writer = writer.clone();
            move || beat(&writer, &shared, timing)
        };
        let threads = thread::Builder::new().name("from rank 0".into()).spawn(move || reader.listen());
        let threads = threads.and_then(|_| thread::Builder::new().name("to rank 0".into()).spawn(beat));
        threads.kind(ErrorKind::Device, || "cannot start a thread for the other ranks".into())?;
        Ok((root, Caller { writer }, leases))
    }

    pub(super) fn done(&self) {
        self.send(&ToRoot::Done);
    }

    pub(super) fn ready(&self, facts: Facts) {
        self.send(&ToRoot::Ready { facts });
    }

    /// Gives the result of a unit. Others may write between two pieces of it.
    pub(super) fn give(&self, number: usize, result: &[u8]) {
        for piece in pieces(result) {
            self.lock().send_frame(&piece);
        }
        self.send(&ToRoot::Result { number });
    }

    pub(super) fn leave(&self, code: u8, message: &str) {
        self.send(&ToRoot::Leave { code, message: clipped(message) });
        self.close();
    }

    /// Rank 0 sees the end of the connection once it has read all that was sent.
    pub(super) fn close(&self) {
        let _ = self.lock().stream.shutdown(Shutdown::Write);
    }

    /// Whether it arrives, the reader notices.
    fn send(&self, message: &ToRoot) {
        let Writer { stream, sealer } = &mut *self.lock();
        let _ = send(stream, sealer, message);
    }

    fn lock(&self) -> MutexGuard<'_, Writer> {
        self.writer.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Writer {
    /// Whether it arrives, the reader notices.
    fn send_frame(&mut self, payload: &[u8]) {
        if let Ok(frame) = self.sealer.seal(payload) {
            let _ = self.stream.write_all(&frame);
        }
    }
}

/// Rank 0, once it says that all are there; how long it waits for them is its own affair.
fn welcome(stream: &mut TcpStream, opener: &mut Opener, timing: Timing) -> Result<Member> {
    let waiting = stream.set_read_timeout(Some(timing.beat()));
    waiting.kind(ErrorKind::Cluster, || "the connection to rank 0".into())?;
    let (mut root, mut heard) = (None, Instant::now());
    loop {
        match receive(stream, opener) {
            Ok(ToRank::Known { root: told }) => root = Some(told),
            Ok(ToRank::Welcome) => {
                return root
                    .ok_or_else(|| Error::cluster("rank 0 does not say who it is; start all ranks again"));
            }
            Ok(ToRank::Stop { code, message }) => return Err(told(code, message)),
            Ok(ToRank::Beat(_) | ToRank::Finish | ToRank::Lease { .. }) => heard = Instant::now(),
            Err(FrameError::NotYet) if heard.elapsed() <= timing.silence() => {}
            Err(error) => {
                let silent = matches!(error, FrameError::NotYet).then(|| heard.elapsed());
                let progress = Progress { phase: "join".to_owned(), ..Progress::default() };
                let members = root.map(|root| (0, root)).into_iter().collect();
                return Err(
                    Failure::Lost { rank: 0, progress, silent }.error(&members, "start all ranks again")
                );
            }
        }
    }
}

impl Reader {
    fn listen(mut self) {
        let mut progress = Progress { phase: "start".to_owned(), ..Progress::default() };
        let (mut heard, mut load) = (Instant::now(), Vec::new());
        while !self.shared.is_over() {
            let asked = Instant::now();
            match receive_after(&mut self.stream, &mut self.opener, &mut load) {
                Ok(ToRank::Beat(there)) => {
                    heard = Instant::now();
                    progress = there;
                }
                Ok(ToRank::Known { .. } | ToRank::Welcome) => {}
                Ok(ToRank::Lease { number, name }) => {
                    let unit = Unit { name, input: std::mem::take(&mut load) };
                    // Whoever computes may have ended.
                    let _ = self.leases.send(Lease { number, unit });
                }
                Ok(ToRank::Finish) => return self.shared.finish(),
                Ok(ToRank::Stop { code, message }) => return self.shared.fail(told(code, message)),
                Err(FrameError::NotYet) => {
                    // Whoever was suspended itself has heard nobody meanwhile.
                    let slept = asked.elapsed().saturating_sub(self.timing.beat());
                    heard += slept;
                    if heard.elapsed() > self.timing.silence() {
                        return self.lose(progress, Some(heard.elapsed()));
                    }
                }
                Err(_) => return self.lose(progress, None),
            }
        }
    }

    fn lose(&self, progress: Progress, silent: Option<Duration>) {
        let lost = Failure::Lost { rank: 0, progress, silent };
        self.shared.fail(lost.error(&BTreeMap::from([(0, self.root.clone())]), &self.shared.advice()));
    }
}

/// Tells rank 0 where this rank is: at once when that changes, and every now and then.
fn beat(writer: &Mutex<Writer>, shared: &Shared, timing: Timing) {
    while !shared.is_over() {
        let progress = shared.progress();
        {
            let mut writer = writer.lock().unwrap_or_else(PoisonError::into_inner);
            let Writer { stream, sealer } = &mut *writer;
            // The reader notices what has become of the connection.
            if send(stream, sealer, &ToRoot::Beat(progress.clone())).is_err() {
                return;
            }
        }
        thread::sleep(timing.beat() / HURRY);
        shared.wait_for_change(&progress, timing.beat() - timing.beat() / HURRY);
    }
}
