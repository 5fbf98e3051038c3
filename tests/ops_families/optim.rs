use std::cmp::Ordering;

use deepguard::ops::optim::AdamW;
use deepguard::ops::philox::philox;
use deepguard::ops::{Backend, Ref};

use super::bench::Bench;

const STEP: AdamW =
    AdamW { lr: 1e-2, beta1: 0.9, beta2: 0.999, eps: 1e-8, weight_decay: 0.1, t: 0, grad_scale: 0.5 };

/// Three steps against f64, on more elements than one chunk of threads takes.
pub fn adamw<B: Backend>(backend: &B) {
    let n = 70_001;
    let mut bench = Bench::new(backend);
    let (mut params, mut m, mut v) =
        (bench.f32(n, 1.0), bench.f32_of(&vec![0.0; n]), bench.f32_of(&vec![0.0; n]));
    let mut expected: Vec<[f64; 3]> = params.host.iter().map(|&p| [p, 0.0, 0.0]).collect();
    for t in 1..=3 {
        let grads = bench.f32(n, 1.0);
        backend.adamw(params.view_mut(), m.view_mut(), v.view_mut(), grads.view(), AdamW { t, ..STEP });
        for ([p, m, v], g) in expected.iter_mut().zip(&grads.host) {
            let g = g * STEP.grad_scale;
            *m = STEP.beta1 * *m + (1.0 - STEP.beta1) * g;
            *v = STEP.beta2 * *v + (1.0 - STEP.beta2) * g * g;
            let (m_hat, v_hat) =
                (*m / (1.0 - STEP.beta1.powi(t as i32)), *v / (1.0 - STEP.beta2.powi(t as i32)));
            *p = *p * (1.0 - STEP.lr * STEP.weight_decay) - STEP.lr * m_hat / (v_hat.sqrt() + STEP.eps);
        }
    }
    for (i, (what, found)) in [("params", &params), ("m", &m), ("v", &v)].into_iter().enumerate() {
        let expected: Vec<f64> = expected.iter().map(|e| e[i]).collect();
        bench.check_f32(what, &found.buffer, &expected);
    }
}

pub fn sum_of_squares<B: Backend>(backend: &B) {
    let mut bench = Bench::new(backend);
    let x = bench.f32(70_001, 1.0);
    let expected: f64 = x.host.iter().map(|x| x * x).sum();
    let sum_of = |x: Ref<'_, B, f32>| {
        let mut sum = bench.integers(&[f64::NAN]);
        backend.sum_of_squares(sum.view_mut(), x);
        bench.finish();
        backend.to_host(sum.view())[0]
    };
    let found = sum_of(x.view());
    assert!((found - expected).abs() < 1e-12 * expected, "{found} {expected}");
    assert_eq!(found, sum_of(x.view()), "the order of a sum is fixed");
    for bad in [f64::NAN, f64::INFINITY, f64::NEG_INFINITY] {
        let mut values = vec![1.0; 40_000];
        values[39_999] = bad;
        assert!(!sum_of(bench.f32_of(&values).view()).is_finite(), "{bad} goes unnoticed");
    }
}

