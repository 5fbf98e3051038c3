//! Runs the body of a hand-written kernel on buffers.
//!
//! The body finds the address of buffer *n* in `%an`, its thread in `%t` (in the grid, linear in x), its lane
//! in `%l` and, in `%o`, the address of its own 32-bit word of buffer 0. Registers of every kind are
//! declared.

#![allow(dead_code)] // Each test binary uses a part of it.

use std::sync::Arc;

use cuda_emulator::counters::Counters;
use cuda_emulator::machine::{Launch, Machine, Module, Options};
use cuda_emulator::report::{Fault, FaultKind};
use cuda_emulator::tensor::tensor_map::{TensorMap, Tiled};

pub mod tensors;

/// Global memory that a kernel gets as a parameter.
#[derive(Clone)]
pub enum Buffer {
    /// With values.
    Bytes(Vec<u8>),
    /// Nobody has written these bytes.
    Unwritten(u64),
}

/// A kernel and its launch.
#[derive(Clone)]
pub struct Case {
    /// Directives outside the kernel.
    pub outside: String,
    /// Statements of the kernel.
    pub body: String,
    /// Its buffers.
    pub buffers: Vec<Buffer>,
    /// Blocks.
    pub grid: [u32; 3],
    /// Threads of a block.
    pub block: [u32; 3],
    /// Blocks of a cluster.
    pub cluster: [u32; 3],
    /// Bytes of dynamic shared memory.
    pub dynamic_shared: u32,
    /// Whether all blocks run at once.
    pub cooperative: bool,
    /// Parameters after the buffers: `.param .align 64 .b8 extra[…]`.
    pub extra: Vec<u8>,
    /// Tensor maps, which take the place of `extra`, 128 bytes each.
    pub maps: Vec<Map>,
    /// Seed of the machine.
    pub seed: u64,
    /// Threads of the machine.
    pub threads: usize,
    /// Directives of the kernel.
    pub directives: String,
    /// Whether traffic is counted, and the blocks of a multiprocessor for it.
    pub traffic: Option<u32>,
    /// Instructions of a warp.
    pub limit: u64,
    /// Clusters that run.
    pub most_clusters: u64,
}

/// A tensor of 32-bit integers in a buffer, densely packed.
#[derive(Clone)]
pub struct Map {
    /// Which buffer.
    pub buffer: usize,
    /// Extents, innermost first.
    pub dims: Vec<u64>,
    /// Extents of the box.
    pub boxes: Vec<u32>,
    /// `CUtensorMapSwizzle`.
    pub swizzle: u32,
}

impl Map {
    fn encode(&self, addresses: &[u64]) -> Vec<u8> {
        let strides: Vec<u64> =
            (1..self.dims.len()).map(|i| 4 * self.dims[..i].iter().product::<u64>()).collect();
        let tiled = Tiled {
            data_type: 2, // CU_TENSOR_MAP_DATA_TYPE_UINT32
            rank: self.dims.len() as u32,
            global_address: addresses[self.buffer],
            dims: &self.dims,
            strides: &strides,
            box_dim: &self.boxes,
            element_strides: &vec![1; self.dims.len()],
            interleave: 0,
            swizzle: self.swizzle,
            l2_promotion: 0,
            oob_fill: 0,
        };
        TensorMap::encode_tiled(&tiled).expect("a valid tensor map").to_vec()
    }
}

/// What a launch left.
pub struct Run {
    /// The bytes of all buffers.
    pub buffers: Vec<Vec<u8>>,
    /// Their addresses.
    pub addresses: Vec<u64>,
    /// What was counted.
    pub counters: Counters,
}

/// A fault with what is needed to judge it.
pub struct Faulted {
    /// The fault.
    pub fault: Box<Fault>,
    /// Addresses of the buffers.
    pub addresses: Vec<u64>,
}

impl Case {
    /// One warp and one word of output per thread.
    pub fn new(body: &str) -> Case {
        Case {
            outside: String::new(),
            body: body.to_owned(),
            buffers: Vec::new(),
            grid: [1; 3],
            block: [32, 1, 1],
            cluster: [1; 3],
            dynamic_shared: 0,
            cooperative: false,
            extra: Vec::new(),
            maps: Vec::new(),
            seed: 1,
            threads: 2,
            directives: String::new(),
            traffic: None,
            limit: 1 << 24,
            most_clusters: u64::MAX,
        }
    }

    pub fn outside(mut self, text: &str) -> Case {
        self.outside.push_str(text);
        self.outside.push('\n');
        self
    }

    pub fn grid(mut self, x: u32) -> Case {
        self.grid = [x, 1, 1];
        self
    }

    pub fn block(mut self, x: u32) -> Case {
        self.block = [x, 1, 1];
        self
    }

