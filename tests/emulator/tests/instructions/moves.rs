//! Packing, address conversions, carries.

use crate::support::{Case, each, lanes};

#[test]
fn packing_and_unpacking_of_every_width() {
    let cases = [
        ("mov.b32 {%h1, %h2}, 0x12345678; mov.b32 %r1, {%h2, %h1};", 0x5678_1234),
        ("mov.b32 {_, %h2}, 0x12345678; cvt.u32.u16 %r1, %h2;", 0x1234),
        ("mov.b64 {%r2, %r3}, 0x1122334455667788; sub.u32 %r1, %r2, %r3;", 0x4444_4444),
        ("mov.b64 %rd1, {0x11, 0x22}; shr.u64 %rd1, %rd1, 28; cvt.u32.u64 %r1, %rd1;", 0x220),
        ("mov.b64 {%h1, %h2, %h3, %h4}, 0x1122334455667788; mov.b32 %r1, {%h4, %h2};", 0x5566_1122),
        ("mov.b64 %rd1, {1, 2, 3, 4}; shr.u64 %rd1, %rd1, 28; cvt.u32.u64 %r1, %rd1;", 0x0040_0030),
        ("mov.b128 %q1, {0x1, 0x2}; mov.b128 {%rd1, %rd2}, %q1; cvt.u32.u64 %r1, %rd2;", 2),
        ("mov.f32 %f1, 0f3F800000; mov.b32 {%h1, %h2}, %f1; cvt.u32.u16 %r1, %h2;", 0x3F80),
        (
            "{ .reg .b8 %x<4>; mov.b32 {%x0, %x1, %x2, %x3}, 0x01020304; mov.b32 %r1, {%x3, %x2, %x1, %x0}; }",
            0x0403_0201,
        ),
        (
            "{ .reg .b8 %x<2>; mov.b16 {%x0, %x1}, 0x0102; mov.b16 %h1, {%x1, %x0}; cvt.u32.u16 %r1, %h1; }",
            0x0201,
        ),
        ("mov.b64 %rd1, 5; mov.b64 {%r1, %r1}, 0x700000000;", 7),
    ];
    for (text, expected) in cases {
        assert_eq!(lanes(&format!("{text}\nst.global.u32 [%o], %r1;")), each(|_| expected), "{text}");
    }
}

#[test]
fn addresses_of_every_space_are_told_apart() {
    let body = ".shared .align 8 .b8 sm[8]; .local .align 8 .b8 lo[8];\n\
        mov.u64 %rd1, sm; cvta.shared.u64 %rd1, %rd1; mov.u64 %rd2, lo; cvta.local.u64 %rd2, %rd2; cvta.global.u64 %rd3, %a0;\n\
        mov.b64 %rd4, p0; cvta.param.u64 %rd4, %rd4;\nmov.u32 %r1, 0;\n";
    let names = ["shared", "local", "global"];
    let mut text = body.to_owned();
    for (i, space) in names.iter().enumerate() {
        for address in 1..=4 {
            let bit = 1 << (4 * i + address - 1);
            text += &format!("isspacep.{space} %p1, %rd{address}; @%p1 add.u32 %r1, %r1, {bit};\n");
        }
    }
    text += "isspacep.shared::cta %p1, %rd1; @!%p1 trap; isspacep.shared::cluster %p1, %rd1; @!%p1 trap; isspacep.const %p1, %rd1; @%p1 trap;\n\
        cvta.to.shared.u64 %rd5, %rd1; mov.u64 %rd6, sm; setp.ne.u64 %p1, %rd5, %rd6; @%p1 trap;\n\
        cvta.to.local.u64 %rd5, %rd2; mov.u64 %rd6, lo; setp.ne.u64 %p1, %rd5, %rd6; @%p1 trap; st.global.u32 [%o], %r1;";
    assert_eq!(lanes(&text), each(|_| 0x421));
}

#[test]
fn shared_memory_of_another_block_is_in_the_cluster_but_not_in_the_block() {
    let body = ".shared .align 8 .b8 sm[8];\nmov.u64 %rd1, sm; cvta.shared.u64 %rd1, %rd1; mov.u32 %r1, %cluster_ctarank; xor.b32 %r1, %r1, 1;\n\
        mapa.u64 %rd2, %rd1, %r1; isspacep.shared::cta %p1, %rd2; isspacep.shared::cluster %p2, %rd2; selp.u32 %r2, 1, 0, %p1; @%p2 add.u32 %r2, %r2, 2;\n\
        st.global.u32 [%o], %r2; barrier.cluster.arrive; barrier.cluster.wait;";
    assert_eq!(Case::new(body).grid(2).cluster(2).zeros(256).output(0), vec![2; 64]);
}

#[test]
fn carry_chains() {
    let body = "mov.u32 %r1, 0xFFFFFFFF; mov.u32 %r2, 0xFFFFFFFF; mov.u32 %r3, 0;\n\
        add.cc.u32 %r4, %r1, %t; addc.cc.u32 %r5, %r2, 0; addc.u32 %r6, %r3, 0;\n\
        sub.cc.u32 %r7, %t, 1; subc.u32 %r8, 0, 0; mad.lo.cc.u32 %r9, %r1, %t, %r1; madc.hi.u32 %r10, %r1, %t, 0;\n\
        add.u32 %r4, %r4, %r5; mad.lo.u32 %r4, %r6, 1000, %r4; mad.lo.u32 %r4, %r8, 10000, %r4; mad.lo.u32 %r4, %r9, 3, %r4; mad.lo.u32 %r4, %r10, 5, %r4; st.global.u32 [%o], %r4;";
    let expected = each(|t| {
        let sum = u128::from(u64::MAX) + u128::from(t);
        let (low, mid, high) = (sum as u32, (sum >> 32) as u32, (sum >> 64) as u32);
        let difference = (0u64.wrapping_add(u64::from(t))).wrapping_sub(1);
        let product = u64::from(u32::MAX) * u64::from(t) + u64::from(u32::MAX);
        low.wrapping_add(mid)
            .wrapping_add(high.wrapping_mul(1000))
            .wrapping_add(((difference >> 32) as u32).wrapping_mul(10000))
            .wrapping_add((product as u32).wrapping_mul(3))
            .wrapping_add(((product >> 32) as u32).wrapping_mul(5))
    });
    assert_eq!(lanes(body), expected);
}
