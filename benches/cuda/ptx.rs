//! Kernels that measure a machine, as PTX: they have to run where there is no compiler, and nvcc would see
//! through some of them.

/// Bytes of a stage of [`fill`], and stages of its ring.
pub const STAGE: u32 = 32 << 10;
pub const RING: u32 = 4;
/// Barriers in front of the ring.
pub const BARRIERS: u32 = 1024;
/// Threads of a block of [`products`]: two warp groups, of which each multiplies 64 rows.
pub const PRODUCT_THREADS: u32 = 256;
/// k of a round of [`products`].
pub const PRODUCT_K: u32 = 64;
/// Vectors of 16 bytes that a thread of `read_all` reads at once.
pub const AT_ONCE: u32 = 4;

fn module(target: &str, entries: &str) -> String {
    format!(
        ".version 8.0\n.target {target}\n.address_size 64\n.extern .shared .align 1024 .b8 room[];\n{entries}"
    )
}

/// `nothing`; `clock(out, ns)`, which writes the nanoseconds and clocks of a loop of at least `ns`; and
/// `read_all(from, count, out)`, whose threads together read `count` vectors of 16 bytes, a multiple of what
/// they read at once.
pub fn anywhere() -> String {
    let address = |i: u32| {
        format!("mad.lo.u64 %rd5, %rd4, {i}, %rd3; shl.b64 %rd5, %rd5, 4; add.u64 %rd5, %rd1, %rd5;")
    };
    let load = |i: u32| {
        format!(
            "{} ld.global.v4.u32 {{%r{}, %r{}, %r{}, %r{}}}, [%rd5];\n",
            address(i),
            4 * i,
            4 * i + 1,
            4 * i + 2,
            4 * i + 3
        )
    };
    let loads: String = (0..AT_ONCE).map(load).collect();
    let sums: String = (0..4 * AT_ONCE).map(|i| format!("xor.b32 %r20, %r20, %r{i};\n")).collect();
    module(
        "sm_80",
        &format!(
            ".visible .entry nothing() {{ ret; }}
.visible .entry clock(.param .u64 out, .param .u64 ns) {{
    .reg .pred %p<2>; .reg .b64 %rd<8>;
    ld.param.u64 %rd1, [out]; cvta.to.global.u64 %rd1, %rd1; ld.param.u64 %rd2, [ns];
    mov.u64 %rd3, %globaltimer; mov.u64 %rd4, %clock64;
AGAIN:
    mov.u64 %rd5, %globaltimer; mov.u64 %rd6, %clock64;
    sub.u64 %rd5, %rd5, %rd3; sub.u64 %rd6, %rd6, %rd4;
    setp.lt.u64 %p1, %rd5, %rd2; @%p1 bra AGAIN;
    st.global.u64 [%rd1], %rd5; st.global.u64 [%rd1+8], %rd6;
    ret;
}}
.visible .entry read_all(.param .u64 from, .param .u64 count, .param .u64 out) {{
    .reg .pred %p<2>; .reg .b32 %r<24>; .reg .b64 %rd<8>;
    ld.param.u64 %rd1, [from]; cvta.to.global.u64 %rd1, %rd1; ld.param.u64 %rd2, [count];
    mov.u32 %r21, %ctaid.x; mov.u32 %r22, %ntid.x; mov.u32 %r23, %tid.x;
    mad.lo.u32 %r23, %r21, %r22, %r23; cvt.u64.u32 %rd3, %r23;
    mov.u32 %r21, %nctaid.x; mul.lo.u32 %r22, %r21, %r22; cvt.u64.u32 %rd4, %r22;
    mov.u32 %r20, 0;
AGAIN:
    {loads}{sums}
    mad.lo.u64 %rd3, %rd4, {AT_ONCE}, %rd3;
    setp.lt.u64 %p1, %rd3, %rd2; @%p1 bra AGAIN;
    // Numbers that nobody knows are not thrown away.
    setp.ne.u32 %p1, %r20, 0x5bd1e995; @%p1 bra DONE;
    ld.param.u64 %rd6, [out]; cvta.to.global.u64 %rd6, %rd6; st.global.u32 [%rd6], %r20;
DONE:
    ret;
}}
"
        ),
    )
}

