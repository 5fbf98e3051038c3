//! PTX with inputs and expected outputs: every case of a folder runs, a line each.
//!
//! The folder is `PTX_CONFORMANCE_DIR`, or `tests/conformance` beside this file. A case is a folder with
//! `kernel.ptx`, `case.json` and raw little-endian files.

use std::path::{Path, PathBuf};

use cuda_emulator::machine::{Launch, Machine, Module, Options, Profile};
use cuda_emulator::tensor::tensor_map::{TensorMap, Tiled};
use half::{bf16, f16};
use serde::Deserialize;
use serde_json::Value;

type Result<T> = std::result::Result<T, String>;

#[derive(Deserialize)]
struct Case {
    target: String,
    entry: String,
    grid: Vec<u32>,
    block: Vec<u32>,
    #[serde(default)]
    cluster: Option<Vec<u32>>,
    #[serde(default)]
    dynamic_shared_bytes: u32,
    params: Vec<Param>,
    buffers: Vec<Buffer>,
    #[serde(default)]
    rtol: Option<f64>,
    #[serde(default)]
    atol: Option<f64>,
}

#[derive(Deserialize)]
#[serde(tag = "kind", rename_all = "lowercase")]
enum Param {
    Buffer {
        buffer: String,
    },
    Scalar {
        #[serde(rename = "type")]
        ty: String,
        value: Value,
    },
    Scratch {
        bytes_per_cta: u64,
    },
    TensorMap(Box<MapParam>),
}

#[derive(Deserialize)]
struct MapParam {
    buffer: String,
    dtype: String,
    rank: u32,
    global_dim: Vec<u64>,
    global_stride_bytes: Vec<u64>,
    box_dim: Vec<u32>,
    element_strides: Vec<u32>,
    swizzle_bytes: u32,
}

#[derive(Deserialize)]
struct Buffer {
    name: String,
    dtype: String,
    shape: Vec<u64>,
    init: String,
    #[serde(default)]
    expect: Option<String>,
    #[serde(default)]
    rtol: Option<f64>,
    #[serde(default)]
    atol: Option<f64>,
}

impl Buffer {
    fn bytes(&self) -> Result<u64> {
        Ok(self.shape.iter().product::<u64>() * element_bytes(&self.dtype)?)
    }
}

fn element_bytes(dtype: &str) -> Result<u64> {
    Ok(match dtype {
        "i8" | "u8" => 1,
        "f16" | "bf16" | "i16" | "u16" => 2,
        "f32" | "i32" | "u32" => 4,
        "f64" | "i64" | "u64" => 8,
        _ => return Err(format!("unknown dtype {dtype}")),
    })
}

/// Elements as numbers, and whether they are integers.
fn elements(dtype: &str, bytes: &[u8]) -> Result<Vec<f64>> {
    fn map<const N: usize>(bytes: &[u8], f: impl Fn([u8; N]) -> f64) -> Vec<f64> {
        bytes.as_chunks::<N>().0.iter().map(|c| f(*c)).collect()
    }
    Ok(match dtype {
        "f32" => map(bytes, |c| f64::from(f32::from_le_bytes(c))),
        "f64" => map(bytes, f64::from_le_bytes),
        "f16" => map(bytes, |c| f16::from_le_bytes(c).to_f64()),
        "bf16" => map(bytes, |c| bf16::from_le_bytes(c).to_f64()),
        "i8" => map(bytes, |c| f64::from(i8::from_le_bytes(c))),
        "u8" => map(bytes, |c| f64::from(u8::from_le_bytes(c))),
        "i16" => map(bytes, |c| f64::from(i16::from_le_bytes(c))),
        "i32" => map(bytes, |c| f64::from(i32::from_le_bytes(c))),
        "u32" => map(bytes, |c| f64::from(u32::from_le_bytes(c))),
        _ => return Err(format!("cannot compare {dtype}")),
    })
}

struct Runner {
    folder: PathBuf,
    case: Case,
    machine: Machine,
    addresses: Vec<u64>,
    initial: Vec<Vec<u8>>,
}

