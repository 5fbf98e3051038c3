//! When a rank counts as lost, stalled or wrong. Times come in, decisions go out: there is neither a clock
//! nor a socket here.

use std::collections::{BTreeMap, VecDeque};
use std::fmt;
use std::time::Duration;

use super::message::{Member, Progress};
use crate::error::{Error, ErrorKind};

/// How long ranks wait for each other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Timing {
    /// Until all have joined: `--dist-timeout`.
    pub start: Duration,
    /// For a rank that does not come to where the others are: `--stall-timeout`.
    pub stall: Duration,
}

impl Default for Timing {
    fn default() -> Self {
        Timing { start: Duration::from_secs(300), stall: Duration::from_secs(60) }
    }
}

impl Timing {
    /// Between two signs of life: 2 s by default.
    pub fn beat(self) -> Duration {
        self.stall / 30
    }

    /// Without a sign of life until a rank is lost: 20 s by default.
    pub fn silence(self) -> Duration {
        self.stall / 3
    }
}

/// Why all ranks have to end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Failure {
    /// A rank is gone.
    Lost {
        /// Which.
        rank: usize,
        /// What was last heard of it.
        progress: Progress,
        /// `None` if its connection closed, else how long it has been silent.
        silent: Option<Duration>,
    },
    /// A rank has ended with an error and has said so.
    Ended {
        /// Which.
        rank: usize,
        /// Its exit code.
        code: u8,
        /// Its error.
        message: String,
    },
    /// Some ranks do not come to the collective in which all others wait.
    Stalled {
        /// Which.
        ranks: Vec<usize>,
        /// Where the first of them is.
        progress: Progress,
        /// What the others wait in.
        others: Progress,
        /// For how long they have waited for it.
        waited: Duration,
    },
    /// All ranks wait in the same collective, which does not end.
    AllWait {
        /// What they wait in.
        progress: Progress,
        /// For how long.
        waited: Duration,
    },
}

/// Steps whose durations are remembered.
const STEPS: usize = 31;

/// How many steps a collective may take that all are in.
const PATIENCE: u32 = 10;

/// What is known of all ranks.
pub struct Watch {
    timing: Timing,
    ranks: Vec<Seen>,
    /// When it was last looked at.
    looked: Duration,
    /// When the last step of rank 0 began, and how long those before it took.
    step_began: Option<Duration>,
    steps: VecDeque<Duration>,
}

#[derive(Clone, Default)]
struct Seen {
    progress: Progress,
    heard: Duration,
    /// When it last came to another step, phase or collective.
    moved: Duration,
    /// Since when it waits in its collective.
    arrived: Option<Duration>,
    done: bool,
}

impl Watch {
    /// Of `world` ranks, all just heard of.
    pub fn new(world: usize, timing: Timing, now: Duration) -> Self {
        let progress = Progress { phase: "start".to_owned(), ..Progress::default() };
        let seen = Seen { progress, heard: now, moved: now, ..Seen::default() };
        Watch { timing, ranks: vec![seen; world], looked: now, step_began: None, steps: VecDeque::new() }
    }

    /// A sign of life.
    pub fn hear(&mut self, rank: usize, progress: Progress, now: Duration) {
        let seen = &mut self.ranks[rank];
        let stays = seen.progress.collectives == progress.collectives;
        seen.arrived = progress.waits.then(|| seen.arrived.filter(|_| stays).unwrap_or(now));
        if rank == 0 && progress.step != seen.progress.step {
            let began = self.step_began.replace(now);
            if self.steps.len() == STEPS {
                self.steps.pop_front();
            }
            self.steps.extend(began.map(|began| now.saturating_sub(began)));
        }
        if seen.progress != progress {
            seen.moved = now;
        }
        seen.heard = now;
        seen.progress = progress;
    }

    /// A rank has done everything; what becomes of it is of no interest any more.
    pub fn finish(&mut self, rank: usize) {
        self.ranks[rank].done = true;
    }

    /// Whether all have done everything.
    pub fn is_finished(&self) -> bool {
        self.ranks.iter().all(|seen| seen.done)
    }

    /// A rank's connection has closed. A failure, unless it was done.
    pub fn close(&self, rank: usize) -> Option<Failure> {
        let seen = &self.ranks[rank];
        (!seen.done).then(|| Failure::Lost { rank, progress: seen.progress.clone(), silent: None })
    }

    /// What is wrong by now. To be asked several times within [`Timing::silence`]: whoever asks less often
    /// was suspended itself, and has heard nobody meanwhile.
    pub fn look(&mut self, now: Duration) -> Option<Failure> {
        let gap = now.saturating_sub(self.looked);
        self.looked = now;
        if gap > self.timing.silence() / 2 {
            self.ranks.iter_mut().for_each(|seen| seen.heard += gap);
        }
        self.silent(now).or_else(|| self.stalled(now))
    }

    fn active(&self) -> impl Iterator<Item = (usize, &Seen)> {
        self.ranks.iter().enumerate().filter(|(_, seen)| !seen.done)
    }

