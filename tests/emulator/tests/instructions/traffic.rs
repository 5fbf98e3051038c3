//! What is counted of global memory's traffic.

use cuda_emulator::counters::Counters;

use crate::support::{Case, Map, words};

const MEGABYTE: usize = 1 << 20;

/// A block of one warp that reads 4 KB, 128 bytes at a time, from a place in buffer 0 that `start` leaves in
/// bytes in `%r1`.
fn readers(blocks: u32, start: &str) -> Case {
    let body = format!(
        "mov.u32 %r2, %ctaid.x;\n{start}\nmov.u32 %r3, 0; mad.lo.u32 %r1, %l, 4, %r1; cvt.u64.u32 %rd1, %r1; add.u64 %rd1, %rd1, %a0;\n\
         NEXT: ld.global.u32 %r4, [%rd1]; add.u64 %rd1, %rd1, 128; add.u32 %r3, %r3, 1; setp.lt.u32 %p1, %r3, 32; @%p1 bra NEXT;"
    );
    Case::new(&body).grid(blocks).zeros(blocks.max(1) as usize * 4096)
}

fn bytes(counters: Counters) -> [u64; 3] {
    [counters.wave_bytes, counters.dram_load_bytes, counters.dram_store_bytes]
}

/// 264 blocks are two waves of an H100 with one block on a multiprocessor, and one wave with two.
#[test]
fn dram_sees_what_blocks_share_once() {
    let all = readers(264, "mov.u32 %r1, 0;");
    assert_eq!(bytes(all.counters(1)), [2 * 4096, 4096, 0]);
    assert_eq!(bytes(all.counters(2)), [4096, 4096, 0]);
    let own = readers(264, "mul.lo.u32 %r1, %r2, 4096;");
    assert_eq!(bytes(own.counters(1)), [264 * 4096, 264 * 4096, 0]);
}

/// Without being asked for, nothing of it is counted.
#[test]
fn traffic_is_counted_where_it_is_asked_for() {
    let counters = readers(4, "mov.u32 %r1, 0;").run().ok().expect("runs").counters;
    assert_eq!(bytes(counters), [0; 3]);
    assert_eq!((counters.loads_in_flight, counters.load_bytes_in_flight), (0, 0));
    assert_eq!(counters.global_load_sectors, 4 * 32 * 4);
}

/// A block goes through more than the 25 MB of a partition twice, or through less.
#[test]
fn what_does_not_fit_is_loaded_again() {
    let twice = |megabytes: usize| {
        let body = format!(
            "mov.u32 %r5, 0; PASS: mad.wide.u32 %rd1, %t, 128, %a0; mov.u32 %r3, 0;\n\
             NEXT: ld.global.v4.u32 {{%r4, %r6, %r7, %r8}}, [%rd1]; add.u64 %rd1, %rd1, 4096; add.u32 %r3, %r3, 1; setp.lt.u32 %p1, %r3, {}; @%p1 bra NEXT;\n\
             add.u32 %r5, %r5, 1; setp.lt.u32 %p1, %r5, 2; @%p1 bra PASS;",
            megabytes * MEGABYTE / 4096
        );
        let case = Case::new(&body).zeros(megabytes * MEGABYTE);
        // A sector of each line.
        4 * case.counters(1).dram_load_bytes as usize / MEGABYTE
    };
    assert_eq!(twice(24), 24);
    // The least recently used lines are those that are needed next.
    assert_eq!(twice(26), 2 * 26);
}

/// Stores need nothing from DRAM; atomics do, as reductions of bulk copies do.
#[test]
fn stores_and_atomics() {
    let case = |body: &str| Case::new(body).block(64).zeros(4096);
    assert_eq!(bytes(case("st.global.u32 [%o], 1;").counters(1)), [256, 0, 256]);
    assert_eq!(bytes(case("red.global.add.u32 [%o], 1;").counters(1)), [256, 256, 256]);
    assert_eq!(bytes(case("ld.global.u32 %r1, [%o]; st.global.u32 [%o], %r1;").counters(1)), [256, 256, 256]);
    let copy = "mad.wide.u32 %rd1, %t, 16, %a0; .shared .align 16 .b8 sm[1024]; mov.u32 %r1, sm; mad.lo.u32 %r1, %t, 16, %r1;\n\
        cp.async.cg.shared.global [%r1], [%rd1], 16; cp.async.wait_all;";
    assert_eq!(bytes(case(copy).counters(1)), [1024, 1024, 0]);
    let bulk = |store: &str| {
        format!(
            ".shared .align 128 .b8 sm[1024]; mov.u32 %r1, sm; mad.lo.u32 %r1, %t, 16, %r1; setp.eq.u32 %p1, %t, 0;\n\
             st.shared.v4.u32 [%r1], {{0, 0, 0, 0}}; fence.proxy.async; bar.sync 0; @!%p1 ret;\n\
             {store} cp.async.bulk.commit_group; cp.async.bulk.wait_group 0;"
        )
    };
    let stored = case(&bulk("cp.async.bulk.global.shared::cta.bulk_group [%a0], [sm], 1024;")).counters(1);
    assert_eq!(bytes(stored), [1024, 0, 1024]);
    assert_eq!((stored.bulk_store_bytes, stored.bulk_store_sectors), (1024, 32));
    let added = "cp.reduce.async.bulk.global.shared::cta.bulk_group.add.u32 [%a0], [sm], 1024;";
    assert_eq!(bytes(case(&bulk(added)).counters(1)), [1024, 1024, 1024]);
}