impl Runner {
    fn new(folder: &Path, seed: u64) -> Result<Self> {
        let text =
            std::fs::read_to_string(folder.join("case.json")).map_err(|e| format!("case.json: {e}"))?;
        let case: Case = serde_json::from_str(&text).map_err(|e| format!("case.json: {e}"))?;
        let profile = if case.target.starts_with("sm_8") { Profile::A100 } else { Profile::H100 };
        let machine = Machine::new(Options { profile, seed, ..Options::default() });
        Ok(Runner { folder: folder.to_owned(), case, machine, addresses: vec![], initial: vec![] })
    }

    fn read(&self, name: &str) -> Result<Vec<u8>> {
        std::fs::read(self.folder.join(name)).map_err(|e| format!("{name}: {e}"))
    }

    fn allocate(&mut self) -> Result<()> {
        for buffer in &self.case.buffers {
            let bytes = buffer.bytes()?;
            let initial =
                if buffer.init == "zero" { vec![0; bytes as usize] } else { self.read(&buffer.init)? };
            if initial.len() as u64 != bytes {
                return Err(format!("{}: expected {bytes} bytes, found {}", buffer.init, initial.len()));
            }
            let address = self.machine.memory.alloc(bytes).map_err(|e| format!("{e:?}"))?;
            self.machine.memory.write(address, &initial).map_err(|e| e.to_string())?;
            self.addresses.push(address);
            self.initial.push(initial);
        }
        Ok(())
    }

    fn address(&self, name: &str) -> Result<u64> {
        let at = self.case.buffers.iter().position(|b| b.name == name);
        at.map(|at| self.addresses[at]).ok_or_else(|| format!("no buffer {name}"))
    }

    fn argument(&self, param: &Param) -> Result<Vec<u8>> {
        Ok(match param {
            Param::Buffer { buffer } => self.address(buffer)?.to_le_bytes().to_vec(),
            Param::Scalar { ty, value } => match ty.as_str() {
                "i32" => (value.as_i64().ok_or("expected an integer")? as i32).to_le_bytes().to_vec(),
                "i64" => value.as_i64().ok_or("expected an integer")?.to_le_bytes().to_vec(),
                "f32" => (value.as_f64().ok_or("expected a number")? as f32).to_le_bytes().to_vec(),
                other => return Err(format!("unknown scalar type {other}")),
            },
            Param::Scratch { bytes_per_cta: 0 } => vec![0; 8],
            Param::Scratch { bytes_per_cta } => {
                let blocks: u32 = self.case.grid.iter().product();
                let bytes = bytes_per_cta * u64::from(blocks);
                let address = self.machine.memory.alloc(bytes).map_err(|e| format!("{e:?}"))?;
                self.machine.memory.fill(address, &[0], bytes).map_err(|e| e.to_string())?;
                address.to_le_bytes().to_vec()
            }
            Param::TensorMap(map) => self.tensor_map(map)?,
        })
    }

    fn tensor_map(&self, map: &MapParam) -> Result<Vec<u8>> {
        let data_type = match map.dtype.as_str() {
            "u8" | "i8" => 0,
            "i32" => 4,
            "i64" => 6,
            "f16" => 6,
            "f32" => 7,
            "f64" => 8,
            "bf16" => 9,
            other => return Err(format!("unknown dtype {other} of a tensor map")),
        };
        let data_type = if map.dtype == "i64" { 5 } else { data_type };
        let swizzle = match map.swizzle_bytes {
            0 => 0,
            32 => 1,
            64 => 2,
            128 => 3,
            other => return Err(format!("unknown swizzle {other}")),
        };
        let tiled = Tiled {
            data_type,
            rank: map.rank,
            global_address: self.address(&map.buffer)?,
            dims: &map.global_dim,
            strides: &map.global_stride_bytes[..map.rank as usize - 1],
            box_dim: &map.box_dim,
            element_strides: &map.element_strides,
            interleave: 0,
            swizzle,
            l2_promotion: 0,
            oob_fill: 0,
        };
        Ok(TensorMap::encode_tiled(&tiled)?.to_vec())
    }

