//! Trainable parameters: one flat f32 buffer with one layout for values, gradients and moments.

use std::ops::Range;

use crate::error::{Error, Result};
use crate::ops::matrix::{Matrix, MatrixMut};
use crate::ops::{Arena, Buffer, Device, Mut, Ref};

/// Parameters start on multiples of this many elements, as buffers do.
const ALIGNMENT: usize = crate::ops::buffer::ALIGNMENT / size_of::<f32>();

/// Where one trainable tensor lies in the flat buffers.
#[derive(Clone, Debug, PartialEq)]
pub struct Param {
    /// The tensor's name in files.
    pub name: String,
    /// The tensor's shape, row-major.
    pub shape: Vec<usize>,
    /// The tensor's elements.
    pub range: Range<usize>,
}

/// The table of all trainable tensors, one row each.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Layout {
    params: Vec<Param>,
    len: usize,
}

impl Layout {
    /// Adds a tensor after the others.
    pub fn add(&mut self, name: impl Into<String>, shape: &[usize]) -> Param {
        let len: usize = shape.iter().product();
        let param = Param { name: name.into(), shape: shape.to_vec(), range: self.len..self.len + len };
        self.len = param.range.end.next_multiple_of(ALIGNMENT);
        self.params.push(param.clone());
        param
    }

    /// The tensors in their order.
    pub fn params(&self) -> &[Param] {
        &self.params
    }

    /// Elements of the flat buffer, alignment included.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether there are no tensors.
    pub fn is_empty(&self) -> bool {
        self.params.is_empty()
    }

    /// Number of trainable values.
    pub fn parameter_count(&self) -> usize {
        self.params.iter().map(|p| p.range.len()).sum()
    }
}

/// Parameter values on a device.
pub struct Params<D: Device> {
    device: D,
    layout: Layout,
    master: Buffer<D, f32>,
    /// The values as activations, where a device's activations are not f32.
    compute: Option<Buffer<D, D::Act>>,
}

impl<D: Device> Params<D> {
    /// Zero values for `layout`.
    pub fn new(device: &D, layout: Layout) -> Result<Self> {
        let separate = std::any::TypeId::of::<D::Act>() != std::any::TypeId::of::<f32>();
        let ((master, compute), _) = Arena::build(device, |arena| {
            let master = arena.buffer("trainables", &[layout.len()])?;
            let compute =
                separate.then(|| arena.buffer("trainables as activations", &[layout.len()])).transpose()?;
            Ok((master, compute))
        })
        .map_err(|e: Error| {
            e.context("adapter and guard").memory_advice("lower `lora_r`, or choose another `device`")
        })?;
        Ok(Params { device: device.clone(), layout, master, compute })
    }

    /// The table of tensors.
    pub fn layout(&self) -> &Layout {
        &self.layout
    }

    /// Bytes of the values.
    pub fn bytes(&self) -> usize {
        let compute = self.compute.as_ref().map_or(0, |compute| compute.len() * size_of::<D::Act>());
        self.master.len() * size_of::<f32>() + compute
    }

    /// The f32 values of a tensor.
    pub fn value(&self, param: &Param) -> Ref<'_, D, f32> {
        self.master.slice(param.range.clone())
    }

    /// The values of a tensor as an operand of products.
    pub fn operand(&self, param: &Param) -> Ref<'_, D, D::Act> {
        match &self.compute {
            Some(compute) => compute.slice(param.range.clone()),
            None => self.value(param).same_type().unwrap_or_else(|| unreachable!("activations are f32 here")),
        }
    }

    /// A two-dimensional tensor as an operand of products.
    pub fn matrix(&self, param: &Param) -> Matrix<'_, D, D::Act> {
        Matrix::new(self.operand(param), param.shape[0], param.shape[1..].iter().product())
    }

    /// The values of all tensors, alignment included.
    pub fn master(&self) -> Ref<'_, D, f32> {
        self.master.view()
    }

    /// The values of all tensors, alignment included, for the optimiser; call [`Params::refresh`] afterwards.
    pub fn master_mut(&mut self) -> Mut<'_, D, f32> {
        self.master.view_mut()
    }

    /// A tensor's values on the host, after all work of the device.
    pub fn download(&self, param: &Param) -> Result<Vec<f32>> {
        let mut values = vec![0.0; param.range.len()];
        self.device.fetch(&mut values, self.value(param))?;
        Ok(values)
    }

    /// Replaces a tensor's values.
    pub fn upload(&mut self, param: &Param, values: &[f32]) {
        self.device.upload(self.master.slice_mut(param.range.clone()), values);
        if let Some(compute) = &mut self.compute {
            self.device.upload_act(compute.slice_mut(param.range.clone()), values);
        }
    }
}

impl<D: Device + crate::ops::elementwise::Elementwise> Params<D> {
    /// Brings the operands up to date with the values.
    pub fn refresh(&mut self) {
        if let Some(compute) = &mut self.compute {
            self.device.cast(compute.view_mut(), self.master.view());
        }
    }
}

/// Gradients, laid out like the parameters.
pub struct Grads<D: Device> {
    buffer: Buffer<D, f32>,
}

impl<D: Device> Grads<D> {
    /// Zero gradients for `layout`.
    pub fn new(arena: &mut Arena<D>, layout: &Layout) -> Result<Self> {
        Ok(Grads { buffer: arena.buffer("gradients", &[layout.len()])? })
    }

    /// The gradients of all tensors.
    pub fn all(&self) -> Ref<'_, D, f32> {
        self.buffer.view()
    }

    /// The gradients of all tensors, for writing.
    pub fn all_mut(&mut self) -> Mut<'_, D, f32> {
        self.buffer.view_mut()
    }

    /// The gradient of one tensor.
    pub fn get(&self, param: &Param) -> Ref<'_, D, f32> {
        self.buffer.slice(param.range.clone())
    }

    /// The gradient of one tensor, for writing.
    pub fn get_mut(&mut self, param: &Param) -> Mut<'_, D, f32> {
        self.buffer.slice_mut(param.range.clone())
    }

    /// The gradient of a two-dimensional tensor, for writing.
    pub fn matrix_mut(&mut self, param: &Param) -> MatrixMut<'_, D, f32> {
        MatrixMut::new(self.get_mut(param), param.shape[0], param.shape[1..].iter().product())
    }

    /// The gradients of two tensors, `first` lying before `second`.
    pub fn pair_mut(&mut self, first: &Param, second: &Param) -> (Mut<'_, D, f32>, Mut<'_, D, f32>) {
        let (head, tail) = self.buffer.view_mut().split_at(second.range.start);
        (head.slice(first.range.clone()), tail.slice(0..second.range.len()))
    }

    /// The gradients of several tensors, which lie in this order.
    pub fn each_mut<'p>(&mut self, params: impl Iterator<Item = &'p Param>) -> Vec<Mut<'_, D, f32>> {
        self.buffer.view_mut().ranges(params.map(|param| param.range.clone()))
    }
}
