//! The meeting point of all ranks, in the process that has made the identity: it compares what they call, and
//! computes what comes out.

use std::collections::BTreeMap;
use std::io::Result;
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::thread;

use crate::api::{INT64, SIZES};
use crate::fault::Random;
use crate::wire::{Call, Kind, receive_bytes, receive_numbers, send_outcome};

/// A rank that has come.
struct Guest {
    stream: TcpStream,
    ranks: u64,
    /// The GPU, and the process.
    gpu: String,
}

/// Opens a meeting point, and says where it is.
pub fn open() -> Result<SocketAddr> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
    let place = listener.local_addr()?;
    // Whoever loses the connection waits for ever, as with NCCL.
    thread::spawn(move || gather(&listener).and_then(serve));
    Ok(place)
}

/// Connects to a meeting point.
pub fn connect(place: SocketAddr) -> Result<TcpStream> {
    let stream = TcpStream::connect(place)?;
    stream.set_nodelay(true)?;
    Ok(stream)
}

/// Waits until all ranks have come, and tells them so.
fn gather(listener: &TcpListener) -> Result<Vec<TcpStream>> {
    let mut guests: BTreeMap<u64, Guest> = BTreeMap::new();
    loop {
        let (mut stream, _) = listener.accept()?;
        stream.set_nodelay(true)?;
        let [rank, ranks] = receive_numbers(&mut stream)?;
        let gpu = String::from_utf8_lossy(&receive_bytes(&mut stream)?).into_owned();
        let other = guests.values().find(|guest| guest.ranks != ranks);
        let twin = guests.iter().find(|(_, guest)| guest.gpu == gpu);
        let wrong = if let Some(other) = other {
            Some(format!("rank {rank} is one of {ranks} ranks, and another one of {}", other.ranks))
        } else if let Some((twin, _)) = twin {
            Some(format!("ranks {twin} and {rank} are on the same GPU, {gpu}"))
        } else {
            guests.contains_key(&rank).then(|| format!("rank {rank} has come twice"))
        };
        guests.insert(if wrong.is_some() { u64::MAX } else { rank }, Guest { stream, ranks, gpu });
        if wrong.is_some() || guests.len() as u64 == ranks {
            let outcome = wrong.map_or(Ok(Vec::new()), Err);
            let mut streams: Vec<TcpStream> = guests.into_values().map(|guest| guest.stream).collect();
            streams.iter_mut().try_for_each(|stream| send_outcome(stream, &outcome))?;
            return Ok(streams);
        }
    }
}

/// Does one collective after the other, until a rank is gone.
fn serve(mut ranks: Vec<TcpStream>) -> Result<()> {
    for number in 1.. {
        let mut calls = Vec::new();
        for stream in &mut ranks {
            let call = Call::decode(receive_numbers(stream)?)?;
            calls.push((call, receive_bytes(stream)?));
        }
        let outcome = compute(number, &calls);
        ranks.iter_mut().try_for_each(|stream| send_outcome(stream, &outcome))?;
    }
    Ok(())
}

/// What comes out of a collective on every rank, or why it can't be done.
fn compute(number: u64, calls: &[(Call, Vec<u8>)]) -> std::result::Result<Vec<u8>, String> {
    let (first, _) = &calls[0];
    if let Some((rank, (other, _))) = calls.iter().enumerate().find(|(_, (call, _))| call != first) {
        return Err(format!("call {number}: {first:?} on rank 0, {other:?} on rank {rank}"));
    }
    let parts: Vec<&[u8]> = calls.iter().map(|(_, bytes)| bytes.as_slice()).collect();
    match first.kind {
        Kind::Broadcast => Ok(parts[first.root as usize].to_vec()),
        Kind::AllGather => Ok(parts.concat()),
        Kind::AllReduce => sum(first.data_type, &shuffled(number, parts)),
    }
}

/// In an order by chance.
fn shuffled<T>(number: u64, mut parts: Vec<T>) -> Vec<T> {
    let mut random = Random::of_process(number);
    for last in (1..parts.len()).rev() {
        parts.swap(last, random.below(last as u64 + 1) as usize);
    }
    parts
}

/// The sum of all parts, from the first to the last.
fn sum(data_type: i32, parts: &[&[u8]]) -> std::result::Result<Vec<u8>, String> {
    const FLOAT: i32 = 7;
    const DOUBLE: i32 = 8;
    match data_type {
        INT64 => Ok(fold(parts, i64::from_le_bytes, i64::to_le_bytes, i64::wrapping_add)),
        FLOAT => Ok(fold(parts, f32::from_le_bytes, f32::to_le_bytes, |a, b| a + b)),
        DOUBLE => Ok(fold(parts, f64::from_le_bytes, f64::to_le_bytes, |a, b| a + b)),
        other => Err(format!("sums of data type {other} of {} are not done here", SIZES.len())),
    }
}

fn fold<T, const N: usize>(
    parts: &[&[u8]],
    decode: fn([u8; N]) -> T,
    encode: fn(T) -> [u8; N],
    add: fn(T, T) -> T,
) -> Vec<u8> {
    let (mut sums, _) = (parts[0].as_chunks::<N>().0.to_vec(), ());
    for part in &parts[1..] {
        for (sum, value) in sums.iter_mut().zip(part.as_chunks::<N>().0) {
            *sum = encode(add(decode(*sum), decode(*value)));
        }
    }
    sums.as_flattened().to_vec()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sums_of_floating_point_numbers_depend_on_the_order_and_those_of_integers_do_not() {
        let orders = |data_type: i32, parts: [Vec<u8>; 3]| {
            let parts: Vec<&[u8]> = parts.iter().map(Vec::as_slice).collect();
            let sums = (1..20).map(|number| sum(data_type, &shuffled(number, parts.clone())).expect("a sum"));
            let mut sums: Vec<Vec<u8>> = sums.collect();
            sums.sort();
            sums.dedup();
            sums.len()
        };
        assert!(orders(7, [1e8_f32, -1e8, 1.0].map(|value| value.to_le_bytes().to_vec())) > 1);
        assert_eq!(orders(4, [i64::MAX, 1, -7].map(|value| value.to_le_bytes().to_vec())), 1);
    }

    #[test]
    fn ranks_that_call_different_things_are_told() {
        let call = Call { kind: Kind::AllReduce, count: 1, data_type: INT64, op: 0, root: 0 };
        let bytes = || vec![0; 8];
        for other in [
            Call { count: 2, ..call },
            Call { data_type: 5, ..call },
            Call { op: 2, ..call },
            Call { root: 1, ..call },
            Call { kind: Kind::AllGather, ..call },
        ] {
            let text =
                compute(3, &[(call, bytes()), (call, bytes()), (other, bytes())]).expect_err("refused");
            assert!(text.starts_with("call 3: ") && text.ends_with(" on rank 2"), "{text}");
        }
    }
}