    pub fn cluster(mut self, x: u32) -> Case {
        self.cluster = [x, 1, 1];
        self
    }

    pub fn buffer(mut self, buffer: Buffer) -> Case {
        self.buffers.push(buffer);
        self
    }

    /// A buffer of 32-bit words.
    pub fn words(self, words: &[u32]) -> Case {
        self.buffer(Buffer::Bytes(bytemuck::cast_slice(words).to_vec()))
    }

    /// A buffer of zeros.
    pub fn zeros(self, bytes: usize) -> Case {
        self.buffer(Buffer::Bytes(vec![0; bytes]))
    }

    pub fn unwritten(self, bytes: u64) -> Case {
        self.buffer(Buffer::Unwritten(bytes))
    }

    pub fn seed(mut self, seed: u64) -> Case {
        self.seed = seed;
        self
    }

    /// The text of the module.
    pub fn ptx(&self) -> String {
        let mut params: Vec<String> = (0..self.buffers.len()).map(|n| format!(".param .u64 p{n}")).collect();
        let extra = self.extra.len().max(128 * self.maps.len());
        if extra > 0 {
            params.push(format!(".param .align 64 .b8 extra[{extra}]"));
        }
        let loads: String =
            (0..self.buffers.len()).map(|n| format!("ld.param.u64 %a{n}, [p{n}];\n")).collect();
        let own = match self.buffers.is_empty() {
            true => "",
            false => "mad.wide.u32 %o, %t, 4, %a0;",
        };
        format!(
            ".version 8.6\n.target sm_90a\n.address_size 64\n{}\n.visible .entry k({}) {}\n{{\n\
             .reg .b32 %r<64>;\n.reg .b64 %rd<64>;\n.reg .b16 %h<32>;\n.reg .f32 %f<64>;\n.reg .f64 %d<16>;\n\
             .reg .b128 %q<8>;\n.reg .pred %p<32>;\n.reg .b64 %a<8>;\n.reg .b32 %t, %l, %u<4>;\n.reg .b64 %o;\n\
             mov.u32 %t, %tid.x;\nmov.u32 %u0, %ctaid.x;\nmov.u32 %u1, %ntid.x;\nmad.lo.u32 %t, %u0, %u1, %t;\n\
             mov.u32 %l, %laneid;\n{loads}{own}\n{}\nret;\n}}\n",
            self.outside,
            params.join(", "),
            self.directives,
            self.body
        )
    }

    /// Loads and runs the kernel.
    pub fn run(&self) -> Result<Run, Faulted> {
        let options = Options {
            memory: 1 << 28,
            seed: self.seed,
            threads: self.threads,
            instruction_limit: self.limit,
            most_clusters: self.most_clusters,
            traffic: self.traffic.is_some(),
            blocks_per_processor: self.traffic,
            ..Options::default()
        };
        let machine = Machine::new(options);
        let text = self.ptx();
        let module = Module::load(&text, &machine.memory).unwrap_or_else(|e| panic!("{e}\n{text}"));
        self.run_on(&machine, &module)
    }

    fn run_on(&self, machine: &Machine, module: &Arc<Module>) -> Result<Run, Faulted> {
        let mut addresses = Vec::new();
        for buffer in &self.buffers {
            let (len, bytes) = match buffer {
                Buffer::Bytes(bytes) => (bytes.len() as u64, &bytes[..]),
                Buffer::Unwritten(len) => (*len, &[][..]),
            };
            let address = machine.memory.alloc(len).expect("fits");
            machine.memory.write(address, bytes).expect("lies inside");
            addresses.push(address);
        }
        let mut params: Vec<u8> = addresses.iter().flat_map(|a| a.to_le_bytes()).collect();
        let mut extra = self.extra.clone();
        extra.extend(self.maps.iter().flat_map(|map| map.encode(&addresses)));
        if !extra.is_empty() {
            params.resize(params.len().next_multiple_of(64), 0);
            params.append(&mut extra);
        }
        let launch = Launch {
            grid: self.grid,
            block: self.block,
            cluster: self.cluster,
            dynamic_shared: self.dynamic_shared,
            params,
            cooperative: self.cooperative,
        };
        let function = module.function("k").expect("has a kernel k");
        let counters = match machine.launch(&function, &launch) {
            Ok(counters) => counters,
            Err(fault) => return Err(Faulted { fault, addresses }),
        };
        let read = |(buffer, &address): (&Buffer, &u64)| {
            let len = match buffer {
                Buffer::Bytes(bytes) => bytes.len(),
                Buffer::Unwritten(len) => *len as usize,
            };
            let mut bytes = vec![0; len];
            machine.memory.read(address, &mut bytes).expect("lies inside");
            bytes
        };
        let buffers = self.buffers.iter().zip(&addresses).map(read).collect();
        Ok(Run { buffers, addresses, counters })
    }

