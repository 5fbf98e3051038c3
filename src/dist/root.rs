//! Rank 0 of the control plane: who has joined, whether they go together, and what becomes of them.

mod lend;

pub use lend::OnLoss;

use std::collections::{BTreeMap, BTreeSet};
use std::io::Write;
use std::net::{IpAddr, Shutdown, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, Sender};
use std::thread;
use std::time::{Duration, Instant};

use super::frame::{FrameError, Sealer, Side};
use super::launch::Launch;
use super::leases::{Facts, Unit};
use super::meeting::{GREETING, Listening, greet_within};
use super::message::{Member, Progress, ToRank, ToRoot, clipped, receive, receive_after, send};
use super::shared::Shared;
use super::watch::{Failure, Timing, Watch};
use crate::error::{Context, Error, ErrorKind, Result};

/// Between two looks for new connections.
const LOOK: Duration = Duration::from_millis(2);

/// Until people hear who is missing for the first time.
const FIRST_NOTE: Duration = Duration::from_secs(10);

/// Until a message has to be on its way.
const WRITE: Duration = Duration::from_secs(1);

/// Until all others have heard that everything is done.
const LINGER: Duration = Duration::from_secs(3);

/// Of a thread that reads from one rank.
const STACK: usize = 256 << 10;

/// Ranks that a message names one by one.
const NAMED: usize = 16;

/// Rank 0 while it gathers and watches the others.
pub(super) struct Root {
    world: usize,
    timing: Timing,
    deadline: Instant,
    /// Where it listens, for people.
    place: String,
    /// Whether that is for this machine alone.
    is_private: bool,
    members: BTreeMap<usize, Member>,
    links: BTreeMap<usize, Link>,
    /// The rank of each connection that has joined.
    ranks: BTreeMap<usize, usize>,
    refused: BTreeSet<(IpAddr, String)>,
    events: Receiver<Event>,
    sender: Sender<Event>,
}

/// The way to one rank.
struct Link {
    stream: TcpStream,
    sealer: Sealer,
}

/// What the threads that listen have noticed, by the number of the connection.
enum Event {
    Joined { connection: usize, link: Link, world: usize, member: Box<Member> },
    Heard { connection: usize, message: ToRoot, load: Vec<u8> },
    Closed { connection: usize },
    Refused { from: IpAddr, why: FrameError },
    OwnDone,
    OwnLeave { code: u8, message: String, told: Sender<()> },
    OwnWork { facts: Facts, units: Vec<Unit>, results: Sender<Computed> },
    OwnResult { number: usize, result: Vec<u8> },
}

/// The number of a unit, and its result, unless that was given up.
pub(super) type Computed = (usize, Option<Vec<u8>>);

/// What the owner of the control plane has of it.
pub(super) struct Handle {
    sender: Sender<Event>,
}

impl Root {
    pub(super) fn new(launch: &Launch, member: Member, timing: Timing, deadline: Instant) -> Self {
        let (sender, events) = mpsc::channel();
        Root {
            world: launch.world,
            timing,
            deadline,
            place: String::new(),
            is_private: false,
            members: BTreeMap::from([(0, member)]),
            links: BTreeMap::new(),
            ranks: BTreeMap::new(),
            refused: BTreeSet::new(),
            events,
            sender,
        }
    }

    pub(super) fn members(&self) -> &BTreeMap<usize, Member> {
        &self.members
    }

    /// Waits until all have joined, and sees whether they go together. Nobody is listened for after that.
    ///
    /// # Errors
    /// What is wrong; those who have joined are told.
    pub(super) fn gather(&mut self, listening: Listening, tell: &dyn Fn(&str)) -> Result<()> {
        self.place = listening.place();
        self.is_private = listening.is_private();
        if listening.is_open() {
            tell(
                "messages between the ranks are not authenticated; DG_DIST_TOKEN, the same on all ranks, does that",
            );
        }
        let open = Arc::new(AtomicBool::new(true));
        self.accept(&listening, open.clone())?;
        let gathered = self.await_all(tell).and_then(|()| check(&self.members));
        open.store(false, Ordering::Relaxed);
        match &gathered {
            Ok(()) => self.send_all(&ToRank::Welcome),
            Err(error) => self.stop(error),
        }
        gathered
    }

