//! Frozen linear layers with their LoRA adapters.

use super::contract::{expect_exactly, expect_len, refused};
use super::matrix::Matrix;
use super::{Device, Dropout, Mut, Ref};
use crate::error::Result;

/// Epilogue of a linear layer.
pub enum Write<'a, D: Device> {
    /// `y = …`
    Overwrite,
    /// `y = r + …` (the residual stream); r has y's shape.
    Residual(Ref<'a, D, D::Act>),
}

impl<'a, D: Device> Write<'a, D> {
    /// What is added, if anything.
    pub(crate) fn residual(&self) -> Option<Ref<'a, D, D::Act>> {
        match self {
            Write::Overwrite => None,
            Write::Residual(residual) => Some(*residual),
        }
    }
}

/// The LoRA of one projection inside a (possibly stacked) linear layer.
pub struct LoraTerm<'a, D: Device> {
    /// `[adapter_rows, rank]`, `s · dropout(x) Aᵀ` from [`Linear::lora_down`]. Rows after these have no
    /// adapter.
    pub xa: Ref<'a, D, D::Act>,
    /// `[out_features, rank]` lora_B.
    pub b: Ref<'a, D, D::Act>,
    /// First output column of the projection.
    pub column: usize,
    /// Number of output columns of the projection.
    pub out_features: usize,
    /// LoRA rank.
    pub rank: usize,
}

/// One of the adapters of a (possibly stacked) linear layer, all of which read the layer's input, in the
/// forward pass.
pub struct LoraDown<'a, D: Device> {
    /// `[rows, rank]`, written.
    pub xa: Mut<'a, D, D::Act>,
    /// `[rank, in_features]` lora_A.
    pub a: Ref<'a, D, D::Act>,
    /// Dropout of the input.
    pub dropout: Option<Dropout<'a, D>>,
}

/// One of the adapters of a linear layer in the backward pass; shapes as in [`LoraTerm`].
pub struct LoraBackward<'a, D: Device> {
    /// `[rank, in_features]`.
    pub da_acc: Mut<'a, D, f32>,
    /// `[out_features, rank]`.
    pub db_acc: Mut<'a, D, f32>,
    /// `[rows, rank]` saved by the forward.
    pub xa: Ref<'a, D, D::Act>,
    /// `[rows, out_features]` columns of the layer's output gradient.
    pub dy: Matrix<'a, D, D::Act>,
    /// `[rank, in_features]` lora_A.
    pub a: Ref<'a, D, D::Act>,
    /// `[out_features, rank]` lora_B.
    pub b: Ref<'a, D, D::Act>,
    /// Dropout with the mask of the forward pass.
    pub dropout: Option<Dropout<'a, D>>,
}

/// Refuses rows that are not those of a layer of `[inputs, outputs]`; returns their number.
pub(crate) fn check_rows(
    op: &str,
    [x, y]: [(&str, usize); 2],
    [inputs, outputs]: [usize; 2],
) -> Result<usize> {
    let rows = x.1.checked_div(inputs).unwrap_or(0);
    expect_exactly(op, x.0, x.1, rows.checked_mul(inputs))?;
    expect_exactly(op, y.0, y.1, rows.checked_mul(outputs))?;
    Ok(rows)
}

/// Refuses what a linear layer of `[inputs, outputs]` cannot be computed with; y, x, bias and residual are numbers of
/// elements.
pub(crate) fn check_linear<D: Device>(
    [y, x]: [usize; 2],
    shape: [usize; 2],
    [bias, residual]: [Option<usize>; 2],
    lora: &[LoraTerm<'_, D>],
) -> Result<()> {
    const OP: &str = "linear";
    let rows = check_rows(OP, [("x", x), ("y", y)], shape)?;
    expect_exactly(OP, "bias", bias.unwrap_or(shape[1]), Some(shape[1]))?;
    expect_exactly(OP, "residual", residual.unwrap_or(y), Some(y))?;
    lora.iter().try_for_each(|term| term.check(OP, [rows, shape[1]]))
}

impl<D: Device> LoraTerm<'_, D> {
    /// Refuses terms beyond y `[rows, columns]`, or whose matrices are not of their rank.
    pub(crate) fn check(&self, op: &str, [rows, columns]: [usize; 2]) -> Result<()> {
        let LoraTerm { column, out_features, rank, .. } = *self;
        if column.checked_add(out_features).is_none_or(|end| end > columns) {
            let found = format!("{out_features} from {column} on");
            return Err(refused(op, format!("lora: expected some of {columns} columns, found {found}")));
        }
        let adapted = self.xa.len().checked_div(rank).unwrap_or(0);
        expect_exactly(op, "xa", self.xa.len(), adapted.min(rows).checked_mul(rank))?;
        expect_exactly(op, "lora_B", self.b.len(), out_features.checked_mul(rank))
    }
}

