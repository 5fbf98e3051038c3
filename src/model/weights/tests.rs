use std::fs;
use std::os::unix::fs::FileExt;

use half::{bf16, f16};
use safetensors::Dtype as FileDtype;
use safetensors::tensor::TensorView as FileView;
use tempfile::TempDir;

use super::*;
use crate::error::ErrorKind;
use crate::ops::Dtype;

fn golden(model: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/models").join(model)
}

/// A model of one layer, 61 numbers in all.
fn small_config() -> Config {
    let json = r#"{"model_type": "llama", "hidden_size": 2, "intermediate_size": 3, "num_hidden_layers": 1,
                   "num_attention_heads": 1, "vocab_size": 5, "max_position_embeddings": 8}"#;
    Config::from_json(json).unwrap()
}

/// Tensor `i` of the small model consists of `i, i + 1/8, …`, which all three types hold exactly.
fn values(i: usize, shape: &[usize]) -> Vec<f32> {
    (0..shape.iter().product()).map(|j| i as f32 + j as f32 / 8.0).collect()
}

fn encoded(values: &[f32], dtype: FileDtype) -> Vec<u8> {
    match dtype {
        FileDtype::BF16 => values.iter().flat_map(|&x| bf16::from_f32(x).to_le_bytes()).collect(),
        FileDtype::F16 => values.iter().flat_map(|&x| f16::from_f32(x).to_le_bytes()).collect(),
        FileDtype::F64 => values.iter().flat_map(|&x| f64::from(x).to_le_bytes()).collect(),
        _ => values.iter().flat_map(|x| x.to_le_bytes()).collect(),
    }
}

type Table = Vec<(String, FileDtype, Vec<usize>, Vec<u8>)>;

/// The tensors of the small model in the given type.
fn small_tensors(dtype: FileDtype) -> Table {
    let specs = expected_tensors(&small_config()).into_iter().enumerate();
    specs.map(|(i, s)| (s.name, dtype, s.shape.clone(), encoded(&values(i, &s.shape), dtype))).collect()
}

fn file_bytes(tensors: &Table) -> Vec<u8> {
    let view = |data, dtype, shape: &Vec<usize>| FileView::new(dtype, shape.clone(), data).unwrap();
    safetensors::serialize(
        tensors.iter().map(|(name, dtype, shape, data)| (name, view(data, *dtype, shape))),
        None,
    )
    .unwrap()
}

/// A file with a header written by hand.
fn raw_file(header: &str, data: &[u8]) -> Vec<u8> {
    [&(header.len() as u64).to_le_bytes(), header.as_bytes(), data].concat()
}

fn directory(files: &[(&str, &[u8])]) -> TempDir {
    let dir = tempfile::tempdir().unwrap();
    for (name, bytes) in files {
        fs::write(dir.path().join(name), bytes).unwrap();
    }
    dir
}

fn single(bytes: &[u8]) -> TempDir {
    directory(&[(SINGLE_FILE, bytes)])
}

/// Two shards with every other tensor each, and their index.
fn sharded(
    dtype: FileDtype,
    weight_map: impl FnOnce(&mut serde_json::Map<String, serde_json::Value>),
) -> TempDir {
    let mut shards: [Table; 2] = Default::default();
    let mut map = serde_json::Map::new();
    for (i, tensor) in small_tensors(dtype).into_iter().enumerate() {
        map.insert(tensor.0.clone(), format!("model-{}.safetensors", i % 2).into());
        shards[i % 2].push(tensor);
    }
    weight_map(&mut map);
    let index = serde_json::json!({"metadata": {"total_size": 1}, "weight_map": map}).to_string();
    directory(&[
        ("model-0.safetensors", &file_bytes(&shards[0])),
        ("model-1.safetensors", &file_bytes(&shards[1])),
        (INDEX_FILE, index.as_bytes()),
    ])
}

#[track_caller]
fn assert_error<T>(result: Result<T>, named: &[&str]) {
    let error = result.err().expect("an error");
    assert_eq!(error.kind(), ErrorKind::Model, "{error}");
    for name in named {
        assert!(error.to_string().contains(name), "{name:?} not in: {error}");
    }
}

