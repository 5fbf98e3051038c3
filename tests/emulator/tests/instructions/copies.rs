//! Asynchronous copies.

use crate::support::{Case, Map, each};

const SHARED: &str = ".shared .align 128 .b8 sm[2048]; .shared .align 8 .b64 bar;\nmov.u32 %r1, sm; mad.lo.u32 %r2, %t, 16, %r1; mad.wide.u32 %rd1, %t, 16, %a1; setp.eq.u32 %p1, %t, 0;\n";

fn input() -> Vec<u32> {
    (0..512).map(|i| 1000 + i).collect()
}

#[test]
fn copies_of_4_8_and_16_bytes() {
    for (size, cache) in [(4, "ca"), (8, "ca"), (16, "ca"), (16, "cg")] {
        let body = format!(
            "{SHARED}cp.async.{cache}.shared.global.L2::128B [%r2], [%rd1], {size}; cp.async.commit_group; cp.async.wait_group 0;\n\
             ld.shared.u32 %r3, [%r2+{}]; st.global.u32 [%o], %r3;",
            size - 4
        );
        assert_eq!(
            Case::new(&body).zeros(128).words(&input()).output(0),
            each(|t| 1000 + 4 * t + size / 4 - 1),
            "{size}"
        );
    }
}

/// What the source lacks is filled with zeros.
#[test]
fn source_sizes_and_ignored_sources() {
    let body = format!(
        "{SHARED}and.b32 %r3, %t, 7; add.u32 %r3, %r3, %r3; cp.async.cg.shared::cta.global [%r2], [%rd1], 16, %r3; cp.async.wait_all;\n\
         ld.shared.v4.u32 {{%r4, %r5, %r6, %r7}}, [%r2]; add.u32 %r4, %r4, %r5; add.u32 %r4, %r4, %r6; add.u32 %r4, %r4, %r7; st.global.u32 [%o], %r4;"
    );
    let expected = each(|t| {
        let bytes: Vec<u8> = (0..4).flat_map(|i| (1000 + 4 * t + i).to_le_bytes()).collect();
        let kept = 2 * (t as usize & 7);
        let mut copied = [0; 16];
        copied[..kept].copy_from_slice(&bytes[..kept]);
        copied.chunks_exact(4).map(|c| u32::from_le_bytes(c.try_into().expect("four"))).sum()
    });
    assert_eq!(Case::new(&body).zeros(128).words(&input()).output(0), expected);
    let body = format!(
        "{SHARED}setp.lt.u32 %p2, %t, 9; @%p2 mov.u64 %rd1, 16; cp.async.ca.shared.global [%r2], [%rd1], 4, %p2; cp.async.wait_all; ld.shared.u32 %r4, [%r2]; st.global.u32 [%o], %r4;"
    );
    assert_eq!(
        Case::new(&body).zeros(128).words(&input()).output(0),
        each(|t| if t < 9 { 0 } else { 1000 + 4 * t })
    );
}

/// Odd lanes commit one group more than even ones: the same wait leaves them another group.
#[test]
fn groups_are_counted_by_each_lane() {
    let body = format!(
        "{SHARED}and.b32 %r3, %t, 1; setp.eq.u32 %p2, %r3, 1; cp.async.ca.shared.global [%r2], [%rd1], 4; cp.async.commit_group;\n\
         cp.async.ca.shared.global [%r2+4], [%rd1], 4; cp.async.commit_group; @%p2 cp.async.commit_group; cp.async.wait_group 1;\n\
         ld.shared.u32 %r4, [%r2]; @%p2 ld.shared.u32 %r5, [%r2+4]; @%p2 add.u32 %r4, %r4, %r5; st.global.u32 [%o], %r4; cp.async.wait_all;"
    );
    let expected = each(|t| (1000 + 4 * t) * (1 + t % 2));
    assert_eq!(Case::new(&body).zeros(128).words(&input()).output(0), expected);
}

