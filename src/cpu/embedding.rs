//! Embedding tables, as written in `ops/embedding.rs`.

use super::{Cpu, Weight, math, parallel};
use crate::ops::embedding::Embedding;
use crate::ops::{Mut, Ref};

impl Embedding for Cpu {
    fn embed(&self, out: Mut<'_, Self, f32>, table: &Weight, ids: Ref<'_, Self, u32>) {
        let ids = ids.as_slice();
        parallel::rows(out.into_slice(), table.in_features(), |i, row| table.read_row(ids[i] as usize, row));
    }

    fn gather(
        &self,
        out: Mut<'_, Self, f32>,
        table: Ref<'_, Self, f32>,
        ids: Ref<'_, Self, u32>,
        width: usize,
    ) {
        let (table, ids) = (table.as_slice(), ids.as_slice());
        parallel::rows(out.into_slice(), width, |i, row| {
            row.copy_from_slice(&table[ids[i] as usize * width..][..width]);
        });
    }

    fn scatter_add(
        &self,
        dtable_acc: Mut<'_, Self, f32>,
        dout: Ref<'_, Self, f32>,
        ids: Ref<'_, Self, u32>,
        row_weight: Ref<'_, Self, f32>,
        width: usize,
    ) {
        let (dtable, dout) = (dtable_acc.into_slice(), dout.as_slice());
        for (i, (&id, &weight)) in ids.as_slice().iter().zip(row_weight.as_slice()).enumerate() {
            math::axpy(&mut dtable[id as usize * width..][..width], weight, &dout[i * width..][..width]);
        }
    }
}
