//! Files that are written whole or not at all.

use std::borrow::Cow;
use std::collections::HashMap;
use std::fs::File;
use std::path::Path;

use safetensors::tensor::{Dtype, View};
use serde::Serialize;

use crate::error::{Context, Error, ErrorKind, Result};

/// Writes a folder through `write`, which gets a temporary one beside it: `dir` holds all of it or is left as it was.
/// An existing `dir` is replaced.
pub fn write_dir(dir: &Path, write: impl FnOnce(&Path) -> Result<()>) -> Result<()> {
    let complain = || format!("cannot write {}", dir.display());
    let parent = match dir.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    };
    std::fs::create_dir_all(parent).kind(ErrorKind::Device, complain)?;
    let temporary =
        tempfile::Builder::new().prefix(".tmp-").tempdir_in(parent).kind(ErrorKind::Device, complain)?;
    write(temporary.path())?;
    sync_files(temporary.path()).kind(ErrorKind::Device, complain)?;
    let replaced =
        dir.exists().then(|| tempfile::Builder::new().prefix(".old-").tempdir_in(parent)).transpose();
    if let Some(old) = replaced.kind(ErrorKind::Device, complain)? {
        std::fs::rename(dir, old.path().join("replaced")).kind(ErrorKind::Device, complain)?;
    }
    let finished = temporary.keep();
    std::fs::rename(&finished, dir).kind(ErrorKind::Device, complain)?;
    File::open(parent).and_then(|parent| parent.sync_all()).kind(ErrorKind::Device, complain)
}

/// Flushes the files of a flat folder, and the folder, to the disk.
fn sync_files(dir: &Path) -> std::io::Result<()> {
    for entry in std::fs::read_dir(dir)? {
        File::open(entry?.path())?.sync_all()?;
    }
    File::open(dir)?.sync_all()
}

/// Writes a value as indented JSON.
pub fn write_json(path: &Path, value: &impl Serialize) -> Result<()> {
    let complain = || format!("cannot write {}", path.display());
    let mut text = serde_json::to_string_pretty(value).kind(ErrorKind::Internal, complain)?;
    text.push('\n');
    std::fs::write(path, text).kind(ErrorKind::Device, complain)
}

/// A tensor to be written.
pub struct OwnedTensor {
    /// Its element type.
    pub dtype: Dtype,
    /// Its shape.
    pub shape: Vec<usize>,
    /// Its elements, little-endian.
    pub bytes: Vec<u8>,
}

impl OwnedTensor {
    /// An f32 tensor.
    pub fn f32(shape: &[usize], values: &[f32]) -> Self {
        OwnedTensor { dtype: Dtype::F32, shape: shape.to_vec(), bytes: bytemuck::cast_slice(values).to_vec() }
    }
}

impl View for &OwnedTensor {
    fn dtype(&self) -> Dtype {
        self.dtype
    }
    fn shape(&self) -> &[usize] {
        &self.shape
    }
    fn data(&self) -> Cow<'_, [u8]> {
        Cow::Borrowed(&self.bytes)
    }
    fn data_len(&self) -> usize {
        self.bytes.len()
    }
}

/// Writes tensors in the layout of PyTorch's users (`format = pt`).
pub fn write_safetensors(path: &Path, tensors: &[(String, OwnedTensor)]) -> Result<()> {
    let metadata = HashMap::from([("format".to_owned(), "pt".to_owned())]);
    let views = tensors.iter().map(|(name, tensor)| (name, tensor));
    safetensors::serialize_to_file(views, Some(metadata), path)
        .map_err(|e| Error::device(format!("cannot write {}", path.display())).with_source(e))
}
