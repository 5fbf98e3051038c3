//! Matrix products: frozen linear layers with their LoRA, and the small trainable ones of the guard.

use super::contract::refused;
use super::{Device, Dropout, Mut, Ref};

/// A row-major matrix in device memory, read.
pub struct Matrix<'a, D: Device, T> {
    /// Elements, starting at (0, 0).
    pub data: Ref<'a, D, T>,
    /// Number of rows.
    pub rows: usize,
    /// Number of columns.
    pub cols: usize,
    /// Elements from one row to the next, at least `cols`.
    pub stride: usize,
}

impl<D: Device, T> Clone for Matrix<'_, D, T> {
    fn clone(&self) -> Self {
        *self
    }
}
impl<D: Device, T> Copy for Matrix<'_, D, T> {}

impl<'a, D: Device, T: super::Element> Matrix<'a, D, T> {
    /// A matrix whose rows follow each other without a gap.
    pub fn new(data: Ref<'a, D, T>, rows: usize, cols: usize) -> Self {
        assert_eq!(data.len(), rows * cols, "matrix of {rows} × {cols}");
        Matrix { data, rows, cols, stride: cols }
    }

    /// A matrix whose rows start `stride` elements apart.
    ///
    /// # Panics
    /// If rows overlap, or `data` is too short.
    pub fn strided(data: Ref<'a, D, T>, rows: usize, cols: usize, stride: usize) -> Self {
        let matrix = Matrix { data, rows, cols, stride };
        if let Err(problem) = matrix.check("a matrix") {
            panic!("{problem}");
        }
        matrix
    }

    /// Whether its elements are inside of `data`, and rows do not overlap; what is wrong if not.
    pub(crate) fn check(&self, what: &str) -> Result<(), String> {
        check_extent(what, self.data.len(), [self.rows, self.cols, self.stride])
    }

    /// Refuses a matrix of other than `cols` columns, of fewer than `rows` rows, or that leaves its memory.
    pub(crate) fn expect(&self, op: &str, name: &str, rows: usize, cols: usize) -> crate::error::Result<()> {
        expect_matrix(op, self.check(name), name, [self.rows, self.cols], [rows, cols])
    }

    /// Columns `from .. from + cols`.
    pub fn columns(self, from: usize, cols: usize) -> Self {
        assert!(from + cols <= self.cols, "columns {from}..{} of {}", from + cols, self.cols);
        let data = self.data.slice(from.min(self.data.len())..self.data.len());
        Matrix { data, rows: self.rows, cols, stride: self.stride }
    }
}

/// Whether `[rows, cols]` with a stride lies in `len` elements and rows do not overlap; what is wrong if not.
fn check_extent(what: &str, len: usize, [rows, cols, stride]: [usize; 3]) -> Result<(), String> {
    let end = rows.checked_sub(1).map_or(Some(0), |last| last.checked_mul(stride)?.checked_add(cols));
    if cols == 0 || end.is_some_and(|end| end <= len) && (rows <= 1 || stride >= cols) {
        return Ok(());
    }
    Err(format!(
        "{what} of {rows} × {cols} with a stride of {stride} does not lie in {len} elements, row after row"
    ))
}

fn expect_matrix(
    op: &str,
    check: Result<(), String>,
    name: &str,
    found: [usize; 2],
    expected: [usize; 2],
) -> crate::error::Result<()> {
    check.map_err(|problem| refused(op, problem))?;
    if found[0] >= expected[0] && found[1] == expected[1] {
        return Ok(());
    }
    let [[rows, cols], [expected_rows, expected_cols]] = [found, expected];
    Err(refused(op, format!("{name}: expected {expected_rows} × {expected_cols}, found {rows} × {cols}")))
}

/// A row-major matrix in device memory, written.
pub struct MatrixMut<'a, D: Device, T> {
    /// Elements, starting at (0, 0).
    pub data: Mut<'a, D, T>,
    /// Number of rows.
    pub rows: usize,
    /// Number of columns.
    pub cols: usize,
    /// Elements from one row to the next, at least `cols`.
    pub stride: usize,
}

impl<'a, D: Device, T: super::Element> MatrixMut<'a, D, T> {
    /// A matrix whose rows follow each other without a gap.
    pub fn new(data: Mut<'a, D, T>, rows: usize, cols: usize) -> Self {
        assert_eq!(data.len(), rows * cols, "matrix of {rows} × {cols}");
        MatrixMut { data, rows, cols, stride: cols }
    }

    /// Whether its elements are inside of `data`, and rows do not overlap; what is wrong if not.
    pub(crate) fn check(&self, what: &str) -> Result<(), String> {
        check_extent(what, self.data.len(), [self.rows, self.cols, self.stride])
    }

    /// Refuses a matrix of other than `cols` columns, of fewer than `rows` rows, or that leaves its memory.
    pub(crate) fn expect(&self, op: &str, name: &str, rows: usize, cols: usize) -> crate::error::Result<()> {
        expect_matrix(op, self.check(name), name, [self.rows, self.cols], [rows, cols])
    }

    /// Columns `from .. from + cols`.
    pub fn columns(self, from: usize, cols: usize) -> Self {
        assert!(from + cols <= self.cols, "columns {from}..{} of {}", from + cols, self.cols);
        let len = self.data.len();
        MatrixMut { data: self.data.slice(from.min(len)..len), rows: self.rows, cols, stride: self.stride }
    }
}