/// A producer warp may exit as soon as its copies will arrive at the mbarrier.
#[test]
fn copies_arrive_at_an_mbarrier_also_when_their_warp_has_exited() {
    for (noinc, count) in [(".noinc", 32), ("", 1)] {
        let own = if noinc.is_empty() { "@%p1 mbarrier.arrive.shared.b64 _, [bar];" } else { "" };
        let body = format!(
            "{SHARED}@%p1 mbarrier.init.shared.b64 [bar], {count}; bar.sync 0; setp.ge.u32 %p2, %t, 32; @%p2 bra CONSUME;\n\
             cp.async.ca.shared.global [%r2], [%rd1], 4; cp.async.mbarrier.arrive{noinc}.shared.b64 [bar]; {own} exit;\n\
             CONSUME: mbarrier.try_wait.parity.shared.b64 %p3, [bar], 0; @!%p3 bra CONSUME; sub.u32 %r3, %t, 32; mad.lo.u32 %r3, %r3, 16, %r1; ld.shared.u32 %r4, [%r3]; st.global.u32 [%o], %r4;"
        );
        let found = Case::new(&body).block(64).zeros(256).words(&input()).output_of_seeds(0, 10);
        assert_eq!(found[32..], each(|t| 1000 + 4 * t), "{noinc:?}");
    }
}

const EXPECT: &str = "@%p1 mbarrier.init.shared.b64 [bar], 1; bar.sync 0; @%p1 mbarrier.arrive.expect_tx.shared.b64 _, [bar], ";
const WAIT: &str = "W: mbarrier.try_wait.parity.shared.b64 %p3, [bar], 0; @!%p3 bra W;";

#[test]
fn bulk_copies_both_ways() {
    let body = format!(
        "{SHARED}{EXPECT}512; @%p1 cp.async.bulk.shared::cluster.global.mbarrier::complete_tx::bytes [sm], [%a1], 512, [bar];\n{WAIT}\n\
         ld.shared.v4.u32 {{%r4, %r5, %r6, %r7}}, [%r2]; add.u32 %r4, %r4, 1; st.shared.u32 [%r2], %r4; fence.proxy.async.shared::cta; bar.sync 0;\n\
         @%p1 cp.async.bulk.global.shared::cta.bulk_group [%a0], [sm], 256; @%p1 cp.async.bulk.commit_group; @%p1 cp.async.bulk.wait_group.read 0;\n\
         bar.sync 0; st.shared.u32 [%r2], 0; @%p1 cp.async.bulk.wait_group 0;"
    );
    let found = Case::new(&body).zeros(512).words(&input()).output_of_seeds(0, 5);
    let expected: Vec<u32> =
        (0..128).map(|i| if i >= 64 { 0 } else { 1000 + i + u32::from(i % 4 == 0) }).collect();
    assert_eq!(found, expected);
}

#[test]
fn bulk_reductions() {
    for (op, f) in [
        ("add.u32", (|a, b| a + b) as fn(u32, u32) -> u32),
        ("min.u32", u32::min),
        ("max.s32", u32::max),
        ("and.b32", |a, b| a & b),
        ("or.b32", |a, b| a | b),
        ("xor.b32", |a, b| a ^ b),
        ("inc.u32", |a, b| if a >= b { 0 } else { a + 1 }),
    ] {
        let body = format!(
            "{SHARED}mul.lo.u32 %r4, %t, 40; mad.lo.u32 %r3, %t, 4, %r1; st.shared.u32 [%r3], %r4; fence.proxy.async; bar.sync 0;\n\
             @%p1 cp.reduce.async.bulk.global.shared::cta.bulk_group.{op} [%a0], [sm], 128; @%p1 cp.async.bulk.commit_group; @%p1 cp.async.bulk.wait_group 0;"
        );
        let start = each(|t| 600 + t);
        assert_eq!(
            Case::new(&body).words(&start).words(&input()).output_of_seeds(0, 3),
            each(|t| f(600 + t, 40 * t)),
            "{op}"
        );
    }
}

