//! Runs one instruction on as many operands as wanted.

use cuda_emulator_alu::lookup;
use cuda_emulator_alu::row::{AluArgs, AluOp, Kind, LANES, Row};

/// Rows that an operand gets, enough for any width.
const STRIDE: usize = 4;
/// Operands: two destinations and four sources.
const OPERANDS: usize = 6;

/// An instruction and its name.
pub struct Instruction {
    pub name: String,
    pub op: AluOp,
}

impl Instruction {
    /// Looks an opcode up, written as in PTX.
    pub fn new(name: &str) -> Instruction {
        let op = find(name).unwrap_or_else(|| panic!("{name} is not in the table"));
        Instruction { name: name.to_owned(), op }
    }

    /// Executes it for every element of the sources, a full warp at a time. Returns both destinations.
    pub fn run(&self, sources: &[&[u64]]) -> [Vec<u64>; 2] {
        let kinds = self.op.src.iter().filter(|&&kind| kind != Kind::None).count();
        assert_eq!(sources.len(), kinds, "sources of {}", self.name);
        let mut results = [Vec::new(), Vec::new()];
        let count = sources[0].len();
        for first in (0..count).step_by(LANES) {
            let lanes = LANES.min(count - first);
            let mut file = RegisterFile::new();
            for (i, source) in sources.iter().enumerate() {
                file.fill(2 + i, self.op.src[i], &source[first..first + lanes]);
            }
            file.run(&self.op, &ARGS, u32::MAX);
            for (i, result) in results.iter_mut().enumerate() {
                result.extend((0..lanes).map(|lane| file.get(i, self.op.dst[i], lane)));
            }
        }
        results
    }

    /// [`Instruction::run`] for the first destination.
    pub fn values(&self, sources: &[&[u64]]) -> Vec<u64> {
        let [values, _] = self.run(sources);
        values
    }
}

/// The table's entry for an opcode written as in PTX.
pub fn find(name: &str) -> Option<AluOp> {
    let parts: Vec<&str> = name.split('.').collect();
    lookup(parts[0], &parts[1..])
}

/// The result of one instruction for one lane.
pub fn once(name: &str, sources: &[u64]) -> u64 {
    let sources: Vec<&[u64]> = sources.iter().map(std::slice::from_ref).collect();
    Instruction::new(name).values(&sources)[0]
}

/// Indices that suit rows as well as predicates.
pub const ARGS: AluArgs = AluArgs { dst: [0, 4], src: [8, 12, 16, 20] };

/// The registers of one warp.
#[derive(Clone)]
pub struct RegisterFile {
    pub rows: Vec<Row>,
    pub preds: Vec<u32>,
}

impl RegisterFile {
    pub fn new() -> RegisterFile {
        RegisterFile { rows: vec![Row::ZERO; OPERANDS * STRIDE], preds: vec![0; OPERANDS * STRIDE] }
    }

    /// Sets the first lanes of an operand.
    pub fn fill(&mut self, operand: usize, kind: Kind, values: &[u64]) {
        let row = operand * STRIDE;
        for (lane, &value) in values.iter().enumerate() {
            match kind {
                Kind::B32 => self.rows[row].0[lane] = value as u32,
                Kind::B64 => {
                    let half = 2 * lane;
                    self.rows[row + half / LANES].0[half % LANES] = value as u32;
                    self.rows[row + (half + 1) / LANES].0[(half + 1) % LANES] = (value >> 32) as u32;
                }
                Kind::Pred => self.preds[row] |= u32::from(value & 1 == 1) << lane,
                Kind::B128 | Kind::None => panic!("no values of this kind"),
            }
        }
    }

    /// One lane of an operand; 0 if there is no such operand.
    pub fn get(&self, operand: usize, kind: Kind, lane: usize) -> u64 {
        let row = operand * STRIDE;
        match kind {
            Kind::B32 => self.rows[row].0[lane].into(),
            Kind::B64 => {
                let half = |i: usize| u64::from(self.rows[row + i / LANES].0[i % LANES]);
                half(2 * lane) | half(2 * lane + 1) << 32
            }
            Kind::Pred => (self.preds[row] >> lane & 1).into(),
            Kind::B128 | Kind::None => 0,
        }
    }

    pub fn run(&mut self, op: &AluOp, args: &AluArgs, mask: u32) {
        // SAFETY: both vectors are borrowed exclusively, and operands of any width fit behind their indices.
        unsafe { (op.run)(self.rows.as_mut_ptr(), self.preds.as_mut_ptr(), args, mask) }
    }
}

/// Lanes outside of the mask keep their values, whatever is written.
#[test]
fn inactive_lanes_keep_their_values() {
    for name in ["add.s32", "add.s64", "fma.rn.f32", "setp.lt.s32", "add.cc.u32", "add.f16x2", "and.pred"] {
        let op = Instruction::new(name).op;
        let mut file = RegisterFile::new();
        for (i, row) in file.rows.iter_mut().enumerate() {
            *row = Row(std::array::from_fn(|lane| (i * 0x0123_4567) as u32 ^ (lane * 0x0765_4321) as u32));
        }
        for (i, pred) in file.preds.iter_mut().enumerate() {
            *pred = 0x5a3c_96e1u32.rotate_left(i as u32);
        }
        let mut all = file.clone();
        all.run(&op, &ARGS, u32::MAX);
        let mask = 0x8421_f00d;
        let before = file.clone();
        file.run(&op, &ARGS, mask);
        for (operand, kind) in op.dst.into_iter().enumerate() {
            for lane in 0..LANES {
                let source = if mask >> lane & 1 == 1 { &all } else { &before };
                let expected = source.get(operand, kind, lane);
                assert_eq!(file.get(operand, kind, lane), expected, "{name}, operand {operand}, lane {lane}");
            }
        }
    }
}

/// A destination may be a source, whole or in part.
#[test]
fn sources_may_be_destinations() {
    let mut file = RegisterFile::new();
    let values: Vec<u64> = (0..LANES as u64).map(|i| i * 3 + 1).collect();
    file.fill(0, Kind::B64, &values);
    let args = AluArgs { dst: [0, 0], src: [0, 0, 0, 0] };
    file.run(&Instruction::new("mad.lo.s64").op, &args, u32::MAX);
    for (lane, &value) in values.iter().enumerate() {
        assert_eq!(file.get(0, Kind::B64, lane), value * value + value);
    }
    let mut file = RegisterFile::new();
    file.fill(0, Kind::B32, &values);
    file.run(&Instruction::new("mul.wide.u32").op, &args, u32::MAX);
    for (lane, &value) in values.iter().enumerate() {
        assert_eq!(file.get(0, Kind::B64, lane), value * value);
    }
}