    fn silent(&self, now: Duration) -> Option<Failure> {
        let silent = |seen: &Seen| now.saturating_sub(seen.heard);
        // The one that was silent first is the cause, if there is one.
        let (rank, seen) = self.active().max_by_key(|(rank, seen)| (silent(seen), usize::MAX - rank))?;
        (silent(seen) > self.timing.silence()).then(|| Failure::Lost {
            rank,
            progress: seen.progress.clone(),
            silent: Some(silent(seen)),
        })
    }

    fn stalled(&self, now: Duration) -> Option<Failure> {
        let newest = self.active().map(|(_, seen)| seen.progress.collectives).max()?;
        let reached = |seen: &Seen| seen.progress.collectives == newest;
        // Some have been through it already: it ends for the others any moment.
        if self.active().any(|(_, seen)| reached(seen) && seen.arrived.is_none()) {
            return None;
        }
        // Who has come last waits for the shortest time.
        let arrivals = self.active().filter(|(_, seen)| reached(seen)).filter_map(|(_, seen)| seen.arrived);
        let (there, absent): (Vec<_>, Vec<_>) = self.active().partition(|(_, seen)| reached(seen));
        // Whoever comes to another phase goes on, though the others wait for it.
        let moves = absent.iter().map(|(_, seen)| seen.moved);
        let waited = now.saturating_sub(arrivals.chain(moves).max()?);
        let patience = match absent.len() {
            1 => self.timing.stall,
            _ => self.timing.stall.max(PATIENCE * self.median_step()),
        };
        if waited <= patience {
            return None;
        }
        let others = there.first()?.1.progress.clone();
        Some(match absent.first() {
            None => Failure::AllWait { progress: others, waited },
            Some((_, first)) => {
                let ranks = absent.iter().map(|(rank, _)| *rank).collect();
                Failure::Stalled { ranks, progress: first.progress.clone(), others, waited }
            }
        })
    }

    fn median_step(&self) -> Duration {
        let mut steps: Vec<Duration> = self.steps.iter().copied().collect();
        steps.sort();
        steps.get(steps.len() / 2).copied().unwrap_or_default()
    }
}

impl Failure {
    /// The error that all other ranks end with; `advice` says what to do next.
    pub fn error(&self, members: &BTreeMap<usize, Member>, advice: &str) -> Error {
        Error::new(ErrorKind::Cluster, format!("{}; {advice}", self.text(members)))
    }