#[test]
fn golden_models_open_and_fit_their_configuration() {
    for model in ["llama-tiny", "qwen2-tiny"] {
        let config = Config::from_dir(&golden(model)).unwrap();
        let weights = Weights::open(&golden(model)).unwrap();
        weights.check(&config).unwrap();
        assert_eq!(weights.names().count(), expected_tensors(&config).len());
        let embedding = weights.tensor(EMBEDDING).unwrap();
        assert_eq!(embedding.shape(), [512, 64]);
        assert_eq!(embedding.as_f32().unwrap().len(), 512 * 64);
    }
}

#[test]
fn all_types_read_the_same_from_one_file_and_from_shards() {
    for (dtype, expected) in
        [(FileDtype::F32, Dtype::F32), (FileDtype::BF16, Dtype::Bf16), (FileDtype::F16, Dtype::F16)]
    {
        for dir in [single(&file_bytes(&small_tensors(dtype))), sharded(dtype, |_| ())] {
            let weights = Weights::open(dir.path()).unwrap();
            weights.check(&small_config()).unwrap();
            for (i, spec) in expected_tensors(&small_config()).into_iter().enumerate() {
                let view = weights.tensor(&spec.name).unwrap();
                assert_eq!((view.name(), view.dtype(), view.shape()), (&*spec.name, expected, &*spec.shape));
                assert_eq!(view.to_f32_vec(), values(i, &spec.shape));
                assert_eq!((view.len(), view.is_empty()), (spec.shape.iter().product(), false));
            }
        }
    }
}

#[test]
fn slices_are_typed() {
    let dir = single(&file_bytes(&small_tensors(FileDtype::BF16)));
    let view = Weights::open(dir.path()).unwrap().tensor("model.norm.weight").unwrap();
    let expected = values(10, &[2]);
    assert_eq!(view.as_bf16().unwrap(), [bf16::from_f32(expected[0]), bf16::from_f32(expected[1])]);
    for error in [view.as_f32().map(|_| ()), view.as_f16().map(|_| ())] {
        assert_eq!(error.unwrap_err().kind(), ErrorKind::Internal);
    }
}

#[test]
fn rows_are_views() {
    let dir = single(&file_bytes(&small_tensors(FileDtype::F16)));
    let view = Weights::open(dir.path()).unwrap().tensor(EMBEDDING).unwrap();
    let rows = view.rows(1..4).unwrap();
    assert_eq!((rows.shape(), rows.to_f32_vec()), (&[3, 2][..], values(0, &[5, 2])[2..8].to_vec()));
    assert_eq!(rows.rows(2..3).unwrap().to_f32_vec(), values(0, &[5, 2])[6..8]);
    assert!(view.rows(5..5).unwrap().is_empty());
    #[allow(clippy::reversed_empty_ranges)]
    for wrong in [0..6, 6..6, 3..2, 0..usize::MAX] {
        assert_eq!(view.rows(wrong).unwrap_err().kind(), ErrorKind::Internal);
    }
}

#[test]
fn misaligned_tensors_are_copied() {
    let header = r#"{"a":{"dtype":"BF16","shape":[1],"data_offsets":[0,2]},"b":{"dtype":"F32","shape":[2],"data_offsets":[2,10]}}"#;
    let data = [encoded(&[0.5], FileDtype::BF16), encoded(&[1.5, -2.0], FileDtype::F32)].concat();
    for padding in 0..8 {
        let header = format!("{header}{}", " ".repeat(padding));
        let dir = single(&raw_file(&header, &data));
        let weights = Weights::open(dir.path()).unwrap();
        assert_eq!(weights.tensor("a").unwrap().to_f32_vec(), [0.5]);
        let b = weights.tensor("b").unwrap();
        assert_eq!(b.as_f32().unwrap(), [1.5, -2.0]);
        assert_eq!(b.rows(1..2).unwrap().as_f32().unwrap(), [-2.0]);
    }
}

#[test]
fn empty_tensors_do_not_overflow() {
    let header = r#"{"a":{"dtype":"F32","shape":[0,4611686018427387904,4],"data_offsets":[0,0]},"b":{"dtype":"F16","shape":[],"data_offsets":[0,2]}}"#;
    let dir = single(&raw_file(header, &[0, 0]));
    let weights = Weights::open(dir.path()).unwrap();
    assert!(weights.tensor("a").unwrap().rows(0..0).unwrap().as_f32().unwrap().is_empty());
    assert_eq!(weights.tensor("b").unwrap().rows(0..1).unwrap_err().kind(), ErrorKind::Internal);
}

