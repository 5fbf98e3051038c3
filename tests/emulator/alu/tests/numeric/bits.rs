//! Bit manipulation against definitions bit by bit.

use crate::machine::{Instruction, once};
use crate::samples::{integers, slices};

fn check(name: &str, widths: &[u32], expected: impl Fn(&[u64]) -> u64) {
    let columns = integers(widths, name.len() as u64 + 50);
    let results = Instruction::new(name).values(&slices(&columns));
    for (i, &result) in results.iter().enumerate() {
        let operands: Vec<u64> = columns.iter().map(|column| column[i]).collect();
        let expected = expected(&operands);
        assert_eq!(result, expected, "{name} of {operands:x?}: {result:x}, not {expected:x}");
    }
}

/// A value put together from single bits.
fn from_bits(count: u32, bit: impl Fn(u32) -> bool) -> u64 {
    (0..count).map(|i| u64::from(bit(i)) << i).sum()
}

fn bit(x: u64, i: u32) -> bool {
    x >> i & 1 == 1
}

#[test]
fn shifts() {
    for bits in [16, 32, 64] {
        let widths = [bits, 32];
        let left = |x: &[u64]| from_bits(bits, |i| u64::from(i) >= x[1] && bit(x[0], i - x[1] as u32));
        let right = |x: &[u64], fill: bool| {
            from_bits(bits, |i| {
                let from = u64::from(i) + x[1];
                if from < u64::from(bits) { bit(x[0], from as u32) } else { fill }
            })
        };
        check(&format!("shl.b{bits}"), &widths, left);
        check(&format!("shr.b{bits}"), &widths, |x| right(x, false));
        check(&format!("shr.u{bits}"), &widths, |x| right(x, false));
        check(&format!("shr.s{bits}"), &widths, |x| right(x, bit(x[0], bits - 1)));
    }
}

#[test]
fn funnel_shifts() {
    for (mode, wrap) in [("clamp", false), ("wrap", true)] {
        let amount = |c: u64| if wrap { c % 32 } else { c.min(32) } as u32;
        let joined = |x: &[u64], i: u32| if i < 32 { bit(x[0], i) } else { bit(x[1], i - 32) };
        check(&format!("shf.l.{mode}.b32"), &[32; 3], |x| {
            from_bits(32, |i| joined(x, 32 + i - amount(x[2])))
        });
        check(&format!("shf.r.{mode}.b32"), &[32; 3], |x| from_bits(32, |i| joined(x, i + amount(x[2]))));
    }
}

#[test]
fn counts() {
    for bits in [32, 64] {
        let ones = |x: u64| (0..bits).filter(|&i| bit(x, i)).count() as u64;
        let highest = |x: u64| (0..bits).rev().find(|&i| bit(x, i));
        check(&format!("popc.b{bits}"), &[bits], |x| ones(x[0]));
        check(&format!("clz.b{bits}"), &[bits], |x| highest(x[0]).map_or(bits, |i| bits - 1 - i).into());
        check(&format!("brev.b{bits}"), &[bits], |x| from_bits(bits, |i| bit(x[0], bits - 1 - i)));
        let unlike = |x: u64| (0..bits).rev().find(|&i| bit(x, i) != bit(x, bits - 1));
        let none = u64::from(u32::MAX);
        check(&format!("bfind.u{bits}"), &[bits], |x| highest(x[0]).map_or(none, u64::from));
        check(&format!("bfind.s{bits}"), &[bits], |x| unlike(x[0]).map_or(none, u64::from));
        let amount = |i: u32| u64::from(bits - 1 - i);
        check(&format!("bfind.shiftamt.u{bits}"), &[bits], |x| highest(x[0]).map_or(none, amount));
        check(&format!("bfind.shiftamt.s{bits}"), &[bits], |x| unlike(x[0]).map_or(none, amount));
    }
}

