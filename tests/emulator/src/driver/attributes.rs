//! Device attributes, as an A100 and an H100 (both SXM, 80 GB) report them.

use crate::machine::Profile;

/// Attributes by number that both devices share.
const COMMON: &[(u32, i32)] = &[
    (1, 1024),      // threads of a block
    (2, 1024),      // block x
    (3, 1024),      // block y
    (4, 64),        // block z
    (5, i32::MAX),  // grid x
    (6, 65535),     // grid y
    (7, 65535),     // grid z
    (8, 49152),     // shared memory of a block
    (9, 65536),     // constant memory
    (10, 32),       // warp size
    (11, i32::MAX), // pitch
    (12, 65536),    // registers of a block
    (14, 512),      // texture alignment
    (15, 1),        // copies and kernels overlap
    (17, 0),        // kernel timeout
    (18, 0),        // integrated
    (19, 1),        // host memory can be mapped
    (20, 0),        // compute mode
    (21, 131_072),  // textures from here
    (22, 131_072),
    (23, 65536),
    (24, 16384),
    (25, 16384),
    (26, 16384),
    (27, 32768),
    (28, 32768),
    (29, 2048),
    (30, 512),   // surface alignment
    (31, 1),     // concurrent kernels
    (32, 1),     // ECC
    (34, 0),     // PCI device
    (35, 0),     // TCC
    (37, 5120),  // memory bus width
    (39, 2048),  // threads of a multiprocessor
    (40, 3),     // copy engines
    (41, 1),     // unified addressing
    (42, 32768), // textures and surfaces from here
    (43, 2048),
    (44, 1),
    (45, 32768),
    (46, 32768),
    (47, 8192),
    (48, 8192),
    (49, 32768),
    (50, 0),  // PCI domain
    (51, 32), // texture pitch alignment
    (52, 32768),
    (53, 32768),
    (54, 2046),
    (55, 32768),
    (56, 131_072),
    (57, 65536),
    (58, 16384),
    (59, 16384),
    (60, 16384),
    (61, 32768),
    (62, 2048),
    (63, 32768),
    (64, 32768),
    (65, 2048),
    (66, 32768),
    (67, 32768),
    (68, 2046),
    (69, 268_435_456),
    (70, 131_072),
    (71, 65000),
    (72, 2_097_120),
    (73, 32768),
    (74, 32768),
    (76, 0), // compute capability, minor
    (77, 32768),
    (78, 1),            // stream priorities
    (79, 1),            // L1 for global memory
    (80, 1),            // L1 for local memory
    (82, 65536),        // registers of a multiprocessor
    (83, 1),            // managed memory
    (84, 0),            // multi-GPU board
    (85, 0),            // its group
    (86, 0),            // native host atomics
    (87, 2),            // single to double precision
    (88, 0),            // pageable memory access
    (89, 1),            // concurrent managed access
    (90, 1),            // compute preemption
    (91, 1),            // host pointers of registered memory
    (92, 1),            // stream memory operations
    (93, 1),            // of 64 bits
    (94, 1),            // wait for NOR
    (95, 1),            // cooperative launch
    (96, 1),            // on several devices
    (98, 0),            // flush of remote writes
    (99, 1),            // host memory can be registered
    (100, 0),           // host page tables
    (101, 0),           // direct access from host to managed memory
    (102, 1),           // virtual memory management
    (103, 1),           // POSIX handles
    (104, 0),           // Windows handles
    (105, 0),           // Windows KMT handles
    (106, 32),          // blocks of a multiprocessor
    (107, 1),           // compression
    (109, 134_213_632), // access policy window
    (110, 1),           // RDMA with virtual memory management
    (111, 1024),        // reserved shared memory of a block
    (112, 1),           // sparse arrays
    (113, 1),           // read-only registration of host memory
    (114, 1),           // timeline semaphores
    (115, 1),           // memory pools
    (116, 1),           // RDMA
    (117, 1),           // flush options
    (118, 100),         // write ordering
    (119, 1),           // handle types of memory pools
    (121, 1),           // deferred mapping of arrays
    (122, 1),           // stream memory operations of 64 bits, version 2
    (123, 1),           // wait for NOR, version 2
    (124, 1),           // dma-buf
    (125, 1),           // events between processes
    (128, 0),           // fabric handles
    (129, 1),           // unified function pointers
    (130, 0),           // NUMA configuration
    (131, -1),          // NUMA node
    (133, 0),           // MPS
    (134, 0),           // NUMA node of the host
    (135, 0),           // D3D12
    (136, 0),           // decompression
    (137, 0),           // its length
    (138, 0),           // Vulkan
    (140, 0),           // PCI subsystem
    (141, 0),           // virtual memory management on host NUMA nodes
    (142, 0),           // memory pools there
    (143, 0),           // between nodes
];

