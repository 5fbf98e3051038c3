//! What accesses cost: sectors of global memory, wavefronts of shared memory.

use crate::memory::l2::SECTOR;
use cuda_emulator_alu::row::LANES;

use super::lanes;
use super::memory::Addresses;

/// Distinct sectors that lanes touch, `bytes` each.
#[inline(always)]
pub(super) fn sectors(addresses: &Addresses, bytes: u32, active: u32) -> u64 {
    let mut count = 0;
    let mut last = u64::MAX;
    let mut sorted = true;
    for lane in lanes(active) {
        let first = addresses[lane] / SECTOR;
        let end = (addresses[lane] + u64::from(bytes) - 1) / SECTOR;
        if last != u64::MAX && first < last {
            sorted = false;
            break;
        }
        count += end - first + 1 - u64::from(first == last);
        last = end;
    }
    if sorted { count } else { sectors_in_any_order(addresses, bytes, active) }
}

#[cold]
fn sectors_in_any_order(addresses: &Addresses, bytes: u32, active: u32) -> u64 {
    let mut all: Vec<u64> = lanes(active)
        .flat_map(|lane| addresses[lane] / SECTOR..=(addresses[lane] + u64::from(bytes) - 1) / SECTOR)
        .collect();
    all.sort_unstable();
    all.dedup();
    all.len() as u64
}

/// Wavefronts that a shared access takes and would take without bank conflicts.
///
/// An access of 4 bytes or fewer is one pass over all lanes; one of 8 bytes two passes of 16 lanes; one of 16
/// bytes four passes of 8. In a pass, each of 32 banks delivers one word of 4 bytes per wavefront, to any
/// number of lanes.
#[inline(always)]
pub(super) fn wavefronts(addresses: &Addresses, bytes: u32, active: u32) -> (u64, u64) {
    match bytes {
        16.. => passes::<8>(addresses, 4, active),
        8 => passes::<16>(addresses, 2, active),
        _ => passes::<32>(addresses, 1, active),
    }
}

#[inline(always)]
fn passes<const WIDTH: usize>(addresses: &Addresses, words: u64, active: u32) -> (u64, u64) {
    let (mut taken, mut ideal) = (0, 0);
    for pass in 0..32 / WIDTH {
        let first = pass * WIDTH;
        let part = (active >> first) & (u64::MAX >> (64 - WIDTH)) as u32;
        if part == 0 {
            continue;
        }
        ideal += 1;
        taken += conflicts(addresses, words, part, first);
    }
    (taken, ideal)
}

/// Wavefronts of instructions by the pattern of their addresses: a loop repeats its patterns, and comparing
/// them is faster than counting again.
#[derive(Default)]
pub struct Patterns(Vec<Pattern>);

/// What one instruction accessed last.
#[derive(Clone, Copy)]
struct Pattern {
    /// Addresses relative to the first, wrapping.
    relative: [u32; LANES],
    /// Place of the first among the banks.
    bank: u32,
    active: u32,
    wavefronts: (u64, u64),
}

/// Bytes that all banks deliver together.
const BANKS_BYTES: u32 = 128;

impl Patterns {
    /// What [`wavefronts`] gives for the instruction at `pc`.
    #[inline(always)]
    pub(super) fn wavefronts(
        &mut self,
        pc: u32,
        addresses: &Addresses,
        bytes: u32,
        active: u32,
    ) -> (u64, u64) {
        let first = addresses[0] as u32;
        let bank = first % BANKS_BYTES;
        let relative: [u32; LANES] = std::array::from_fn(|lane| (addresses[lane] as u32).wrapping_sub(first));
        if let Some(last) = self.0.get(pc as usize) {
            let mut differ = (last.bank ^ bank) | (last.active ^ active);
            for (last, now) in last.relative.iter().zip(&relative) {
                differ |= last ^ now;
            }
            if differ == 0 {
                return last.wavefronts;
            }
        }
        let pattern = Pattern { relative, bank, active, wavefronts: wavefronts(addresses, bytes, active) };
        self.remember(pc, pattern);
        pattern.wavefronts
    }

    #[cold]
    fn remember(&mut self, pc: u32, pattern: Pattern) {
        let none = Pattern { relative: [0; LANES], bank: 0, active: 0, wavefronts: (0, 0) };
        if self.0.len() <= pc as usize {
            self.0.resize(pc as usize + 1, none);
        }
        self.0[pc as usize] = pattern;
    }
}

/// The largest number of distinct words in one bank.
#[inline(always)]
fn conflicts(addresses: &Addresses, words: u64, part: u32, first: usize) -> u64 {
    // Banks are taken in groups of as many words as a lane accesses: aligned accesses never straddle two.
    let mut seen = 0u32;
    let mut owner = [0u64; 32];
    let groups = 32 / words;
    for lane in lanes(part) {
        let unit = addresses[first + lane] / (4 * words);
        let bank = (unit % groups) as usize;
        if seen & 1 << bank != 0 && owner[bank] != unit {
            return conflicts_in_full(addresses, words, part, first);
        }
        seen |= 1 << bank;
        owner[bank] = unit;
    }
    1
}

#[cold]
fn conflicts_in_full(addresses: &Addresses, words: u64, part: u32, first: usize) -> u64 {
    let groups = 32 / words;
    let mut units: Vec<u64> = lanes(part).map(|lane| addresses[first + lane] / (4 * words)).collect();
    units.sort_unstable();
    units.dedup();
    let mut counts = [0u64; 32];
    units.iter().for_each(|unit| counts[(unit % groups) as usize] += 1);
    counts.into_iter().max().unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn strided(stride: u64) -> Addresses {
        std::array::from_fn(|lane| lane as u64 * stride)
    }

    #[test]
    fn sectors_of_strides() {
        assert_eq!(sectors(&strided(4), 4, u32::MAX), 4);
        assert_eq!(sectors(&strided(16), 16, u32::MAX), 16);
        assert_eq!(sectors(&strided(32), 4, u32::MAX), 32);
        assert_eq!(sectors(&strided(0), 4, u32::MAX), 1);
        assert_eq!(sectors(&strided(4), 4, 1), 1);
        let reversed = std::array::from_fn(|lane| (31 - lane as u64) * 4);
        assert_eq!(sectors(&reversed, 4, u32::MAX), 4);
        let misplaced = std::array::from_fn(|lane| lane as u64 * 4 + 16);
        assert_eq!(sectors(&misplaced, 4, u32::MAX), 5);
    }

    #[test]
    fn wavefronts_of_strides() {
        assert_eq!(wavefronts(&strided(4), 4, u32::MAX), (1, 1));
        assert_eq!(wavefronts(&strided(8), 4, u32::MAX), (2, 1));
        assert_eq!(wavefronts(&strided(128), 4, u32::MAX), (32, 1));
        assert_eq!(wavefronts(&strided(0), 4, u32::MAX), (1, 1));
        assert_eq!(wavefronts(&strided(2), 2, u32::MAX), (1, 1));
        assert_eq!(wavefronts(&strided(8), 8, u32::MAX), (2, 2));
        assert_eq!(wavefronts(&strided(16), 16, u32::MAX), (4, 4));
        assert_eq!(wavefronts(&strided(128), 16, u32::MAX), (32, 4));
        assert_eq!(wavefronts(&strided(128), 16, 0xFF), (8, 1));
    }
}