/// `fill(from, mask, apart, stages)`: a thread of each block copies stages to shared memory, a ring of them
/// at a time, block b from byte `b · apart` on, modulo `mask + 1`. In `fill_multicast`, two blocks of a
/// cluster copy half of each stage and multicast it to both.
pub fn fill() -> String {
    let inits: String = (0..RING)
        .map(|i| {
            format!(
                "mbarrier.init.shared::cta.b64 [%r7+{}], 1; mbarrier.init.shared::cta.b64 [%r7+{}], 2;\n",
                8 * i,
                64 + 8 * i
            )
        })
        .collect();
    let half = STAGE / 2;
    // Waits for the phase of the stage before in this place of the ring.
    let wait = |label: &str, barrier: &str| {
        format!(
            "{label}: mbarrier.try_wait.parity.shared::cta.b64 %p3, [{barrier}], %r12; @!%p3 bra {label};\n"
        )
    };
    let entry = |name: &str,
                 cluster: &str,
                 block: &str,
                 begin: &str,
                 release: &str,
                 acquire: &str,
                 copy: &str,
                 end: &str| {
        format!(
            ".visible .entry {name}(.param .u64 from, .param .u32 mask, .param .u32 apart, .param .u32 stages)
{cluster} {{
    .reg .pred %p<4>; .reg .b16 %h<2>; .reg .b32 %r<24>; .reg .b64 %rd<4>;
    ld.param.u64 %rd1, [from]; cvta.to.global.u64 %rd1, %rd1;
    ld.param.u32 %r1, [mask]; ld.param.u32 %r2, [apart]; ld.param.u32 %r3, [stages];
    {block} mul.lo.u32 %r5, %r4, %r2;
    mov.u32 %r6, %tid.x; mov.u32 %r7, room;
    setp.ne.u32 %p1, %r6, 0; @%p1 bra READY;
    {inits} fence.mbarrier_init.release.cluster;
READY:
    bar.warp.sync 0xffffffff;
    {begin}
    @%p1 bra DONE;
    mov.u32 %r8, 0; add.u32 %r9, %r3, {RING};
NEXT:
    rem.u32 %r10, %r8, {RING}; shl.b32 %r11, %r10, 3; add.u32 %r11, %r7, %r11;
    setp.lt.u32 %p2, %r8, {RING}; @%p2 bra ISSUE;
    div.u32 %r12, %r8, {RING}; add.u32 %r12, %r12, 1; and.b32 %r12, %r12, 1;
    {full}{release}
ISSUE:
    setp.ge.u32 %p2, %r8, %r3; @%p2 bra ISSUED;
    {acquire}
FILL:
    mbarrier.arrive.expect_tx.shared::cta.b64 _, [%r11], {STAGE};
    mad.lo.u32 %r13, %r10, {STAGE}, {BARRIERS}; add.u32 %r13, %r7, %r13;
    and.b32 %r14, %r5, %r1; cvt.u64.u32 %rd2, %r14; add.u64 %rd2, %rd1, %rd2;
    {copy}
    add.u32 %r5, %r5, {STAGE};
ISSUED:
    add.u32 %r8, %r8, 1; setp.lt.u32 %p2, %r8, %r9; @%p2 bra NEXT;
DONE:
    bar.warp.sync 0xffffffff;
    {end}
    ret;
}}
",
            full = wait("FULL", "%r11")
        )
    };
    let bulk = "cp.async.bulk.shared::cluster.global.mbarrier::complete_tx::bytes";
    let alone = entry(
        "fill",
        "",
        "mov.u32 %r4, %ctaid.x;",
        "",
        "",
        "",
        &format!("{bulk} [%r13], [%rd2], {STAGE}, [%r11];"),
        "",
    );
    let all = "barrier.cluster.arrive.release.aligned; barrier.cluster.wait.acquire.aligned;";
    let arrive = |rank: u32| {
        format!(
            "mapa.shared::cluster.u32 %r16, %r15, {rank}; mbarrier.arrive.release.cluster.shared::cluster.b64 _, [%r16];\n"
        )
    };
    let together = entry(
        "fill_multicast",
        ".explicitcluster .reqnctapercluster 2, 1, 1",
        "mov.u32 %r4, %clusterid.x;",
        all,
        &format!("add.u32 %r15, %r11, 64; {}{}", arrive(0), arrive(1)),
        &format!(
            "setp.lt.u32 %p2, %r8, {RING}; @%p2 bra FILL; add.u32 %r15, %r11, 64;\n{}",
            wait("EMPTY", "%r15")
        ),
        &format!(
            "mov.u32 %r17, %cluster_ctarank; mul.lo.u32 %r17, %r17, {half}; add.u32 %r13, %r13, %r17;
    cvt.u64.u32 %rd3, %r17; add.u64 %rd2, %rd2, %rd3; mov.u16 %h1, 3;
    {bulk}.multicast::cluster [%r13], [%rd2], {half}, [%r11], %h1;"
        ),
        all,
    );
    module("sm_90a", &(alone + &together))
}

