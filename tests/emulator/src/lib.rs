//! Runs real PTX on the CPU behind the CUDA driver API, checks every access and counts what a profiler would.
//!
//! Two ways in. As a library: [`machine::Machine`] loads PTX and launches kernels. As `libcuda.so`: [`load`]
//! opens the cdylib of this crate, and an unmodified program that uses the driver API finds it instead of a
//! driver.
//!
//! ```
//! use cuda_emulator::machine::{Launch, Machine, Module, Options};
//!
//! let ptx = "
//!     .version 9.0
//!     .target sm_80
//!     .address_size 64
//!     .visible .entry twice(.param .u64 data)
//!     {
//!         .reg .b32 %r<3>;
//!         .reg .b64 %rd<4>;
//!         ld.param.u64 %rd1, [data];
//!         mov.u32 %r1, %tid.x;
//!         mul.wide.u32 %rd2, %r1, 4;
//!         add.s64 %rd3, %rd1, %rd2;
//!         ld.global.u32 %r2, [%rd3];
//!         add.s32 %r2, %r2, %r2;
//!         st.global.u32 [%rd3], %r2;
//!         ret;
//!     }";
//! let machine = Machine::new(Options::default());
//! let module = Module::load(ptx, &machine.memory)?;
//! let data = machine.memory.alloc(32 * 4).expect("memory");
//! machine.memory.fill(data, &21u32.to_le_bytes(), 32)?;
//! let launch = |threads| Launch {
//!     grid: [1, 1, 1],
//!     block: [threads, 1, 1],
//!     cluster: [1, 1, 1],
//!     dynamic_shared: 0,
//!     params: data.to_le_bytes().to_vec(),
//!     cooperative: false,
//! };
//! let kernel = module.function("twice").expect("it is there");
//! let counters = machine.launch(&kernel, &launch(32))?;
//! assert_eq!(counters.global_load_sectors, 4);
//! let mut first = [0; 4];
//! machine.memory.read(data, &mut first)?;
//! assert_eq!(u32::from_le_bytes(first), 42);
//!
//! let fault = machine.launch(&kernel, &launch(33)).expect_err("thread 32 is one too many");
//! assert_eq!(fault.thread, Some([32, 0, 0]));
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! The rooms, in the order that a kernel passes through them:
//!
//! | room | what happens there |
//! |---|---|
//! | [`ptx`] | text becomes a syntax tree |
//! | [`decode`] | the tree becomes a program: names are rows of registers, opcodes are operations |
//! | [`schedule`] | clusters, blocks and warps, and the order they run in |
//! | [`exec`] | a warp executes its instructions |
//! | [`cuda_emulator_alu`] | arithmetic: of a warp, of one value |
//! | [`tensor`] | `mma`, `wgmma`, matrix accesses, tensor maps |
//! | [`memory`] | global and shared memory, and what happened before what |
//! | [`report`], [`counters`] | faults, and what was counted |
//! | [`driver`], [`client`] | the driver API, and tests' way into it |
//!
//! Whatever is not known is refused by name and line, when the module is loaded.

pub mod client;
pub mod counters;
pub mod decode;
pub mod driver;
pub mod exec;
pub mod machine;
pub mod memory;
pub mod ptx;
pub mod report;
pub mod schedule;
pub mod tensor;

pub use client::load;