#[test]
fn fields() {
    for bits in [32, 64] {
        for (kind, signed) in [("u", false), ("s", true)] {
            check(&format!("bfe.{kind}{bits}"), &[bits, 32, 32], |x| {
                let (position, length) = ((x[1] & 255) as u32, (x[2] & 255) as u32);
                let sign = signed && length > 0 && bit(x[0], (position + length - 1).min(bits - 1));
                from_bits(bits, |i| {
                    let inside = i < length && position + i < bits;
                    if inside { bit(x[0], position + i) } else { sign }
                })
            });
        }
        check(&format!("bfi.b{bits}"), &[bits, bits, 32, 32], |x| {
            let (position, length) = ((x[2] & 255) as u32, (x[3] & 255) as u32);
            from_bits(bits, |i| {
                let inside = i >= position && i - position < length;
                if inside { bit(x[0], i - position) } else { bit(x[1], i) }
            })
        });
    }
    for (mode, wrap) in [("clamp", false), ("wrap", true)] {
        let amount = |x: u64| if wrap { x % 32 } else { x.min(32) } as u32;
        check(&format!("bmsk.{mode}.b32"), &[32; 2], |x| {
            from_bits(32, |i| i >= amount(x[0]) && i - amount(x[0]) < amount(x[1]))
        });
        for (kind, signed) in [("u32", false), ("s32", true)] {
            check(&format!("szext.{mode}.{kind}"), &[32; 2], |x| {
                let width = amount(x[1]);
                let sign = signed && width > 0 && bit(x[0], width - 1);
                from_bits(32, |i| if i < width { bit(x[0], i) } else { sign })
            });
        }
    }
}

#[test]
fn tables() {
    check("lop3.b32", &[32; 4], |x| {
        from_bits(32, |i| {
            let index = 4 * u32::from(bit(x[0], i)) + 2 * u32::from(bit(x[1], i)) + u32::from(bit(x[2], i));
            bit(x[3], index)
        })
    });
    assert_eq!(once("lop3.b32", &[0xf0, 0xcc, 0xaa, 0x96]), 0xf0 ^ 0xcc ^ 0xaa);
}

#[test]
fn permutations() {
    let byte = |x: &[u64], i: u64| (if i < 4 { x[0] >> (8 * i) } else { x[1] >> (8 * (i - 4)) }) & 0xff;
    check("prmt.b32", &[32; 3], |x| {
        (0..4)
            .map(|i| {
                let nibble = x[2] >> (4 * i) & 15;
                let chosen = byte(x, nibble & 7);
                let replicated = if chosen & 0x80 != 0 { 0xff } else { 0 };
                (if nibble & 8 != 0 { replicated } else { chosen }) << (8 * i)
            })
            .sum()
    });
    // Bytes of the result, most significant first, for the selectors 0 to 3.
    let modes: [(&str, [[u64; 4]; 4]); 6] = [
        ("f4e", [[3, 2, 1, 0], [4, 3, 2, 1], [5, 4, 3, 2], [6, 5, 4, 3]]),
        ("b4e", [[5, 6, 7, 0], [6, 7, 0, 1], [7, 0, 1, 2], [0, 1, 2, 3]]),
        ("rc8", [[0, 0, 0, 0], [1, 1, 1, 1], [2, 2, 2, 2], [3, 3, 3, 3]]),
        ("ecl", [[3, 2, 1, 0], [3, 2, 1, 1], [3, 2, 2, 2], [3, 3, 3, 3]]),
        ("ecr", [[0, 0, 0, 0], [1, 1, 1, 0], [2, 2, 1, 0], [3, 2, 1, 0]]),
        ("rc16", [[1, 0, 1, 0], [3, 2, 3, 2], [1, 0, 1, 0], [3, 2, 3, 2]]),
    ];
    for (mode, table) in modes {
        check(&format!("prmt.b32.{mode}"), &[32; 3], |x| {
            table[(x[2] & 3) as usize].iter().fold(0, |result, &i| result << 8 | byte(x, i))
        });
    }
}

#[test]
fn nth_set_bit() {
    check("fns.b32", &[32; 3], |x| {
        let (base, offset) = (x[1] as u32, x[2] as u32 as i32);
        let none = u64::from(u32::MAX);
        if base > 31 {
            return none;
        }
        let set = |range: &mut dyn Iterator<Item = u32>, n: u32| {
            range.filter(|&i| bit(x[0], i)).nth(n as usize).map_or(none, u64::from)
        };
        match offset {
            0 => {
                if bit(x[0], base) {
                    base.into()
                } else {
                    none
                }
            }
            1.. => set(&mut (base..32), offset as u32 - 1),
            _ => set(&mut (0..=base).rev(), offset.unsigned_abs() - 1),
        }
    });
}