/// `products(from, rounds, out)`: two warp groups multiply 64 rows each with `n` columns of shared memory,
/// over and over, [`PRODUCT_K`] of k a round, and write a sum each.
pub fn products(n: u32) -> String {
    let registers = n / 2;
    let list = (0..registers).map(|i| format!("%f{i}")).collect::<Vec<_>>().join(", ");
    let zeros: String = (0..registers).map(|i| format!("mov.f32 %f{i}, 0f00000000;\n")).collect();
    let sums: String = (1..registers).map(|i| format!("add.f32 %f0, %f0, %f{i};\n")).collect();
    // 16 of k are 32 bytes, of which a descriptor counts 16.
    let multiply = |k: u32| {
        format!(
            "add.u64 %rd5, %rd3, {0}; add.u64 %rd6, %rd4, {0};
    wgmma.mma_async.sync.aligned.m64n{n}k16.f32.bf16.bf16 {{{list}}}, %rd5, %rd6, 1, 1, 1, 0, 0;\n",
            2 * k
        )
    };
    let round: String = (0..PRODUCT_K / 16).map(multiply).collect();
    // The 128-byte swizzle, and groups of eight rows 1024 bytes apart.
    let descriptor = (1u64 << 62) | (1024 >> 4) << 32 | 1 << 16;
    let (rows, bytes) = (64 * PRODUCT_K * 2, product_bytes(n));
    module(
        "sm_90a",
        &format!(
            ".visible .entry products(.param .u64 from, .param .u32 rounds, .param .u64 out)
.maxntid {PRODUCT_THREADS}, 1, 1 {{
    .reg .pred %p<2>; .reg .b32 %r<16>; .reg .b64 %rd<10>; .reg .f32 %f<{registers}>;
    ld.param.u64 %rd1, [from]; cvta.to.global.u64 %rd1, %rd1; ld.param.u32 %r1, [rounds];
    mov.u32 %r2, %tid.x; mov.u32 %r3, room; shl.b32 %r4, %r2, 4;
COPY:
    cvt.u64.u32 %rd2, %r4; add.u64 %rd2, %rd1, %rd2; ld.global.v4.u32 {{%r5, %r6, %r7, %r8}}, [%rd2];
    add.u32 %r9, %r3, %r4; st.shared.v4.u32 [%r9], {{%r5, %r6, %r7, %r8}};
    add.u32 %r4, %r4, {step}; setp.lt.u32 %p1, %r4, {bytes}; @%p1 bra COPY;
    fence.proxy.async.shared::cta; bar.sync 0;
    shr.u32 %r10, %r2, 7; mul.lo.u32 %r10, %r10, {rows}; add.u32 %r10, %r3, %r10; shr.u32 %r10, %r10, 4;
    cvt.u64.u32 %rd3, %r10; or.b64 %rd3, %rd3, {descriptor};
    add.u32 %r11, %r3, {columns}; shr.u32 %r11, %r11, 4;
    cvt.u64.u32 %rd4, %r11; or.b64 %rd4, %rd4, {descriptor};
    {zeros}
AGAIN:
    wgmma.fence.sync.aligned;
    {round}
    wgmma.commit_group.sync.aligned; wgmma.wait_group.sync.aligned 1;
    sub.u32 %r1, %r1, 1; setp.ne.u32 %p1, %r1, 0; @%p1 bra AGAIN;
    wgmma.wait_group.sync.aligned 0;
    {sums}
    ld.param.u64 %rd7, [out]; cvta.to.global.u64 %rd7, %rd7;
    mov.u32 %r12, %ctaid.x; mad.lo.u32 %r12, %r12, {PRODUCT_THREADS}, %r2;
    mul.wide.u32 %rd8, %r12, 4; add.u64 %rd7, %rd7, %rd8; st.global.f32 [%rd7], %f0;
    ret;
}}
",
            step = 16 * PRODUCT_THREADS,
            columns = 2 * rows,
        ),
    )
}

/// Bytes of shared memory of a block of [`products`].
pub fn product_bytes(n: u32) -> u32 {
    (2 * 64 + n) * PRODUCT_K * 2
}
