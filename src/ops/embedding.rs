//! Embedding tables: the frozen token embedding and the trainable security embedding.

use super::{Device, Mut, Ref};

/// Gather and scatter of table rows.
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
