//! What happened before what: vector clocks, one entry per warp of a cluster and, for the asynchronous
//! copies, one per block that they write to.

/// Knowledge of a warp about the accesses of every actor, in two flavours.
///
/// Every access carries the epoch of its actor. An actor's epoch grows whenever it releases what it did. An
/// access is ordered before whoever knows its epoch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Clock {
    /// Latest epoch of each actor whose accesses are visible.
    pub visible: Box<[u32]>,
    /// Latest epoch of each actor whose writes are visible to the async proxy too.
    pub fenced: Box<[u32]>,
}

impl Clock {
    /// A clock that knows everything up to epoch `floor`.
    pub fn new(actors: usize, floor: u32) -> Self {
        Clock { visible: vec![floor; actors].into(), fenced: vec![floor; actors].into() }
    }

    /// Learns what another clock knows.
    pub fn join(&mut self, other: &Clock) {
        let pairs =
            self.visible.iter_mut().zip(&other.visible).chain(self.fenced.iter_mut().zip(&other.fenced));
        pairs.for_each(|(mine, other)| *mine = (*mine).max(*other));
    }
}

/// A warp's place in time.
#[derive(Clone, Debug)]
pub struct WarpClock {
    /// Its number among the actors.
    pub actor: usize,
    /// Epoch of its accesses.
    pub epoch: u32,
    /// What it knows. Its own entry covers what all of its lanes know of each other.
    pub known: Clock,
    /// An epoch up to which it knows the accesses of every warp.
    pub all_know: u32,
    /// Warps of the cluster.
    warps: usize,
}

impl WarpClock {
    /// A warp that starts after epoch `floor`.
    pub fn new(actor: usize, warps: usize, actors: usize, floor: u32) -> Self {
        WarpClock { actor, epoch: floor + 1, known: Clock::new(actors, floor), all_know: floor, warps }
    }

    /// Releases everything done so far to whoever acquires `to`.
    pub fn release(&mut self, to: &mut Clock) {
        to.join(&self.known);
        to.visible[self.actor] = to.visible[self.actor].max(self.epoch);
        self.epoch += 1;
    }

    /// Learns what was released.
    pub fn acquire(&mut self, from: &Clock) {
        self.known.join(from);
        // The asynchronous copies read through the warp that issued them.
        self.all_know = self.known.visible[..self.warps].iter().copied().min().unwrap_or(0);
    }

    /// `bar.warp.sync`: lanes learn of each other.
    pub fn warp_barrier(&mut self) {
        self.known.visible[self.actor] = self.epoch;
        self.epoch += 1;
    }

    /// `fence.proxy.async`: what is visible, own writes included, becomes visible to the async proxy.
    pub fn proxy_fence(&mut self) {
        let Clock { visible, fenced } = &mut self.known;
        fenced.iter_mut().zip(visible.iter()).for_each(|(f, v)| *f = (*f).max(*v));
        fenced[self.actor] = self.epoch;
        self.epoch += 1;
    }
}
