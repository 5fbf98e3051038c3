//! Connections that break, servers that are busy, send something else, or refuse.

use super::*;

#[test]
fn a_connection_that_breaks_goes_on_where_it_was() {
    let broken = 5000;
    let hub = Hub::with(move |request, before| {
        (request.path == format!("/content/{WEIGHTS}") && before < 3).then_some(Mischief::Break(broken))
    });
    ok(hub.generate());
    hub.assert_whole();
    let from: Vec<_> = hub.server.requests(&format!("/content/{WEIGHTS}")).iter().map(|r| r.from).collect();
    assert_eq!(from, [None, Some(broken), Some(2 * broken), Some(3 * broken)]);
}

#[test]
fn a_download_that_was_killed_goes_on_where_it_was() {
    let hub = Hub::new();
    let weights = hub.weights();
    hub.partial(&weights[..weights.len() / 2]);
    ok(hub.generate());
    hub.assert_whole();
    let requests = hub.server.requests(&format!("/content/{WEIGHTS}"));
    assert_eq!(requests.iter().map(|r| r.from).collect::<Vec<_>>(), [Some(weights.len() / 2)]);
}

#[test]
fn what_is_left_of_another_content_is_thrown_away() {
    let weights = Hub::new().weights();
    for left in [vec![7; weights.len() / 2], vec![7; weights.len()], vec![7; weights.len() + 1]] {
        let hub = Hub::new();
        hub.partial(&left);
        ok(hub.generate());
        hub.assert_whole();
    }
}

#[test]
fn a_server_without_parts_sends_all() {
    let hub = Hub::with(|_, _| Some(Mischief::Whole));
    hub.partial(&hub.weights()[..100]);
    ok(hub.generate());
    hub.assert_whole();
}

#[test]
fn a_busy_server_is_waited_for() {
    let hub = Hub::with(|request, before| {
        let answer = if before == 0 { 503 } else { 429 };
        (request.path.ends_with(WEIGHTS) && before < 2).then(|| Mischief::Answer(answer, Vec::new()))
    });
    ok(hub.generate());
    hub.assert_whole();
}

#[test]
fn a_busy_hub_is_waited_for_as_long_as_it_asks() {
    for head in ["retry-after: 1\r\n", "ratelimit: \"api\";r=0;t=1\r\n"] {
        let hub = Hub::with(move |request, before| match before {
            0 if request.path.starts_with("/api") => Some(Mischief::Refuse(429, head.into())),
            1 if request.path.starts_with("/api") => Some(Mischief::Break(10)),
            0 if request.path.ends_with(WEIGHTS) => Some(Mischief::Refuse(503, head.into())),
            _ => None,
        });
        let start = Instant::now();
        let told = String::from_utf8(ok(hub.generate()).stderr).unwrap();
        hub.assert_whole();
        for (answer, times) in [("429 Too Many Requests", 1), ("503 Service Unavailable", 2)] {
            let line = format!("the server answered {answer}; next try in 1 s");
            assert_eq!(told.matches(&line).count(), times, "{line:?} in {told}");
        }
        assert!(start.elapsed() >= Duration::from_secs(2));
    }
}

#[test]
fn only_what_is_not_there_is_not_found() {
    for (status, fate, other) in
        [(404, "not found", "cannot be fetched"), (400, "cannot be fetched", "not found")]
    {
        let hub = Hub::with(move |_, _| Some(Mischief::Answer(status, Vec::new())));
        let told = String::from_utf8(hub.generate().output().unwrap().stderr).unwrap();
        assert!(told.contains(&format!("model \"{ID}\" {fate}")) && !told.contains(other), "{told}");
        assert_eq!(hub.server.requests("").len(), 1, "what does not pass is not tried again");
    }
}

#[test]
fn contents_are_asked_for_as_they_are() {
    let hub = Hub::new();
    ok(hub.generate());
    for request in hub.server.requests("") {
        assert_eq!(request.encoding.as_deref(), Some("identity"), "{}", request.path);
    }
}

