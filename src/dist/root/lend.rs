//! Rank 0 while it leases units of work to all ranks, itself included. Whoever is lost costs its unit, and
//! nobody else ends because of that.

use std::collections::{BTreeMap, BTreeSet};
use std::net::Shutdown;
use std::sync::Arc;
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, Sender};
use std::thread;
use std::time::{Duration, Instant};

use super::{Computed, Event, Handle, Root, check};
use crate::dist::leases::{Facts, Fate, Lease, Leases, Unit};
use crate::dist::message::{Member, Progress, ToRank, ToRoot, clipped, pieces};
use crate::dist::shared::Shared;
use crate::dist::watch::{Failure, Watch};
use crate::error::{Context, Error, ErrorKind, Result};

/// Gets a line about each rank that is lost.
pub type OnLoss = Box<dyn Fn(&str) + Send>;

/// Who lends, and to whom.
struct Lender {
    root: Root,
    shared: Arc<Shared>,
    on_loss: OnLoss,
    watch: Watch,
    /// What those are who can compute.
    ready: BTreeMap<usize, Facts>,
    /// Who has nothing to do.
    idle: BTreeSet<usize>,
    work: Option<Work>,
    /// The way to rank 0's own computations, as long as there is work.
    own: Option<Sender<Lease>>,
}

/// What there is to compute.
struct Work {
    units: Vec<Unit>,
    leases: Leases,
    results: Sender<Computed>,
    /// Whether all who are there have been compared.
    is_open: bool,
}

impl Root {
    /// Lends units of work with a thread of its own, until all is done or one rank says that it cannot be.
    /// Those for this rank come out of the receiver.
    pub(in crate::dist) fn lend(
        self,
        shared: Arc<Shared>,
        on_loss: OnLoss,
    ) -> Result<(Handle, Receiver<Lease>)> {
        let handle = Handle { sender: self.sender.clone() };
        let (own, leases) = mpsc::channel();
        let watch = Watch::new(self.world, self.timing, Duration::ZERO);
        let (ready, idle) = (BTreeMap::new(), BTreeSet::new());
        let own = Some(own);
        let lender = Lender { root: self, shared, on_loss, watch, ready, idle, work: None, own };
        let thread = thread::Builder::new().name("control".into()).spawn(move || lender.follow()).map(drop);
        thread.kind(ErrorKind::Device, || "cannot start a thread for the other ranks".into())?;
        Ok((handle, leases))
    }
}

impl Lender {
    fn follow(mut self) {
        let (began, timing) = (Instant::now(), self.root.timing);
        let mut beat = Duration::ZERO;
        loop {
            let event = self.root.events.recv_timeout(timing.beat() / 4);
            let now = began.elapsed();
            self.watch.hear(0, self.shared.progress(), now);
            let taken = match event {
                Ok(Event::OwnLeave { code, message, told }) => {
                    self.end(code, message);
                    let _ = told.send(());
                    return;
                }
                Ok(Event::OwnDone) => {
                    self.root.send_all(&ToRank::Finish);
                    self.root.hang_up();
                    self.root.linger();
                    return self.shared.finish();
                }
                Ok(event) => self.take(event, now),
                Err(RecvTimeoutError::Timeout) => Ok(()),
                Err(RecvTimeoutError::Disconnected) => return,
            };
            let looked = taken.and_then(|()| match self.watch.look(now) {
                Some(failure) => self.lose(&failure),
                None => Ok(()),
            });
            if let Err(error) = looked {
                self.root.stop(&error);
                return self.shared.fail(error);
            }
            if now >= beat {
                self.root.send_all(&ToRank::Beat(self.shared.progress()));
                beat = now + timing.beat();
            }
        }
    }

    /// Rank 0 ends with an error: a request to stop is that of all.
    fn end(&mut self, code: u8, message: String) {
        let is_stop =
            [ErrorKind::Preempted, ErrorKind::Interrupted].map(ErrorKind::exit_code).contains(&code);
        if is_stop {
            self.root.send_all(&ToRank::Stop { code, message: clipped(&message) });
            return self.root.hang_up();
        }
        let ended = Failure::Ended { rank: 0, code, message };
        self.root.stop(&ended.error(&self.root.members, &self.shared.advice()));
    }

    fn take(&mut self, event: Event, now: Duration) -> Result<()> {
        match event {
            Event::Heard { connection, message, load } => match self.root.ranks.get(&connection) {
                Some(rank) => self.hear(*rank, message, load, now),
                None => Ok(()),
            },
            Event::Closed { connection } => {
                let rank = self.root.ranks.get(&connection).copied();
                rank.and_then(|rank| self.watch.close(rank)).map_or(Ok(()), |lost| self.lose(&lost))
            }
            Event::OwnWork { facts, units, results } => {
                let leases = Leases::new(units.len());
                self.work = Some(Work { units, leases, results, is_open: false });
                self.admit(0, facts)
            }
            Event::OwnResult { number, result } => self.accept(0, number, result),
            _ => Ok(()),
        }
    }

