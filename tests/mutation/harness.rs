//! Kernels with inputs and expected outputs, and what became of their mutants.

use std::sync::Arc;

use cuda_emulator::machine::{Function, Launch, Machine, Module, Options, Profile};
use cuda_emulator::report::{Fault, FaultKind};
use cuda_emulator::schedule::beside::{self, Beside};
use cuda_emulator::tensor::tensor_map::{TensorMap, Tiled};
use half::bf16;

use super::edit::{self, Edit};

/// Instructions of a warp after which a mutant is taken to run for ever; the originals need a hundredth.
const INSTRUCTIONS: u64 = 1 << 20;

/// Contents of a buffer after a launch.
pub enum Expected {
    /// Its contents before.
    Unchanged,
    /// Anything.
    Anything,
    /// Exactly these bytes.
    Exactly(Vec<u8>),
    /// f32 numbers with a relative error of at most the second.
    F32(Vec<f64>, f64),
    /// bf16 numbers with a relative error of at most the second.
    Bf16(Vec<f64>, f64),
}

/// A buffer in global memory, exactly as long as its content: what lies around it is out of bounds.
pub struct Buffer {
    name: &'static str,
    initial: Vec<u8>,
    expected: Expected,
}

/// An argument of a kernel.
pub enum Arg {
    /// The address of a buffer, by number.
    Buffer(usize),
    /// A structure of the addresses of buffers, by number.
    Buffers(Vec<usize>),
    /// A value.
    Value(Vec<u8>),
    /// A tensor map of a bf16 matrix with the 128-byte swizzle: buffer, rows and columns, rows and columns of
    /// the box.
    Map(usize, [u64; 2], [u32; 2]),
    /// A structure of tensor maps of heads, as [`PackedHeads`] says.
    HeadMaps(Vec<PackedHeads>),
}

/// A bf16 matrix of packed heads whose rows may end in any box, as `load_rows` of `attention_sm90.cu` has it.
pub struct PackedHeads {
    pub buffer: usize,
    pub rows: usize,
    pub heads: usize,
    pub dim: usize,
    /// Rows and heads of a box.
    pub box_shape: [usize; 2],
}

impl PackedHeads {
    fn encode(&self, address: u64) -> Vec<u8> {
        let (PackedHeads { rows, heads, dim, .. }, [box_rows, box_heads]) = (self, self.box_shape);
        let row = 2 * heads * dim;
        let dims = [*dim, *heads, box_rows, rows + 1].map(|n| n as u64);
        let strides = [2 * dim, row, row].map(|n| n as u64);
        let box_dim = [64, box_heads, box_rows, 1].map(|n| n as u32);
        encode(address - (box_rows * row) as u64, &dims, &strides, &box_dim)
    }
}

/// A tensor map of bf16 with the 128-byte swizzle.
fn encode(address: u64, dims: &[u64], strides: &[u64], box_dim: &[u32]) -> Vec<u8> {
    let tiled = Tiled {
        data_type: 9,
        rank: dims.len() as u32,
        global_address: address,
        dims,
        strides,
        box_dim,
        element_strides: &[1; 5][..dims.len()],
        interleave: 0,
        swizzle: 3,
        l2_promotion: 0,
        oob_fill: 0,
    };
    TensorMap::encode_tiled(&tiled).expect("a valid map").to_vec()
}

/// A launch with everything that it needs and gives.
pub struct Setup {
    pub grid: [u32; 3],
    pub block: u32,
    pub cluster: u32,
    pub shared: usize,
    pub cooperative: bool,
    /// Whether it is launched twice, the second time without waiting for the end of the first.
    pub chained: bool,
    pub buffers: Vec<Buffer>,
    pub args: Vec<Arg>,
}

impl Setup {
    /// A launch without buffers and arguments.
    pub fn new(grid: [u32; 2], block: usize) -> Self {
        Setup {
            grid: [grid[0], grid[1], 1],
            block: block as u32,
            cluster: 1,
            shared: 0,
            cooperative: false,
            chained: false,
            buffers: Vec::new(),
            args: Vec::new(),
        }
    }

    /// With dynamic shared memory.
    pub fn shared(mut self, bytes: usize) -> Self {
        self.shared = bytes;
        self
    }

    /// In clusters of this many blocks along x.
    pub fn cluster(mut self, blocks: u32) -> Self {
        self.cluster = blocks;
        self
    }

    /// Launched twice; the second launch need not wait for the end of the first.
    pub fn chained(mut self) -> Self {
        self.chained = true;
        self
    }

    fn buffer(mut self, name: &'static str, initial: Vec<u8>, expected: Expected) -> Self {
        self.buffers.push(Buffer { name, initial, expected });
        self
    }

