//! Frames of a connection between two ranks: a length, a keyed hash (BLAKE3), and at most 64 KiB that the
//! hash vouches for. The key comes from the job's token and two numbers that each side draws anew, so frames
//! of other jobs, of earlier connections and of strangers are refused, and so is a frame that is repeated,
//! left out or sent back. Nothing is encrypted.

use std::fmt;
use std::io::{self, ErrorKind, Read, Write};

/// Bytes that a frame may carry.
pub const MAX_PAYLOAD: usize = 64 << 10;

/// What both sides say first, the version of all that follows included.
const GREETING: &[u8; 8] = b"dg-run\x01\n";

const NONCE: usize = 32;
const HASH: usize = blake3::OUT_LEN;
/// Bytes before the payload: its length in little endian, and the hash.
const HEADER: usize = 4 + HASH;

/// Which side of a connection this is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    /// Rank 0, which listens.
    Listener,
    /// Any other rank, which calls.
    Caller,
}

/// Why there is no frame.
#[derive(Debug)]
pub enum FrameError {
    /// The other side has closed the connection.
    Closed,
    /// Nothing has come within the connection's read timeout; what has come in part is kept.
    NotYet,
    /// The other side speaks something else, or another version of this.
    Stranger,
    /// The hash is not that of the job's token.
    Forged,
    /// Longer than a frame may be.
    TooLong(usize),
    /// Everything else that goes wrong with a connection.
    Io(io::Error),
}

/// What seals the frames of one direction of a connection.
pub struct Sealer {
    key: [u8; HASH],
    from: Side,
    count: u64,
}

/// What reads the frames of one direction of a connection.
pub struct Opener {
    sealer: Sealer,
    /// What has come of the next frames.
    buffer: Vec<u8>,
}

/// Greets the other side of a connection; both sides prove that they hold the same `token`.
///
/// # Errors
/// `Stranger` if the other side does not greet in the same way, `Forged` if its token is another, and what
/// goes wrong with connections.
pub fn greet(
    stream: &mut (impl Read + Write),
    side: Side,
    token: &[u8],
) -> Result<(Sealer, Opener), FrameError> {
    let mut own = [0; NONCE];
    getrandom::fill(&mut own).map_err(|error| FrameError::Io(io::Error::other(error)))?;
    stream.write_all(GREETING)?;
    stream.write_all(&own)?;
    let (mut greeting, mut other) = ([0; GREETING.len()], [0; NONCE]);
    stream.read_exact(&mut greeting)?;
    if greeting != *GREETING {
        return Err(FrameError::Stranger);
    }
    stream.read_exact(&mut other)?;
    let (mut sealer, mut opener) = match side {
        Side::Listener => halves(side, token, &other, &own),
        Side::Caller => halves(side, token, &own, &other),
    };
    // Before the other's proof is looked at, so that both learn of different tokens.
    stream.write_all(&sealer.seal(b"")?)?;
    match opener.open(stream)?.is_empty() {
        true => Ok((sealer, opener)),
        false => Err(FrameError::Stranger),
    }
}

/// Both directions of a connection, as `side` has them.
fn halves(side: Side, token: &[u8], of_caller: &[u8; NONCE], of_listener: &[u8; NONCE]) -> (Sealer, Opener) {
    let mut hasher = blake3::Hasher::new_derive_key("deepguard 2026 frames between ranks, version 1");
    hasher.update(of_caller).update(of_listener).update(token);
    let key = *hasher.finalize().as_bytes();
    let other = match side {
        Side::Listener => Side::Caller,
        Side::Caller => Side::Listener,
    };
    let sealer = |from| Sealer { key, from, count: 0 };
    (sealer(side), Opener { sealer: sealer(other), buffer: Vec::new() })
}

impl Sealer {
    /// The next frame of this direction, with `payload` in it.
    ///
    /// # Errors
    /// `TooLong` beyond [`MAX_PAYLOAD`].
    pub fn seal(&mut self, payload: &[u8]) -> Result<Vec<u8>, FrameError> {
        if payload.len() > MAX_PAYLOAD {
            return Err(FrameError::TooLong(payload.len()));
        }
        let hash = self.next_hash(payload);
        let length = (payload.len() as u32).to_le_bytes();
        Ok([&length[..], hash.as_bytes(), payload].concat())
    }

    /// The hash of the next frame of this direction.
    fn next_hash(&mut self, payload: &[u8]) -> blake3::Hash {
        let mut hasher = blake3::Hasher::new_keyed(&self.key);
        hasher.update(&[self.from as u8]).update(&self.count.to_le_bytes()).update(payload);
        self.count += 1;
        hasher.finalize()
    }
}

impl Opener {
    /// The payload of the next frame.
    ///
    /// # Errors
    /// [`FrameError`]; after anything but `NotYet` the connection is of no more use.
    pub fn open(&mut self, stream: &mut impl Read) -> Result<Vec<u8>, FrameError> {
        self.fill(stream, HEADER)?;
        let length =
            u32::from_le_bytes([self.buffer[0], self.buffer[1], self.buffer[2], self.buffer[3]]) as usize;
        if length > MAX_PAYLOAD {
            return Err(FrameError::TooLong(length));
        }
        self.fill(stream, HEADER + length)?;
        let frame: Vec<u8> = self.buffer.drain(..HEADER + length).collect();
        let (header, payload) = frame.split_at(HEADER);
        // Hashes are compared in constant time.
        match self.sealer.next_hash(payload) == header[4..] {
            true => Ok(payload.to_owned()),
            false => Err(FrameError::Forged),
        }
    }

