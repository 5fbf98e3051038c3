//! Models by hub id: downloaded once, resumed, checked, and not asked for where that is not wanted. The hub
//! is a server of the test's own.

#[path = "common/places.rs"]
mod places;
#[path = "common/tiny.rs"]
mod tiny;

#[path = "hub/cache.rs"]
mod cache;
#[path = "hub/refusal.rs"]
mod refusal;
#[path = "hub/server.rs"]
mod server;
#[path = "hub/transfers.rs"]
mod transfers;

use std::io::{BufRead, BufReader, Read};
use std::path::{Path, PathBuf};
use std::process::{Child, Command as Process, Output, Stdio};
use std::sync::{Mutex, mpsc};
use std::time::{Duration, Instant};

use assert_cmd::Command;
use serde_json::json;
use server::{COMMIT, ID, Mischief, Request, Server};
use tiny::Tiny;

const WEIGHTS: &str = "model.safetensors";
const INDEX: &str = "model.safetensors.index.json";

/// Environment variables that would change a test.
const VARIABLES: [&str; 17] = [
    "HF_HUB_CACHE",
    "HUGGINGFACE_HUB_CACHE",
    "XDG_CACHE_HOME",
    "HF_TOKEN",
    "HF_TOKEN_PATH",
    "HF_HUB_DISABLE_IMPLICIT_TOKEN",
    "HF_HUB_OFFLINE",
    "TRANSFORMERS_OFFLINE",
    "ALL_PROXY",
    "all_proxy",
    "HTTPS_PROXY",
    "https_proxy",
    "HTTP_PROXY",
    "http_proxy",
    "NO_PROXY",
    "no_proxy",
    "DG_EMULATOR",
];

/// A model on a hub, and a home whose cache is empty.
struct Hub {
    tiny: Tiny,
    server: Server,
}

impl Hub {
    fn new() -> Self {
        Self::with(|_, _| None)
    }

    fn with(plan: impl Fn(&Request, usize) -> Option<Mischief> + Send + Sync + 'static) -> Self {
        let tiny = Tiny::new("qwen2");
        let server = Server::new(&tiny.model(), plan);
        Hub { tiny, server }
    }

    fn process(&self, arguments: &str) -> Process {
        let mut process = Process::new(env!("CARGO_BIN_EXE_dg-run"));
        for name in VARIABLES {
            process.env_remove(name);
        }
        process.env("HF_HOME", self.tiny.path("home")).env("HF_ENDPOINT", self.server.address());
        process.args(arguments.split(' ')).current_dir(self.tiny.path(""));
        process
    }

    fn command(&self, arguments: &str) -> Command {
        in_time(self.process(arguments))
    }

    fn generate(&self) -> Command {
        self.command(&generating(ID))
    }

    fn repo(&self) -> PathBuf {
        self.tiny.path("home/hub/models--org--tiny")
    }

    fn cached(&self, name: &str) -> PathBuf {
        self.repo().join("snapshots").join(COMMIT).join(name)
    }

    /// A download of the weights that was cut off, with what came of it.
    fn partial(&self, bytes: &[u8]) {
        std::fs::create_dir_all(self.repo().join("blobs")).unwrap();
        let hash = tiny_hash(&self.tiny.model().join(WEIGHTS));
        std::fs::write(self.repo().join("blobs").join(hash + ".incomplete"), bytes).unwrap();
    }

    fn weights(&self) -> Vec<u8> {
        std::fs::read(self.tiny.model().join(WEIGHTS)).unwrap()
    }

    #[track_caller]
    fn assert_whole(&self) {
        for name in ["config.json", "tokenizer.json", WEIGHTS] {
            let expected = std::fs::read(self.tiny.model().join(name)).unwrap();
            assert!(std::fs::read(self.cached(name)).unwrap() == expected, "{name}");
        }
        assert_eq!(std::fs::read_to_string(self.repo().join("refs/main")).unwrap(), COMMIT);
        let blobs = std::fs::read_dir(self.repo().join("blobs")).unwrap();
        assert!(blobs.flatten().all(|blob| !blob.file_name().to_string_lossy().ends_with("incomplete")));
    }
}

fn generating(model: &str) -> String {
    format!("generate --model {model} --device cpu --max-new-tokens 2 x")
}

fn in_time(process: Process) -> Command {
    let mut command = Command::from_std(process);
    command.timeout(Duration::from_secs(60));
    command
}

/// Splits the model's weights into two shards of these names, and a file that no index names.
fn split_weights(tiny: &Tiny, names: [&str; 2]) {
    let tensors = tiny::read_tensors(&tiny.model().join(WEIGHTS));
    let (first, second) = tensors.split_at(tensors.len() / 2);
    let mut map = serde_json::Map::new();
    for (name, tensors) in names.into_iter().zip([first, second]) {
        tiny::write_tensors(&tiny.model().join(name), tensors);
        tensors.iter().for_each(|tensor| drop(map.insert(tensor.0.clone(), json!(name))));
    }
    std::fs::rename(tiny.model().join(WEIGHTS), tiny.model().join("model-stray.safetensors")).unwrap();
    let index = json!({"metadata": {"total_size": 0}, "weight_map": map});
    tiny::write_json(&tiny.model().join(INDEX), &index);
}

