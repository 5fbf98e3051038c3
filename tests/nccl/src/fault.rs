//! What is to go wrong, and chance.

use std::time::Duration;

use crate::api::{CUDA_ERROR, REMOTE_ERROR, SYSTEM_ERROR, TIMEOUT, UNKNOWN};

/// What goes wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// The communicator comes to this result.
    Result(i32),
    /// So it does, and can't be given up.
    AbortHang,
    /// The collective is never done.
    Hang,
    /// It takes so long.
    Slow(Duration),
    /// The process ends.
    Die,
    /// One bit of the result is another one.
    FlipBit,
    /// The communicator is never connected.
    InitHang,
    /// It can't be connected.
    InitFail,
    /// It never ends.
    FinalizeHang,
}

/// What goes wrong, where and when.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fault {
    rank: i32,
    call: u64,
    kind: Kind,
}

impl Fault {
    /// That of `DG_NCCL_FAULT`.
    pub fn of_process() -> Option<Fault> {
        let text = std::env::var("DG_NCCL_FAULT").ok()?;
        Some(Fault::parse(&text).unwrap_or_else(|| panic!("DG_NCCL_FAULT is {text:?}")))
    }

    fn parse(text: &str) -> Option<Fault> {
        let (mut rank, mut call, mut kind) = (0, 0, None);
        for part in text.split(',') {
            match part.split_once('=') {
                Some(("rank", number)) => rank = number.parse().ok()?,
                Some(("call", number)) => call = number.parse().ok()?,
                Some(("slow", ms)) => kind = Some(Kind::Slow(Duration::from_millis(ms.parse().ok()?))),
                Some(_) => return None,
                None => kind = Some(Kind::named(part)?),
            }
        }
        Some(Fault { rank, call, kind: kind? })
    }

    /// What goes wrong at a collective of a rank.
    pub fn at(self, rank: i32, call: u64) -> Option<Kind> {
        ((rank, call) == (self.rank, self.call)).then_some(self.kind)
    }

    /// Whether this goes wrong on a rank.
    pub fn is(self, rank: i32, kind: Kind) -> bool {
        (rank, kind) == (self.rank, self.kind)
    }
}

impl Kind {
    fn named(name: &str) -> Option<Kind> {
        Some(match name {
            "remote" => Kind::Result(REMOTE_ERROR),
            "system" => Kind::Result(SYSTEM_ERROR),
            "cuda" => Kind::Result(CUDA_ERROR),
            "timeout" => Kind::Result(TIMEOUT),
            "unknown" => Kind::Result(UNKNOWN),
            "abort-hang" => Kind::AbortHang,
            "hang" => Kind::Hang,
            "die" => Kind::Die,
            "flip-bit" => Kind::FlipBit,
            "init-hang" => Kind::InitHang,
            "init-fail" => Kind::InitFail,
            "finalize-hang" => Kind::FinalizeHang,
            _ => return None,
        })
    }
}

/// Numbers by chance, the same for the same seed: SplitMix64.
pub struct Random(u64);

impl Random {
    /// Those of one purpose, by `DG_NCCL_SEED`.
    pub fn of_process(purpose: u64) -> Random {
        let seed = std::env::var("DG_NCCL_SEED").ok().and_then(|text| text.parse().ok()).unwrap_or(0_u64);
        Random(seed.wrapping_mul(0x2545_f491_4f6c_dd1d) ^ purpose)
    }

    /// A number from 0 and below `limit`.
    pub fn below(&mut self, limit: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut bits = self.0;
        bits = (bits ^ (bits >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        bits = (bits ^ (bits >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (bits ^ (bits >> 31)) % limit
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn faults_are_read() {
        let fault = Fault::parse("rank=1,call=3,remote").expect("a fault");
        assert_eq!((fault.at(1, 3), fault.at(0, 3), fault.at(1, 4)), (Some(Kind::Result(6)), None, None));
        let slow = Fault::parse("rank=2,call=1,slow=30").expect("a fault");
        assert_eq!(slow.at(2, 1), Some(Kind::Slow(Duration::from_millis(30))));
        assert!(Fault::parse("rank=1,init-hang").expect("a fault").is(1, Kind::InitHang));
        for wrong in ["", "rank=1", "rank=x,remote", "rank=1,call=2,melts", "rang=1,remote"] {
            assert_eq!(Fault::parse(wrong), None, "{wrong}");
        }
    }
}