    /// A buffer and a pointer to it: read, not written.
    pub fn input<T: bytemuck::NoUninit>(self, name: &'static str, values: &[T]) -> Self {
        let number = self.buffers.len();
        self.buffer(name, bytes(values), Expected::Unchanged).arg(Arg::Buffer(number))
    }

    /// A buffer and a pointer to it: all bytes are 0xFF before.
    pub fn output(self, name: &'static str, expected: Expected) -> Self {
        let len = match &expected {
            Expected::Unchanged | Expected::Anything => 0,
            Expected::Exactly(bytes) => bytes.len(),
            Expected::F32(values, _) => 4 * values.len(),
            Expected::Bf16(values, _) => 2 * values.len(),
        };
        self.update(name, vec![0xFF; len], expected)
    }

    /// A buffer of so many bytes and a pointer to it, whose contents afterwards do not matter.
    pub fn scratch(self, name: &'static str, len: usize) -> Self {
        self.update(name, vec![0xFF; len], Expected::Anything)
    }

    /// A buffer and a pointer to it: read and written.
    pub fn update(self, name: &'static str, initial: Vec<u8>, expected: Expected) -> Self {
        let number = self.buffers.len();
        self.buffer(name, initial, expected).arg(Arg::Buffer(number))
    }

    /// A structure of pointers to memory for so many bytes, where anything may be left, and to a counter,
    /// which is 0 before and after.
    pub fn split_workspace(self, len: usize) -> Self {
        let number = self.buffers.len();
        let setup = self.buffer("partials", vec![0xFF; len], Expected::Anything);
        let setup = setup.buffer("arrivals", vec![0; 4], Expected::Unchanged);
        setup.arg(Arg::Buffers(vec![number, number + 1]))
    }

    /// A value.
    pub fn value<T: bytemuck::NoUninit>(self, value: T) -> Self {
        self.arg(Arg::Value(bytes(&[value])))
    }

    /// Any argument.
    pub fn arg(mut self, arg: Arg) -> Self {
        self.args.push(arg);
        self
    }

    fn argument(&self, arg: &Arg, machine: &Machine, addresses: &[u64]) -> Vec<u8> {
        match arg {
            Arg::Buffer(n) => bytes(&[addresses[*n]]),
            Arg::Buffers(numbers) => bytes(&numbers.iter().map(|&n| addresses[n]).collect::<Vec<_>>()),
            Arg::Value(bytes) => bytes.clone(),
            Arg::Map(n, [rows, columns], [box_rows, box_columns]) => {
                assert!(
                    machine.memory.find(addresses[*n], 2 * rows * columns).is_ok(),
                    "a map beyond its buffer"
                );
                encode(addresses[*n], &[*columns, *rows], &[2 * columns], &[*box_columns, *box_rows])
            }
            Arg::HeadMaps(maps) => maps.iter().flat_map(|map| map.encode(addresses[map.buffer])).collect(),
        }
    }

    /// Runs a kernel and looks at what it has done.
    fn run(&self, machine: &Machine, function: &Function) -> Result<(), Death> {
        let memory = &machine.memory;
        let allocate = |buffer: &Buffer| {
            let address = memory.alloc(buffer.initial.len() as u64).expect("memory");
            memory.write(address, &buffer.initial).expect("a fresh buffer");
            address
        };
        let addresses: Vec<u64> = self.buffers.iter().map(allocate).collect();
        assert_eq!(function.params.len(), self.args.len(), "arguments of {}", function.name);
        let mut params = vec![0; function.param_bytes()];
        for (param, arg) in function.params.iter().zip(&self.args) {
            let value = self.argument(arg, machine, &addresses);
            assert_eq!(value.len(), param.size, "{}", param.name);
            params[param.offset..param.offset + param.size].copy_from_slice(&value);
        }
        let launch = Launch {
            grid: self.grid,
            block: [self.block, 1, 1],
            cluster: [self.cluster, 1, 1],
            dynamic_shared: self.shared as u32,
            params,
            cooperative: self.cooperative,
        };
        let result = self.launch(machine, function, &launch);
        let result = result.map_err(|fault| Death::Fault(fault.kind, fault.to_string()));
        let result = result.and_then(|_| self.check(machine, &addresses));
        addresses.iter().for_each(|&address| memory.free(address).expect("it was allocated"));
        result
    }

    fn launch(&self, machine: &Machine, function: &Function, launch: &Launch) -> Result<(), Box<Fault>> {
        if !self.chained {
            return machine.launch(function, launch).map(|_| ());
        }
        let parts = beside::pair(Beside::primary());
        machine.launch_beside([(function, launch); 2], parts.each_ref()).map(|_| ())
    }