    /// Takes connections for as long as `open` says.
    fn accept(&self, listening: &Listening, open: Arc<AtomicBool>) -> Result<()> {
        let complain = || "rank 0 cannot listen".to_owned();
        let listener = listening.listener.try_clone().kind(ErrorKind::Cluster, complain)?;
        listener.set_nonblocking(true).kind(ErrorKind::Cluster, complain)?;
        let (token, sender) = (listening.token.clone(), self.sender.clone());
        let accept = move || {
            let mut count = 0;
            while open.load(Ordering::Relaxed) {
                match accepted(&listener) {
                    Some(stream) => {
                        let (token, sender, connection) = (token.clone(), sender.clone(), count);
                        let serve = move || serve(stream, connection, &token, &sender);
                        // Without a thread the connection closes, and the rank calls again.
                        let _ = thread::Builder::new().stack_size(STACK).spawn(serve);
                        count += 1;
                    }
                    None => thread::sleep(LOOK),
                }
            }
        };
        let thread = thread::Builder::new().name("ranks".into()).spawn(accept).map(drop);
        thread.kind(ErrorKind::Device, || "cannot start a thread for the other ranks".into())
    }

    fn await_all(&mut self, tell: &dyn Fn(&str)) -> Result<()> {
        let began = Instant::now();
        let (mut note, mut beat) = (FIRST_NOTE, Duration::ZERO);
        while self.members.len() < self.world {
            if let Ok(event) = self.events.recv_timeout(self.timing.beat() / 4) {
                self.take(event, tell)?;
            }
            let waited = began.elapsed();
            if Instant::now() >= self.deadline {
                return Err(Error::cluster(format!(
                    "{}; see whether they run and can reach this machine, or wait longer with --dist-timeout",
                    self.missing(waited)
                )));
            }
            if waited >= note {
                tell(&self.missing(waited));
                note *= 2;
            }
            if waited >= beat {
                self.send_all(&ToRank::Beat(joining()));
                beat = waited + self.timing.beat();
            }
        }
        Ok(())
    }

    /// Who has not joined yet.
    fn missing(&self, waited: Duration) -> String {
        let missing: Vec<usize> = (0..self.world).filter(|rank| !self.members.contains_key(rank)).collect();
        let mut named = missing.iter().take(NAMED).map(usize::to_string).collect::<Vec<_>>().join(", ");
        if missing.len() > NAMED {
            named += &format!(" and {} more", missing.len() - NAMED);
        }
        let ranks = if missing.len() == 1 { "rank" } else { "ranks" };
        let mut text = format!("waiting for {ranks} {named} of {} for {} s", self.world, waited.as_secs());
        let private = if self.is_private { ", which no other machine can reach" } else { "" };
        text += &format!(" (rank 0 listens at {}{private})", self.place);
        for (from, why) in self.refused.iter().take(NAMED) {
            text += &format!("; refused a connection from {from}: {why}");
        }
        text
    }

    fn take(&mut self, event: Event, tell: &dyn Fn(&str)) -> Result<()> {
        match event {
            Event::Joined { connection, link, world, member } => self.admit(connection, link, world, *member),
            Event::Refused { from, why } => {
                if self.refused.insert((from, why.to_string())) {
                    tell(&format!("refused a connection from {from}: {why}"));
                }
                Ok(())
            }
            Event::Closed { connection } => {
                let Some(rank) = self.ranks.get(&connection) else { return Ok(()) };
                Err(self.error(&Failure::Lost { rank: *rank, progress: joining(), silent: None }))
            }
            Event::Heard { connection, message: ToRoot::Leave { code, message }, .. } => {
                let Some(rank) = self.ranks.get(&connection) else { return Ok(()) };
                Err(self.error(&Failure::Ended { rank: *rank, code, message }))
            }
            _ => Ok(()),
        }
    }

    fn error(&self, failure: &Failure) -> Error {
        failure.error(&self.members, "start all ranks again")
    }

    fn admit(&mut self, connection: usize, link: Link, world: usize, member: Member) -> Result<()> {
        let rank = member.rank;
        let wrong = if world != self.world {
            let own = self.world;
            Some(format!(
                "{member} was started as one of {world} ranks, and rank 0 as one of {own}; start all alike"
            ))
        } else if let Some(there) = self.members.get(&rank) {
            Some(format!("{member} joins as the same rank as {there}; give every process a rank of its own"))
        } else {
            (rank >= world).then(|| format!("{member} is beyond the {world} ranks there are"))
        };
        let mut link = link;
        match wrong {
            None => {
                link.send(&ToRank::Known { root: self.members[&0].clone() });
                self.ranks.insert(connection, rank);
                self.links.insert(rank, link);
                self.members.insert(rank, member);
                Ok(())
            }
            Some(text) => {
                let error = Error::usage(text);
                link.send(&stop_of(&error));
                Err(error)
            }
        }
    }

