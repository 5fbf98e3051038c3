//! Brings models from the hub into the local cache, laid out as the hub's own client does, which finds them there:
//! contents in `blobs` under their hashes, links to them in `snapshots/<commit>`, and the commit of a branch in `refs`.

use std::collections::BTreeSet;
use std::fs::File;
use std::path::Path;

use super::client::{Client, Listing};
use super::file::RemoteFile;
use super::{DEFAULT_REVISION, Settings, in_cache, is_commit_hash, is_hub_id, repo_dir, repo_name};
use crate::error::{Context, Error, ErrorKind, Result};
use crate::files::require_space;

const WEIGHTS: &str = "model.safetensors";
const INDEX: &str = "model.safetensors.index.json";
const TOKENIZER: &str = "tokenizer.json";

/// What of a model is needed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Need {
    /// Configuration and tokenizer.
    Tokenizer,
    /// Weights as well.
    Model,
}

/// How far the download of a file is.
#[derive(Clone, Copy, Debug)]
pub struct Progress<'a> {
    /// Its name.
    pub file: &'a str,
    /// Bytes that have come, those of earlier tries included.
    pub received: u64,
    /// Bytes in all.
    pub size: u64,
}

/// Makes sure that the cache has what is needed of the model `spec` at its branch `main`; a directory, and what is in the
/// cache, is left as it is. A download that was cut off goes on where it was; every file is checked against its hash.
///
/// # Errors
/// Kind `Model`: offline, the hub cannot be reached or does not have the model, has no safetensors of it, or sends what
/// does not fit its hash. Kind `Device`: the cache cannot be written.
pub fn obtain(
    spec: &str,
    need: Need,
    settings: &Settings,
    watch: &mut dyn FnMut(Progress<'_>),
) -> Result<()> {
    let Some(cache) = settings.cache.as_deref().filter(|_| is_hub_id(spec) && !Path::new(spec).exists())
    else {
        return Ok(());
    };
    let repo = repo_dir(cache, spec);
    let cached = in_cache(spec, DEFAULT_REVISION, &repo);
    if settings.offline {
        return cached.map(drop);
    }
    if cached.is_ok_and(|snapshot| need.is_met_by(&snapshot)) {
        return Ok(());
    }
    let client = Client::new(settings);
    let listing = client.list(spec, DEFAULT_REVISION)?;
    if !is_commit_hash(&listing.sha) {
        return Err(Error::model(format!("{spec}: expected a commit of 40 digits, found {:?}", listing.sha)));
    }
    let download =
        Download { client, id: spec, repo: &repo, locks: &cache.join(".locks").join(repo_name(spec)) };
    download.snapshot(&listing, need, watch)
}

impl Need {
    /// Whether a snapshot has all that is needed. (The hub's own client may have brought a part only.)
    fn is_met_by(self, snapshot: &Path) -> bool {
        let there = |name: &str| snapshot.join(name).exists();
        let weights =
            || there(WEIGHTS) || (there(INDEX) && shards(&snapshot.join(INDEX)).all(|name| there(&name)));
        there("config.json") && there(TOKENIZER) && (self == Need::Tokenizer || weights())
    }

    /// The files of the top folder that are needed.
    fn files(self, listing: &Listing) -> Vec<&RemoteFile> {
        let sharded = listing.files.iter().any(|file| file.name == INDEX);
        let needed = |file: &&RemoteFile| {
            let weights = match sharded {
                true => file.name.starts_with("model-") && file.name.ends_with(".safetensors"),
                false => file.name == WEIGHTS,
            };
            let text = [".json", ".txt", ".jinja"].iter().any(|suffix| file.name.ends_with(suffix));
            !file.name.contains(['/', '\\']) && (text || (weights && self == Need::Model))
        };
        listing.files.iter().filter(needed).collect()
    }
}

/// The files that an index names; none for one that cannot be read, which is for its reader to complain about.
fn shards(index: &Path) -> impl Iterator<Item = String> {
    let parsed = std::fs::read(index).ok().and_then(|bytes| serde_json::from_slice(&bytes).ok());
    let map = parsed.and_then(|index: serde_json::Value| index["weight_map"].as_object().cloned());
    let names: BTreeSet<String> =
        map.into_iter().flatten().filter_map(|(_, name)| Some(name.as_str()?.to_owned())).collect();
    names.into_iter()
}

/// The download of one model.
struct Download<'a> {
    client: Client<'a>,
    id: &'a str,
    /// The model's folder in the cache.
    repo: &'a Path,
    /// Where the hub's own client locks files of the model.
    locks: &'a Path,
}