/// Which factors of a product are transposed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Transpose {
    /// `A B`
    None,
    /// `A Bᵀ`
    Second,
    /// `Aᵀ B`
    First,
}

/// What a linear layer writes.
pub enum Write<'a, D: Device> {
    /// `y = …`
    Overwrite,
    /// `y = r + …` (the residual stream); r has y's shape.
    Residual(Ref<'a, D, D::Act>),
}

/// The LoRA of one projection inside a (possibly stacked) linear layer.
pub struct LoraTerm<'a, D: Device> {
    /// `[adapter_rows, rank]`, `s · dropout(x) Aᵀ` from [`Gemm::lora_down`]. Rows after these have no adapter.
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

/// One of the adapters of a (possibly stacked) linear layer, all of which read the layer's input, in the forward pass.
pub struct LoraDown<'a, D: Device> {
    /// `[rows, rank]`, written.
    pub xa: Mut<'a, D, D::Act>,
    /// `[rank, in_features]` lora_A.
    pub a: Ref<'a, D, D::Act>,
    /// Dropout of the input.
    pub dropout: Option<Dropout<'a, D>>,
}

/// The same in the backward pass; shapes as in [`LoraTerm`].
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
    /// The same mask as in the forward.
    pub dropout: Option<Dropout<'a, D>>,
}

/// What the gradient of a trainable weight is made from.
pub struct WeightGradient<'a, D: Device> {
    /// `[out, in]`.
    pub dw_acc: MatrixMut<'a, D, f32>,
    /// `[rows, out]`.
    pub dy: Matrix<'a, D, D::Act>,
    /// `[rows, in]`.
    pub x: Matrix<'a, D, D::Act>,
    /// `[rows]`; 1 where `None`.
    pub row_weight: Option<Ref<'a, D, f32>>,
}

/// The same for a bias.
pub struct BiasGradient<'a, D: Device> {
    /// `[out]`.
    pub db_acc: Mut<'a, D, f32>,
    /// `[rows, out]`.
    pub dy: Matrix<'a, D, D::Act>,
    /// `[rows]`.
    pub row_weight: Ref<'a, D, f32>,
}

/// Matrix products.
pub trait Gemm: Device {
    /// `y = x Wᵀ + bias + Σ xa Bᵀ (+ r)` (METHOD §2; LoRA as an extension of K). y `[rows, out]`, x `[rows, in]`,
    /// W `[out, in]`, bias `[out]`.
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

    /// `dB += dyᵀ xa` and `dA += scale · (dy B)ᵀ dropout(x)` of each adapter; `dx += Σ scale · mask ∘ (dy B) A` over all
    /// of them, unless `None`: nothing below is trained. dx and x `[rows, in]`.
    fn lora_backward(
        &self,
        dx_acc: Option<Mut<'_, Self, Self::Act>>,
        adapters: Vec<LoraBackward<'_, Self>>,
        x: Ref<'_, Self, Self::Act>,
        scale: f32,
    );

    /// `c = alpha · op(a) op(b) + beta · c` on activations.
    fn matmul(
        &self,
        c: MatrixMut<'_, Self, Self::Act>,
        a: Matrix<'_, Self, Self::Act>,
        b: Matrix<'_, Self, Self::Act>,
        transpose: Transpose,
        alpha: f32,
        beta: f32,
    );

    /// `c = a bᵀ + bias + x yᵀ`, the last where `outer` has x `[rows]` and y `[cols]`. c `[rows, cols]`, a `[rows, k]`,
    /// b `[cols, k]`, bias `[cols]`.
    fn affine(
        &self,
        c: MatrixMut<'_, Self, Self::Act>,
        a: Matrix<'_, Self, Self::Act>,
        b: Matrix<'_, Self, Self::Act>,
        bias: Option<Ref<'_, Self, f32>>,
        outer: Option<[Ref<'_, Self, Self::Act>; 2]>,
    );

    /// `c = Σ_i row_weight[i] · a[i] ⊗ b[i]`; c `[m, n]`, a `[rows, m]`, b `[rows, n]`, row_weight `[rows]`.
    fn weighted_product(
        &self,
        c: MatrixMut<'_, Self, Self::Act>,
        a: Matrix<'_, Self, Self::Act>,
        b: Matrix<'_, Self, Self::Act>,
        row_weight: Ref<'_, Self, f32>,
    );

    /// `dw_acc += Σ_i row_weight[i] · dy[i] ⊗ x[i]` of each: gradients of trainable weights, none of which overlap.
    fn weight_gradients(&self, gradients: Vec<WeightGradient<'_, Self>>);

    /// `db_acc += Σ_i row_weight[i] · dy[i]` of each.
    fn bias_gradients(&self, gradients: Vec<BiasGradient<'_, Self>>);

    /// `dw_acc += a bᵀ + x yᵀ`, shapes as in [`Gemm::affine`]: a gradient that is not made of rows.
    fn affine_gradient(
        &self,
        dw_acc: MatrixMut<'_, Self, f32>,
        a: Matrix<'_, Self, Self::Act>,
        b: Matrix<'_, Self, Self::Act>,
        outer: [Ref<'_, Self, Self::Act>; 2],
    );
}