    /// Watches the ranks with a thread of its own, until all are done or one fails.
    pub(super) fn watch(self, shared: Arc<Shared>) -> Result<Handle> {
        let handle = Handle { sender: self.sender.clone() };
        let thread =
            thread::Builder::new().name("control".into()).spawn(move || self.follow(&shared)).map(drop);
        thread.kind(ErrorKind::Device, || "cannot start a thread for the other ranks".into())?;
        Ok(handle)
    }

    fn follow(mut self, shared: &Shared) {
        let began = Instant::now();
        let mut watch = Watch::new(self.world, self.timing, Duration::ZERO);
        let mut beat = Duration::ZERO;
        loop {
            let event = self.events.recv_timeout(self.timing.beat() / 4);
            let now = began.elapsed();
            watch.hear(0, shared.progress(), now);
            let failure = match event {
                Ok(Event::OwnLeave { code, message, told }) => {
                    let ended = Failure::Ended { rank: 0, code, message };
                    self.stop(&ended.error(&self.members, &shared.advice()));
                    let _ = told.send(());
                    return;
                }
                Ok(event) => self.follow_event(event, &mut watch, now),
                Err(RecvTimeoutError::Timeout) => None,
                Err(RecvTimeoutError::Disconnected) => return,
            };
            if let Some(failure) = failure.or_else(|| watch.look(now)) {
                let error = failure.error(&self.members, &shared.advice());
                self.stop(&error);
                return shared.fail(error);
            }
            if watch.is_finished() {
                self.send_all(&ToRank::Finish);
                self.hang_up();
                self.linger();
                return shared.finish();
            }
            if now >= beat {
                self.send_all(&ToRank::Beat(shared.progress()));
                beat = now + self.timing.beat();
            }
        }
    }

    fn follow_event(&mut self, event: Event, watch: &mut Watch, now: Duration) -> Option<Failure> {
        match event {
            Event::Heard { connection, message, .. } => {
                let rank = *self.ranks.get(&connection)?;
                match message {
                    ToRoot::Beat(progress) => watch.hear(rank, progress, now),
                    ToRoot::Done => watch.finish(rank),
                    ToRoot::Leave { code, message } => return Some(Failure::Ended { rank, code, message }),
                    ToRoot::Join { .. } | ToRoot::Ready { .. } | ToRoot::Result { .. } => {}
                }
                None
            }
            Event::Closed { connection } => watch.close(*self.ranks.get(&connection)?),
            Event::OwnDone => {
                watch.finish(0);
                None
            }
            _ => None,
        }
    }

    fn stop(&mut self, error: &Error) {
        self.send_all(&stop_of(error));
        self.hang_up();
    }

    /// Waits until the others have hung up: what is on its way is lost if this process ends before.
    fn linger(&self) {
        let until = Instant::now() + LINGER;
        let mut open = self.links.len();
        while open > 0 {
            match self.events.recv_timeout(until.saturating_duration_since(Instant::now())) {
                Ok(Event::Closed { .. }) => open -= 1,
                Ok(_) => {}
                Err(_) => return,
            }
        }
    }

    /// Whoever cannot be reached any more, its reader or the watch notices.
    fn send_all(&mut self, message: &ToRank) {
        self.links.values_mut().for_each(|link| link.send(message));
    }

    fn hang_up(&self) {
        for link in self.links.values() {
            let _ = link.stream.shutdown(Shutdown::Write);
        }
    }
}

impl Link {
    /// A message that is not on its way in time closes the connection: what follows would not be understood.
    fn send(&mut self, message: &ToRank) {
        if send(&mut self.stream, &mut self.sealer, message).is_err() {
            let _ = self.stream.shutdown(Shutdown::Both);
        }
    }

    /// As [`Self::send`].
    fn send_frame(&mut self, payload: &[u8]) {
        let sent = self.sealer.seal(payload).and_then(|frame| Ok(self.stream.write_all(&frame)?));
        if sent.is_err() {
            let _ = self.stream.shutdown(Shutdown::Both);
        }
    }
}

