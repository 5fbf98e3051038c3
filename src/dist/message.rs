//! What ranks tell each other on the control plane.

use std::fmt;
use std::io::{Read, Write};

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use super::frame::{FrameError, MAX_PAYLOAD, Opener, Sealer};
use super::leases::Facts;

/// Bytes of a message for people; the rest is cut off.
const MAX_TEXT: usize = MAX_PAYLOAD / 8;

/// The first byte of a frame with a piece of something longer than a frame. No JSON begins with it.
const PIECE: u8 = 0;

/// Bytes of a unit of work, or of its result.
const MAX_LOAD: usize = 1 << 30;

/// Who a rank is, and what has to be the same on all ranks.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Member {
    /// Its rank, from 0.
    pub rank: usize,
    /// Name of its machine.
    pub host: String,
    /// Its process there.
    pub pid: u32,
    /// What it computes on, for people: `GPU 3`, `processor`.
    pub device: String,
    /// What no two ranks may have in common, if there is such a thing: the UUID of a GPU.
    pub sole: Option<String>,
    /// What the others need of rank 0 for their collectives.
    #[serde(default)]
    pub invitation: Option<Invitation>,
    /// What has to be the same everywhere, by name: versions, hashes of configuration, weights and data.
    pub facts: Vec<(String, String)>,
}

/// How a library of collectives reaches rank 0. Whoever has it can join, so nobody is shown it.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Invitation(pub Vec<u8>);

impl fmt::Debug for Invitation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Invitation(…)")
    }
}

/// How far a rank is.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Progress {
    /// The optimiser step, from 1; 0 before the first.
    pub step: u64,
    /// What it does there, for people.
    pub phase: String,
    /// How many collectives it has begun.
    pub collectives: u64,
    /// Whether it is in the last of them.
    pub waits: bool,
}

/// What any other rank tells rank 0.
#[derive(Debug, Serialize, Deserialize)]
pub(super) enum ToRoot {
    /// The first of all: a rank and how many it takes part with.
    Join { world: usize, member: Member },
    /// It is alive, and there.
    Beat(Progress),
    /// It ends with an error.
    Leave { code: u8, message: String },
    /// It has done everything.
    Done,
    /// It can compute units of work, and is so.
    Ready { facts: Facts },
    /// It has computed a unit; the pieces before are the result.
    Result { number: usize },
}

/// What rank 0 tells any other rank.
#[derive(Debug, Serialize, Deserialize)]
pub(super) enum ToRank {
    /// The answer to `Join`: who rank 0 is.
    Known { root: Member },
    /// All have joined.
    Welcome,
    /// It is alive, and there.
    Beat(Progress),
    /// All end, with this exit code.
    Stop { code: u8, message: String },
    /// All have done everything.
    Finish,
    /// A unit of work for this rank; the pieces before are its input.
    Lease { number: usize, name: String },
}

/// `message`, no longer than a frame can take.
pub(super) fn clipped(message: &str) -> String {
    let mut end = message.len().min(MAX_TEXT);
    while !message.is_char_boundary(end) {
        end -= 1;
    }
    message[..end].to_owned()
}

/// Sends one message.
pub(super) fn send(
    stream: &mut impl Write,
    sealer: &mut Sealer,
    message: &impl Serialize,
) -> Result<(), FrameError> {
    let payload = serde_json::to_vec(message).map_err(|error| FrameError::Io(error.into()))?;
    Ok(stream.write_all(&sealer.seal(&payload)?)?)
}

/// What may be longer than a frame, piece by piece: messages may come in between, so that a rank which sends
/// for long still shows that it is alive.
pub(super) fn pieces(load: &[u8]) -> impl Iterator<Item = Vec<u8>> {
    load.chunks(MAX_PAYLOAD - 1).map(|piece| [&[PIECE], piece].concat())
}

/// Waits for one message.
pub(super) fn receive<T: DeserializeOwned>(
    stream: &mut impl Read,
    opener: &mut Opener,
) -> Result<T, FrameError> {
    receive_after(stream, opener, &mut Vec::new())
}

/// Waits for one message, and adds the pieces that come before it to `load`.
pub(super) fn receive_after<T: DeserializeOwned>(
    stream: &mut impl Read,
    opener: &mut Opener,
    load: &mut Vec<u8>,
) -> Result<T, FrameError> {
    loop {
        let payload = opener.open(stream)?;
        let Some((&PIECE, piece)) = payload.split_first() else {
            // The token is right, so it is dg-run, but not this one.
            return serde_json::from_slice(&payload).map_err(|_| FrameError::Stranger);
        };
        load.extend_from_slice(piece);
        if load.len() > MAX_LOAD {
            return Err(FrameError::TooLong(load.len()));
        }
    }
}

impl fmt::Display for Member {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Member { rank, host, pid, device, .. } = self;
        write!(f, "rank {rank} ({host}, pid {pid}, {device})")
    }
}

impl fmt::Display for Progress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.step {
            0 => write!(f, "in {}", self.phase),
            step => write!(f, "at step {step} in {}", self.phase),
        }
    }
}