    fn hear(&mut self, rank: usize, message: ToRoot, load: Vec<u8>, now: Duration) -> Result<()> {
        match message {
            ToRoot::Beat(progress) => self.watch.hear(rank, progress, now),
            ToRoot::Ready { facts } => return self.admit(rank, facts),
            ToRoot::Result { number } => return self.accept(rank, number, load),
            ToRoot::Leave { code, message } => return self.see_off(rank, code, message),
            ToRoot::Join { .. } | ToRoot::Done => {}
        }
        Ok(())
    }

    /// A rank can compute.
    fn admit(&mut self, rank: usize, facts: Facts) -> Result<()> {
        self.ready.insert(rank, facts);
        self.idle.insert(rank);
        self.open()?;
        self.serve();
        Ok(())
    }

    /// Compares all ranks, once all who are there can compute. Nothing is computed before.
    fn open(&mut self) -> Result<()> {
        let Some(work) = self.work.as_mut().filter(|work| !work.is_open) else { return Ok(()) };
        if !self.root.links.keys().all(|rank| self.ready.contains_key(rank)) {
            return Ok(());
        }
        let with = |(rank, facts): (&usize, &Facts)| {
            let member = self.root.members.get(rank)?;
            Some((*rank, Member { facts: facts.clone(), ..member.clone() }))
        };
        check(&self.ready.iter().filter_map(with).collect())?;
        work.is_open = true;
        Ok(())
    }

    /// The result of a unit, which counts if its rank still holds that.
    fn accept(&mut self, rank: usize, number: usize, result: Vec<u8>) -> Result<()> {
        if let Some(work) = &mut self.work
            && work.leases.finish(rank, number)
        {
            let _ = work.results.send((number, Some(result)));
            self.idle.insert(rank);
        }
        self.serve();
        Ok(())
    }

    /// Leases units to those who have none. With the last one, all is over.
    fn serve(&mut self) {
        let Some(work) = self.work.as_mut().filter(|work| work.is_open) else { return };
        // With rank 0 all would be lost: it leaves a unit that may be the cause to others, if there are any.
        let others = !self.root.links.is_empty();
        for rank in std::mem::take(&mut self.idle) {
            let Some(number) = work.leases.next(rank, rank == 0 && others) else {
                self.idle.insert(rank);
                continue;
            };
            let unit = work.units[number].clone();
            match (self.root.links.get_mut(&rank), &self.own) {
                (Some(link), _) => {
                    pieces(&unit.input).for_each(|piece| link.send_frame(&piece));
                    link.send(&ToRank::Lease { number, name: clipped(&unit.name) });
                }
                (None, Some(own)) => {
                    let _ = own.send(Lease { number, unit });
                }
                (None, None) => {}
            }
        }
        if work.leases.is_done() {
            (self.work, self.own) = (None, None);
        }
    }

    /// A rank says that it ends. What it cannot do, others cannot either, unless somebody has stopped it.
    fn see_off(&mut self, rank: usize, code: u8, message: String) -> Result<()> {
        let ended = Failure::Ended { rank, code, message };
        if [ErrorKind::Preempted, ErrorKind::Interrupted].iter().any(|kind| kind.exit_code() == code) {
            let unit = self.work.as_mut().and_then(|work| work.leases.give_back(rank));
            return self.part(rank, &ended, unit.map(|unit| (unit, Fate::Again)));
        }
        Err(ended.error(&self.root.members, &self.shared.advice()))
    }

    fn lose(&mut self, failure: &Failure) -> Result<()> {
        let Failure::Lost { rank, silent, progress } = failure else {
            return Err(failure.error(&self.root.members, &self.shared.advice()));
        };
        let lost = self.work.as_mut().and_then(|work| work.leases.lose(*rank));
        // What it was leased may be newer than what it has told of itself.
        let name = lost.and_then(|(unit, _)| Some(self.work.as_ref()?.units[unit].name.clone()));
        let progress = name.map_or(progress.clone(), |phase| Progress { phase, ..progress.clone() });
        self.part(*rank, &Failure::Lost { rank: *rank, silent: *silent, progress }, lost)
    }

    /// Goes on without a rank, and says so.
    fn part(&mut self, rank: usize, failure: &Failure, unit: Option<(usize, Fate)>) -> Result<()> {
        let then = match unit {
            None => "the others go on without it",
            Some((_, Fate::Again)) => "its unit goes to another",
            Some((_, Fate::GivenUp)) => "its unit was lost twice and is given up",
        };
        let error = failure.error(&self.root.members, then);
        (self.on_loss)(&error.to_string());
        if let (Some((number, Fate::GivenUp)), Some(work)) = (unit, &self.work) {
            let _ = work.results.send((number, None));
        }
        self.forget(rank, &error);
        self.open()?;
        self.serve();
        Ok(())
    }

    /// Hears and tells a rank nothing any more. If it was only silent, it learns why.
    fn forget(&mut self, rank: usize, why: &Error) {
        self.watch.finish(rank);
        self.ready.remove(&rank);
        self.idle.remove(&rank);
        self.root.ranks.retain(|_, of| *of != rank);
        if let Some(mut link) = self.root.links.remove(&rank) {
            link.send(&super::stop_of(why));
            let _ = link.stream.shutdown(Shutdown::Write);
        }
    }
}