const CLUSTER_BARRIER: &str = "barrier.cluster.arrive.aligned; barrier.cluster.wait.aligned;";

/// Two blocks of a cluster: each loads a box of 8 by 8 words for itself, or one does for both.
#[test]
fn a_multicast_is_one_request() {
    let load = |mask: Option<u32>, at: &str| {
        let (multicast, operand) = match mask {
            Some(mask) => (".multicast::cluster", format!(", {mask}")),
            None => ("", String::new()),
        };
        let issues = if mask.is_some() { "setp.ne.u32 %p3, %r2, 0;" } else { "setp.ne.u32 %p3, 0, 0;" };
        let body = format!(
            ".shared .align 128 .b8 sm[256]; .shared .align 8 .b64 bar;\n\
             mov.b64 %rd2, extra; cvta.param.u64 %rd2, %rd2; mov.u32 %r2, %cluster_ctarank; setp.eq.u32 %p1, %l, 0; {issues}\n\
             @%p1 mbarrier.init.shared.b64 [bar], 1; @%p1 mbarrier.arrive.expect_tx.shared.b64 _, [bar], 256; fence.mbarrier_init.release.cluster;\n\
             {CLUSTER_BARRIER}\n@!%p1 bra WAIT; @%p3 bra WAIT; mov.u16 %h1, 3;\n\
             cp.async.bulk.tensor.2d.shared::cluster.global.mbarrier::complete_tx::bytes{multicast} [sm], [%rd2, {{{at}}}], [bar]{};\n\
             WAIT: mbarrier.try_wait.parity.shared.b64 %p2, [bar], 0; @!%p2 bra WAIT;\n{CLUSTER_BARRIER}",
            operand.replace('3', "%h1")
        );
        let mut case = Case::new(&body).grid(2).cluster(2).words(&[7; 256]);
        case.maps = vec![Map { buffer: 0, dims: vec![16, 16], boxes: vec![8, 8], swizzle: 0 }];
        let found = case.counters(1);
        let requested = [found.bulk_load_requests, found.bulk_load_bytes, found.bulk_load_sectors];
        (requested, found.bulk_delivered_bytes, found.dram_load_bytes)
    };
    assert_eq!(load(None, "0, 0"), ([2, 512, 16], 512, 256));
    assert_eq!(load(Some(3), "0, 0"), ([1, 256, 8], 512, 256));
    // Rows of 32 bytes that begin in the middle of a sector; half of a box outside of the tensor.
    assert_eq!(load(Some(3), "4, 0"), ([1, 256, 16], 512, 512));
    assert_eq!(load(Some(3), "0, 12"), ([1, 128, 4], 512, 128));
}

/// Loads before the first use, those in a pipeline, and those of a warp that is slower.
#[test]
fn loads_in_flight_before_their_first_use() {
    let flying = |body: &str| {
        let found = Case::new(&format!("mad.wide.u32 %rd1, %t, 16, %a0;\n{body}"))
            .block(64)
            .zeros(1 << 16)
            .counters(1);
        (found.loads_in_flight, found.load_bytes_in_flight)
    };
    let use_at_once =
        "ld.global.u32 %r1, [%rd1]; add.u32 %r1, %r1, 1; ld.global.u32 %r2, [%rd1+4]; add.u32 %r2, %r2, 1;";
    assert_eq!(flying(use_at_once), (1, 128));
    let together = "ld.global.u32 %r1, [%rd1]; ld.global.v4.u32 {%r2, %r3, %r4, %r5}, [%rd1]; mov.u32 %r9, 5; ld.global.u64 %rd2, [%rd1]; add.u32 %r1, %r1, %r4;";
    assert_eq!(flying(together), (3, 128 + 512 + 256));
    // The use of the first leaves the second under way.
    let pipeline = "ld.global.u32 %r1, [%rd1]; ld.global.u32 %r2, [%rd1+4]; add.u32 %r9, %r1, 1; ld.global.u32 %r3, [%rd1+8]; ld.global.u32 %r4, [%rd1+12]; add.u32 %r9, %r2, %r3;";
    assert_eq!(flying(pipeline), (3, 384));
    // A use waits for what was issued before.
    let newest_first = "ld.global.u32 %r1, [%rd1]; ld.global.u32 %r2, [%rd1+4]; add.u32 %r9, %r2, 1; ld.global.u32 %r3, [%rd1+8];";
    assert_eq!(flying(newest_first), (2, 256));
    // A register that is written again, an address that was loaded, and lanes that do not load.
    assert_eq!(flying("ld.global.u32 %r1, [%rd1]; ld.global.u32 %r1, [%rd1+4];"), (1, 128));
    assert_eq!(
        flying("ld.global.u64 %rd2, [%rd1]; add.u64 %rd3, %rd2, %a0; ld.global.u32 %r1, [%rd3];"),
        (1, 256)
    );
    assert_eq!(flying("setp.lt.u32 %p1, %l, 8; @%p1 ld.global.u32 %r1, [%rd1];"), (1, 32));
    // Copies to shared memory have no registers.
    assert_eq!(
        flying(".shared .align 16 .b8 sm[16]; @%p1 cp.async.cg.shared.global [sm], [%rd1], 16;"),
        (0, 0)
    );
}

