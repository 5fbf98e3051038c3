//! Tensor copies in tiled mode: which bytes of a box in shared memory are which bytes of global memory.
//!
//! The box lies densely in shared memory, innermost dimension first. With swizzling, 16-byte chunks move by
//! the bits of their shared *address*, so that a box that does not start at a multiple of the pattern is
//! permuted accordingly.

use crate::tensor::swizzle::Swizzle;
use crate::tensor::tensor_map::TensorMap;

/// What shared addresses of tensor copies must be multiples of.
pub const SHARED_ALIGNMENT: u32 = 128;

/// Bytes that are consecutive in shared and, if there, in global memory. A whole number of elements.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Piece {
    /// Shared address.
    pub shared: u32,
    /// Global address; `None` outside the tensor, where loads fill and stores do nothing.
    pub global: Option<u64>,
    /// Number of bytes.
    pub bytes: u32,
}

impl TensorMap {
    /// Bytes of the box in shared memory. A load completes as many, elements outside the tensor included.
    pub fn box_bytes(&self) -> u32 {
        self.inner_bytes() * (1..self.rank).map(|d| self.steps(d)).product::<u32>()
    }

    /// The pieces of the box at `coordinates` (of its first element, innermost first) and shared address
    /// `shared`. Together they cover [`Self::box_bytes`], each byte once.
    pub fn pieces(&self, coordinates: &[i32], shared: u32) -> Result<impl Iterator<Item = Piece>, String> {
        if coordinates.len() != self.rank {
            let (rank, given) = (self.rank, coordinates.len());
            return Err(format!("tensor map has rank {rank}, the copy gives {given} coordinates"));
        }
        if !shared.is_multiple_of(SHARED_ALIGNMENT) {
            return Err(format!(
                "tensor copy at shared address {shared:#x}, no multiple of {SHARED_ALIGNMENT}"
            ));
        }
        let mut start = [0; 5];
        start[..self.rank].copy_from_slice(coordinates);
        let (map, inner) = (*self, self.inner_bytes());
        let rows = self.box_bytes() / inner;
        Ok((0..rows).flat_map(move |row| {
            let parts = map.parts(row, &start, shared + row * inner);
            parts.into_iter().flat_map(move |part| map.chunks(part))
        }))
    }

    /// Elements of the box along a dimension that are copied.
    fn steps(&self, dimension: usize) -> u32 {
        self.box_dim[dimension].div_ceil(self.element_strides[dimension])
    }

    /// A row of the box: what lies before the tensor, in it and behind it, any of which may be empty.
    fn parts(&self, row: u32, start: &[i32; 5], shared: u32) -> [Piece; 3] {
        let size = self.data_type.bytes() as u32;
        let (first, width) = (i64::from(start[0]), i64::from(self.box_dim[0]));
        let row_address = self.row_address(row, start);
        // Elements of the row that are inside, counted from its start.
        let (from, to) = match row_address {
            Some(_) => ((-first).clamp(0, width), (self.dims[0] as i64 - first).clamp(0, width)),
            None => (0, 0),
        };
        let global = row_address
            .filter(|_| from < to)
            .map(|address| address.saturating_add((first + from) as u64 * u64::from(size)));
        let part = |from: i64, to: i64, global| Piece {
            shared: shared + from as u32 * size,
            global,
            bytes: (to - from) as u32 * size,
        };
        [part(0, from, None), part(from, to, global), part(to, width, None)]
    }

    /// Global address of coordinate zero of a row of the box, if the row is inside the tensor.
    fn row_address(&self, row: u32, start: &[i32; 5]) -> Option<u64> {
        let (mut rest, mut address) = (row, self.global_address);
        for (d, &first) in start.iter().enumerate().take(self.rank).skip(1) {
            let step = rest % self.steps(d);
            rest /= self.steps(d);
            let coordinate = i64::from(first) + i64::from(step * self.element_strides[d]);
            let coordinate = u64::try_from(coordinate).ok().filter(|c| *c < self.dims[d])?;
            // An address beyond 64 bits is outside of every allocation, which saturation keeps it.
            address = address.saturating_add(coordinate.saturating_mul(self.strides[d - 1]));
        }
        Some(address)
    }

    /// Cuts a part at chunks if these are moved.
    fn chunks(&self, part: Piece) -> impl Iterator<Item = Piece> + use<> {
        let (swizzle, end) = (self.swizzle, part.shared + part.bytes);
        let mut at = part.shared;
        std::iter::from_fn(move || {
            if at == end {
                return None;
            }
            let next = if swizzle == Swizzle::None { end } else { end.min(at / 16 * 16 + 16) };
            let piece = Piece {
                shared: swizzle.apply(at, 0),
                global: part.global.map(|address| address.saturating_add(u64::from(at - part.shared))),
                bytes: next - at,
            };
            at = next;
            Some(piece)
        })
    }
}
