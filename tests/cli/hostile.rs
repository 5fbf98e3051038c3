//! Wrong, damaged and hostile input: an exit code and a message that names it, at once and without a panic.

use std::path::Path;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::tiny::{self, Tiny, edit_json};
use super::{run, run_with, trained};

const GENERATE: &str = "generate --model model --max-new-tokens 2 ab";

/// How long a refusal may take.
const AT_ONCE: Duration = Duration::from_secs(1);

/// A busy machine may take longer, but not each time.
const TRIES: usize = 5;

/// Bytes of memory that no process of these tests may have taken.
const MEMORY: i64 = 512 << 20;

/// `arguments` fail with `code`, naming `named`.
#[track_caller]
fn refused(tiny: &Tiny, arguments: &str, code: i32, named: &[&str]) {
    let time = || {
        let started = Instant::now();
        run(tiny, arguments).fails(code, named);
        started.elapsed()
    };
    let times: Vec<_> = std::iter::repeat_with(time).take(TRIES).take_while(|time| *time > AT_ONCE).collect();
    assert!(times.len() < TRIES, "{arguments}: {times:?}");
    assert!(largest_process() < MEMORY, "{arguments}, or one before it: {} bytes", largest_process());
}

/// Bytes of memory of the largest process so far that was waited for.
fn largest_process() -> i64 {
    let mut usage = std::mem::MaybeUninit::<libc::rusage>::zeroed();
    // SAFETY: it is a valid place for the answer, and all zeros are a valid answer.
    let usage = unsafe {
        libc::getrusage(libc::RUSAGE_CHILDREN, usage.as_mut_ptr());
        usage.assume_init()
    };
    usage.ru_maxrss * 1024
}

/// A model directory changed by `edit` is refused.
#[track_caller]
fn model_refused(edit: impl FnOnce(&Tiny), named: &[&str]) {
    let tiny = Tiny::new("llama");
    edit(&tiny);
    refused(&tiny, GENERATE, 4, named);
}

#[test]
fn arguments() {
    let tiny = Tiny::new("llama");
    let train = "train --model model --data data --output-dir run --max-steps 1";
    refused(&tiny, "", 2, &["Usage"]);
    refused(&tiny, "tran", 2, &["train"]);
    refused(&tiny, "generate --model model --temprature 1 ab", 2, &["--temprature", "--temperature"]);
    refused(&tiny, "generate --model model", 2, &["PROMPT"]);
    refused(&tiny, &format!("--threads 0 {GENERATE}"), 2, &["--threads"]);
    refused(&tiny, &format!("--threads 99999999999999999999 {GENERATE}"), 2, &["--threads"]);
    refused(&tiny, &format!("--threads 9999999999 {GENERATE}"), 2, &["--threads"]);
    refused(&tiny, &format!("{GENERATE} --top-p 2"), 2, &["top-p"]);
    refused(&tiny, &format!("{GENERATE} --temperature NaN"), 2, &["temperature"]);
    refused(&tiny, &format!("{GENERATE} --device tpu"), 2, &["tpu", "cpu"]);
    refused(&tiny, &format!("{GENERATE} --rescore-every 3"), 2, &["--rescore-every"]);
    refused(&tiny, &format!("{GENERATE} --num-samples 2"), 2, &["greedy"]);
    refused(&tiny, "generate --model model --max-new-tokens 18446744073709551615 ab", 3, &["context"]);
    refused(&tiny, "score --model model data/val/pairs.jsonl", 2, &["--adapter"]);
    refused(&tiny, "train --data data", 2, &["--model", "required"]);
    refused(&tiny, "train --model model", 2, &["--data", "required"]);
    refused(&tiny, &format!("{train} --learning-rate=-1"), 2, &["--learning-rate"]);
    refused(&tiny, &format!("{train} --batch-size 0"), 2, &["--batch-size"]);
    refused(&tiny, &format!("{train} --batch-size 9223372036854775808"), 2, &["--batch-size"]);
    refused(&tiny, &format!("{train} --lora-r 99999999999"), 2, &["--lora-r"]);
    refused(&tiny, &format!("{train} --target-modules q_prj"), 2, &["q_prj"]);
    refused(&tiny, &format!("{train} --resume-from-checkpoint nowhere"), 4, &["nowhere"]);
    refused(&tiny, "generate --model nowhere ab", 4, &["nowhere", "not found"]);
    refused(&tiny, "generate --model org/name ab", 4, &["org/name", "not found"]);
    refused(&tiny, "generate --model ../../no-such-folder ab", 4, &["not found"]);
    refused(&tiny, "generate --model model/config.json ab", 4, &["is a file"]);
    refused(&tiny, "generate --model model --adapter nowhere ab", 4, &["nowhere"]);
}