    fn text(&self, members: &BTreeMap<usize, Member>) -> String {
        let name = |rank: &usize| members.get(rank).map_or_else(|| format!("rank {rank}"), Member::to_string);
        match self {
            Failure::Lost { rank, progress, silent: None } => {
                format!("{} was lost {progress}: its connection closed", name(rank))
            }
            Failure::Lost { rank, progress, silent: Some(silent) } => {
                format!(
                    "{} was lost {progress}: nothing was heard of it for {} s",
                    name(rank),
                    silent.as_secs()
                )
            }
            Failure::Ended { rank, code, message } => {
                format!("{} ended with exit code {code}: {message}", name(rank))
            }
            Failure::Stalled { ranks, progress, others, waited } => format!(
                "{} stalled {progress}: the others have waited {others} for {} s",
                ranks.iter().map(name).collect::<Vec<_>>().join(", "),
                waited.as_secs()
            ),
            Failure::AllWait { progress, waited } => format!(
                "everybody waits {progress}, for {} s: what connects the ranks does not carry it",
                waited.as_secs()
            ),
        }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text(&BTreeMap::new()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    fn progress(step: u64, collectives: u64, waits: bool) -> Progress {
        let phase = if waits { "all-reduce" } else { "backward" };
        Progress { step, phase: phase.to_owned(), collectives, waits }
    }

    /// All are heard of every two seconds from `from` until `to`, as `progress` of each says.
    fn beat(watch: &mut Watch, from: u64, to: u64, of: &[Option<Progress>]) -> Option<Failure> {
        for now in (from..=to).step_by(2) {
            for (rank, progress) in of.iter().enumerate() {
                if let Some(progress) = progress {
                    watch.hear(rank, progress.clone(), at(now));
                }
            }
            if let Some(failure) = watch.look(at(now)) {
                return Some(failure);
            }
        }
        None
    }

    fn watch(world: usize) -> Watch {
        Watch::new(world, Timing::default(), at(0))
    }

    #[test]
    fn a_silent_rank_is_lost_after_twenty_seconds() {
        let there = Some(progress(3, 3, false));
        let mut watch = watch(3);
        assert_eq!(beat(&mut watch, 0, 100, &[there.clone(), there.clone(), there.clone()]), None);
        assert_eq!(beat(&mut watch, 102, 120, &[there.clone(), None, there.clone()]), None);
        let failure = beat(&mut watch, 122, 200, &[there.clone(), None, there.clone()]).unwrap();
        assert_eq!(
            failure.to_string(),
            "rank 1 was lost at step 3 in backward: nothing was heard of it for 22 s"
        );
        // Whoever is done may be silent.
        let mut watch = super::Watch::new(2, Timing::default(), at(0));
        watch.finish(1);
        assert_eq!(beat(&mut watch, 0, 100, &[there, None]), None);
        assert!(watch.close(1).is_none() && watch.close(0).is_some() && !watch.is_finished());
    }

    #[test]
    fn whoever_slept_itself_blames_nobody() {
        let there = Some(progress(3, 3, false));
        let mut watch = watch(2);
        assert_eq!(beat(&mut watch, 0, 10, &[there.clone(), there.clone()]), None);
        assert_eq!(watch.look(at(1000)), None);
        assert_eq!(beat(&mut watch, 1002, 1010, &[there.clone(), there.clone()]), None);
        // But who stays silent after that is lost.
        assert!(beat(&mut watch, 1012, 1100, &[there, None]).is_some());
    }

    #[test]
    fn the_one_that_does_not_come_has_stalled() {
        let mut watch = watch(3);
        let [there, absent] = [progress(7, 5, true), progress(7, 4, false)];
        let of = [Some(there.clone()), Some(absent), Some(there)];
        assert_eq!(beat(&mut watch, 0, 60, &of), None);
        let failure = beat(&mut watch, 62, 100, &of).unwrap();
        let expected =
            "rank 1 stalled at step 7 in backward: the others have waited at step 7 in all-reduce for 62 s";
        assert_eq!(failure.to_string(), expected);
    }

    #[test]
    fn whoever_goes_on_has_not_stalled() {
        let mut watch = watch(2);
        let there = progress(7, 5, true);
        for phase in 0..20 {
            let absent = Progress { phase: format!("micro-batch {phase}"), ..progress(7, 4, false) };
            assert_eq!(
                beat(&mut watch, 50 * phase, 50 * phase + 48, &[Some(there.clone()), Some(absent)]),
                None
            );
        }
        let absent = Progress { phase: "micro-batch 19".to_owned(), ..progress(7, 4, false) };
        let failure = beat(&mut watch, 1000, 1100, &[Some(there), Some(absent)]).unwrap();
        assert!(matches!(&failure, Failure::Stalled { ranks, .. } if *ranks == [1]), "{failure}");
    }

    #[test]
    fn several_that_compute_for_long_have_ten_steps() {
        let mut watch = watch(4);
        // Steps of 20 s.
        for step in 0..10 {
            let of = vec![Some(progress(step, step, false)); 4];
            assert_eq!(beat(&mut watch, 20 * step, 20 * step + 18, &of), None);
        }
        let [there, absent] = [progress(9, 10, true), progress(9, 9, false)];
        let of = [Some(there), Some(absent.clone()), Some(absent.clone()), Some(absent)];
        assert_eq!(beat(&mut watch, 200, 400, &of), None);
        let failure = beat(&mut watch, 402, 500, &of).unwrap();
        assert!(matches!(&failure, Failure::Stalled { ranks, .. } if *ranks == [1, 2, 3]), "{failure}");
    }

    #[test]
    fn a_collective_that_does_not_end_is_told() {
        let mut watch = watch(2);
        let of = vec![Some(progress(1, 1, true)); 2];
        assert_eq!(beat(&mut watch, 0, 60, &of), None);
        let failure = beat(&mut watch, 62, 100, &of).unwrap();
        assert!(
            failure.to_string().starts_with("everybody waits at step 1 in all-reduce, for 62 s"),
            "{failure}"
        );
    }

    #[test]
    fn collectives_that_end_are_no_failure() {
        // Waiting, but in another one every time.
        let mut watch = watch(2);
        for n in 0..100 {
            let of = vec![Some(progress(n, n, true)); 2];
            assert_eq!(beat(&mut watch, 40 * n, 40 * n + 38, &of), None);
        }
        // One is through it and computes for long: the other is about to hear of it.
        let of = [Some(progress(100, 101, false)), Some(progress(100, 101, true))];
        assert_eq!(beat(&mut watch, 4000, 5000, &of), None);
    }

    #[test]
    fn messages_name_the_rank_and_what_to_do() {
        let member = Member {
            rank: 3,
            host: "gpu-07".into(),
            pid: 4121,
            device: "GPU 3".into(),
            sole: None,
            invitation: None,
            facts: vec![],
        };
        let members = BTreeMap::from([(3, member)]);
        let lost = Failure::Lost { rank: 3, progress: progress(57, 57, false), silent: None };
        let ended = Failure::Ended { rank: 3, code: 5, message: "out of memory".into() };
        for (failure, expected) in [
            (
                lost,
                "rank 3 (gpu-07, pid 4121, GPU 3) was lost at step 57 in backward: its connection closed; again",
            ),
            (ended, "rank 3 (gpu-07, pid 4121, GPU 3) ended with exit code 5: out of memory; again"),
        ] {
            let error = failure.error(&members, "again");
            assert_eq!((error.kind(), error.to_string().as_str()), (ErrorKind::Cluster, expected));
        }
    }
}
