//! Hidden states of the base model, which do not change between epochs: kept in memory up to a budget, then
//! on disk.

use std::collections::HashMap;
use std::fs::File;

use crate::error::{Context, Error, ErrorKind, Result};
use crate::files;
use crate::ops::Element;
use crate::platform::{read_exact_at, write_all_at};

/// What to do where the disk is full.
const ADVICE: &str = "free disk space there, set TMPDIR, or raise `base_cache_mib`";

enum Place<T> {
    Memory(Vec<T>),
    /// Byte offset and number of elements.
    Disk(u64, usize),
}

/// Pre-head hidden states `[tokens, hidden_size]` per pair, in the type that they were computed in.
pub struct BaseCache<T> {
    entries: HashMap<usize, Place<T>>,
    memory_left: usize,
    file: Option<File>,
    file_len: u64,
}

impl<T: Element> BaseCache<T> {
    /// An empty cache that keeps at most `memory_budget` bytes in memory.
    pub fn new(memory_budget: usize) -> Self {
        BaseCache { entries: HashMap::new(), memory_left: memory_budget, file: None, file_len: 0 }
    }

    /// Refuses to begin what will not fit: `elements` in all, of which those beyond the budget go to disk.
    pub fn require_space(&self, elements: usize) -> Result<()> {
        let bytes = elements.saturating_mul(size_of::<T>());
        let on_disk = bytes.saturating_sub(self.memory_left) as u64;
        if on_disk == 0 {
            return Ok(());
        }
        let file = std::env::temp_dir().join("the base model's hidden states");
        files::require_space(&file, on_disk).map_err(|e| e.advice(ADVICE))
    }

    /// Whether the states of a pair are there.
    pub fn contains(&self, pair: usize) -> bool {
        self.entries.contains_key(&pair)
    }

    /// Keeps the states of a pair, unless there are some.
    pub fn insert(&mut self, pair: usize, states: Vec<T>) -> Result<()> {
        if self.contains(pair) {
            return Ok(());
        }
        let bytes = size_of_val(states.as_slice());
        let place = if bytes <= self.memory_left {
            self.memory_left -= bytes;
            Place::Memory(states)
        } else {
            self.write(&states)?
        };
        self.entries.insert(pair, place);
        Ok(())
    }

    /// The states of a pair, if they are there.
    pub fn get(&self, pair: usize) -> Result<Option<Vec<T>>> {
        match (self.entries.get(&pair), &self.file) {
            (Some(Place::Memory(states)), _) => Ok(Some(states.clone())),
            (Some(&Place::Disk(offset, len)), Some(file)) => {
                let mut states = vec![T::zeroed(); len];
                read_exact_at(file, bytemuck::cast_slice_mut(&mut states), offset)
                    .kind(ErrorKind::Device, || "cannot read the base model's hidden states back".into())?;
                Ok(Some(states))
            }
            _ => Ok(None),
        }
    }

    /// Appends to an unnamed file, which vanishes with the process.
    fn write(&mut self, states: &[T]) -> Result<Place<T>> {
        let complain =
            || format!("cannot keep the base model's hidden states in {}", std::env::temp_dir().display());
        let advised = |e: Error| e.advice(ADVICE);
        let file = match self.file {
            Some(ref file) => file,
            ref mut none => {
                none.insert(tempfile::tempfile().kind(ErrorKind::Device, complain).map_err(advised)?)
            }
        };
        let offset = self.file_len;
        write_all_at(file, bytemuck::cast_slice(states), offset)
            .kind(ErrorKind::Device, complain)
            .map_err(advised)?;
        self.file_len += size_of_val(states) as u64;
        Ok(Place::Disk(offset, states.len()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_and_disk_give_back_the_same() {
        let states = |i: usize| (0..10).map(|j| (i * 10 + j) as f32).collect::<Vec<_>>();
        let mut cache = BaseCache::new(100);
        for i in 0..5 {
            cache.insert(i, states(i)).unwrap();
        }
        assert!(
            matches!(cache.entries[&1], Place::Memory(_)) && matches!(cache.entries[&2], Place::Disk(..))
        );
        for i in 0..5 {
            assert_eq!(cache.get(i).unwrap(), Some(states(i)));
        }
        assert_eq!(cache.get(5).unwrap(), None);
    }
}