#[test]
fn configuration_files() {
    let tiny = Tiny::new("llama");
    let with = |toml: &[u8], named: &[&str]| {
        std::fs::write(tiny.path("run.toml"), toml).unwrap();
        refused(&tiny, "train --config run.toml", 2, named);
    };
    with(b"learning_rat = 1", &["run.toml", "learning_rat", "did you mean `learning_rate`"]);
    with(b"learning_rate = \"fast\"", &["run.toml:1: learning_rate: expected a number", "\"fast\""]);
    with(b"seed = -1", &["run.toml:1: seed: expected a whole number of at least 0, found -1"]);
    with(b"seed = = 1", &["run.toml"]);
    with(b"\xff\xfe", &["run.toml"]);
    with(format!("seed = {}1{}", "[".repeat(50_000), "]".repeat(50_000)).as_bytes(), &["run.toml"]);
    refused(&tiny, "train --config nowhere.toml", 2, &["nowhere.toml"]);
}

#[test]
fn training_data() {
    let tiny = Tiny::new("llama");
    let train = "train --model model --data pairs.jsonl --output-dir run --max-steps 1 --max-seq-len 160";
    let good = tiny::pair(0).to_string();
    let with = |text: &[u8], named: &[&str]| {
        std::fs::write(tiny.path("pairs.jsonl"), text).unwrap();
        refused(&tiny, train, 3, named);
        assert!(!tiny.path("run/adapter").exists());
    };
    with(b"", &["pairs.jsonl", "no pair"]);
    with(
        format!("{good}\n{{\"func_src_before\": \"a\"}}\n").as_bytes(),
        &["pairs.jsonl:2", "func_src_after"],
    );
    with(format!("{good}\n\n{{\"func_src\n").as_bytes(), &["pairs.jsonl:3"]);
    with(format!("{good}\n[1]\n").as_bytes(), &["pairs.jsonl:2"]);
    with(b"\xff\xfe{}\n", &["pairs.jsonl:1"]);
    with(b"{\"func_src_before\": \"\xff\", \"func_src_after\": \"b\"}\n", &["pairs.jsonl:1"]);
    with(
        b"{\"func_src_before\": \"  \", \"func_src_after\": \"b\"}\n",
        &["pairs.jsonl:1", "func_src_before"],
    );
    with(b"{\"func_src_before\": \"a\", \"func_src_after\": \"a\"}\n", &["no pair is left", "identical"]);
    with("[".repeat(100_000).as_bytes(), &["pairs.jsonl:1"]);
    refused(&tiny, &train.replace("pairs.jsonl", "nowhere"), 3, &["nowhere"]);
    refused(&tiny, &train.replace("pairs.jsonl", "model"), 3, &["model", ".jsonl"]);
}