#[test]
fn bulk_copies_between_blocks() {
    let body = format!(
        "{SHARED}mov.u32 %r10, %tid.x; setp.eq.u32 %p1, %r10, 0; mad.lo.u32 %r3, %r10, 4, %r1; st.shared.u32 [%r3], %t; {EXPECT}128;\n\
         fence.proxy.async; barrier.cluster.arrive; barrier.cluster.wait; mov.u32 %r4, %cluster_ctarank; xor.b32 %r4, %r4, 1; add.u32 %r5, %r1, 1024;\n\
         mapa.shared::cluster.u32 %r6, %r5, %r4; mov.u32 %r7, bar; mapa.shared::cluster.u32 %r8, %r7, %r4;\n\
         @%p1 cp.async.bulk.shared::cluster.shared::cta.mbarrier::complete_tx::bytes [%r6], [%r1], 128, [%r8];\n{WAIT}\n\
         ld.shared.u32 %r9, [%r3+1024]; st.global.u32 [%o], %r9; barrier.cluster.arrive; barrier.cluster.wait;"
    );
    let found = Case::new(&body).grid(2).cluster(2).zeros(256).words(&input()).output_of_seeds(0, 10);
    assert_eq!(found, (0..64).map(|t| t ^ 32).collect::<Vec<_>>());
}

#[test]
fn stores_that_complete_on_the_mbarrier_of_another_block() {
    let body = format!(
        "{SHARED}mov.u32 %r10, %tid.x; setp.eq.u32 %p1, %r10, 0; mad.lo.u32 %r3, %r10, 8, %r1; {EXPECT}256;\n\
         barrier.cluster.arrive; barrier.cluster.wait; mov.u32 %r4, %cluster_ctarank; xor.b32 %r4, %r4, 1;\n\
         mapa.shared::cluster.u32 %r6, %r3, %r4; mov.u32 %r7, bar; mapa.shared::cluster.u32 %r8, %r7, %r4;\n\
         st.async.weak.shared::cluster.mbarrier::complete_tx::bytes.v2.u32 [%r6], {{%t, %r10}}, [%r8];\n{WAIT}\n\
         ld.shared.v2.u32 {{%r9, %r11}}, [%r3]; mad.lo.u32 %r9, %r11, 1000, %r9; st.global.u32 [%o], %r9; barrier.cluster.arrive; barrier.cluster.wait;"
    );
    let found = Case::new(&body).grid(2).cluster(2).zeros(256).words(&input()).output_of_seeds(0, 10);
    assert_eq!(found, (0..64).map(|t| (t ^ 32) + t % 32 * 1000).collect::<Vec<_>>());
}

fn tensor_load(dims: &[u64], boxes: &[u32], swizzle: u32, at: &[i32]) -> Vec<u32> {
    let bytes = 4 * boxes.iter().product::<u32>();
    let coordinates: Vec<String> = at.iter().map(i32::to_string).collect();
    let body = format!(
        "{SHARED}{EXPECT}{bytes}; mov.b64 %rd2, extra; cvta.param.u64 %rd2, %rd2; @%p1 prefetch.tensormap [%rd2];\n\
         @%p1 cp.async.bulk.tensor.{}d.shared::cluster.global.tile.mbarrier::complete_tx::bytes [sm], [%rd2, {{{}}}], [bar];\n{WAIT}\n\
         mad.lo.u32 %r3, %t, 4, %r1; ld.shared.u32 %r4, [%r3]; ld.shared.u32 %r5, [%r3+128]; st.global.u32 [%o], %r4; st.global.u32 [%o+128], %r5;",
        dims.len(),
        coordinates.join(", ")
    );
    let mut case = Case::new(&body).zeros(256).words(&input());
    case.maps = vec![Map { buffer: 1, dims: dims.to_vec(), boxes: boxes.to_vec(), swizzle }];
    case.output_of_seeds(0, 3)
}

/// The element at coordinates, zero outside.
fn tensor_element(dims: &[u64], at: &[i64]) -> u32 {
    let mut index = 0;
    for (&x, &n) in at.iter().zip(dims).rev() {
        if x < 0 || x >= n as i64 {
            return 0;
        }
        index = index * n as i64 + x;
    }
    1000 + index as u32
}

#[test]
fn tensor_loads_of_one_to_three_dimensions() {
    let one = tensor_load(&[500], &[64], 0, &[450]);
    assert_eq!(one, (0..64).map(|i| tensor_element(&[500], &[450 + i])).collect::<Vec<_>>());
    let two = tensor_load(&[20, 25], &[8, 8], 0, &[-3, 20]);
    let expected: Vec<u32> = (0..64).map(|i| tensor_element(&[20, 25], &[-3 + i % 8, 20 + i / 8])).collect();
    assert_eq!(two, expected);
    let three = tensor_load(&[8, 5, 12], &[4, 4, 4], 0, &[2, 3, 10]);
    let expected: Vec<u32> =
        (0..64).map(|i| tensor_element(&[8, 5, 12], &[2 + i % 4, 3 + i / 4 % 4, 10 + i / 16])).collect();
    assert_eq!(three, expected);
}

