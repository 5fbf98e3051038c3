//! Embedding tables: the frozen token embedding and the trainable security embedding.

use super::contract::refused;
use super::{Device, Mut, Ref};
use crate::error::Result;

/// Refuses ids beyond the `count` rows of a table, where the host can see them.
pub(crate) fn check_ids(op: &str, ids: &[u32], count: usize) -> Result<()> {
    match ids.iter().enumerate().find(|&(_, &id)| id as usize >= count) {
        Some((row, id)) => Err(refused(op, format!("ids[{row}]: expected less than {count}, found {id}"))),
        None => Ok(()),
    }
}

/// Gather and scatter of table rows. An id beyond the table is an error, which [`finish`](Device::finish) tells; on a device
/// that only sees it late, the rows of other ids are computed all the same.
pub trait Embedding: Device {
    /// `out[i] = table[ids[i]]`; out `[rows, hidden_size]`, table `[vocab_size, hidden_size]` frozen, ids
    /// `[rows]`.
    fn embed(&self, out: Mut<'_, Self, Self::Act>, table: &Self::Weight, ids: Ref<'_, Self, u32>);

    /// `out[i] = table[ids[i]]`; out `[rows, width]`, table `[vocab_size, width]` trainable, ids `[rows]`.
    fn gather(
        &self,
        out: Mut<'_, Self, Self::Act>,
        table: Ref<'_, Self, f32>,
        ids: Ref<'_, Self, u32>,
        width: usize,
    );

    /// `dtable_acc[ids[i]] += row_weight[i] · dout[i]`, in the order of the rows; dtable `[vocab_size,
    /// width]`, dout `[rows, width]`, ids and row_weight `[rows]`.
    fn scatter_add(
        &self,
        dtable_acc: Mut<'_, Self, f32>,
        dout: Ref<'_, Self, Self::Act>,
        ids: Ref<'_, Self, u32>,
        row_weight: Ref<'_, Self, f32>,
        width: usize,
    );
}
