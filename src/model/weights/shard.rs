//! Opens safetensors files, alone or as the shards of an index, and checks them.

use std::collections::btree_map::Entry as Slot;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::fs::File;
use std::path::{Component, Path};
use std::sync::Arc;

use memmap2::Mmap;
use safetensors::tensor::Metadata;
use serde::Deserialize;
use serde::de::{Deserializer, IgnoredAny, MapAccess, Visitor};

use super::Entry;
use crate::error::{Context, Error, ErrorKind, Result};
use crate::model::fields::INDEX;
use crate::model::json::{read_bounded, unknown_outer_fields};

/// Room for 25,000 tensors, twice the most that a configuration can ask for. Parsing takes up to 20 times
/// this.
const MAX_HEADER_BYTES: usize = 4 << 20;

/// As for the header; an index says less about a tensor than a header does.
const MAX_INDEX_BYTES: u64 = MAX_HEADER_BYTES as u64;

/// A file starts with the length of its header.
const LENGTH_BYTES: usize = size_of::<u64>();

/// The tensors of one file.
pub(super) fn open_file(path: &Path) -> Result<BTreeMap<String, Entry>> {
    let map = Arc::new(map(path)?);
    let (data_start, metadata) = read_header(&map).map_err(|e| e.context(path.display()))?;
    let entry = |info| Entry { map: map.clone(), data_start, info };
    Ok(metadata.tensors().into_iter().map(|(name, info)| (name, entry(info.clone()))).collect())
}

fn map(path: &Path) -> Result<Mmap> {
    let complain = || format!("cannot open {}", path.display());
    let meta = std::fs::metadata(path).kind(ErrorKind::Model, complain)?;
    if !meta.is_file() {
        return Err(Error::model(format!("{} is not a regular file", path.display())));
    }
    let file = File::open(path).kind(ErrorKind::Model, complain)?;
    // SAFETY: a mapping may change under its reader if the file is written to. Nothing here writes to a model
    // directory in place, `Weights::open` asks the same of everybody else, and the bytes are only ever read
    // as plain numbers, for which every bit pattern is valid: a foreign write can yield wrong numbers (or, if
    // it cuts the file, end the process with SIGBUS), as with every loader of this format.
    unsafe { Mmap::map(&file) }.kind(ErrorKind::Model, complain)
}

/// `(offset of the data, checked header)`; offsets in the header count from there and end with the file.
fn read_header(file: &[u8]) -> Result<(usize, Metadata)> {
    let data_start = data_start(file)?;
    let header = &file[LENGTH_BYTES..data_start];
    let invalid = || "the header is not valid".to_owned();
    // Checks that the tensors follow each other without gaps and are as long as their shapes say.
    let metadata: Metadata = serde_json::from_slice(header).kind(ErrorKind::Model, invalid)?;
    // Two tensors of one name are an error; the line above would keep one of them.
    serde_json::from_slice::<UniqueKeys<IgnoredAny>>(header).kind(ErrorKind::Model, invalid)?;
    let (expected, found) = (metadata.data_len(), file.len() - data_start);
    if expected != found {
        let expected = data_start as u128 + expected as u128;
        return Err(wrong_length(&expected.to_string(), file.len()));
    }
    Ok((data_start, metadata))
}

fn data_start(file: &[u8]) -> Result<usize> {
    if file.starts_with(b"version https://git-lfs") {
        let hint = "run `git lfs pull` where it came from";
        return Err(Error::model(format!("this is a Git LFS pointer, not the weights themselves: {hint}")));
    }
    let Some((length, rest)) = file.split_first_chunk::<LENGTH_BYTES>() else {
        return Err(wrong_length("at least 8", file.len()));
    };
    let length = u64::from_le_bytes(*length);
    let Some(length) = usize::try_from(length).ok().filter(|&n| n <= MAX_HEADER_BYTES) else {
        return Err(Error::model(format!(
            "expected a safetensors header of at most {MAX_HEADER_BYTES} bytes, found the length {length}"
        )));
    };
    if length > rest.len() {
        return Err(wrong_length(&format!("at least {}", LENGTH_BYTES + length), file.len()));
    }
    Ok(LENGTH_BYTES + length)
}

fn wrong_length(expected: &str, found: usize) -> Error {
    let hint = if found == 0 { "the file is empty" } else { "it is truncated or damaged: fetch it again" };
    Error::model(format!("expected {expected} bytes, found {found}; {hint}"))
}

#[derive(Deserialize)]
struct Index {
    weight_map: UniqueKeys<String>,
}

