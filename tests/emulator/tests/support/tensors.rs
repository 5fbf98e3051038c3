//! A small `wgmma`: D = A · B with B the first eight columns of the unit matrix, so that D is the left half
//! of A.

use half::f16;

use super::Case;

/// Element of A.
pub fn element(row: u32, k: u32) -> f32 {
    (row + 64 * k) as f32
}

/// A (64 × 16) and B (16 × 8) as they lie in shared memory: cores of eight rows (columns) by 16 bytes, those
/// along K 128 bytes apart, those along M 256 bytes apart.
pub fn operands() -> Vec<u32> {
    let mut halves = vec![0u16; 1024 + 128];
    for row in 0..64 {
        for k in 0..16 {
            let at = row / 8 * 256 + k / 8 * 128 + row % 8 * 16 + k % 8 * 2;
            halves[at as usize / 2] = f16::from_f32(element(row, k)).to_bits();
        }
    }
    for n in 0..8 {
        halves[(2048 + n * 16 + n * 2) / 2] = f16::from_f32(1.0).to_bits();
    }
    bytemuck::cast_slice(&halves).to_vec()
}

/// Copies the operands to shared memory, one line per step so that tests can leave steps out.
pub const COPY: &str = ".shared .align 128 .b8 tile[4608];
mov.u32 %r1, tile; mad.lo.u32 %r2, %t, 16, %r1; mad.wide.u32 %rd1, %t, 16, %a1;
ld.global.v4.u32 {%r3, %r4, %r5, %r6}, [%rd1]; st.shared.v4.u32 [%r2], {%r3, %r4, %r5, %r6};
setp.lt.u32 %p1, %t, 16; @%p1 ld.global.v4.u32 {%r3, %r4, %r5, %r6}, [%rd1+2048]; @%p1 st.shared.v4.u32 [%r2+2048], {%r3, %r4, %r5, %r6};
fence.proxy.async;
bar.sync 0;
";

/// Descriptors in `%rd10` and `%rd11`, and accumulators set to zero.
pub const DESCRIPTORS: &str = "cvt.u64.u32 %rd9, %r1; shr.u64 %rd9, %rd9, 4; or.b64 %rd10, %rd9, 0x1000080000; add.u64 %rd11, %rd10, 128;
mov.f32 %f1, 0f00000000; mov.f32 %f2, %f1; mov.f32 %f3, %f1; mov.f32 %f4, %f1; setp.eq.u32 %p2, 0, 0;
";

/// The multiplication.
pub const MULTIPLY: &str = "wgmma.fence.sync.aligned;
wgmma.mma_async.sync.aligned.m64n8k16.f32.f16.f16 {%f1, %f2, %f3, %f4}, %rd10, %rd11, %p2, 1, 1, 0, 0;
wgmma.commit_group.sync.aligned;
wgmma.wait_group.sync.aligned 0;
";

/// Four words per thread.
pub const STORE: &str = "mad.wide.u32 %rd2, %t, 16, %a0; st.global.v4.f32 [%rd2], {%f1, %f2, %f3, %f4};
";

/// One group of four warps.
pub fn case(body: &str) -> Case {
    Case::new(body).block(128).zeros(2048).words(&operands())
}

/// What [`STORE`] leaves, given D.
pub fn fragments(d: impl Fn(u32, u32) -> f32) -> Vec<u32> {
    let mut found = Vec::new();
    for t in 0..128 {
        let (row, column) = (t / 32 * 16 + t % 32 / 4, t % 4 * 2);
        for (row, column) in [(row, column), (row, column + 1), (row + 8, column), (row + 8, column + 1)] {
            found.push(d(row, column).to_bits());
        }
    }
    found
}