#[test]
fn texts() {
    let tiny = trained();
    std::fs::write(tiny.path("binary.py"), b"ab\xffcd").unwrap();
    std::fs::write(tiny.path("empty.py"), b"").unwrap();
    std::fs::write(tiny.path("long.py"), "x = 1\n".repeat(1000)).unwrap();
    let score = "score --model model --adapter run";
    refused(&tiny, &format!("{score} binary.py"), 3, &["binary.py", "UTF-8", "offset 2"]);
    refused(&tiny, &format!("{score} nowhere.py"), 3, &["nowhere.py"]);
    refused(&tiny, &format!("{score} model"), 3, &["model", "found a folder"]);
    refused(&tiny, "generate --model model --prompt-file binary.py", 3, &["binary.py", "UTF-8"]);
    refused(&tiny, "generate --model model --prompt-file empty.py", 3, &["empty"]);
    refused(&tiny, "generate --model model --prompt-file long.py", 3, &["context"]);
    run_with(&tiny, &["generate", "--model", "model", "-"], b"a\xff").fails(3, &["standard input", "UTF-8"]);
    run_with(&tiny, &["generate", "--model", "model", ""], b"").fails(3, &["empty"]);
}

#[test]
fn adapters() {
    let tiny = trained();
    let other = Tiny::new("qwen2");
    let there = other.model().display().to_string();
    refused(
        &tiny,
        &format!("generate --model {there} --adapter run ab"),
        4,
        &["llama", "qwen2", "base model"],
    );
    // What is wrong shall be found in the files themselves, as in an adapter of another program.
    std::fs::remove_file(tiny.path("run/adapter/manifest.json")).unwrap();
    let with = |name: &str, edit: &dyn Fn(&Path), named: &[&str]| {
        let path = tiny.path("run/adapter").join(name);
        let content = std::fs::read(&path).unwrap();
        edit(&path);
        refused(&tiny, "score --model model --adapter run model/config.json", 4, named);
        std::fs::write(&path, content).unwrap();
    };
    let truncate = |path: &Path| {
        let content = std::fs::read(path).unwrap();
        std::fs::write(path, &content[..content.len() - 9]).unwrap();
    };
    with("adapter_model.safetensors", &truncate, &["adapter_model.safetensors"]);
    with("deepguard_model.safetensors", &truncate, &["deepguard_model.safetensors"]);
    with("adapter_config.json", &|path| edit_json(path, |c| c["use_dora"] = true.into()), &["use_dora"]);
    with("adapter_config.json", &|path| edit_json(path, |c| c["r"] = json!(1e300)), &["r:", "expected"]);
    with(
        "deepguard_config.json",
        &|path| std::fs::write(path, "[".repeat(90_000)).unwrap(),
        &["deepguard_config"],
    );
    for rank in [0, 1, 17] {
        with("adapter_config.json", &|path| edit_json(path, |c| c["r"] = rank.into()), &["adapter", "r"]);
    }
    let wider = |path: &Path| {
        tiny::edit_tensors(path, |tensors| {
            for (_, shape, values) in tensors.iter_mut().filter(|tensor| tensor.0.contains("lora_B")) {
                shape[1] *= 2;
                values.extend(values.clone());
            }
        });
    };
    with("adapter_model.safetensors", &wider, &["adapter_model.safetensors", "lora_B"]);
    let layers = json!(u64::MAX);
    with("deepguard_config.json", &|p| edit_json(p, |c| c["hidden_size"] = layers.clone()), &["hidden_size"]);
}

