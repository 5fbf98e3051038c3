//! Small GGUF files built in memory, and what the importer makes of them.

mod hostile;
mod models;
mod tokenizers;

use super::Model;
use crate::error::{ErrorKind, Result};

/// A metadata value to write.
#[derive(Clone)]
enum Item {
    U32(u32),
    F32(f32),
    Bool(bool),
    Text(String),
    Texts(Vec<String>),
    I32s(Vec<i32>),
    F32s(Vec<f32>),
    /// A type code and the bytes after it.
    Raw(u32, Vec<u8>),
}

/// A GGUF file in the making.
#[derive(Clone)]
struct Fixture {
    items: Vec<(String, Item)>,
    tensors: Vec<(String, Vec<u64>, u32, Vec<u8>)>,
}

const F32_CODE: u32 = 0;

fn text(value: &str) -> Item {
    Item::Text(value.into())
}

fn texts(values: &[&str]) -> Item {
    Item::Texts(values.iter().map(|v| v.to_string()).collect())
}

impl Fixture {
    /// One layer, hidden size 8, 2 heads of 4 with 1 key-value head, 7 tokens, tied, every weight different.
    fn new(architecture: &str) -> Self {
        let mut fixture = Fixture { items: Vec::new(), tensors: Vec::new() };
        fixture.set("general.architecture", text(architecture));
        for (name, value) in [
            ("block_count", 1),
            ("context_length", 64),
            ("embedding_length", 8),
            ("feed_forward_length", 12),
            ("attention.head_count", 2),
            ("attention.head_count_kv", 1),
        ] {
            fixture.set(&format!("{architecture}.{name}"), Item::U32(value));
        }
        fixture.set(&format!("{architecture}.rope.freq_base"), Item::F32(1e6));
        fixture.set(&format!("{architecture}.attention.layer_norm_rms_epsilon"), Item::F32(1e-5));
        fixture.add_tokenizer();
        fixture.add_tensors(architecture == "qwen2");
        fixture
    }

    fn add_tokenizer(&mut self) {
        let tokens = ["<|end|>", "a", "b", "Ġ", "ab", "Ġa", "<user>"];
        self.set("tokenizer.ggml.model", text("gpt2"));
        self.set("tokenizer.ggml.pre", text("gpt-2"));
        self.set("tokenizer.ggml.tokens", texts(&tokens));
        self.set("tokenizer.ggml.token_type", Item::I32s(vec![3, 1, 1, 1, 1, 1, 4]));
        self.set("tokenizer.ggml.merges", texts(&["a b", "Ġ a"]));
        self.set("tokenizer.ggml.eos_token_id", Item::U32(0));
    }

    fn add_tensors(&mut self, biases: bool) {
        self.floats("token_embd.weight", &[7, 8]);
        self.floats("output_norm.weight", &[8]);
        for (name, shape) in [
            ("attn_norm", &[8][..]),
            ("attn_q", &[8, 8]),
            ("attn_k", &[4, 8]),
            ("attn_v", &[4, 8]),
            ("attn_output", &[8, 8]),
            ("ffn_norm", &[8]),
            ("ffn_gate", &[12, 8]),
            ("ffn_up", &[12, 8]),
            ("ffn_down", &[8, 12]),
        ] {
            self.floats(&format!("blk.0.{name}.weight"), shape);
        }
        for (name, length) in [("attn_q", 8), ("attn_k", 4), ("attn_v", 4)].into_iter().filter(|_| biases) {
            self.floats(&format!("blk.0.{name}.bias"), &[length]);
        }
    }

    /// Sets or replaces a metadata value.
    fn set(&mut self, key: &str, item: Item) -> &mut Self {
        self.remove(key);
        self.items.push((key.into(), item));
        self
    }

    fn remove(&mut self, key: &str) -> &mut Self {
        self.items.retain(|(name, _)| name != key);
        self
    }