#[test]
fn a_wrong_content_is_caught() {
    for position in [0, 100_000] {
        let mut other = Hub::new().weights();
        other[position] ^= 1;
        let hash = tiny_hash(&Hub::new().tiny.model().join(WEIGHTS));
        let hub = Hub::with(move |request, _| {
            request.path.ends_with(WEIGHTS).then(|| Mischief::Instead(other.clone()))
        });
        fails(hub.generate(), &["download of model.safetensors", "hash", &hash]);
        assert!(!hub.repo().join("blobs").join(&hash).exists());
        assert!(!hub.repo().join("refs/main").exists());
    }
}

#[test]
fn a_file_that_never_ends_does_not_fill_the_disk() {
    let endless = vec![0; 8 << 20];
    let hub = Hub::with(move |request, _| {
        request.path.ends_with("config.json").then(|| Mischief::Instead(endless.clone()))
    });
    fails(hub.generate(), &["download of config.json", "hash"]);
    let kept: u64 = walk(&hub.repo()).iter().map(|file| file.metadata().unwrap().len()).sum();
    assert!(kept < 1 << 20, "{kept} bytes");
}

fn walk(dir: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path());
    entries.flat_map(|path| if path.is_dir() { walk(&path) } else { vec![path] }).collect()
}

#[test]
fn a_gated_model_needs_a_token_that_only_the_hub_sees() {
    let hub = Hub::with(|request, _| {
        let allowed = request.path.starts_with("/content") || request.token.as_deref() == Some("secret");
        (!allowed).then(|| Mischief::Answer(401, Vec::new()))
    });
    fails(hub.generate(), &[ID, "401", "HF_TOKEN"]);
    let mut command = hub.generate();
    command.env("HF_TOKEN", "secret");
    ok(command);
    assert!(hub.server.requests(&format!("/content/{WEIGHTS}")).iter().all(|r| r.token.is_none()));
}

#[test]
fn a_gated_file_is_refused_in_the_words_of_the_hub() {
    let hub = Hub::with(|request, _| {
        let long = "x".repeat(5000);
        let head = format!("x-error-code: GatedRepo\r\nx-error-message: Ask\t\u{e9} its author. {long}\r\n");
        request.path.contains("/resolve/").then_some(Mischief::Refuse(403, head))
    });
    std::fs::create_dir_all(hub.tiny.path("home")).unwrap();
    std::fs::write(hub.tiny.path("home/token"), "of-file").unwrap();
    let output = hub.generate().output().unwrap();
    let told = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(4), "{told}");
    for part in ["cannot be fetched", "403", "GatedRepo: Ask its author.", "home/token", "terms"] {
        assert!(told.contains(part), "{part:?} not in {told}");
    }
    assert!(!told.contains("not found") && !told.contains("HF_TOKEN") && told.len() < 2000, "{told}");
    assert!(!told.contains(['\t', '\u{fffd}']), "{told}");
}

#[test]
fn a_model_that_was_renamed_is_followed() {
    let hub = Hub::with(|request, _| {
        let is_old = request.path.contains("org/old");
        let denied = !request.path.starts_with("/content") && request.token.as_deref() != Some("secret");
        match (is_old, denied) {
            // To a path on the same host, as the hub does it.
            (true, _) => Some(Mischief::Redirect(request.path.replace("org/old", ID))),
            (false, true) => Some(Mischief::Answer(401, Vec::new())),
            (false, false) => None,
        }
    });
    let mut command = hub.command(&generating("org/old"));
    command.env("HF_TOKEN", "secret");
    ok(command);
    assert!(hub.tiny.path("home/hub/models--org--old/refs/main").exists());
    let elsewhere = hub.server.requests(&format!("/content/{WEIGHTS}"));
    assert!(elsewhere.len() == 1 && elsewhere[0].token.is_none(), "{elsewhere:?}");
}