#[test]
fn model_configurations() {
    let cases = [
        ("num_attention_heads", json!(0)),
        ("num_key_value_heads", json!(3)),
        ("hidden_size", json!(1u64 << 63)),
        ("hidden_size", json!(-1)),
        ("vocab_size", json!(1u64 << 63)),
        ("vocab_size", json!(511)),
        ("num_hidden_layers", json!(1u64 << 40)),
        ("num_hidden_layers", json!(6)),
        ("intermediate_size", json!("many")),
        ("max_position_embeddings", json!(0)),
        ("rms_norm_eps", json!("NaN")),
        ("rope_theta", json!(0)),
        ("eos_token_id", json!("end")),
        ("head_dim", json!(15)),
        ("model_type", json!("gpt2")),
    ];
    for (name, value) in cases {
        // A shape that fits no tensor is reported with the tensor's name.
        let named = if name == "num_hidden_layers" { "" } else { name };
        let named = if name == "model_type" { "architectures" } else { named };
        model_refused(|tiny| tiny.edit_config(|config| config[name] = value.clone()), &["dg-run: ", named]);
    }
    let write =
        |text: &'static str| move |tiny: &Tiny| std::fs::write(tiny.path("model/config.json"), text).unwrap();
    model_refused(write("{\"rms_norm_eps\": NaN}"), &["config.json", "JSON"]);
    model_refused(write(""), &["config.json"]);
    model_refused(
        |tiny| std::fs::write(tiny.path("model/config.json"), "{\"a\":".repeat(100_000)).unwrap(),
        &["config.json"],
    );
    model_refused(|tiny| std::fs::remove_file(tiny.path("model/config.json")).unwrap(), &["config.json"]);
}

/// Replaces the weights by a file with this header and `data` bytes.
fn write_weights(path: &Path, header: &Value, data: usize) {
    let header = header.to_string();
    let mut bytes = (header.len() as u64).to_le_bytes().to_vec();
    bytes.extend(header.as_bytes());
    bytes.resize(bytes.len() + data, 0);
    std::fs::write(path, bytes).unwrap();
}

#[test]
fn model_weights() {
    let file = |tiny: &Tiny| tiny.path("model/model.safetensors");
    let bytes = |edit: fn(&mut Vec<u8>)| {
        move |tiny: &Tiny| {
            let mut content = std::fs::read(file(tiny)).unwrap();
            edit(&mut content);
            std::fs::write(file(tiny), content).unwrap();
        }
    };
    let name = ["model.safetensors"];
    model_refused(bytes(|b| b.truncate(b.len() - 1)), &name);
    model_refused(bytes(|b| b.truncate(100)), &name);
    model_refused(bytes(|b| b.clear()), &name);
    model_refused(bytes(|b| b[..8].fill(0xff)), &name);
    model_refused(bytes(|b| b[20..40].fill(0xff)), &name);
    let tensor = |shape: Value, offsets: [u64; 2]| json!({"model.embed_tokens.weight": {"dtype": "F32", "shape": shape, "data_offsets": offsets}});
    let huge = u64::MAX;
    for (shape, offsets, data) in [
        (json!([huge, huge]), [0, 4], 4),
        (json!([1u64 << 32, 1u64 << 32]), [0, 4], 4),
        (json!([1]), [4, 0], 4),
        (json!([1]), [huge - 3, huge], 4),
        (json!([0, huge]), [0, 0], 0),
    ] {
        model_refused(
            |tiny| write_weights(&file(tiny), &tensor(shape, offsets), data),
            &["dg-run: cannot load the base model model: model"],
        );
    }
    model_refused(|tiny| std::fs::remove_file(file(tiny)).unwrap(), &["model.safetensors.index.json"]);
}

#[test]
fn shards() {
    let sharded = |map: Value| {
        move |tiny: &Tiny| {
            std::fs::rename(tiny.path("model/model.safetensors"), tiny.path("model/shard.safetensors"))
                .unwrap();
            tiny::write_json(&tiny.path("model/model.safetensors.index.json"), &json!({"weight_map": map}));
        }
    };
    model_refused(sharded(json!({"a": "missing.safetensors"})), &["missing.safetensors"]);
    model_refused(sharded(json!({"a": "../model/shard.safetensors"})), &["../model/shard.safetensors"]);
    model_refused(sharded(json!({"a": "/etc/passwd"})), &["/etc/passwd"]);
    model_refused(sharded(json!({"a": "shard.safetensors"})), &["shard.safetensors"]);
    // A name that leads to itself.
    let cycle = |tiny: &Tiny| {
        sharded(json!({"a": "cycle.safetensors"}))(tiny);
        std::os::unix::fs::symlink("cycle.safetensors", tiny.path("model/cycle.safetensors")).unwrap();
    };
    model_refused(cycle, &["cycle.safetensors"]);
    model_refused(sharded(json!({"a": "model.safetensors.index.json"})), &["model.safetensors.index.json"]);
    model_refused(sharded(json!([])), &["index.json"]);
    model_refused(sharded(json!({})), &["dg-run: "]);
}

