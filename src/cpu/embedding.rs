//! Embedding tables, as written in `ops/embedding.rs`.

use super::{Cpu, Weight, math, parallel};
use crate::ops::contract::expect_len;
use crate::ops::embedding::{Embedding, check_ids};
use crate::ops::{Mut, Ref};

impl Embedding for Cpu {
    fn embed(&self, out: Mut<'_, Self, f32>, table: &Weight, ids: Ref<'_, Self, u32>) {
        let (ids, width) = (ids.as_slice(), table.in_features());
        let checked = check_ids("embed", ids, table.out_features())
            .and_then(|()| expect_len("embed", "out", out.len(), ids.len() * width));
        if self.accepts(checked) {
            let out = &mut out.into_slice()[..ids.len() * width];
            parallel::rows(out, width, |i, row| table.read_row(ids[i] as usize, row));
        }
    }

    fn gather(
        &self,
        out: Mut<'_, Self, f32>,
        table: Ref<'_, Self, f32>,
        ids: Ref<'_, Self, u32>,
        width: usize,
    ) {
        let (table, ids) = (table.as_slice(), ids.as_slice());
        let len = ids.len().saturating_mul(width);
        let checked = check_ids("gather", ids, table.len() / width.max(1))
            .and_then(|()| expect_len("gather", "out", out.len(), len));
        if self.accepts(checked) {
            parallel::rows(&mut out.into_slice()[..len], width, |i, row| {
                row.copy_from_slice(&table[ids[i] as usize * width..][..width]);
            });
        }
    }

    fn scatter_add(
        &self,
        dtable_acc: Mut<'_, Self, f32>,
        dout: Ref<'_, Self, f32>,
        ids: Ref<'_, Self, u32>,
        row_weight: Ref<'_, Self, f32>,
        width: usize,
    ) {
        let len = ids.len().saturating_mul(width);
        let checked = check_ids("scatter_add", ids.as_slice(), dtable_acc.len() / width.max(1))
            .and_then(|()| expect_len("scatter_add", "dout", dout.len(), len))
            .and_then(|()| expect_len("scatter_add", "row_weight", row_weight.len(), ids.len()));
        if !self.accepts(checked) {
            return;
        }
        let (dtable, dout) = (dtable_acc.into_slice(), dout.as_slice());
        for (i, (&id, &weight)) in ids.as_slice().iter().zip(row_weight.as_slice()).enumerate() {
            math::axpy(&mut dtable[id as usize * width..][..width], weight, &dout[i * width..][..width]);
        }
    }
}
