//! The training step that predictions are of: every tenth of SVEN's lengths, sixteen pairs with about as many
//! tokens as the mean of all.

use deepguard::ops::attention::Segment;

use super::random_model::Lengths;

#[path = "../../tests/budgets/sven_lengths.rs"]
mod sven_lengths;

const FIRST_PAIR: usize = 3;
const PAIRS: usize = 16;

pub fn lengths() -> Vec<Lengths> {
    let pair = |i: usize| sven_lengths::SVEN_LENGTHS[FIRST_PAIR + 10 * i];
    let lengths = |(secure, vulnerable, shared)| Lengths { secure, vulnerable, shared };
    (0..PAIRS).map(pair).map(lengths).collect()
}

/// Rows of secure functions, and with those of the suffixes of vulnerable ones.
pub fn rows(lengths: &[Lengths]) -> (usize, usize) {
    let secure: usize = lengths.iter().map(|pair| pair.secure).sum();
    (secure, secure + lengths.iter().map(|pair| pair.vulnerable - pair.shared).sum::<usize>())
}

/// The sequences of those rows: secure functions, and suffixes behind what they share with one.
pub fn segments(lengths: &[Lengths]) -> (Vec<Segment>, Vec<Segment>) {
    let (mut secure, mut suffixes) = (Vec::new(), Vec::new());
    let (mut start, mut suffix_start) = (0, rows(lengths).0 as u32);
    for pair in lengths {
        let (len, suffix) = (pair.secure as u32, (pair.vulnerable - pair.shared) as u32);
        secure.push(Segment { start, len, prefix_start: 0, prefix_len: 0 });
        let prefix_len = pair.shared as u32;
        suffixes.push(Segment { start: suffix_start, len: suffix, prefix_start: start, prefix_len });
        (start, suffix_start) = (start + len, suffix_start + suffix);
    }
    suffixes.retain(|segment| segment.len > 0);
    (secure, suffixes)
}