/// Attributes by number of the A100.
const A100: &[(u32, i32)] = &[
    (13, 1_410_000),    // clock in kHz
    (16, 108),          // multiprocessors
    (33, 7),            // PCI bus
    (36, 1_593_000),    // memory clock in kHz
    (38, 41_943_040),   // L2 cache
    (75, 8),            // compute capability, major
    (81, 167_936),      // shared memory of a multiprocessor
    (97, 166_912),      // shared memory of a block, opted in
    (108, 31_457_280),  // persisting L2
    (120, 0),           // clusters
    (126, 1),           // memory synchronisation domains
    (127, 0),           // tensor maps
    (132, 0),           // multicast
    (139, 0x20b2_10de), // PCI id
];

/// Attributes by number of the H100.
const H100: &[(u32, i32)] = &[
    (13, 1_980_000),
    (16, 132),
    (33, 25),
    (36, 2_619_000),
    (38, 52_428_800),
    (75, 9),
    (81, 233_472),
    (97, 232_448),
    (108, 32_768_000),
    (120, 1),
    (126, 4),
    (127, 1),
    (132, 1),
    (139, 0x2330_10de),
];

/// What a launch is checked against.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// The device.
    pub profile: Profile,
    /// Multiprocessors.
    pub multiprocessors: u32,
    /// Shared memory of a multiprocessor.
    pub shared_per_multiprocessor: u32,
    /// Shared memory of a block that opted in.
    pub shared_opt_in: u32,
    /// Shared memory of a block that did not.
    pub shared: u32,
    /// Compute capability times ten.
    pub capability: u32,
    /// Whether there are clusters.
    pub clusters: bool,
}

/// The value of an attribute.
pub fn attribute(profile: Profile, number: u32) -> Option<i32> {
    let own = match profile {
        Profile::A100 => A100,
        Profile::H100 => H100,
    };
    own.iter().chain(COMMON).find(|(n, _)| *n == number).map(|(_, value)| *value)
}

/// The limits of a device.
pub fn limits(profile: Profile) -> Limits {
    let get = |number| attribute(profile, number).map_or(0, i32::unsigned_abs);
    Limits {
        profile,
        multiprocessors: get(16),
        shared_per_multiprocessor: get(81),
        shared_opt_in: get(97),
        shared: get(8),
        capability: get(75) * 10 + get(76),
        clusters: get(120) == 1,
    }
}

/// The name of a device.
pub fn name(profile: Profile) -> &'static str {
    match profile {
        Profile::A100 => "NVIDIA A100-SXM4-80GB (emulated)",
        Profile::H100 => "NVIDIA H100 80GB HBM3 (emulated)",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::machine::RESERVED_SHARED;

    #[test]
    fn every_attribute_up_to_version_13_has_one_value() {
        for profile in [Profile::A100, Profile::H100] {
            for number in 1..=143 {
                assert!(attribute(profile, number).is_some(), "attribute {number} of {profile:?}");
            }
            assert_eq!(attribute(profile, 0), None);
            assert_eq!(attribute(profile, 144), None);
        }
        let own = A100.iter().map(|(n, _)| n).collect::<Vec<_>>();
        assert_eq!(own, H100.iter().map(|(n, _)| n).collect::<Vec<_>>());
        assert!(COMMON.iter().all(|(n, _)| !own.contains(&n)));
    }

    #[test]
    fn limits_are_consistent() {
        for profile in [Profile::A100, Profile::H100] {
            let limits = limits(profile);
            assert_eq!(limits.shared_opt_in + RESERVED_SHARED, limits.shared_per_multiprocessor);
            assert_eq!(limits.shared_per_multiprocessor, profile.shared_per_processor());
            assert_eq!(limits.multiprocessors, profile.processors());
            assert_eq!(attribute(profile, 38), Some(2 * profile.l2_partition_bytes() as i32));
        }
    }
}