fn tiny_hash(path: &Path) -> String {
    use sha2::{Digest, Sha256};
    Sha256::digest(std::fs::read(path).unwrap()).iter().map(|byte| format!("{byte:02x}")).collect()
}

#[track_caller]
fn ok(mut command: Command) -> Output {
    let output = command.output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    output
}

#[track_caller]
fn fails(mut command: Command, named: &[&str]) {
    let output = command.output().unwrap();
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(4), "{stderr}");
    named.iter().for_each(|name| assert!(stderr.contains(name), "{name:?} not in: {stderr}"));
}

#[test]
fn a_model_is_downloaded_once() {
    let hub = Hub::new();
    let first = ok(hub.generate());
    let told = String::from_utf8_lossy(&first.stderr);
    assert!(told.contains("downloading model.safetensors"), "{told}");
    hub.assert_whole();
    assert!(hub.cached(WEIGHTS).is_symlink(), "as the hub's own client has it");
    let asked = hub.server.requests("").len();
    assert_eq!(ok(hub.generate()).stdout, first.stdout);
    assert_eq!(hub.server.requests("").len(), asked, "the second time nothing is asked for");
}

#[test]
fn a_revision_is_downloaded_once_and_found_again() {
    for revision in ["v1.0", "refs/pr/1", COMMIT] {
        let hub = Hub::new();
        let generate = |more: &str| hub.command(&format!("{} --revision {revision}{more}", generating(ID)));
        ok(generate(""));
        assert!(hub.cached(WEIGHTS).exists());
        let reference = std::fs::read_to_string(hub.repo().join("refs").join(revision)).ok();
        assert_eq!(reference.as_deref(), Some(COMMIT).filter(|_| revision != COMMIT), "{revision}");
        let asked = hub.server.requests("").len();
        ok(generate(""));
        ok(generate(" --offline"));
        ok(hub.command(&format!("data check data --model {ID} --revision {revision}")));
        assert_eq!(hub.server.requests("").len(), asked, "the second time nothing is asked for");
        // No branch `main` is known, so the message has to say what is.
        fails(hub.command(&format!("{} --offline", generating(ID))), &["refs/main", "--revision", COMMIT]);
    }
    let hub = Hub::new();
    fails(hub.command(&format!("{} --revision v9", generating(ID))), &["v9", "404"]);
    let output = hub.command(&format!("{} --revision ../x", generating(ID))).output().unwrap();
    assert_eq!(output.status.code(), Some(2));
    let listings: Vec<_> = hub.server.requests("").into_iter().map(|request| request.path).collect();
    assert_eq!(listings, [format!("/api/models/{ID}/revision/v9?blobs=true")]);
}

#[test]
fn a_run_names_the_commit_it_used() {
    let hub = Hub::new();
    let train = "train --data data --output-dir run --max-steps 1 --lora-r 2 --device cpu";
    ok(hub.command(&format!("{train} --model {ID} --revision v1.0")));
    let config = std::fs::read_to_string(hub.tiny.path("run/train_config.json")).unwrap();
    let config: serde_json::Value = serde_json::from_str(&config).unwrap();
    assert_eq!((&config["model"], &config["model_revision"]), (&json!(ID), &json!(COMMIT)));
}

#[test]
fn info_tells_of_hub_and_cache_but_no_token() {
    let hub = Hub::new();
    ok(hub.generate());
    for arguments in ["info", "info --json"] {
        let mut command = hub.command(arguments);
        command.env("HF_TOKEN", "secret").env("HF_HUB_OFFLINE", "1");
        let told = String::from_utf8(ok(command).stdout).unwrap();
        for part in [ID, hub.server.address(), "offline", "home/hub"] {
            assert!(told.contains(part), "{part} not in {told}");
        }
        assert!(!told.contains("secret"), "{told}");
    }
}

#[test]
fn counting_tokens_needs_no_weights() {
    let hub = Hub::new();
    ok(hub.command(&format!("data check data --model {ID}")));
    assert!(hub.cached("tokenizer.json").exists());
    assert!(hub.server.requests(WEIGHTS).is_empty());
    // The snapshot is there now, but not all that a model needs.
    ok(hub.generate());
    hub.assert_whole();
}

#[test]
fn all_shards_of_an_index_come() {
    for names in [
        ["model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"],
        ["pytorch_model-00001-of-00002.safetensors", "b.safetensors"],
    ] {
        let tiny = Tiny::new("llama");
        split_weights(&tiny, names);
        std::fs::write(tiny.model().join("pytorch_model.bin"), "pickle").unwrap();
        let hub = Hub { server: Server::new(&tiny.model(), |_, _| None), tiny };
        ok(hub.generate());
        names.iter().for_each(|name| assert!(hub.cached(name).exists(), "{name}"));
        for other in ["pytorch_model.bin", "model-stray.safetensors"] {
            assert!(hub.server.requests(other).is_empty(), "{other}");
        }
        let asked = hub.server.requests("").len();
        ok(hub.generate());
        assert_eq!(hub.server.requests("").len(), asked, "the second time nothing is asked for");
        // A shard that went away comes again.
        std::fs::remove_file(hub.cached(names[0]).canonicalize().unwrap()).unwrap();
        ok(hub.generate());
    }
}