/// Refuses fewer keys than rows.
fn check_dropout<D: Device>(op: &str, dropout: Option<Dropout<'_, D>>, rows: usize) -> Result<()> {
    expect_len(op, "row_keys", dropout.map_or(rows, |dropout| dropout.row_keys.len()), rows)
}

/// Refuses adapters of several shapes, and such as are not of the layer that x is the input of.
pub(crate) fn check_down<D: Device>(adapters: &[LoraDown<'_, D>], x: usize, rank: usize) -> Result<()> {
    const OP: &str = "lora_down";
    let Some(first) = adapters.first() else { return Ok(()) };
    if rank == 0 {
        return Err(refused(OP, "rank: expected 1 or more, found 0".into()));
    }
    let (rows, inputs) = (first.xa.len() / rank, first.a.len() / rank);
    expect_exactly(OP, "x", x, rows.checked_mul(inputs))?;
    adapters.iter().try_for_each(|adapter| {
        expect_exactly(OP, "xa", adapter.xa.len(), rows.checked_mul(rank))?;
        expect_exactly(OP, "lora_A", adapter.a.len(), inputs.checked_mul(rank))?;
        check_dropout(OP, adapter.dropout, rows)
    })
}

/// Refuses adapters whose matrices do not fit each other, x, or dx.
pub(crate) fn check_lora_backward<D: Device>(
    dx: Option<usize>,
    adapters: &[LoraBackward<'_, D>],
    x: usize,
) -> Result<()> {
    const OP: &str = "lora_backward";
    let Some(rows) = adapters.first().map(|adapter| adapter.dy.rows) else { return Ok(()) };
    let inputs = x.checked_div(rows).unwrap_or(0);
    expect_exactly(OP, "x", x, rows.checked_mul(inputs))?;
    expect_exactly(OP, "dx", dx.unwrap_or(x), Some(x))?;
    adapters.iter().try_for_each(|adapter| {
        let (out, rank) = (adapter.dy.cols, adapter.a.len().checked_div(inputs).unwrap_or(0));
        adapter.dy.expect(OP, "dy", rows, out)?;
        expect_exactly(OP, "dy: rows", adapter.dy.rows, Some(rows))?;
        expect_exactly(OP, "lora_A", adapter.a.len(), rank.checked_mul(inputs))?;
        expect_exactly(OP, "dA", adapter.da_acc.len(), Some(adapter.a.len()))?;
        expect_exactly(OP, "lora_B", adapter.b.len(), out.checked_mul(rank))?;
        expect_exactly(OP, "dB", adapter.db_acc.len(), Some(adapter.b.len()))?;
        expect_exactly(OP, "xa", adapter.xa.len(), rows.checked_mul(rank))?;
        check_dropout(OP, adapter.dropout, rows)
    })
}

/// Frozen linear layers, and the LoRA adapters that are trained beside them.
pub trait Linear: Device {
    /// `y = x Wᵀ + bias + Σ xa Bᵀ (+ r)` (METHOD §2; LoRA as an extension of K). y `[rows, out]`, x `[rows,
    /// in]`, W `[out, in]`, bias `[out]`.
    fn linear(
        &self,
        y: Mut<'_, Self, Self::Act>,
        x: Ref<'_, Self, Self::Act>,
        weight: &Self::Weight,
        bias: Option<Ref<'_, Self, f32>>,
        lora: &[LoraTerm<'_, Self>],
        write: Write<'_, Self>,
    );

    /// `dx = dy W`: the gradient through a frozen layer; dx `[rows, in]`, dy `[rows, out]`.
    fn linear_backward(
        &self,
        dx: Mut<'_, Self, Self::Act>,
        dy: Ref<'_, Self, Self::Act>,
        weight: &Self::Weight,
    );

    /// `xa = scale · dropout(x) Aᵀ` of each adapter; x `[rows, in]`, which all of them read.
    fn lora_down(
        &self,
        adapters: Vec<LoraDown<'_, Self>>,
        x: Ref<'_, Self, Self::Act>,
        rank: usize,
        scale: f32,
    );

    /// `dB += dyᵀ xa` and `dA += scale · (dy B)ᵀ dropout(x)` of each adapter; `dx += Σ scale · mask ∘ (dy B)
    /// A` over all of them, unless `None`, where nothing below is trained. dx and x `[rows, in]`.
    fn lora_backward(
        &self,
        dx_acc: Option<Mut<'_, Self, Self::Act>>,
        adapters: Vec<LoraBackward<'_, Self>>,
        x: Ref<'_, Self, Self::Act>,
        scale: f32,
    );
}