    fn check(&self, machine: &Machine, addresses: &[u64]) -> Result<(), Death> {
        for (buffer, &address) in self.buffers.iter().zip(addresses) {
            let mut found = vec![0; buffer.initial.len()];
            machine.memory.read(address, &mut found).expect("the buffer is still there");
            buffer.check(&found).map_err(Death::Wrong)?;
        }
        Ok(())
    }
}

impl Buffer {
    fn check(&self, found: &[u8]) -> Result<(), String> {
        let exactly = |expected: &[u8]| match found.iter().zip(expected).position(|(f, e)| f != e) {
            None => Ok(()),
            Some(at) => {
                Err(format!("{}: byte {at}: expected {}, found {}", self.name, expected[at], found[at]))
            }
        };
        match &self.expected {
            Expected::Unchanged => exactly(&self.initial),
            Expected::Anything => Ok(()),
            Expected::Exactly(expected) => exactly(expected),
            Expected::F32(expected, tolerance) => {
                let numbers = found.as_chunks().0.iter().map(|&c| f64::from(f32::from_le_bytes(c)));
                self.close(numbers, expected, *tolerance)
            }
            Expected::Bf16(expected, tolerance) => {
                let numbers = found.as_chunks().0.iter().map(|&c| f64::from(bf16::from_le_bytes(c)));
                self.close(numbers, expected, *tolerance)
            }
        }
    }

    fn close(
        &self,
        found: impl Iterator<Item = f64>,
        expected: &[f64],
        tolerance: f64,
    ) -> Result<(), String> {
        for (i, (found, &expected)) in found.zip(expected).enumerate() {
            let close = (found - expected).abs() <= tolerance * expected.abs();
            if !close {
                return Err(format!("{}[{i}]: expected {expected}, found {found}", self.name));
            }
        }
        Ok(())
    }
}

/// The bytes of values.
pub fn bytes<T: bytemuck::NoUninit>(values: &[T]) -> Vec<u8> {
    bytemuck::cast_slice(values).to_vec()
}

/// A change of a kernel that makes it wrong.
pub struct Mutant {
    pub name: &'static str,
    /// Why no correct execution of it is guaranteed: the rule that it breaks, or the output that differs.
    pub why: &'static str,
    pub edits: Vec<Edit>,
}

/// A mutant.
pub fn mutant<const N: usize>(name: &'static str, edits: [Edit; N], why: &'static str) -> Mutant {
    Mutant { name, why, edits: edits.into() }
}

/// A correct kernel with launches that use all of it, and its mutants.
pub struct Case {
    pub kernel: &'static str,
    pub ptx: Arc<str>,
    pub profile: Profile,
    pub setups: Vec<Setup>,
    pub mutants: Vec<Mutant>,
}

/// How a run showed that the kernel is wrong.
#[derive(Debug)]
pub enum Death {
    Fault(FaultKind, String),
    Wrong(String),
}

impl Death {
    /// In a few words.
    pub fn cause(&self) -> String {
        match self {
            Death::Fault(kind, _) => format!("{kind:?}"),
            Death::Wrong(_) => "wrong result".to_owned(),
        }
    }

    /// In all detail.
    pub fn detail(&self) -> &str {
        match self {
            Death::Fault(_, text) | Death::Wrong(text) => text,
        }
    }
}

impl Case {
    /// The first seed, if any, and how a mutant, or without one the original, failed.
    pub fn run(&self, mutant: Option<&Mutant>, seeds: std::ops::Range<u64>) -> Option<(u64, Death)> {
        let what = format!("{} {}", self.kernel, mutant.map_or("", |m| m.name));
        let edits = mutant.map_or(&[][..], |m| &m.edits);
        let ptx =
            edit::apply(&self.ptx, self.kernel, edits).unwrap_or_else(|problem| panic!("{what}: {problem}"));
        assert!(mutant.is_none() || ptx != *self.ptx, "{what}: nothing was changed");
        let options = Options {
            profile: self.profile,
            threads: 1,
            instruction_limit: INSTRUCTIONS,
            memory: 1 << 30,
            ..Options::default()
        };
        let mut machine = Machine::new(options);
        let module =
            Module::load(&ptx, &machine.memory).unwrap_or_else(|problem| panic!("{what}: {problem}"));
        let function = module.function(self.kernel).expect("the kernel that was edited");
        for seed in seeds {
            machine.options.seed = seed;
            for setup in &self.setups {
                match setup.run(&machine, &function) {
                    Ok(()) => {}
                    // A mutant has to be a kernel that a GPU would run.
                    Err(Death::Fault(FaultKind::Unsupported, text)) => panic!("{what}: {text}"),
                    Err(death) => return Some((seed, death)),
                }
            }
        }
        None
    }
}