/// The files that the index of shards at `path` names; all are plain names.
///
/// # Errors
/// Kind `Model` for a damaged index, or one that names a file elsewhere.
pub fn shard_names(path: &Path) -> Result<BTreeSet<String>> {
    Ok(parse_index(path, &read_bounded(path, MAX_INDEX_BYTES)?)?.into_values().collect())
}

/// Which file of a plain name holds a tensor, by the index `json` at `path`.
fn parse_index(path: &Path, json: &[u8]) -> Result<BTreeMap<String, String>> {
    let Index { weight_map: UniqueKeys(weight_map) } = serde_json::from_slice(json)
        .kind(ErrorKind::Model, || format!("{} is not a valid index of shards", path.display()))?;
    let checked = weight_map.values().try_for_each(|name| check_shard_name(name));
    checked.map_err(|e| e.context(path.display()))?;
    Ok(weight_map)
}

/// The tensors of all shards of the index at `path`, which must place every one of them where it is.
/// `notes` get a sentence about what else it says.
pub(super) fn open_index(path: &Path, notes: &mut Vec<String>) -> Result<BTreeMap<String, Entry>> {
    let label = path.display().to_string();
    let json = read_bounded(path, MAX_INDEX_BYTES)?;
    notes.extend(unknown_outer_fields(&label, &json, &INDEX));
    let in_index = |e: Error| e.context(path.display());
    let weight_map = parse_index(path, &json)?;
    let shards: BTreeSet<&str> = weight_map.values().map(String::as_str).collect();
    let mut tensors = BTreeMap::new();
    for shard in shards {
        let found = open_file(&path.with_file_name(shard)).map_err(in_index)?;
        check_shard(shard, &found, &weight_map).map_err(in_index)?;
        tensors.extend(found);
    }
    Ok(tensors)
}

/// A shard lies beside its index: anything but a plain file name could reach files elsewhere.
fn check_shard_name(name: &str) -> Result<()> {
    let mut parts = Path::new(name).components();
    let plain = matches!((parts.next(), parts.next()), (Some(Component::Normal(part)), None) if part == name);
    if plain && name.ends_with(".safetensors") && !name.contains(['\\', '\0']) {
        return Ok(());
    }
    Err(Error::model(format!("expected the plain name of a .safetensors file, found {name:?}")))
}

/// The tensors in a shard must be those that the index says are in it.
fn check_shard(
    shard: &str,
    found: &BTreeMap<String, Entry>,
    weight_map: &BTreeMap<String, String>,
) -> Result<()> {
    let promised = weight_map.iter().filter(|(_, place)| *place == shard).map(|(name, _)| name);
    if let Some(names) = list(promised.filter(|name| !found.contains_key(*name))) {
        return Err(Error::model(format!("{shard} lacks tensors that the index says it has: {names}")));
    }
    if let Some(names) =
        list(found.keys().filter(|name| weight_map.get(*name).is_none_or(|place| place != shard)))
    {
        return Err(Error::model(format!("{shard} has tensors that the index does not say it has: {names}")));
    }
    Ok(())
}

/// The first few of `items`, and how many more there are; `None` if there are none.
pub(super) fn list(items: impl Iterator<Item = impl fmt::Display>) -> Option<String> {
    const SHOWN: usize = 8;
    let items: Vec<String> = items.map(|item| item.to_string()).collect();
    let shown = items.iter().take(SHOWN).cloned().collect::<Vec<_>>().join(", ");
    match items.len() {
        0 => None,
        n if n > SHOWN => Some(format!("{shown} and {} more", n - SHOWN)),
        _ => Some(shown),
    }
}

/// A JSON object in which no key occurs twice.
struct UniqueKeys<T>(BTreeMap<String, T>);

impl<'de, T: Deserialize<'de>> Deserialize<'de> for UniqueKeys<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> std::result::Result<Self, D::Error> {
        struct Collect<T>(std::marker::PhantomData<T>);

        impl<'de, T: Deserialize<'de>> Visitor<'de> for Collect<T> {
            type Value = UniqueKeys<T>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object without repeated keys")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> std::result::Result<Self::Value, A::Error> {
                let mut unique = BTreeMap::new();
                while let Some((key, value)) = map.next_entry()? {
                    match unique.entry(key) {
                        Slot::Vacant(slot) => slot.insert(value),
                        Slot::Occupied(slot) => {
                            return Err(serde::de::Error::custom(format!("{:?} occurs twice", slot.key())));
                        }
                    };
                }
                Ok(UniqueKeys(unique))
            }
        }

        deserializer.deserialize_map(Collect(std::marker::PhantomData))
    }
}