    /// Reads until `wanted` bytes are there.
    fn fill(&mut self, stream: &mut impl Read, wanted: usize) -> Result<(), FrameError> {
        let mut chunk = [0; 4096];
        while self.buffer.len() < wanted {
            match stream.read(&mut chunk) {
                Ok(0) => return Err(FrameError::Closed),
                Ok(read) => self.buffer.extend_from_slice(&chunk[..read]),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(error.into()),
            }
        }
        Ok(())
    }
}

impl From<io::Error> for FrameError {
    fn from(error: io::Error) -> Self {
        match error.kind() {
            ErrorKind::WouldBlock | ErrorKind::TimedOut => FrameError::NotYet,
            ErrorKind::UnexpectedEof
            | ErrorKind::ConnectionReset
            | ErrorKind::ConnectionAborted
            | ErrorKind::BrokenPipe => FrameError::Closed,
            _ => FrameError::Io(error),
        }
    }
}

impl fmt::Display for FrameError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            FrameError::Closed => f.write_str("the connection was closed"),
            FrameError::NotYet => f.write_str("nothing came in time"),
            FrameError::Stranger => f.write_str("it is another program, or another version of dg-run"),
            FrameError::Forged => f.write_str("its token is another"),
            FrameError::TooLong(length) => write!(f, "a frame of {length} bytes, more than {MAX_PAYLOAD}"),
            FrameError::Io(error) => error.fmt(f),
        }
    }
}

impl std::error::Error for FrameError {}

#[cfg(test)]
mod tests {
    use super::*;

    fn pair(tokens: [&[u8]; 2]) -> [(Sealer, Opener); 2] {
        let nonces = [[1; NONCE], [2; NONCE]];
        [
            halves(Side::Listener, tokens[0], &nonces[0], &nonces[1]),
            halves(Side::Caller, tokens[1], &nonces[0], &nonces[1]),
        ]
    }

    /// A stream that gives a byte at a time, and every other time nothing.
    struct Drops<'a>(&'a [u8], bool);

    impl Read for Drops<'_> {
        fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
            self.1 = !self.1;
            if self.1 {
                return Err(ErrorKind::WouldBlock.into());
            }
            let Some((first, rest)) = self.0.split_first() else { return Ok(0) };
            into[0] = *first;
            self.0 = rest;
            Ok(1)
        }
    }

    #[test]
    fn frames_arrive_whole_in_order_and_in_pieces() {
        let [(mut sealer, _), (_, mut opener)] = pair([b"t", b"t"]);
        let payloads = [b"one".to_vec(), Vec::new(), vec![7; MAX_PAYLOAD]];
        let bytes: Vec<u8> = payloads.iter().flat_map(|payload| sealer.seal(payload).unwrap()).collect();
        let mut stream = Drops(&bytes, false);
        for payload in payloads {
            let found = loop {
                match opener.open(&mut stream) {
                    Err(FrameError::NotYet) => {}
                    found => break found,
                }
            };
            assert_eq!(found.unwrap(), payload);
        }
        let ends = [opener.open(&mut stream), opener.open(&mut stream)];
        assert!(ends.iter().any(|end| matches!(end, Err(FrameError::Closed))), "{ends:?}");
        assert!(matches!(sealer.seal(&[0; MAX_PAYLOAD + 1]), Err(FrameError::TooLong(_))));
    }

    #[test]
    fn what_others_say_is_refused() {
        let forged = |opener: &mut Opener, bytes: &[u8]| {
            let found = opener.open(&mut &*bytes);
            assert!(matches!(found, Err(FrameError::Forged)), "{found:?}");
        };
        // Another token.
        let [(mut sealer, _), (_, mut opener)] = pair([b"t", b"u"]);
        forged(&mut opener, &sealer.seal(b"x").unwrap());
        // A frame twice, one left out, one's own.
        let [(mut sealer, mut own), (_, mut opener)] = pair([b"t", b"t"]);
        let frames = [b"a", b"b", b"c"].map(|payload| sealer.seal(payload).unwrap());
        assert_eq!(opener.open(&mut &*frames[0]).unwrap(), b"a");
        forged(&mut opener, &frames[0]);
        forged(&mut own, &frames[0]);
        let [_, (_, mut opener)] = pair([b"t", b"t"]);
        assert_eq!(opener.open(&mut &*frames[0]).unwrap(), b"a");
        forged(&mut opener, &frames[2]);
        // Another connection of the same job.
        let (_, mut opener) = halves(Side::Caller, b"t", &[1; NONCE], &[3; NONCE]);
        forged(&mut opener, &frames[0]);
        let too_long = opener.open(&mut &[0xff; HEADER][..]);
        assert!(matches!(too_long, Err(FrameError::TooLong(0xffff_ffff))), "{too_long:?}");
    }

    /// A million frames with bytes exchanged, cut off or added: none is accepted, none does harm.
    #[test]
    fn no_damaged_frame_is_accepted() {
        let [(mut sealer, _), (mut back, _)] = pair([b"t", b"t"]);
        let [frame, _] = [sealer.seal(b"{\"Beat\":null}").unwrap(), back.seal(b"").unwrap()];
        let mut state = 1_u64;
        let mut random = |below: usize| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (state >> 33) as usize % below
        };
        for _ in 0..1_000_000 {
            let mut bytes = frame.clone();
            match random(8) {
                0 => bytes.truncate(random(frame.len())),
                1 => bytes.insert(random(frame.len()), random(256) as u8),
                _ => {
                    for _ in 0..=random(3) {
                        bytes[random(frame.len())] = random(256) as u8;
                    }
                }
            }
            let [_, (_, mut opener)] = pair([b"t", b"t"]);
            let found = opener.open(&mut &*bytes);
            // A byte that is put in behind the frame, or is what was there, changes nothing.
            assert!(found.is_err() || bytes.starts_with(&frame), "{bytes:?}");
        }
    }
}