/// Of 16 blocks that write their numbers, each adding 1, or of 8 clusters of them, the middles of equal
/// parts; one alone is the first.
#[test]
fn some_blocks_run_at_equal_distances() {
    let body = "mov.u32 %r1, %ctaid.x; mul.wide.u32 %rd1, %r1, 4; add.u64 %rd1, %rd1, %a0; add.u32 %r1, %r1, 1; st.global.u32 [%rd1], %r1;";
    let written = |most_clusters: u64, cluster: u32| {
        let mut case = Case::new(body).grid(16).zeros(64);
        (case.most_clusters, case.cluster) = (most_clusters, [cluster, 1, 1]);
        let run = case.run().ok().expect("runs");
        let written: Vec<u32> = words(&run.buffers[0]).into_iter().filter(|&word| word > 0).collect();
        assert_eq!(run.counters.blocks, written.len() as u64);
        written
    };
    assert_eq!(written(4, 1), [3, 7, 11, 15]);
    assert_eq!(written(1, 1), [1]);
    assert_eq!(written(2, 2), [5, 6, 13, 14]);
    assert_eq!(written(u64::MAX, 1).len(), 16);
    assert!(written(0, 1).is_empty());
}

/// Each block counts itself in: where some run only, nobody later takes them for all.
#[test]
fn blocks_of_a_sample_count_nobody_in() {
    let count = |most_clusters: u64| {
        let mut case = Case::new("atom.global.add.u32 %r1, [%a0], 1;").grid(4).zeros(4);
        case.most_clusters = most_clusters;
        let run = case.run().ok().expect("runs");
        (run.counters.global_atomics / run.counters.blocks, words(&run.buffers[0])[0])
    };
    let (threads, counted) = count(4);
    assert_eq!(u64::from(counted), 4 * threads);
    assert_eq!(count(2), (threads, 0));
}

/// Of 132 blocks, which each go through some KB of their own twice, some stand for all: they have their share
/// of the cache.
#[test]
fn a_sample_has_its_share_of_the_cache() {
    let loaded = |kilobytes: usize, most_clusters: u64| {
        let bytes = kilobytes << 10;
        let body = format!(
            "mov.u32 %r5, 0;\n\
             PASS: mul.lo.u32 %r1, %u0, {bytes}; mad.lo.u32 %r1, %l, 128, %r1; cvt.u64.u32 %rd1, %r1; add.u64 %rd1, %rd1, %a0; mov.u32 %r3, 0;\n\
             NEXT: ld.global.u32 %r4, [%rd1]; add.u64 %rd1, %rd1, 4096; add.u32 %r3, %r3, 1; setp.lt.u32 %p1, %r3, {}; @%p1 bra NEXT;\n\
             add.u32 %r5, %r5, 1; setp.lt.u32 %p1, %r5, 2; @%p1 bra PASS;",
            bytes / 4096
        );
        let mut case = Case::new(&body).grid(132).zeros(132 * bytes);
        case.most_clusters = most_clusters;
        let counters = case.counters(1);
        // A sector of each line.
        4 * counters.dram_load_bytes / counters.blocks / 1024
    };
    for most in [4, u64::MAX] {
        // 16.5 MB of the 25 MB that a partition holds, or 33 MB.
        assert_eq!(loaded(128, most), 128, "{most}");
        assert_eq!(loaded(256, most), 512, "{most}");
    }
}

/// Of 16 blocks of a cooperative launch, of which four wait for each other, the first four.
#[test]
fn a_group_of_a_cooperative_launch_runs() {
    let body = "shr.u32 %r1, %u0, 2; mul.wide.u32 %rd1, %r1, 4; add.u64 %rd1, %rd1, %a0;\n\
                setp.eq.u32 %p1, %l, 0; @%p1 red.release.gpu.global.add.u32 [%rd1], 1;\n\
                WAIT: ld.acquire.gpu.global.u32 %r2, [%rd1]; setp.lt.u32 %p2, %r2, 4; @%p2 bra WAIT;";
    let arrived = |most_clusters: u64| {
        let mut case = Case::new(body).grid(16).zeros(16 * 32 * 4);
        (case.most_clusters, case.cooperative) = (most_clusters, true);
        let run = case.run().ok().expect("runs");
        (run.counters.blocks, words(&run.buffers[0])[..4].to_vec())
    };
    assert_eq!(arrived(4), (4, vec![4, 0, 0, 0]));
    assert_eq!(arrived(u64::MAX), (16, vec![4; 4]));
}
