//! What a profiler would count.

pub use cuda_emulator_alu::{CLASSES, Class};

macro_rules! counters {
    (sums { $($(#[$doc:meta])* $name:ident,)* } maxima { $($(#[$max_doc:meta])* $max:ident,)* }) => {
        /// Counters of one launch, or of several added up. Laid out for C: all `u64`, in this order.
        #[repr(C)]
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, bytemuck::Pod, bytemuck::Zeroable)]
        pub struct Counters {
            $($(#[$doc])* pub $name: u64,)*
            $($(#[$max_doc])* pub $max: u64,)*
            /// Warp instructions by [`Class`].
            pub instructions: [u64; CLASSES],
        }

        impl std::ops::AddAssign<&Counters> for Counters {
            fn add_assign(&mut self, other: &Counters) {
                $(self.$name += other.$name;)*
                $(self.$max = self.$max.max(other.$max);)*
                for (a, b) in self.instructions.iter_mut().zip(other.instructions) {
                    *a += b;
                }
            }
        }
    };
}

counters! {
    sums {
        /// Launches.
        launches,
        /// Blocks.
        blocks,
        /// Global load instructions of a warp (`cp.async` included).
        global_load_requests,
        /// 32-byte sectors they touched.
        global_load_sectors,
        /// Bytes the lanes asked for.
        global_load_bytes,
        /// Global store instructions of a warp.
        global_store_requests,
        /// 32-byte sectors they touched.
        global_store_sectors,
        /// Bytes the lanes wrote.
        global_store_bytes,
        /// Global accesses by a lane of fewer than 16 bytes.
        global_narrow_accesses,
        /// Atomics and reductions on global memory, per lane.
        global_atomics,
        /// Bulk copies (TMA) out of global memory.
        bulk_load_requests,
        /// Bytes that they read there; those of a multicast once.
        bulk_load_bytes,
        /// 32-byte sectors that they asked the L2 cache for; those of a multicast once.
        bulk_load_sectors,
        /// Bytes that they wrote to shared memory, of every block that got them, fillings included.
        bulk_delivered_bytes,
        /// Bytes that bulk copies wrote to global memory.
        bulk_store_bytes,
        /// 32-byte sectors that they wrote.
        bulk_store_sectors,
        /// Shared-memory instructions of a warp (`ldmatrix`, `stmatrix` and `cp.async` included).
        shared_requests,
        /// Wavefronts they took: passes through 32 banks of 4 bytes.
        shared_wavefronts,
        /// Wavefronts they would have taken without bank conflicts.
        shared_wavefronts_ideal,
        /// Bytes of local memory loaded and stored.
        local_bytes,
        /// Floating-point (or integer) operations of tensor cores, a multiply-add being two.
        tensor_flops,
        /// `wgmma`s of a warp that add nothing to a sum, but begin one.
        sums_begun,
        /// Barriers a warp waited at (`bar`, `barrier.cluster`, `mbarrier` waits that had to wait).
        barrier_waits,
        /// Distinct bytes of global memory, in sectors, that the blocks of a wave accessed, all waves added
        /// up. This and what follows only where [`crate::machine::Options::traffic`] asks for it.
        wave_bytes,
        /// Bytes that the L2 cache read from DRAM; it is empty before the launch.
        dram_load_bytes,
        /// Bytes that the L2 cache wrote to DRAM, those that it still has after the launch included.
        dram_store_bytes,
    }
    maxima {
        /// Loads of global memory that a warp issued before it touched the result of one: the most of any
        /// warp. A use waits for its load and for those issued before that.
        loads_in_flight,
        /// Bytes that such loads of a warp were for.
        load_bytes_in_flight,
    }
}

impl Counters {
    /// Warp instructions of one class.
    pub fn class(&self, class: Class) -> u64 {
        self.instructions[class as usize]
    }

    /// All warp instructions.
    pub fn warp_instructions(&self) -> u64 {
        self.instructions.iter().sum()
    }
}
