//! The local cache: its place, its links and locks, and what does not fit in it.

use super::*;

#[test]
fn the_cache_is_where_caches_are() {
    let hub = Hub::new();
    let of = |name: &str, value: &Path| {
        let mut command = hub.generate();
        command.env_remove("HF_HOME").env("HOME", hub.tiny.path("user")).env(name, value);
        ok(command);
    };
    of("XDG_CACHE_HOME", &hub.tiny.path("caches"));
    assert!(hub.tiny.path("caches/huggingface/hub/models--org--tiny/refs/main").exists());
    of("HF_HOME", Path::new("~/models"));
    assert!(hub.tiny.path("user/models/hub/models--org--tiny/refs/main").exists());
}

#[test]
fn a_link_that_leads_elsewhere_is_mended() {
    let hub = Hub::new();
    ok(hub.generate());
    std::fs::remove_file(hub.cached("config.json")).unwrap();
    std::os::unix::fs::symlink("../../blobs/gone", hub.cached("config.json")).unwrap();
    ok(hub.generate());
    hub.assert_whole();
}

#[test]
fn a_cache_without_links_has_the_files_themselves() {
    let hub = Hub::new();
    let generate = |arguments: &str| {
        let mut process = hub.process(arguments);
        refusal::refuse(&mut process, refusal::NO_LINKS);
        ok(in_time(process))
    };
    generate(&format!("data check data --model {ID}"));
    generate(&generating(ID));
    hub.assert_whole();
    let weights = hub.cached(WEIGHTS).symlink_metadata().unwrap();
    assert!(weights.is_file());
    for name in ["config.json", WEIGHTS] {
        assert_eq!(hub.server.requests(&format!("{COMMIT}/{name}")).len(), 1, "{name} comes once");
    }
}

#[test]
fn a_cache_without_locks_is_as_good() {
    let hub = Hub::new();
    let mut process = hub.process(&generating(ID));
    refusal::refuse(&mut process, refusal::NO_LOCKS);
    ok(in_time(process));
    hub.assert_whole();
}

#[test]
fn a_model_that_does_not_fit_the_disk_is_not_begun() {
    let hash = "0".repeat(64);
    let huge = json!({"rfilename": WEIGHTS, "lfs": {"sha256": hash, "size": u64::MAX / 2, "pointerSize": 1}});
    let small = |name: &str| json!({"rfilename": name, "size": 2, "blobId": &hash[..40]});
    let listing = json!({"sha": COMMIT, "siblings": [small("config.json"), small("tokenizer.json"), huge]});
    let text = listing.to_string();
    let hub = Hub::with(move |_, _| Some(Mischief::Answer(200, text.clone().into_bytes())));
    let output = hub.generate().output().unwrap();
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(5), "{stderr}");
    assert!(stderr.contains("models--org--tiny") && stderr.contains("free"), "{stderr}");
    assert_eq!(hub.server.requests("").len(), 1, "the listing");
}

#[test]
fn two_processes_download_once() {
    let (release, released) = mpsc::channel::<()>();
    let released = Mutex::new(released);
    let hub = Hub::with(move |request, _| {
        if request.path == format!("/content/{WEIGHTS}") {
            // An error is a test that has failed, and ended.
            let _ = released.lock().unwrap().recv_timeout(Duration::from_secs(30));
        }
        None
    });
    let start = || {
        let mut process = hub.process(&generating(ID));
        process.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap()
    };
    let mut first = start();
    while hub.server.requests(&format!("/content/{WEIGHTS}")).is_empty() {
        assert!(first.try_wait().unwrap().is_none(), "the download goes on");
        std::thread::sleep(Duration::from_millis(5));
    }
    let mut second = start();
    let mut told = BufReader::new(second.stderr.take().unwrap());
    let waits = told.by_ref().lines().map_while(Result::ok).find(|line| line.contains("another process"));
    assert_eq!(waits.as_deref(), Some("waiting for another process that downloads model.safetensors"));
    release.send(()).unwrap();
    let end = |process: Child| process.wait_with_output().unwrap();
    let (first, mut rest) = (end(first), String::new());
    told.read_to_string(&mut rest).unwrap();
    assert!(first.status.success(), "{}", String::from_utf8_lossy(&first.stderr));
    assert!(end(second).status.success(), "{rest}");
    hub.assert_whole();
    assert_eq!(hub.server.requests(&format!("/content/{WEIGHTS}")).len(), 1);
}