/// Up to a million values, in two orders, against integers that are wide enough for all of them, bit by bit:
/// so the bits are those of every other backend, too.
pub fn exact_sums<B: Backend>(backend: &B) {
    let bench = Bench::new(backend);
    // The emulator takes seconds for a million.
    let n = if B::IN_SYSTEM_MEMORY { 333_335 } else { 33_335 };
    for (addends, n) in [(1, 1001), (3, n)] {
        let limit = (32768.0 / addends as f64) as f32;
        let parts: Vec<Vec<f32>> = (0..addends).map(|seed| every_kind(n, seed as u64, limit)).collect();
        let sum_of = |order: &mut dyn Iterator<Item = &Vec<f32>>| {
            let mut sums = bench.integers(&vec![0i64; n + 1]);
            for part in order {
                let mut x = bench.integers(part);
                backend.exact_add(sums.view_mut(), x.view_mut(), addends);
                assert!(backend.to_host(x.view()).iter().all(|x| x.to_bits() == 0), "x is not cleared");
            }
            bench.finish();
            sums
        };
        let mut sums = sum_of(&mut parts.iter());
        let found = backend.to_host(sums.view());
        assert_eq!(found, backend.to_host(sum_of(&mut parts.iter().rev()).view()), "another order");

        let in_units = |i: usize| parts.iter().filter_map(move |part| in_units(part[i], limit));
        let left_out = n * addends - (0..n).map(|i| in_units(i).count()).sum::<usize>();
        assert_eq!(found[n], left_out as i64, "elements without room");
        let mut taken = bench.f32_out(n);
        backend.exact_take(taken.view_mut(), sums.view());
        assert!(
            left_out > 0 && backend.to_host(taken.first(1))[0].is_nan(),
            "nobody hears of {left_out} elements"
        );
        backend.upload(sums.slice_mut(n..n + 1), &[0]);
        backend.exact_take(taken.view_mut(), sums.view());
        for (i, taken) in backend.to_host(taken.view()).into_iter().enumerate() {
            let expected: i128 = in_units(i).sum();
            assert_eq!(i128::from(found[i]), expected, "sum {i}");
            assert_eq!(taken.to_bits(), from_units(expected).to_bits(), "{expected} units as f32: {taken}");
        }
    }
    bench.finish();
}

/// Values of all kinds, a sixth of them next to the limit.
fn every_kind(n: usize, seed: u64, limit: f32) -> Vec<f32> {
    const SPECIAL: [f32; 6] = [-0.0, f32::NAN, f32::INFINITY, f32::NEG_INFINITY, f32::MIN, f32::MIN_POSITIVE];
    let value = |i: usize| {
        let [kind, bits, size, _] = philox(seed, [i as u32, 0, 0, 0]);
        let integer = (bits as i32 >> 8) as f32;
        match kind % 6 {
            0 => f32::from_bits(bits),
            1 => f32::from_bits(bits & 0x807f_ffff), // subnormal
            2 => f32::from_bits((limit.to_bits() - 2 + size % 5) | bits & 1 << 31),
            3 => (integer + 0.5) * 2f32.powi(-48), // a tie
            4 => integer * 2f32.powi(-20 - (size % 32) as i32),
            _ => SPECIAL[size as usize % SPECIAL.len()],
        }
    };
    (0..n).map(value).collect()
}

/// `round(x · 2^48)`, from the bits of x; nothing of what has no room.
fn in_units(x: f32, limit: f32) -> Option<i128> {
    if x.is_nan() || x.abs() >= limit {
        return None;
    }
    let (exponent, fraction) = (x.abs().to_bits() >> 23, i128::from(x.to_bits() & 0x7f_ffff));
    // |x| = magnitude · 2^(exponent − 150), but for subnormal numbers, which have the exponent of the next.
    let magnitude = if exponent == 0 { fraction } else { fraction | 1 << 23 };
    let units = times_power_of_two(magnitude, exponent.max(1) as i32 - 150 + 48);
    Some(if x.is_sign_negative() { -units } else { units })
}

/// Units as f32, rounded to its 24 bits once: all else is exact.
fn from_units(units: i128) -> f32 {
    let excess = (i128::BITS - units.abs().leading_zeros()).saturating_sub(24) as i32;
    (times_power_of_two(units, -excess) as f64 * 2f64.powi(excess - 48)) as f32
}

/// `round(integer · 2^power)`, ties to even.
fn times_power_of_two(integer: i128, power: i32) -> i128 {
    if power >= 0 {
        return integer << power;
    }
    // More than 100 places make nothing of what is in 64 bits.
    let places = power.unsigned_abs().min(100);
    let (floor, rest) = (integer >> places, integer & ((1 << places) - 1));
    match rest.cmp(&(1 << (places - 1))) {
        Ordering::Less => floor,
        Ordering::Equal => floor + (floor & 1),
        Ordering::Greater => floor + 1,
    }
}