#[test]
fn check_lists_every_misfit() {
    let mut tensors = small_tensors(FileDtype::F32);
    tensors.retain(|(name, ..)| name != "model.layers.0.mlp.up_proj.weight");
    tensors[1].2 = vec![1, 2];
    tensors[10].1 = FileDtype::F64;
    tensors[10].3 = encoded(&values(10, &[5, 2]), FileDtype::F64);
    tensors.push(("model.layers.1.mlp.up_proj.weight".to_owned(), FileDtype::F32, vec![1], vec![0; 4]));
    let dir = single(&file_bytes(&tensors));
    assert_error(
        Weights::open(dir.path()).unwrap().check(&small_config()),
        &[
            "missing: model.layers.0.mlp.up_proj.weight",
            "model.layers.0.input_layernorm.weight: expected shape [2], found [1, 2]",
            "lm_head.weight: expected one of the types F32, BF16, F16, found F64",
            "unknown: model.layers.1.mlp.up_proj.weight",
        ],
    );
}

#[test]
fn check_shows_only_the_first_of_many() {
    let dir = single(&raw_file("{}", &[]));
    assert_error(
        Weights::open(dir.path()).unwrap().check(&small_config()),
        &["model.embed_tokens.weight", "and 4 more"],
    );
}

#[test]
fn unsupported_types_are_refused_by_name() {
    for (dtype, bytes) in [("F64", 8), ("I8", 1), ("F8_E4M3", 1), ("I64", 8), ("BOOL", 1)] {
        let header = format!(r#"{{"a":{{"dtype":"{dtype}","shape":[1],"data_offsets":[0,{bytes}]}}}}"#);
        let dir = single(&raw_file(&header, &vec![0; bytes]));
        assert_error(Weights::open(dir.path()).unwrap().tensor("a"), &["a: ", dtype, "F32, BF16, F16"]);
    }
    let dir = single(&raw_file("{}", &[]));
    assert_error(Weights::open(dir.path()).unwrap().tensor("a"), &["no tensor a"]);
}

#[test]
fn the_head_follows_tie_word_embeddings() {
    let untied = small_config();
    let tied = Config { tie_word_embeddings: true, ..small_config() };
    let with_head = single(&file_bytes(&small_tensors(FileDtype::F32)));
    let without_head = single(&file_bytes(&small_tensors(FileDtype::F32)[..11].to_vec()));
    Weights::open(with_head.path()).unwrap().check(&tied).unwrap();
    Weights::open(without_head.path()).unwrap().check(&tied).unwrap();
    assert_error(
        Weights::open(without_head.path()).unwrap().check(&untied),
        &["missing: lm_head.weight (tie_word_embeddings is false)"],
    );
}

#[test]
fn rotary_frequencies_are_tolerated_whatever_their_type() {
    let mut tensors = small_tensors(FileDtype::F32);
    let name = "model.layers.0.self_attn.rotary_emb.inv_freq".to_owned();
    tensors.push((name, FileDtype::F64, vec![1], vec![0; 8]));
    let dir = single(&file_bytes(&tensors));
    Weights::open(dir.path()).unwrap().check(&small_config()).unwrap();
}

#[test]
fn the_embedding_must_have_vocab_size_rows() {
    let dir = single(&file_bytes(&small_tensors(FileDtype::F32)));
    let config = Config { vocab_size: 6, ..small_config() };
    assert_error(Weights::open(dir.path()).unwrap().check(&config), &["vocab_size = 6", "has 5 rows"]);
}

#[test]
fn nothing_to_open_says_what_is_expected() {
    let empty = directory(&[]);
    assert_error(
        Weights::open(empty.path()),
        &["model.safetensors", "model.safetensors.index.json", "neither"],
    );
    let pickle = directory(&[("pytorch_model.bin", b"")]);
    assert_error(Weights::open(pickle.path()), &["pytorch_model.bin", "pickles are never read"]);
    let folder = tempfile::tempdir().unwrap();
    fs::create_dir(folder.path().join(SINGLE_FILE)).unwrap();
    assert_error(Weights::open(folder.path()), &["not a regular file"]);
}

#[test]
fn headers_that_lie_are_refused() {
    let tensor = |fields: &str| format!(r#"{{"a":{{{fields}}}}}"#);
    let twice = r#"{"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]},"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}}"#;
    for header in [
        "[]".to_owned(),
        "{\"a\":".to_owned(),
        "[".repeat(10_000),
        twice.to_owned(),
        tensor(r#""dtype":"F32","shape":[2],"data_offsets":[0,4]"#),
        tensor(r#""dtype":"F32","shape":[1],"data_offsets":[4,0]"#),
        tensor(r#""dtype":"F32","shape":[1],"data_offsets":[1,5]"#),
        tensor(r#""dtype":"F32","shape":[-1],"data_offsets":[0,4]"#),
        tensor(r#""dtype":"F32","shape":[4611686018427387905,4],"data_offsets":[0,4]"#),
        tensor(r#""dtype":"F32","shape":[2305843009213693952],"data_offsets":[0,9223372036854775808]"#),
        tensor(r#""dtype":"F33","shape":[1],"data_offsets":[0,4]"#),
        tensor(r#""dtype":"F32","data_offsets":[0,4]"#),
    ] {
        let dir = single(&raw_file(&header, &[0; 4]));
        assert_error(Weights::open(dir.path()), &["model.safetensors"]);
    }
    let exbibyte =
        r#"{"a":{"dtype":"U8","shape":[1152921504606846976],"data_offsets":[0,1152921504606846976]}}"#;
    let dir = single(&raw_file(exbibyte, &[]));
    assert_error(Weights::open(dir.path()), &["expected 1152921504606847073 bytes, found 97"]);
    let not_utf8 = [&4u64.to_le_bytes()[..], b"{\"\xff\"", &[0; 4]].concat();
    assert_error(Weights::open(single(&not_utf8).path()), &["model.safetensors"]);
}

#[test]
fn header_lengths_that_lie_are_refused() {
    for length in [1 << 24, 1 << 40, u64::MAX - 8, u64::MAX] {
        let dir = single(&[&length.to_le_bytes()[..], b"{}"].concat());
        assert_error(Weights::open(dir.path()), &["header", &length.to_string()]);
    }
    let dir = single(&[&1000u64.to_le_bytes()[..], b"{}"].concat());
    assert_error(Weights::open(dir.path()), &["at least 1008 bytes, found 10"]);
    assert_error(Weights::open(single(b"").path()), &["found 0", "empty"]);
    let pointer = b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 1\n";
    assert_error(Weights::open(single(pointer).path()), &["Git LFS pointer"]);
}

#[test]
fn a_file_cut_anywhere_is_refused() {
    let whole = file_bytes(&small_tensors(FileDtype::F32));
    let dir = single(&whole);
    let file = fs::OpenOptions::new().write(true).open(dir.path().join(SINGLE_FILE)).unwrap();
    for length in (0..whole.len()).rev() {
        file.set_len(length as u64).unwrap();
        assert_error(Weights::open(dir.path()), &["model.safetensors", "bytes, found", &length.to_string()]);
    }
}

#[test]
fn surplus_bytes_are_refused() {
    let mut bytes = file_bytes(&small_tensors(FileDtype::F32));
    let length = bytes.len();
    bytes.push(0);
    let named = [format!("expected {length} bytes"), format!("found {}", length + 1)];
    assert_error(Weights::open(single(&bytes).path()), &[&named[0], &named[1]]);
}

#[test]
fn every_damaged_header_byte_is_refused_or_harmless() {
    let whole = file_bytes(&small_tensors(FileDtype::F32));
    let header = 8 + u64::from_le_bytes(whole[..8].try_into().unwrap()) as usize;
    let mut accepted = 0;
    for (at, mask) in (0..header).flat_map(|at| [(at, 0x01), (at, 0x08), (at, 0x20), (at, 0x80), (at, 0xff)])
    {
        let mut bytes = whole.clone();
        bytes[at] ^= mask;
        let dir = single(&bytes);
        match Weights::open(dir.path()).and_then(|weights| weights.check(&small_config())) {
            Ok(()) => accepted += 1,
            Err(error) => assert_eq!(error.kind(), ErrorKind::Model),
        }
    }
    // The padding of the header may be any white space.
    assert!(accepted < 16, "{accepted} damaged headers were taken for whole");
}

/// A real file's truncation at every KiB, and 100,000 flips of a bit.
#[test]
fn a_damaged_model_is_refused_or_harmless() {
    let golden = golden("llama-tiny");
    let config = Config::from_dir(&golden).unwrap();
    let whole = fs::read(golden.join(SINGLE_FILE)).unwrap();
    let dir = single(&whole);
    let file = fs::OpenOptions::new().write(true).open(dir.path().join(SINGLE_FILE)).unwrap();
    let check = || Weights::open(dir.path()).and_then(|weights| weights.check(&config));
    for length in (0..whole.len()).step_by(1024).collect::<Vec<_>>().into_iter().rev() {
        file.set_len(length as u64).unwrap();
        assert_error(check(), &["model.safetensors", "bytes, found"]);
    }
    file.write_all_at(&whole, 0).unwrap();
    let header = 8 + u64::from_le_bytes(whole[..8].try_into().unwrap()) as usize;
    let mut random = 0x9e37_79b9_7f4a_7c15_u64;
    for flip in 0..100_000 {
        random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        // Every second one in the header, where all the sense is.
        let range = if flip % 2 == 0 { header } else { whole.len() };
        let at = (random >> 33) as usize % range;
        file.write_all_at(&[whole[at] ^ 1 << (random >> 30 & 7)], at as u64).unwrap();
        match check() {
            Ok(()) => {}
            Err(error) => assert_eq!(error.kind(), ErrorKind::Model, "a flip at {at}: {error}"),
        }
        file.write_all_at(&whole[at..=at], at as u64).unwrap();
    }
    check().unwrap();
}

#[test]
fn shards_outside_the_directory_are_refused() {
    for name in [
        "../a.safetensors",
        "/a.safetensors",
        "a/b.safetensors",
        "./a.safetensors",
        "a.safetensors/",
        "..",
        "",
        "a.safetensors/..",
        "a\\b.safetensors",
        "a\0.safetensors",
        "pytorch_model.bin",
        INDEX_FILE,
    ] {
        let dir = sharded(FileDtype::F32, |map| {
            map.insert(EMBEDDING.to_owned(), name.into());
        });
        assert_error(Weights::open(dir.path()), &[INDEX_FILE, "plain name", &format!("{name:?}")]);
    }
}

#[test]
fn an_index_must_agree_with_its_shards() {
    let edited = |edit: fn(&mut serde_json::Map<String, serde_json::Value>)| {
        Weights::open(sharded(FileDtype::F32, edit).path())
    };
    let to = |map: &mut serde_json::Map<String, serde_json::Value>, name: &str, shard: &str| {
        map.insert(name.to_owned(), shard.into());
    };
    let missing = sharded(FileDtype::F32, |map| to(map, "extra", "model-2.safetensors"));
    assert_error(Weights::open(missing.path()), &["model-2.safetensors", "No such file"]);
    let absent = sharded(FileDtype::F32, |map| to(map, "extra", "model-1.safetensors"));
    assert_error(Weights::open(absent.path()), &["model-1.safetensors lacks", "extra"]);
    let moved = sharded(FileDtype::F32, |map| to(map, EMBEDDING, "model-1.safetensors"));
    assert_error(Weights::open(moved.path()), &["model-0.safetensors has", EMBEDDING]);
    let unlisted = edited(|map| {
        map.remove(EMBEDDING);
    });
    assert_error(unlisted, &["model-0.safetensors has", EMBEDDING]);
}

#[test]
fn malformed_indexes_are_refused() {
    let deep = "[".repeat(10_000);
    let twice = r#"{"weight_map": {"a": "model-0.safetensors", "a": "model-1.safetensors"}}"#;
    for index in
        ["", "[]", "{}", r#"{"weight_map": []}"#, r#"{"weight_map": {"a": 1}}"#, twice, &deep, "\u{feff}{}"]
    {
        assert_error(Weights::open(directory(&[(INDEX_FILE, index.as_bytes())]).path()), &[INDEX_FILE]);
    }
    assert_error(Weights::open(directory(&[(INDEX_FILE, twice.as_bytes())]).path()), &["\"a\" occurs twice"]);
    let dir = directory(&[(INDEX_FILE, b"")]);
    fs::File::create(dir.path().join(INDEX_FILE)).unwrap().set_len(8 << 30).unwrap();
    assert_error(Weights::open(dir.path()), &[INDEX_FILE, "at most"]);
}