/// 128-byte swizzle: chunk of 16 bytes number c of line l goes to place c xor (l mod 8).
#[test]
fn a_swizzled_tensor_load() {
    let found = tensor_load(&[32, 16], &[32, 2], 3, &[0, 5]);
    let plain: Vec<u32> = (0..64).map(|i| tensor_element(&[32, 16], &[i % 32, 5 + i / 32])).collect();
    let expected: Vec<u32> =
        (0..64).map(|i: usize| plain[i / 32 * 32 + ((i % 32 / 4) ^ (i / 32)) * 4 + i % 4]).collect();
    assert_eq!(found, expected);
}

#[test]
fn tensor_stores_and_reductions() {
    for (opcode, f) in [
        ("cp.async.bulk.tensor.2d.global.shared::cta.tile.bulk_group", (|_, b| b) as fn(u32, u32) -> u32),
        ("cp.reduce.async.bulk.tensor.2d.global.shared::cta.add.tile.bulk_group", |a, b| a + b),
    ] {
        let body = format!(
            "{SHARED}mad.lo.u32 %r3, %t, 4, %r1; st.shared.u32 [%r3], %t; add.u32 %r4, %t, 32; st.shared.u32 [%r3+128], %r4; fence.proxy.async; bar.sync 0;\n\
             mov.b64 %rd2, extra; cvta.param.u64 %rd2, %rd2; @%p1 {opcode} [%rd2, {{16, 6}}], [sm]; @%p1 cp.async.bulk.commit_group; @%p1 cp.async.bulk.wait_group 0;"
        );
        let mut case = Case::new(&body).words(&input()).words(&input());
        case.maps = vec![Map { buffer: 0, dims: vec![20, 25], boxes: vec![8, 8], swizzle: 0 }];
        let found = case.output_of_seeds(0, 3);
        for (i, &value) in found[..500].iter().enumerate() {
            let (x, y) = (i as u32 % 20, i as u32 / 20);
            let inside = x >= 16 && (6..14).contains(&y);
            let old = 1000 + i as u32;
            assert_eq!(value, if inside { f(old, (y - 6) * 8 + x - 16) } else { old }, "{opcode} {x} {y}");
        }
    }
}

/// One load fills two of three blocks and completes on the mbarrier of each.
#[test]
fn multicast_loads() {
    let body = format!(
        "{SHARED}mov.u32 %r10, %tid.x; setp.eq.u32 %p1, %r10, 0; mov.u32 %r4, %cluster_ctarank; setp.ne.u32 %p4, %r4, 1; setp.eq.u32 %p5, %r4, 2; and.pred %p5, %p5, %p1;\n\
         @%p1 mbarrier.init.shared.b64 [bar], 1; fence.mbarrier_init.release.cluster; barrier.cluster.arrive; barrier.cluster.wait; and.pred %p6, %p1, %p4; @%p6 mbarrier.arrive.expect_tx.shared.b64 _, [bar], 256;\n\
         barrier.cluster.arrive; barrier.cluster.wait; mov.b64 %rd2, extra; cvta.param.u64 %rd2, %rd2; mov.u16 %h1, 5;\n\
         @%p5 cp.async.bulk.tensor.2d.shared::cluster.global.mbarrier::complete_tx::bytes.multicast::cluster [sm], [%rd2, {{0, 2}}], [bar], %h1;\n\
         @!%p4 bra DONE;\n{WAIT}\nmad.lo.u32 %r3, %r10, 4, %r1; ld.shared.u32 %r5, [%r3]; st.global.u32 [%o], %r5;\nDONE: barrier.cluster.arrive; barrier.cluster.wait;"
    );
    let mut case = Case::new(&body).grid(3).cluster(3).zeros(384).words(&input());
    case.maps = vec![Map { buffer: 1, dims: vec![8, 8], boxes: vec![8, 8], swizzle: 0 }];
    let expected: Vec<u32> = (0..96).map(|t| if t / 32 == 1 { 0 } else { t % 32 + 1016 }).collect();
    assert_eq!(case.output_of_seeds(0, 10), expected);
}
