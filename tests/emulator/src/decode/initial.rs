//! Registers that a warp has to begin with: those that are live at the start of the program.

use std::ops::Range;

use super::program::{Instruction, NONE, Op};

/// A set of rows, a bit each.
#[derive(Clone, PartialEq)]
struct Rows(Vec<u64>);

impl Rows {
    fn none(rows: usize) -> Self {
        Rows(vec![0; rows.div_ceil(64)])
    }

    fn has(&self, row: usize) -> bool {
        self.0[row / 64] >> (row % 64) & 1 == 1
    }

    fn insert(&mut self, row: usize) {
        self.0[row / 64] |= 1 << (row % 64);
    }

    fn add(&mut self, others: &Rows) {
        self.0.iter_mut().zip(&others.0).for_each(|(own, other)| *own |= other);
    }

    fn take_away(&mut self, others: &Rows) {
        self.0.iter_mut().zip(&others.0).for_each(|(own, other)| *own &= !other);
    }
}

/// A basic block.
struct Block {
    /// Rows that may be read before the block has written them.
    read: Rows,
    /// Rows that the block writes, in every lane, before it reads them.
    written: Rows,
    /// Where control may go from here: places of blocks.
    next: Vec<usize>,
    /// Rows that are live where it begins.
    live: Rows,
}

/// The rows, of `rows` in all, that have to be as the template says when a warp starts: those that may be
/// read before they are written, and those that nothing touches. Compilers give each value a register of its
/// own, many times as many as there are in hardware: without the others a warp starts much faster.
pub(super) fn initial_rows(instructions: &[Instruction], rows: usize) -> Vec<Range<usize>> {
    let mut blocks = blocks(instructions, rows);
    while grow(&mut blocks) {}
    let mut touched = Rows::none(rows);
    instructions.iter().flat_map(|instruction| each(&instruction.rows)).for_each(|row| touched.insert(row));
    let live = blocks.first().map_or_else(|| Rows::none(rows), |block| block.live.clone());
    stretches((0..rows).map(|row| live.has(row) || !touched.has(row)))
}

/// Adds to what is live in each block what is live in those after it; whether that was more than before.
fn grow(blocks: &mut [Block]) -> bool {
    let mut grew = false;
    for i in (0..blocks.len()).rev() {
        let mut live = blocks[i].live.clone();
        for next in blocks[i].next.clone() {
            live.add(&blocks[next].live);
        }
        live.take_away(&blocks[i].written);
        live.add(&blocks[i].read);
        grew |= live != blocks[i].live;
        blocks[i].live = live;
    }
    grew
}

/// The basic blocks, in the order of the program.
fn blocks(instructions: &[Instruction], rows: usize) -> Vec<Block> {
    let begins = beginnings(instructions);
    let starts: Vec<usize> = (0..instructions.len()).filter(|&i| begins[i]).collect();
    let place = |at: usize| starts.partition_point(|&start| start < at);
    let ends = starts.iter().skip(1).copied().chain([instructions.len()]);
    let block = |(start, end): (&usize, usize)| {
        let (mut read, mut written) = (Rows::none(rows), Rows::none(rows));
        for instruction in &instructions[*start..end] {
            for row in each(&instruction.rows).filter(|row| !written.has(*row)).collect::<Vec<_>>() {
                match writes_only(instruction, row) && !read.has(row) {
                    true => written.insert(row),
                    false => read.insert(row),
                }
            }
        }
        let last = &instructions[end - 1];
        let mut next: Vec<usize> = targets(&last.op).iter().map(|&target| place(target as usize)).collect();
        let goes_on = last.guard != NONE || !matches!(last.op, Op::Branch(_) | Op::BranchIndexed { .. });
        if goes_on && end < instructions.len() {
            next.push(place(end));
        }
        Block { read, written, next, live: Rows::none(rows) }
    };
    starts.iter().zip(ends).map(block).collect()
}

fn targets(op: &Op) -> &[u32] {
    match op {
        Op::Branch(target) => std::slice::from_ref(target),
        Op::BranchIndexed { targets, .. } => targets,
        _ => &[],
    }
}

/// Whether a basic block begins with each of the instructions.
fn beginnings(instructions: &[Instruction]) -> Vec<bool> {
    let mut begins = vec![false; instructions.len() + 1];
    begins[0] = true;
    for (i, instruction) in instructions.iter().enumerate() {
        let targets = targets(&instruction.op);
        begins[i + 1] |= !targets.is_empty();
        targets.iter().for_each(|&target| begins[target as usize] = true);
    }
    begins.truncate(instructions.len());
    begins
}

/// Whether an instruction writes a row in every lane that executes it, and does not read it. A `wgmma` adds
/// to its destination, later.
fn writes_only(instruction: &Instruction, row: usize) -> bool {
    instruction.guard == NONE
        && !matches!(instruction.op, Op::Wgmma(_))
        && each(&instruction.written).any(|written| written == row)
        && each(&instruction.rows).filter(|&touched| touched == row).count() == 1
}

fn each(rows: &[(u32, u32)]) -> impl Iterator<Item = usize> {
    rows.iter().flat_map(|&(first, count)| first as usize..(first + count) as usize)
}

/// The stretches of what holds.
fn stretches(holds: impl Iterator<Item = bool>) -> Vec<Range<usize>> {
    let mut stretches: Vec<Range<usize>> = Vec::new();
    for (i, _) in holds.enumerate().filter(|(_, holds)| *holds) {
        match stretches.last_mut() {
            Some(last) if last.end == i => last.end += 1,
            _ => stretches.push(i..i + 1),
        }
    }
    stretches
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::counters::Class;

    /// An instruction that reads and writes rows.
    fn instruction(op: Op, reads: &[u32], writes: &[u32]) -> Instruction {
        let each = |rows: &[u32]| rows.iter().map(|&row| (row, 1)).collect::<Vec<_>>();
        Instruction {
            guard: NONE,
            guard_xor: 0,
            op,
            class: Class::Control,
            touches_wgmma: false,
            touches_loaded: false,
            is_move: false,
            rows: [each(reads), each(writes)].concat().into(),
            written: each(writes).into(),
        }
    }

    fn guarded(instruction: Instruction) -> Instruction {
        Instruction { guard: 0, ..instruction }
    }

    #[test]
    fn only_what_is_live_at_the_start_is_initial() {
        let (nop, branch) = (|| Op::Nop, Op::Branch);
        let program = [
            // 0 is a constant; 1 is written before the loop, which adds to it.
            instruction(nop(), &[0], &[1]),
            // 2 is written on one way to 3, which reads it; 3 in each pass before it is read.
            guarded(instruction(branch(3), &[], &[])),
            instruction(nop(), &[0], &[2]),
            instruction(nop(), &[2], &[3]),
            instruction(nop(), &[1, 3], &[1]),
            // 4 is read by the next pass, if there is one, before it is written.
            instruction(nop(), &[4], &[5]),
            instruction(nop(), &[0], &[4]),
            guarded(instruction(branch(3), &[], &[])),
            // Some lanes alone write 6.
            guarded(instruction(nop(), &[0], &[6])),
            instruction(nop(), &[6], &[7]),
            instruction(Op::Exit, &[], &[]),
        ];
        // Nothing touches 8.
        assert_eq!(initial_rows(&program, 9), [0..1, 2..3, 4..5, 6..7, 8..9]);
    }
}
