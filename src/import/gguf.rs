//! The GGUF container, versions 2 and 3, little-endian: header, metadata, tensor table, aligned tensor data
//! (the specification is `docs/gguf.md` of the ggml project). Nothing is copied out of the file.

use super::dequant::TensorType;
use super::metadata::Metadata;
use super::reader::{DAMAGED, Reader};
use crate::error::{Error, Result};
use std::collections::HashSet;

const MAGIC: &[u8; 4] = b"GGUF";
const DEFAULT_ALIGNMENT: u64 = 32;
const MAX_AXES: u32 = 4;

/// A parsed file whose tensors are known to lie inside it.
#[derive(Debug)]
pub(super) struct Gguf<'a> {
    pub(super) metadata: Metadata<'a>,
    pub(super) tensors: Vec<Tensor<'a>>,
}

/// One tensor as stored.
#[derive(Clone, Debug)]
pub(super) struct Tensor<'a> {
    pub(super) name: &'a str,
    /// Slowest axis first, the order of Hugging Face (GGUF lists the fastest first); no axis is zero.
    pub(super) shape: Vec<usize>,
    pub(super) kind: TensorType,
    /// Exactly `kind.bytes(product of shape)` bytes.
    pub(super) data: &'a [u8],
}

/// A tensor table entry, before its place in the file is checked.
struct Entry<'a> {
    name: &'a str,
    shape: Vec<usize>,
    kind: TensorType,
    offset: u64,
}

/// Whether `bytes` begin like a GGUF file.
pub(super) fn is_gguf(bytes: &[u8]) -> bool {
    bytes.starts_with(MAGIC)
}

impl<'a> Gguf<'a> {
    /// Parses a whole file.
    ///
    /// # Errors
    /// [`crate::ErrorKind::Model`] where the bytes are not a well-formed GGUF file of supported tensor types.
    pub(super) fn parse(file: &'a [u8]) -> Result<Self> {
        let mut reader = Reader::new(file);
        let (tensor_count, pair_count) = read_header(&mut reader)?;
        let metadata = Metadata::read(&mut reader, pair_count)?;
        let entries = read_entries(&mut reader, tensor_count)?;
        let alignment = alignment(&metadata)?;
        let start = (reader.position() as u64).next_multiple_of(alignment);
        let tensors = entries
            .into_iter()
            .map(|entry| entry.locate(file, start, alignment))
            .collect::<Result<Vec<_>>>()?;
        refuse_overlap(&tensors)?;
        Ok(Gguf { metadata, tensors })
    }
}

/// Checks magic and version; returns the numbers of tensors and of metadata pairs.
fn read_header(reader: &mut Reader<'_>) -> Result<(u64, u64)> {
    if !is_gguf(reader.take(4)?) {
        return Err(Error::model("expected a file that starts with `GGUF`; name a .gguf file"));
    }
    match reader.u32()? {
        2 | 3 => Ok((reader.u64()?, reader.u64()?)),
        version => {
            let swapped = matches!(version.swap_bytes(), 1..=3);
            let found = if swapped { "a big-endian file".into() } else { format!("version {version}") };
            Err(Error::model(format!(
                "GGUF header: expected little-endian version 2 or 3, found {found}; convert the model again with \
                 a recent llama.cpp"
            )))
        }
    }
}

fn read_entries<'a>(reader: &mut Reader<'a>, count: u64) -> Result<Vec<Entry<'a>>> {
    let mut entries = Vec::new();
    let mut names = HashSet::new();
    for _ in 0..count {
        let name = reader.string().map_err(|e| e.context("tensor name"))?;
        entries.push(read_entry(reader, name).map_err(|e| e.context(format_args!("tensor `{name}`")))?);
        if !names.insert(name) {
            return Err(Error::model(format!("tensor `{name}`: expected once, found twice; {DAMAGED}")));
        }
    }
    Ok(entries)
}

fn read_entry<'a>(reader: &mut Reader<'a>, name: &'a str) -> Result<Entry<'a>> {
    let axes = reader.u32()?;
    if !(1..=MAX_AXES).contains(&axes) {
        return Err(Error::model(format!("expected 1 to {MAX_AXES} axes, found {axes}; {DAMAGED}")));
    }
    let mut shape = (0..axes).map(|_| read_axis(reader)).collect::<Result<Vec<_>>>()?;
    shape.reverse();
    let kind = TensorType::from_code(reader.u32()?)?;
    Ok(Entry { name, shape, kind, offset: reader.u64()? })
}

fn read_axis(reader: &mut Reader<'_>) -> Result<usize> {
    let length = reader.u64()?;
    usize::try_from(length)
        .ok()
        .filter(|length| *length > 0)
        .ok_or_else(|| Error::model(format!("expected axes of at least 1, found {length}; {DAMAGED}")))
}

/// Tensor data begins at, and every tensor's offset is, a multiple of this.
fn alignment(metadata: &Metadata<'_>) -> Result<u64> {
    let alignment = metadata.get("general.alignment")?.unwrap_or(DEFAULT_ALIGNMENT);
    if alignment.is_power_of_two() && (8..=1 << 20).contains(&alignment) {
        return Ok(alignment);
    }
    Err(Error::model(format!(
        "metadata key `general.alignment`: expected a power of two from 8 to 1048576, found {alignment}; {DAMAGED}"
    )))
}

impl<'a> Entry<'a> {
    /// Finds the tensor's bytes; tensor data begins at byte `start` of the file.
    fn locate(self, file: &'a [u8], start: u64, alignment: u64) -> Result<Tensor<'a>> {
        let Entry { name, shape, kind, offset } = self;
        if !offset.is_multiple_of(alignment) {
            return Err(Error::model(format!(
                "tensor `{name}`: expected an offset that is a multiple of {alignment}, found {offset}; {DAMAGED}"
            )));
        }
        let size = kind.size_of(&shape).map_err(|e| e.context(format_args!("tensor `{name}`")))?;
        let data = slice(file, start.checked_add(offset), size).ok_or_else(|| {
            Error::model(format!(
                "tensor `{name}`: expected {size} bytes at offset {offset} of the tensor data, found a file of {} \
                 bytes; {DAMAGED}",
                file.len()
            ))
        })?;
        Ok(Tensor { name, shape, kind, data })
    }
}

fn slice(file: &[u8], start: Option<u64>, size: usize) -> Option<&[u8]> {
    let start = usize::try_from(start?).ok()?;
    file.get(start..start.checked_add(size)?)
}

/// Tensors that share bytes would let a small file describe an output of any size.
fn refuse_overlap(tensors: &[Tensor<'_>]) -> Result<()> {
    let mut by_place: Vec<_> = tensors.iter().collect();
    by_place.sort_by_key(|tensor| tensor.data.as_ptr());
    for pair in by_place.windows(2) {
        if pair[0].data.as_ptr_range().end > pair[1].data.as_ptr() {
            return Err(Error::model(format!(
                "tensors `{}` and `{}`: expected separate places in the file, found them overlapping; {DAMAGED}",
                pair[0].name, pair[1].name
            )));
        }
    }
    Ok(())
}