#[test]
fn what_is_no_file() {
    for name in ["config.json", "tokenizer.json", "model.safetensors"] {
        let instead = |place: fn(&Path)| {
            move |tiny: &Tiny| {
                let path = tiny.model().join(name);
                std::fs::remove_file(&path).unwrap();
                place(&path);
            }
        };
        model_refused(instead(|path| std::fs::create_dir(path).unwrap()), &[name]);
        model_refused(instead(|path| std::os::unix::fs::symlink("/dev/zero", path).unwrap()), &[name]);
        model_refused(instead(|path| std::os::unix::fs::symlink(path, path).unwrap()), &[name]);
        // Reading it would take for ever.
        let pipe = |path: &Path| {
            assert!(std::process::Command::new("mkfifo").arg(path).status().unwrap().success());
        };
        model_refused(instead(pipe), &[name]);
    }
}

#[test]
fn tokenizers() {
    let edited =
        |edit: fn(&mut Value)| move |tiny: &Tiny| edit_json(&tiny.path("model/tokenizer.json"), edit);
    model_refused(
        edited(|t| t["model"]["vocab"]["b"] = 5000.into()),
        &["tokenizer.json", "\"b\"", "5000", "rows"],
    );
    model_refused(edited(|t| t["model"]["type"] = "Future".into()), &["tokenizer.json"]);
    model_refused(edited(|t| t["model"]["dropout"] = 0.5.into()), &["tokenizer.json", "dropout"]);
    // The tokenizers library panics on this one.
    model_refused(edited(|t| t["decoder"] = "Fuse".into()), &["tokenizer.json"]);
    model_refused(
        |tiny| std::fs::remove_file(tiny.path("model/tokenizer.json")).unwrap(),
        &["tokenizer.json"],
    );
    model_refused(
        |tiny| std::fs::write(tiny.path("model/tokenizer.json"), "[".repeat(100_000)).unwrap(),
        &["tokenizer.json"],
    );
}

#[test]
fn gguf_files() {
    let tiny = Tiny::new("llama");
    let good = gguf();
    let cut: [usize; 5] = [0, 3, 20, good.len() / 2, good.len() - 1];
    for end in cut {
        std::fs::write(tiny.path("model.gguf"), &good[..end]).unwrap();
        refused(&tiny, "import model.gguf --out imported", 4, &["model.gguf"]);
    }
    for at in [4, 8, 16] {
        let mut bad = good.clone();
        bad[at..at + 4].fill(0xff);
        std::fs::write(tiny.path("model.gguf"), bad).unwrap();
        refused(&tiny, "import model.gguf --out imported", 4, &["model.gguf"]);
    }
    assert!(!tiny.path("imported").exists());
}