    /// Runs and returns what was counted, traffic included, with so many blocks on a multiprocessor.
    pub fn counters(&self, blocks_per_processor: u32) -> Counters {
        match (Case { traffic: Some(blocks_per_processor), ..self.clone() }).run() {
            Ok(run) => run.counters,
            Err(faulted) => panic!("{}\n{}", faulted.fault, self.body),
        }
    }

    /// Runs and returns a buffer as 32-bit words.
    pub fn output(&self, buffer: usize) -> Vec<u32> {
        match self.run() {
            Ok(run) => words(&run.buffers[buffer]),
            Err(faulted) => panic!("{}\n{}", faulted.fault, self.body),
        }
    }

    /// The same output for many orders.
    pub fn output_of_seeds(&self, buffer: usize, seeds: u64) -> Vec<u32> {
        let first = self.clone().seed(0).output(buffer);
        for seed in 1..seeds {
            assert_eq!(self.clone().seed(seed).output(buffer), first, "seed {seed}\n{}", self.body);
        }
        first
    }

    /// Lines of the module that the body marks with `// here`.
    fn marked(&self) -> Vec<u32> {
        let text = self.ptx();
        let marked = |(n, line): (usize, &str)| line.contains("// here").then_some(n as u32 + 1);
        text.lines().enumerate().filter_map(marked).collect()
    }

    /// Asserts that every order ends in a fault of that kind in a marked line, and returns one of the faults.
    #[track_caller]
    pub fn faults(&self, kind: FaultKind) -> Faulted {
        let marked = self.marked();
        let mut last = None;
        for seed in 0..6 {
            let faulted = match self.clone().seed(seed).run() {
                Err(faulted) => faulted,
                Ok(_) => panic!("expected {kind:?}, found no fault with seed {seed}\n{}", self.body),
            };
            let fault = &faulted.fault;
            assert_eq!(fault.kind, kind, "{fault}\n{}", self.body);
            assert_eq!(fault.kernel, "k");
            let text = self.ptx();
            let line = text.lines().nth(fault.ptx_line.wrapping_sub(1) as usize).unwrap_or("");
            if !marked.is_empty() {
                assert!(marked.contains(&fault.ptx_line), "{fault}\nmarked: {marked:?}\n{}", self.body);
                assert_eq!(fault.instruction, line.trim(), "{fault}");
            }
            last = Some(faulted);
        }
        last.expect("ran")
    }

    /// Asserts that no order ends in a fault.
    #[track_caller]
    pub fn passes(&self) {
        for seed in 0..20 {
            if let Err(faulted) = self.clone().seed(seed).run() {
                panic!("seed {seed}: {}\n{}", faulted.fault, self.body);
            }
        }
    }

    /// The error of a module that is refused.
    #[track_caller]
    pub fn refused(&self) -> String {
        let machine = Machine::new(Options { memory: 1 << 28, ..Options::default() });
        match Module::load(&self.ptx(), &machine.memory) {
            Err(message) => message,
            Ok(_) => panic!("expected an error, found none\n{}", self.body),
        }
    }
}

impl Faulted {
    #[track_caller]
    pub fn thread(self, thread: u32) -> Faulted {
        assert_eq!(self.fault.thread, Some([thread, 0, 0]), "{}", self.fault);
        self
    }

    #[track_caller]
    pub fn block(self, block: u32) -> Faulted {
        assert_eq!(self.fault.block, [block, 0, 0], "{}", self.fault);
        self
    }

    /// The address is `offset` bytes into a buffer.
    #[track_caller]
    pub fn at(self, buffer: usize, offset: i64) -> Faulted {
        let expected = self.addresses[buffer].wrapping_add_signed(offset);
        assert_eq!(self.fault.address, Some(expected), "{}", self.fault);
        self
    }

    /// The address itself, for spaces other than global memory.
    #[track_caller]
    pub fn address(self, address: u64) -> Faulted {
        assert_eq!(self.fault.address, Some(address), "{}", self.fault);
        self
    }
}

/// Bytes as 32-bit words.
pub fn words(bytes: &[u8]) -> Vec<u32> {
    bytes.chunks_exact(4).map(|c| u32::from_le_bytes(c.try_into().expect("four bytes"))).collect()
}

/// One warp, one word per lane.
#[track_caller]
pub fn lanes(body: &str) -> Vec<u32> {
    Case::new(body).zeros(128).output(0)
}

/// A value of every lane.
pub fn each(f: impl Fn(u32) -> u32) -> Vec<u32> {
    (0..32).map(f).collect()
}
