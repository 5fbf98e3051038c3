//! `ldmatrix`, `stmatrix` and `movmatrix`: eight by eight matrices of 16 bits between shared memory and
//! registers.

use cuda_emulator_alu::row::{LANES, Row};

/// One row of a matrix, as it lies in shared memory: eight elements of 16 bits.
pub type MatrixRow = [u8; 16];

/// A decoded `ldmatrix` or `stmatrix`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MatrixOp {
    /// Matrices, and registers: 1, 2 or 4. Lane `i` below eight times as many gives the address of matrix row
    /// `i`.
    pub count: usize,
    /// Whether matrices are transposed on their way.
    pub transposed: bool,
}

impl MatrixOp {
    /// Rows that are read or written, and lanes whose addresses count.
    pub fn rows(self) -> usize {
        8 * self.count
    }
}

/// The operation that the modifiers after `ldmatrix` or `stmatrix` name, or `None` where there is none or it
/// is not supported: matrices other than `m8n8.b16` are not.
pub fn lookup(modifiers: &[&str]) -> Option<MatrixOp> {
    let ["sync", "aligned", "m8n8", count, rest @ ..] = modifiers else { return None };
    let count = match *count {
        "x1" => 1,
        "x2" => 2,
        "x4" => 4,
        _ => return None,
    };
    let (transposed, rest) = match rest {
        ["trans", rest @ ..] => (true, rest),
        rest => (false, rest),
    };
    match rest {
        ["shared" | "shared::cta", "b16"] | ["b16"] => Some(MatrixOp { count, transposed }),
        _ => None,
    }
}

/// Whether the modifiers after `movmatrix` name the one form that there is.
pub fn is_movmatrix(modifiers: &[&str]) -> bool {
    modifiers == ["sync", "aligned", "m8n8", "trans", "b16"]
}

/// `ldmatrix`: matrix `i` is rows `8 * i ..` of `rows` and goes to register `i` of `d`.
pub fn load(op: MatrixOp, rows: &[MatrixRow], d: &mut [Row]) {
    for (matrix, register) in rows.chunks_exact(8).zip(d) {
        *register = fragment(matrix);
        if op.transposed {
            *register = transpose(register);
        }
    }
}

/// `stmatrix`: register `i` of `s` goes to rows `8 * i ..` of `rows`.
pub fn store(op: MatrixOp, s: &[Row], rows: &mut [MatrixRow]) {
    for (register, matrix) in s.iter().zip(rows.chunks_exact_mut(8)) {
        let register = if op.transposed { transpose(register) } else { *register };
        for (words, row) in register.0.chunks_exact(4).zip(matrix) {
            for (word, bytes) in words.iter().zip(row.chunks_exact_mut(4)) {
                bytes.copy_from_slice(&word.to_le_bytes());
            }
        }
    }
}

/// `movmatrix`, and what `.trans` does: lane `i` holds elements `2 * (i % 4)` and the next of row `i / 4`.
pub fn transpose(a: &Row) -> Row {
    let element = |row: usize, column: usize| a.0[4 * row + column / 2] >> (16 * (column % 2)) & 0xffff;
    let mut d = Row::ZERO;
    for lane in 0..LANES {
        let (row, column) = (lane / 4, 2 * (lane % 4));
        d.0[lane] = element(column, row) | element(column + 1, row) << 16;
    }
    d
}

/// The register that holds a matrix of eight rows: each row is four words, one a lane.
#[inline(always)]
pub(super) fn fragment(matrix: &[MatrixRow]) -> Row {
    let mut register = Row::ZERO;
    for (row, words) in matrix.iter().zip(register.0.chunks_exact_mut(4)) {
        for (bytes, word) in row.as_chunks::<4>().0.iter().zip(words) {
            *word = u32::from_le_bytes(*bytes);
        }
    }
    register
}