    /// Adds an f32 tensor of `shape` (slowest axis first) whose values are 0, 1, 2, ... plus a number of its
    /// own.
    fn floats(&mut self, name: &str, shape: &[u64]) -> &mut Self {
        let start = 100.0 * self.tensors.len() as f32;
        let values = (0..shape.iter().product()).map(|i: u64| start + i as f32);
        self.tensor(name, shape, F32_CODE, values.flat_map(f32::to_le_bytes).collect())
    }

    fn tensor(&mut self, name: &str, shape: &[u64], code: u32, data: Vec<u8>) -> &mut Self {
        self.tensors.push((name.into(), shape.into(), code, data));
        self
    }

    /// The file, and where its tensor data begins.
    fn build(&self) -> (Vec<u8>, usize) {
        let mut bytes = b"GGUF".to_vec();
        put_u32(&mut bytes, 3);
        put_u64(&mut bytes, self.tensors.len() as u64);
        put_u64(&mut bytes, self.items.len() as u64);
        for (key, item) in &self.items {
            put_text(&mut bytes, key);
            put_item(&mut bytes, item);
        }
        let mut data = Vec::new();
        for (name, shape, code, tensor) in &self.tensors {
            data.resize(data.len().next_multiple_of(32), 0);
            put_text(&mut bytes, name);
            put_u32(&mut bytes, shape.len() as u32);
            shape.iter().rev().for_each(|axis| put_u64(&mut bytes, *axis));
            put_u32(&mut bytes, *code);
            put_u64(&mut bytes, data.len() as u64);
            data.extend_from_slice(tensor);
        }
        bytes.resize(bytes.len().next_multiple_of(32), 0);
        let start = bytes.len();
        bytes.extend(data);
        (bytes, start)
    }

    fn bytes(&self) -> Vec<u8> {
        self.build().0
    }

    /// Runs `test` on what the importer reads from this file.
    fn read<T>(&self, test: impl FnOnce(Result<Model<'_>>) -> T) -> T {
        test(Model::read(&self.bytes()))
    }

    /// The message with which the file is refused.
    fn refusal(&self) -> String {
        refusal(&self.bytes())
    }
}

/// The message with which the importer refuses `bytes`.
fn refusal(bytes: &[u8]) -> String {
    match Model::read(bytes) {
        Ok(_) => panic!("the file was accepted"),
        Err(error) => {
            assert_eq!(error.kind(), ErrorKind::Model, "{error}");
            error.to_string()
        }
    }
}

fn put_u32(bytes: &mut Vec<u8>, value: u32) {
    bytes.extend(value.to_le_bytes());
}

fn put_u64(bytes: &mut Vec<u8>, value: u64) {
    bytes.extend(value.to_le_bytes());
}

fn put_text(bytes: &mut Vec<u8>, value: &str) {
    put_u64(bytes, value.len() as u64);
    bytes.extend(value.as_bytes());
}

fn put_item(bytes: &mut Vec<u8>, item: &Item) {
    match item {
        Item::U32(value) => put_scalar(bytes, 4, &value.to_le_bytes()),
        Item::F32(value) => put_scalar(bytes, 6, &value.to_le_bytes()),
        Item::Bool(value) => put_scalar(bytes, 7, &[u8::from(*value)]),
        Item::Text(value) => {
            put_u32(bytes, 8);
            put_text(bytes, value);
        }
        Item::Texts(values) => {
            put_array(bytes, 8, values.len());
            values.iter().for_each(|value| put_text(bytes, value));
        }
        Item::I32s(values) => {
            put_array(bytes, 5, values.len());
            values.iter().for_each(|value| bytes.extend(value.to_le_bytes()));
        }
        Item::F32s(values) => {
            put_array(bytes, 6, values.len());
            values.iter().for_each(|value| bytes.extend(value.to_le_bytes()));
        }
        Item::Raw(code, value) => put_scalar(bytes, *code, value),
    }
}

fn put_scalar(bytes: &mut Vec<u8>, code: u32, value: &[u8]) {
    put_u32(bytes, code);
    bytes.extend(value);
}

fn put_array(bytes: &mut Vec<u8>, code: u32, count: usize) {
    put_u32(bytes, 9);
    put_u32(bytes, code);
    put_u64(bytes, count as u64);
}
