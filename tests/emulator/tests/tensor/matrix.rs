//! `ldmatrix`, `stmatrix` and `movmatrix` against their definitions.

use crate::common::Random;
use cuda_emulator::tensor::matrix::{MatrixOp, MatrixRow, is_movmatrix, load, lookup, store, transpose};
use cuda_emulator_alu::row::Row;

fn random_rows(count: usize, seed: u64) -> Vec<MatrixRow> {
    let mut random = Random::new(seed);
    (0..8 * count).map(|_| std::array::from_fn(|_| random.bits() as u8)).collect()
}

/// Element (row, column) of matrix `i` in shared memory.
fn element(rows: &[MatrixRow], i: usize, row: usize, column: usize) -> u16 {
    let bytes = rows[8 * i + row];
    u16::from_le_bytes([bytes[2 * column], bytes[2 * column + 1]])
}

/// The two elements that a lane holds of a register, lower half first.
fn held(register: &Row, lane: usize) -> [u16; 2] {
    [register.0[lane] as u16, (register.0[lane] >> 16) as u16]
}

#[test]
fn a_lane_gets_two_elements_of_row_or_column() {
    for count in [1, 2, 4] {
        let rows = random_rows(count, count as u64);
        for transposed in [false, true] {
            let op = MatrixOp { count, transposed };
            let mut d = vec![Row([0xdead_beef; 32]); count];
            load(op, &rows, &mut d);
            for (i, register) in d.iter().enumerate() {
                for lane in 0..32 {
                    let (row, column) = (lane / 4, lane % 4 * 2);
                    let wanted = if transposed {
                        [element(&rows, i, column, row), element(&rows, i, column + 1, row)]
                    } else {
                        [element(&rows, i, row, column), element(&rows, i, row, column + 1)]
                    };
                    assert_eq!(held(register, lane), wanted, "x{count} {transposed} matrix {i} lane {lane}");
                }
            }
        }
    }
}

#[test]
fn stores_invert_loads() {
    for count in [1, 2, 4] {
        let rows = random_rows(count, 7);
        for transposed in [false, true] {
            let op = MatrixOp { count, transposed };
            let mut d = vec![Row::ZERO; count];
            load(op, &rows, &mut d);
            let mut back = vec![[0; 16]; op.rows()];
            store(op, &d, &mut back);
            assert_eq!(back, rows);
            let other = MatrixOp { transposed: !transposed, ..op };
            store(other, &d, &mut back);
            assert_ne!(back, rows);
        }
    }
}

#[test]
fn movmatrix_transposes() {
    let rows = random_rows(1, 11);
    let mut d = [Row::ZERO];
    load(MatrixOp { count: 1, transposed: false }, &rows, &mut d);
    let moved = transpose(&d[0]);
    for lane in 0..32 {
        for half in 0..2 {
            assert_eq!(held(&moved, lane)[half], element(&rows, 0, lane % 4 * 2 + half, lane / 4));
        }
    }
    assert_eq!(transpose(&moved), d[0]);
}

#[test]
fn names_are_parsed_and_other_forms_refused() {
    let find = |name: &str| lookup(&name.split('.').collect::<Vec<_>>());
    assert_eq!(find("sync.aligned.m8n8.x4.shared.b16"), Some(MatrixOp { count: 4, transposed: false }));
    assert_eq!(
        find("sync.aligned.m8n8.x2.trans.shared::cta.b16"),
        Some(MatrixOp { count: 2, transposed: true })
    );
    assert_eq!(find("sync.aligned.m8n8.x1.b16"), Some(MatrixOp { count: 1, transposed: false }));
    for refused in [
        "sync.aligned.m8n8.x3.shared.b16",
        "sync.aligned.m16n16.x1.trans.shared.b8",
        "sync.aligned.m8n16.x1.shared.b8x16.b6x16_p32",
        "sync.aligned.m8n8.x4.shared.b8",
        "sync.aligned.m8n8.x4.global.b16",
        "sync.aligned.m8n8.x4.shared.trans.b16",
    ] {
        assert_eq!(find(refused), None, "{refused}");
    }
    assert!(is_movmatrix(&["sync", "aligned", "m8n8", "trans", "b16"]));
    assert!(!is_movmatrix(&["sync", "aligned", "m8n8", "b16"]));
}