#[test]
fn an_index_names_what_the_hub_has() {
    for (name, complaint) in [
        ("missing.safetensors", "although its model.safetensors.index.json names it"),
        ("../../../../b.safetensors", "plain name"),
        ("b.bin", "plain name"),
    ] {
        let tiny = Tiny::new("llama");
        split_weights(&tiny, ["a.safetensors", "b.safetensors"]);
        tiny::edit_json(&tiny.model().join(INDEX), |index| index["weight_map"]["more"] = json!(name));
        let hub = Hub { server: Server::new(&tiny.model(), |_, _| None), tiny };
        fails(hub.generate(), &[name, complaint]);
        assert!(!hub.repo().join("refs/main").exists());
        assert!(hub.server.requests("a.safetensors").is_empty(), "nothing large comes for nothing");
    }
}

#[test]
fn single_weights_go_before_an_index() {
    let tiny = Tiny::new("llama");
    let weights = std::fs::read(tiny.model().join(WEIGHTS)).unwrap();
    split_weights(&tiny, ["a.safetensors", "b.safetensors"]);
    std::fs::write(tiny.model().join(WEIGHTS), weights).unwrap();
    let hub = Hub { server: Server::new(&tiny.model(), |_, _| None), tiny };
    ok(hub.generate());
    hub.assert_whole();
    assert!(hub.server.requests("a.safetensors").is_empty(), "the loader takes the single file");
}

#[test]
fn a_file_that_is_not_needed_may_look_like_anything() {
    for odd in [
        json!({"rfilename": "onnx/model.onnx"}),
        json!({"rfilename": "model.gguf", "size": -1, "lfs": 7, "blobId": "?"}),
        json!({"size": 7}),
        json!("README.md"),
    ] {
        let listed = odd.clone();
        let hub = Hub::with(move |_, _| Some(Mischief::List(listed.clone())));
        ok(hub.generate());
        hub.assert_whole();
    }
    let hub = Hub::with(move |_, _| Some(Mischief::List(json!({"rfilename": "vocab.json"}))));
    fails(hub.generate(), &["vocab.json", "size", "hash"]);
}

#[test]
fn what_the_hub_does_not_have_is_named() {
    let hub = Hub::new();
    fails(hub.command("generate --model org/other --device cpu x"), &["org/other", "404", "name"]);
    let tiny = Tiny::new("llama");
    std::fs::rename(tiny.model().join(WEIGHTS), tiny.model().join("pytorch_model.bin")).unwrap();
    let hub = Hub { server: Server::new(&tiny.model(), |_, _| None), tiny };
    fails(hub.generate(), &[WEIGHTS, "safetensors", "pickle"]);
    std::fs::remove_file(hub.tiny.model().join("tokenizer.json")).unwrap();
    let hub = Hub { server: Server::new(&hub.tiny.model(), |_, _| None), tiny: hub.tiny };
    fails(hub.generate(), &["tokenizer.json"]);
}

#[test]
fn offline_nothing_is_asked_for() {
    let hub = Hub::new();
    for (name, value) in [("HF_HUB_OFFLINE", "1"), ("TRANSFORMERS_OFFLINE", "true")] {
        let mut command = hub.generate();
        command.env(name, value);
        fails(command, &[ID, "not found", "offline"]);
    }
    let offline = format!("generate --offline --model {ID} --device cpu --max-new-tokens 2 x");
    fails(hub.command(&offline), &[ID, "not found", "offline"]);
    assert!(hub.server.requests("").is_empty());
    ok(hub.generate());
    ok(hub.command(&offline));
}

#[test]
fn a_hub_that_is_not_there_is_not_waited_for() {
    let hub = Hub::new();
    let mut command = hub.generate();
    command.env("HF_ENDPOINT", "http://127.0.0.1:9");
    let start = Instant::now();
    fails(command, &[ID, "127.0.0.1:9", "HF_ENDPOINT", "no such directory"]);
    assert!(start.elapsed() < Duration::from_secs(5));
}

#[test]
fn a_listing_that_makes_no_sense_is_refused() {
    let hash = "0".repeat(40);
    for body in [
        json!("hello"),
        json!({"sha": "../../..", "siblings": []}),
        json!({"sha": COMMIT, "siblings": []}),
        json!({"sha": COMMIT, "siblings": [{"rfilename": "config.json", "size": 1, "blobId": "../../../x"},
                                           {"rfilename": "tokenizer.json", "size": 1, "blobId": hash}]}),
        json!({"sha": COMMIT, "siblings": [{"rfilename": "../../../config.json", "size": 1, "blobId": hash}]}),
    ] {
        let text = body.to_string();
        let hub = Hub::with(move |_, _| Some(Mischief::Answer(200, text.clone().into_bytes())));
        fails(hub.generate(), &[]);
        assert!(!hub.repo().exists(), "{body}");
    }
}