    fn run(&mut self) -> Result<()> {
        self.allocate()?;
        let ptx = String::from_utf8(self.read("kernel.ptx")?).map_err(|e| e.to_string())?;
        let module = Module::load(&ptx, &self.machine.memory)?;
        let function = module.function(&self.case.entry).ok_or("no such kernel")?;
        if function.params.len() != self.case.params.len() {
            return Err(format!("{} parameters for {}", self.case.params.len(), function.params.len()));
        }
        let mut params = vec![0; function.param_bytes()];
        for (param, given) in function.params.iter().zip(&self.case.params) {
            let bytes = self.argument(given)?;
            if bytes.len() != param.size {
                return Err(format!("{}: expected {} bytes, found {}", param.name, param.size, bytes.len()));
            }
            params[param.offset..param.offset + param.size].copy_from_slice(&bytes);
        }
        let triple = |v: &[u32]| std::array::from_fn(|i| v.get(i).copied().unwrap_or(1));
        let cluster = match &self.case.cluster {
            Some(cluster) => triple(cluster),
            None => function.required_cluster.unwrap_or([1; 3]),
        };
        let launch = Launch {
            grid: triple(&self.case.grid),
            block: triple(&self.case.block),
            cluster,
            dynamic_shared: self.case.dynamic_shared_bytes,
            params,
            cooperative: false,
        };
        self.machine.launch(&function, &launch).map_err(|fault| fault.to_string())?;
        self.check()
    }

    fn check(&self) -> Result<()> {
        for (n, buffer) in self.case.buffers.iter().enumerate() {
            let Some(expect) = &buffer.expect else { continue };
            let mut got = vec![0; buffer.bytes()? as usize];
            self.machine.memory.read(self.addresses[n], &mut got).map_err(|e| e.to_string())?;
            if expect == "unchanged" {
                if got != self.initial[n] {
                    return Err(format!("{} was changed", buffer.name));
                }
                continue;
            }
            let want = self.read(expect)?;
            if want.len() != got.len() {
                return Err(format!("{expect}: expected {} bytes, found {}", got.len(), want.len()));
            }
            if got == want {
                continue;
            }
            let rtol = buffer.rtol.or(self.case.rtol).unwrap_or(0.0);
            let atol = buffer.atol.or(self.case.atol).unwrap_or(0.0);
            let pairs = elements(&buffer.dtype, &got)?.into_iter().zip(elements(&buffer.dtype, &want)?);
            for (i, (got, want)) in pairs.enumerate() {
                let close = (got - want).abs() <= atol + rtol * want.abs();
                if !(close || got == want || got.is_nan() && want.is_nan()) {
                    return Err(format!("{}[{i}]: expected {want}, found {got}", buffer.name));
                }
            }
        }
        Ok(())
    }
}

/// Several seeds: a kernel without races gives the same whatever the order.
const SEEDS: u64 = 3;

#[test]
fn every_case_of_the_folder() {
    let own = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/conformance");
    let folder = std::env::var_os("PTX_CONFORMANCE_DIR").map_or(own, PathBuf::from);
    let entries = std::fs::read_dir(&folder).unwrap_or_else(|e| panic!("{}: {e}", folder.display()));
    let mut cases: Vec<PathBuf> =
        entries.flatten().map(|entry| entry.path()).filter(|path| path.join("case.json").is_file()).collect();
    cases.sort();
    assert!(!cases.is_empty(), "no case in {}", folder.display());
    let mut failed = 0;
    for case in &cases {
        let result = (0..SEEDS).try_for_each(|seed| Runner::new(case, seed)?.run());
        let name = case.file_name().unwrap_or_default().to_string_lossy();
        match result {
            Ok(()) => println!("ok     {name}"),
            Err(message) => {
                failed += 1;
                println!("FAILED {name}: {message}");
            }
        }
    }
    assert_eq!(failed, 0, "{failed} of {} cases failed", cases.len());
}