impl Handle {
    pub(super) fn done(&self) {
        let _ = self.sender.send(Event::OwnDone);
    }

    /// All that the ranks are to compute, and what is the same on this one. `results` gets every unit once.
    pub(super) fn work(&self, facts: Facts, units: Vec<Unit>, results: Sender<Computed>) {
        let _ = self.sender.send(Event::OwnWork { facts, units, results });
    }

    /// This rank has computed a unit that it was leased.
    pub(super) fn give(&self, number: usize, result: Vec<u8>) {
        let _ = self.sender.send(Event::OwnResult { number, result });
    }

    /// Returns once all have been told, or after `limit`.
    pub(super) fn leave(&self, code: u8, message: &str, limit: Duration) {
        let (told, hear) = mpsc::channel();
        let _ = self.sender.send(Event::OwnLeave { code, message: message.to_owned(), told });
        let _ = hear.recv_timeout(limit);
    }
}

/// Where ranks are before all have joined.
fn joining() -> Progress {
    Progress { phase: "join".to_owned(), ..Progress::default() }
}

fn stop_of(error: &Error) -> ToRank {
    ToRank::Stop { code: error.kind().exit_code(), message: clipped(&error.to_string()) }
}

fn accepted(listener: &TcpListener) -> Option<TcpStream> {
    let (stream, _) = listener.accept().ok()?;
    // Some systems pass it on from the listener.
    stream.set_nonblocking(false).ok()?;
    Some(stream)
}

/// Reads all that comes from one connection.
fn serve(mut stream: TcpStream, connection: usize, token: &[u8], sender: &Sender<Event>) {
    let refuse = |stream: &TcpStream, why| {
        if let Ok(from) = stream.peer_addr() {
            let _ = sender.send(Event::Refused { from: from.ip(), why });
        }
    };
    let (sealer, mut opener) = match greet_within(&mut stream, Side::Listener, token, GREETING) {
        Ok(halves) => halves,
        // A connection that closes at once is none that anybody wanted.
        Err(FrameError::Closed) => return,
        Err(why) => return refuse(&stream, why),
    };
    let writing = stream.try_clone().and_then(|writing| {
        writing.set_write_timeout(Some(WRITE))?;
        Ok(writing)
    });
    match (receive(&mut stream, &mut opener), writing) {
        (Ok(ToRoot::Join { world, member }), Ok(writing)) => {
            let link = Link { stream: writing, sealer };
            let joined = Event::Joined { connection, link, world, member: Box::new(member) };
            let _ = sender.send(joined);
        }
        (Ok(_), _) => return refuse(&stream, FrameError::Stranger),
        (Err(why), _) => return refuse(&stream, why),
    }
    let _ = stream.set_read_timeout(None);
    let mut load = Vec::new();
    while let Ok(message) = receive_after(&mut stream, &mut opener, &mut load) {
        // A sign of life may come between the pieces of a result.
        let load =
            if matches!(message, ToRoot::Result { .. }) { std::mem::take(&mut load) } else { Vec::new() };
        if sender.send(Event::Heard { connection, message, load }).is_err() {
            return;
        }
    }
    let _ = sender.send(Event::Closed { connection });
}

/// Whether the members go together.
fn check(members: &BTreeMap<usize, Member>) -> Result<()> {
    let root = &members[&0];
    for (name, expected) in &root.facts {
        let fact =
            |member: &Member| member.facts.iter().find(|(known, _)| known == name).map(|(_, v)| v.clone());
        let other = members.values().find(|member| fact(member).as_ref() != Some(expected));
        if let Some(other) = other {
            let found = fact(other).unwrap_or_else(|| "nothing".to_owned());
            return Err(Error::usage(format!(
                "the ranks differ in {name}: {expected} on {root}, {found} on {other}; start all of them with the same \
                 program, options, model and data"
            )));
        }
    }
    let mut soles: BTreeMap<&str, &Member> = BTreeMap::new();
    for member in members.values() {
        let Some(sole) = &member.sole else { continue };
        if let Some(other) = soles.insert(sole, member) {
            return Err(Error::device(format!(
                "{other} and {member} have the same device, {sole}; start at most one rank for each GPU, and see what \
                 CUDA_VISIBLE_DEVICES says"
            )));
        }
    }
    Ok(())
}