impl Download<'_> {
    fn snapshot(&self, listing: &Listing, need: Need, watch: &mut dyn FnMut(Progress<'_>)) -> Result<()> {
        let files = need.files(listing);
        let has = |name: &str| files.iter().any(|file| file.name == name);
        for (missing, advice) in [
            ("config.json", "is it a model of transformers?"),
            (TOKENIZER, "only models with a fast tokenizer can be used"),
        ] {
            if !has(missing) {
                return Err(Error::model(format!("{} has no {missing} on the hub; {advice}", self.id)));
            }
        }
        if need == Need::Model && !has(WEIGHTS) && !has(INDEX) {
            return Err(Error::model(format!(
                "{} has neither {WEIGHTS} nor {INDEX} on the hub: expected weights as safetensors (pickle is never \
                 read); choose a revision or model that has them",
                self.id
            )));
        }
        self.require_space(&files)?;
        for file in &files {
            self.file(&listing.sha, file, watch)
                .map_err(|e| e.context(format!("download of {}", file.name)))?;
        }
        self.point_at(&listing.sha)
    }

    /// Of what is missing; before the first byte comes rather than when the disk is full.
    fn require_space(&self, files: &[&RemoteFile]) -> Result<()> {
        let blobs = self.repo.join("blobs");
        std::fs::create_dir_all(&blobs)
            .kind(ErrorKind::Device, || format!("cannot create {}", blobs.display()))?;
        let there = |name: String| blobs.join(name).metadata().map_or(0, |meta| meta.len());
        let missing = |file: &&RemoteFile| {
            let name = file.hash.name();
            file.size.saturating_sub(there(name.to_owned()).max(there(format!("{name}.incomplete"))))
        };
        require_space(&blobs, files.iter().map(missing).fold(0, u64::saturating_add))
    }

    fn file(&self, commit: &str, file: &RemoteFile, watch: &mut dyn FnMut(Progress<'_>)) -> Result<()> {
        let blob = self.repo.join("blobs").join(file.hash.name());
        self.blob(commit, file, &blob, watch)?;
        let complain = || format!("cannot write into {}", self.repo.display());
        let snapshot = self.repo.join("snapshots").join(commit);
        std::fs::create_dir_all(&snapshot).kind(ErrorKind::Device, complain)?;
        let target = Path::new("../../blobs").join(file.hash.name());
        match std::os::unix::fs::symlink(target, snapshot.join(&file.name)) {
            Err(e) if e.kind() == std::io::ErrorKind::AlreadyExists => Ok(()),
            other => other.kind(ErrorKind::Device, complain),
        }
    }

    /// Brings a content, unless another process does.
    fn blob(
        &self,
        commit: &str,
        file: &RemoteFile,
        blob: &Path,
        watch: &mut dyn FnMut(Progress<'_>),
    ) -> Result<()> {
        let complain = || format!("cannot write {}", blob.display());
        for dir in [self.locks, &self.repo.join("blobs")] {
            std::fs::create_dir_all(dir).kind(ErrorKind::Device, complain)?;
        }
        let lock = File::create(self.locks.join(format!("{}.lock", file.hash.name())));
        let lock = lock.kind(ErrorKind::Device, complain)?;
        lock.lock().kind(ErrorKind::Device, complain)?;
        if blob.metadata().is_ok_and(|meta| meta.len() == file.size) {
            return Ok(());
        }
        let partial = blob.with_extension("incomplete");
        let resumed = partial.exists();
        self.client.receive(self.id, commit, file, &partial, watch)?;
        if !self.is_whole(file, &partial)? {
            // Its beginning may be that of something else.
            if resumed {
                self.client.receive(self.id, commit, file, &partial, watch)?;
            }
            if !resumed || !self.is_whole(file, &partial)? {
                return Err(Error::model(format!(
                    "expected content with the hash {}, found another in what came; try again, or check HF_ENDPOINT",
                    file.hash.name()
                )));
            }
        }
        std::fs::rename(&partial, blob).kind(ErrorKind::Device, complain)
    }

    /// Whether `partial` is the file; if not, it is removed.
    fn is_whole(&self, file: &RemoteFile, partial: &Path) -> Result<bool> {
        let complain = || format!("cannot read {}", partial.display());
        let whole = file.hash.of(partial).kind(ErrorKind::Device, complain)? == file.hash;
        if !whole {
            std::fs::remove_file(partial).kind(ErrorKind::Device, complain)?;
        }
        Ok(whole)
    }

    /// Has the branch be the commit: last, so that a snapshot that is found is whole.
    fn point_at(&self, commit: &str) -> Result<()> {
        let refs = self.repo.join("refs");
        let complain = || format!("cannot write {}", refs.join(DEFAULT_REVISION).display());
        std::fs::create_dir_all(&refs).kind(ErrorKind::Device, complain)?;
        let mut builder = tempfile::Builder::new();
        // As the user's umask has it: caches are shared.
        builder.permissions(std::os::unix::fs::PermissionsExt::from_mode(0o666));
        let mut file = builder.tempfile_in(&refs).kind(ErrorKind::Device, complain)?;
        std::io::Write::write_all(&mut file, commit.as_bytes()).kind(ErrorKind::Device, complain)?;
        file.persist(refs.join(DEFAULT_REVISION)).kind(ErrorKind::Device, complain).map(drop)
    }
}
