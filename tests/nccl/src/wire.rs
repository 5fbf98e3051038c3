//! What ranks tell the hub, and it them: numbers and bytes over a socket.

use std::io::{Error, ErrorKind, Read, Result, Write};

/// The longest message: more than any buffer of a test.
const LONGEST: u64 = 1 << 32;

/// A collective, which is the same on all ranks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Call {
    /// All-reduce, all-gather or broadcast.
    pub kind: Kind,
    /// Elements.
    pub count: u64,
    /// `ncclDataType_t`.
    pub data_type: i32,
    /// `ncclRedOp_t`; 0 where nothing is reduced.
    pub op: i32,
    /// The rank whose elements are sent; 0 where all are.
    pub root: i32,
}

/// Which collective.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// `ncclAllReduce`
    AllReduce,
    /// `ncclAllGather`
    AllGather,
    /// `ncclBroadcast`
    Broadcast,
}

const KINDS: [Kind; 3] = [Kind::AllReduce, Kind::AllGather, Kind::Broadcast];

impl Call {
    /// As numbers.
    pub fn encode(&self) -> [u64; 5] {
        [self.kind as u64, self.count, self.data_type as u64, self.op as u64, self.root as u64]
    }

    /// From numbers.
    pub fn decode([kind, count, data_type, op, root]: [u64; 5]) -> Result<Call> {
        let kind = *KINDS.get(kind as usize).ok_or(ErrorKind::InvalidData)?;
        Ok(Call { kind, count, data_type: data_type as i32, op: op as i32, root: root as i32 })
    }
}

/// Sends numbers.
pub fn send_numbers(stream: &mut impl Write, numbers: &[u64]) -> Result<()> {
    let bytes: Vec<u8> = numbers.iter().flat_map(|number| number.to_le_bytes()).collect();
    stream.write_all(&bytes)
}

/// Waits for numbers.
pub fn receive_numbers<const N: usize>(stream: &mut impl Read) -> Result<[u64; N]> {
    let mut numbers = [0; N];
    for number in &mut numbers {
        let mut bytes = [0; 8];
        stream.read_exact(&mut bytes)?;
        *number = u64::from_le_bytes(bytes);
    }
    Ok(numbers)
}

/// Sends bytes with their length.
pub fn send_bytes(stream: &mut impl Write, bytes: &[u8]) -> Result<()> {
    send_numbers(stream, &[bytes.len() as u64])?;
    stream.write_all(bytes)
}

/// Waits for bytes.
pub fn receive_bytes(stream: &mut impl Read) -> Result<Vec<u8>> {
    let [length] = receive_numbers(stream)?;
    if length > LONGEST {
        return Err(Error::from(ErrorKind::InvalidData));
    }
    let mut bytes = vec![0; length as usize];
    stream.read_exact(&mut bytes)?;
    Ok(bytes)
}

/// Sends what has come out, or why nothing has.
pub fn send_outcome(stream: &mut impl Write, outcome: &std::result::Result<Vec<u8>, String>) -> Result<()> {
    let (refused, bytes) = match outcome {
        Ok(bytes) => (0, bytes.as_slice()),
        Err(text) => (1, text.as_bytes()),
    };
    send_numbers(stream, &[refused])?;
    send_bytes(stream, bytes)
}

/// Waits for that.
pub fn receive_outcome(stream: &mut impl Read) -> Result<std::result::Result<Vec<u8>, String>> {
    let [refused] = receive_numbers(stream)?;
    let bytes = receive_bytes(stream)?;
    Ok(if refused == 0 { Ok(bytes) } else { Err(String::from_utf8_lossy(&bytes).into_owned()) })
}
