//! Shuffles, votes, matches and reductions of a warp.

use crate::decode::program::{Collective, Shuffle, ShuffleMode, WarpOp};
use cuda_emulator_alu::row::LANES;

use super::{Exec, Flow, Result, lanes};

impl Exec<'_> {
    pub(super) fn shuffle(&mut self, shuffle: &Shuffle, current: usize, active: u32) -> Result<Flow> {
        let members = self.value32(shuffle.members, active.trailing_zeros() as usize);
        if !self.converge(members, current, active)? {
            return Ok(Flow::Moved);
        }
        let source = self.warp.rows[shuffle.src as usize];
        let mut in_range = 0;
        for lane in lanes(active) {
            let b = self.value32(shuffle.lane, lane) as i32 & 31;
            let c = self.value32(shuffle.clamp, lane);
            let (clamp, segment) = ((c & 31) as i32, (c >> 8 & 31) as i32);
            let lane_number = lane as i32;
            let max = lane_number & segment | clamp & !segment;
            let min = lane_number & segment;
            let (from, valid) = match shuffle.mode {
                ShuffleMode::Up => (lane_number - b, lane_number - b >= max),
                ShuffleMode::Down => (lane_number + b, lane_number + b <= max),
                ShuffleMode::Butterfly => (lane_number ^ b, lane_number ^ b <= max),
                ShuffleMode::Index => (min | b & !segment, min | b & !segment <= max),
            };
            let from = if valid { from as usize } else { lane };
            in_range |= u32::from(valid) << lane;
            // What a lane outside the group gives is undefined: let it be conspicuous.
            let value = if active & 1 << from != 0 { source.0[from] } else { 0xDEAD_BEEF };
            self.warp.rows[shuffle.dst as usize].0[lane] = value;
        }
        self.set_predicate(shuffle.in_range, in_range, active);
        Ok(Flow::Next)
    }

    pub(super) fn collective(&mut self, c: &Collective, current: usize, active: u32) -> Result<Flow> {
        let members = self.value32(c.members, active.trailing_zeros() as usize);
        if !self.converge(members, current, active)? {
            return Ok(Flow::Moved);
        }
        match c.op {
            WarpOp::VoteAll | WarpOp::VoteAny | WarpOp::VoteUni | WarpOp::VoteBallot => self.vote(c, active),
            WarpOp::MatchAny | WarpOp::MatchAll => self.match_values(c, active),
            WarpOp::Elect => {
                let leader = active.trailing_zeros();
                self.broadcast(c.dst, leader, active);
                self.set_predicate(c.dst_pred, 1 << leader, active);
            }
            _ => self.reduce(c, active),
        }
        Ok(Flow::Next)
    }

    fn vote(&mut self, c: &Collective, active: u32) {
        let votes = self.warp.predicates[c.src as usize] & active;
        let result = match c.op {
            WarpOp::VoteAll => votes == active,
            WarpOp::VoteAny => votes != 0,
            _ => votes == 0 || votes == active,
        };
        match c.op {
            WarpOp::VoteBallot => self.broadcast(c.dst, votes, active),
            _ => self.set_predicate(c.dst_pred, if result { u32::MAX } else { 0 }, active),
        }
    }

    fn match_values(&mut self, c: &Collective, active: u32) {
        let values: [u64; LANES] = std::array::from_fn(|lane| match c.wide {
            true => self.value64(c.src, lane),
            false => u64::from(self.value32(c.src, lane)),
        });
        let equal =
            |to: u64| lanes(active).filter(|&lane| values[lane] == to).fold(0u32, |m, lane| m | 1 << lane);
        if c.op == WarpOp::MatchAll {
            let all = equal(values[active.trailing_zeros() as usize]) == active;
            self.broadcast(c.dst, if all { active } else { 0 }, active);
            self.set_predicate(c.dst_pred, if all { u32::MAX } else { 0 }, active);
            return;
        }
        for lane in lanes(active) {
            self.warp.rows[c.dst as usize].0[lane] = equal(values[lane]);
        }
    }

    fn reduce(&mut self, c: &Collective, active: u32) {
        let source = self.warp.rows[c.src as usize].0;
        let values = lanes(active).map(|lane| source[lane]);
        let result = match c.op {
            WarpOp::ReduceAdd => values.fold(0, u32::wrapping_add),
            WarpOp::ReduceMinU => values.min().unwrap_or(0),
            WarpOp::ReduceMaxU => values.max().unwrap_or(0),
            WarpOp::ReduceMinS => values.map(|v| v as i32).min().unwrap_or(0) as u32,
            WarpOp::ReduceMaxS => values.map(|v| v as i32).max().unwrap_or(0) as u32,
            WarpOp::ReduceAnd => values.fold(u32::MAX, |a, b| a & b),
            WarpOp::ReduceOr => values.fold(0, |a, b| a | b),
            WarpOp::ReduceXor => values.fold(0, |a, b| a ^ b),
            WarpOp::ReduceMinF => values.map(f32::from_bits).fold(f32::NAN, f32::min).to_bits(),
            _ => values.map(f32::from_bits).fold(f32::NAN, f32::max).to_bits(),
        };
        self.broadcast(c.dst, result, active);
    }
}