/// A GGUF file of a Llama with one layer, hidden size 8 and 6 tokens.
pub fn gguf() -> Vec<u8> {
    let mut file = Gguf::default();
    file.text("general.architecture", "llama");
    let sizes = [
        ("block_count", 1),
        ("context_length", 64),
        ("embedding_length", 8),
        ("feed_forward_length", 12),
        ("attention.head_count", 2),
        ("attention.head_count_kv", 1),
    ];
    sizes.iter().for_each(|(name, n)| file.value(&format!("llama.{name}"), 4, &u32::to_le_bytes(*n)));
    file.value("llama.attention.layer_norm_rms_epsilon", 6, &1e-5f32.to_le_bytes());
    file.text("tokenizer.ggml.model", "gpt2");
    file.text("tokenizer.ggml.pre", "gpt-2");
    file.texts("tokenizer.ggml.tokens", &["<|end|>", "a", "b", "Ġ", "ab", "Ġa"]);
    let types = [3i32, 1, 1, 1, 1, 1].map(i32::to_le_bytes).concat();
    file.array("tokenizer.ggml.token_type", 5, 6, &types);
    file.texts("tokenizer.ggml.merges", &["a b", "Ġ a"]);
    file.value("tokenizer.ggml.eos_token_id", 4, &0u32.to_le_bytes());
    let block = [
        "attn_norm",
        "attn_q",
        "attn_k",
        "attn_v",
        "attn_output",
        "ffn_norm",
        "ffn_gate",
        "ffn_up",
        "ffn_down",
    ];
    let shapes: [&[u64]; 9] = [&[8], &[8, 8], &[8, 4], &[8, 4], &[8, 8], &[8], &[8, 12], &[8, 12], &[12, 8]];
    file.tensor("token_embd.weight", &[8, 6]);
    file.tensor("output_norm.weight", &[8]);
    block.iter().zip(shapes).for_each(|(name, shape)| file.tensor(&format!("blk.0.{name}.weight"), shape));
    file.finish()
}

/// A GGUF file in the making.
#[derive(Default)]
struct Gguf {
    items: (u64, Vec<u8>),
    tensors: (u64, Vec<u8>),
    data: Vec<u8>,
}

impl Gguf {
    fn value(&mut self, key: &str, kind: u32, bytes: &[u8]) {
        self.items.0 += 1;
        put_text(&mut self.items.1, key);
        self.items.1.extend(kind.to_le_bytes());
        self.items.1.extend(bytes);
    }

    fn text(&mut self, key: &str, value: &str) {
        let mut bytes = Vec::new();
        put_text(&mut bytes, value);
        self.value(key, 8, &bytes);
    }

    fn array(&mut self, key: &str, kind: u32, len: u64, bytes: &[u8]) {
        self.value(key, 9, &[&kind.to_le_bytes()[..], &len.to_le_bytes(), bytes].concat());
    }

    fn texts(&mut self, key: &str, values: &[&str]) {
        let mut bytes = Vec::new();
        values.iter().for_each(|value| put_text(&mut bytes, value));
        self.array(key, 8, values.len() as u64, &bytes);
    }

    /// An f32 tensor, fastest axis first.
    fn tensor(&mut self, name: &str, shape: &[u64]) {
        self.tensors.0 += 1;
        put_text(&mut self.tensors.1, name);
        self.tensors.1.extend((shape.len() as u32).to_le_bytes());
        shape.iter().for_each(|axis| self.tensors.1.extend(axis.to_le_bytes()));
        self.tensors.1.extend(0u32.to_le_bytes());
        self.tensors.1.extend((self.data.len() as u64).to_le_bytes());
        let values = (0..shape.iter().product()).map(|i: u64| (i % 13) as f32 * 0.1 - 0.5);
        self.data.extend(values.flat_map(f32::to_le_bytes));
        self.data.resize(self.data.len().next_multiple_of(32), 0);
    }

    fn finish(self) -> Vec<u8> {
        let mut bytes = b"GGUF".to_vec();
        bytes.extend(3u32.to_le_bytes());
        bytes.extend(self.tensors.0.to_le_bytes());
        bytes.extend(self.items.0.to_le_bytes());
        bytes.extend(self.items.1);
        bytes.extend(self.tensors.1);
        bytes.resize(bytes.len().next_multiple_of(32), 0);
        bytes.extend(self.data);
        bytes
    }
}

fn put_text(bytes: &mut Vec<u8>, text: &str) {
    bytes.extend((text.len() as u64).to_le_bytes());
    bytes.extend(text.as_bytes());
}
