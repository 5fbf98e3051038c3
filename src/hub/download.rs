//! Brings models from the hub into the local cache, laid out as the hub's own client does, which finds them
//! there: contents in `blobs` under their hashes, links to them in `snapshots/<commit>`, and the commit of a
//! branch in `refs`.

use std::fs::{File, TryLockError};
use std::io;
use std::path::{Path, PathBuf};

use super::client::{Client, Listing};
use super::file::RemoteFile;
pub use super::progress::{Event, Progress};
use super::{DEFAULT_REVISION, Settings, is_commit_hash, is_hub_id, repo_dir, repo_name, resolve};
use crate::error::{Context, Error, ErrorKind, Result};
use crate::files::{parent, require_space, write_file};
use crate::model::weights::shard_names;
use crate::platform::link_file;

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

/// The directory of the model `spec`, as [`resolve_model`](super::resolve_model) finds it, after what is
/// needed of a hub id's `revision` has been downloaded into the cache. A directory, and what is in the cache,
/// is left as it is. A download that was cut off goes on where it was; every file is checked against its
/// hash.
///
/// # Errors
/// As [`resolve_model`](super::resolve_model) for what cannot be downloaded. Kind `Model` as well: the hub
/// cannot be reached or does not have the model or revision, has no safetensors of it, or sends what does not
/// fit its hash. Kind `Device`: the cache cannot be written.
pub fn obtain(
    spec: &str,
    revision: Option<&str>,
    need: Need,
    settings: &Settings,
    watch: &mut dyn FnMut(Event<'_>),
) -> Result<PathBuf> {
    let found = resolve(spec, revision, settings.cache.as_deref());
    let remote = is_hub_id(spec) && !Path::new(spec).exists() && !settings.offline;
    let Some(cache) = settings.cache.as_deref().filter(|_| remote) else { return found };
    match &found {
        Ok(snapshot) if need.is_met_by(snapshot) => return found,
        Err(error) if error.kind() == ErrorKind::Usage => return found,
        _ => {}
    }
    let revision = revision.unwrap_or(DEFAULT_REVISION);
    let client = Client::new(settings);
    let listing = client.list(spec, revision, watch)?;
    if !is_commit_hash(&listing.sha) {
        return Err(Error::model(format!("{spec}: expected a commit of 40 digits, found {:?}", listing.sha)));
    }
    let (repo, locks) = (repo_dir(cache, spec), cache.join(".locks").join(repo_name(spec)));
    let download = Download { client, id: spec, revision, repo: &repo, locks: &locks };
    download.snapshot(&listing, need, watch)
}

impl Need {
    /// Whether a snapshot has all that is needed. (The hub's own client may have brought a part only.)
    fn is_met_by(self, snapshot: &Path) -> bool {
        let there = |name: &str| snapshot.join(name).exists();
        let shards =
            || shard_names(&snapshot.join(INDEX)).is_ok_and(|names| names.iter().all(|name| there(name)));
        let weights = || there(WEIGHTS) || shards();
        there("config.json") && there(TOKENIZER) && (self == Need::Tokenizer || weights())
    }
}

impl Listing {
    fn has(&self, name: &str) -> bool {
        self.names().any(|listed| listed == name)
    }

    /// Configurations, tokenizer and index: all texts of the top folder.
    fn texts(&self) -> Result<Vec<RemoteFile>> {
        let is_text = |name: &&str| {
            let text = [".json", ".txt", ".jinja"].iter().any(|suffix| name.ends_with(suffix));
            text && !name.contains(['/', '\\', '\0'])
        };
        self.names().filter(is_text).filter_map(|name| self.file(name)).collect()
    }
}

/// The download of one model.
struct Download<'a> {
    client: Client<'a>,
    id: &'a str,
    /// A branch, tag or commit of it.
    revision: &'a str,
    /// The model's folder in the cache.
    repo: &'a Path,
    /// Where the hub's own client locks files of the model.
    locks: &'a Path,
}

impl Download<'_> {
    /// Brings what is needed of a commit, and returns its folder.
    fn snapshot(&self, listing: &Listing, need: Need, watch: &mut dyn FnMut(Event<'_>)) -> Result<PathBuf> {
        self.require_names(listing, need)?;
        let mut files = listing.texts()?;
        let single = listing.file(WEIGHTS).filter(|_| need == Need::Model);
        let sharded = need == Need::Model && single.is_none();
        files.extend(single.transpose()?);
        self.files(&files, &listing.sha, watch)?;
        if sharded {
            self.files(&self.shards(listing)?, &listing.sha, watch)?;
        }
        self.point_at(&listing.sha)?;
        Ok(self.place(&listing.sha, ""))
    }

    fn require_names(&self, listing: &Listing, need: Need) -> Result<()> {
        for (missing, advice) in [
            ("config.json", "is it a model of transformers?"),
            (TOKENIZER, "only models with a fast tokenizer can be used"),
        ] {
            if !listing.has(missing) {
                return Err(Error::model(format!("{} has no {missing} on the hub; {advice}", self.id)));
            }
        }
        if need == Need::Model && !listing.has(WEIGHTS) && !listing.has(INDEX) {
            return Err(Error::model(format!(
                "{} has neither {WEIGHTS} nor {INDEX} on the hub: expected weights as safetensors (pickle is never \
                 read); choose a revision or model that has them",
                self.id
            )));
        }
        Ok(())
    }

    /// The files that the index, which has come, names.
    fn shards(&self, listing: &Listing) -> Result<Vec<RemoteFile>> {
        let names = shard_names(&self.place(&listing.sha, INDEX))?;
        let missing = |name: &str| {
            let id = self.id;
            Error::model(format!(
                "{id} has no {name} on the hub, although its {INDEX} names it; choose another model"
            ))
        };
        names.iter().map(|name| listing.file(name).unwrap_or_else(|| Err(missing(name)))).collect()
    }

    fn files(&self, files: &[RemoteFile], commit: &str, watch: &mut dyn FnMut(Event<'_>)) -> Result<()> {
        self.require_space(files, commit)?;
        for file in files {
            self.file(commit, file, watch).map_err(|e| e.context(format!("download of {}", file.name)))?;
        }
        Ok(())
    }

    /// Checks the space for what is missing; before the first byte comes rather than when the disk is full.
    fn require_space(&self, files: &[RemoteFile], commit: &str) -> Result<()> {
        let blobs = self.repo.join("blobs");
        std::fs::create_dir_all(&blobs)
            .kind(ErrorKind::Device, || format!("cannot create {}", blobs.display()))?;
        let missing = |file: &RemoteFile| {
            let partial = self.blob(file).with_extension("incomplete");
            let places = [self.blob(file), partial, self.place(commit, &file.name)];
            let there = places.iter().filter_map(|place| place.metadata().ok()).map(|meta| meta.len()).max();
            file.size.saturating_sub(there.unwrap_or(0))
        };
        require_space(&blobs, files.iter().map(missing).fold(0, u64::saturating_add))
    }

    /// Where the content of a file is.
    fn blob(&self, file: &RemoteFile) -> PathBuf {
        self.repo.join("blobs").join(file.hash.name())
    }

    /// Where a file is found by its name.
    fn place(&self, commit: &str, name: &str) -> PathBuf {
        self.repo.join("snapshots").join(commit).join(name)
    }

    /// Brings a file, unless another process does.
    fn file(&self, commit: &str, file: &RemoteFile, watch: &mut dyn FnMut(Event<'_>)) -> Result<()> {
        let complain = || format!("cannot write into {}", self.repo.display());
        let (blob, place) = (self.blob(file), self.place(commit, &file.name));
        for dir in [Some(self.locks), blob.parent(), place.parent()].into_iter().flatten() {
            std::fs::create_dir_all(dir).kind(ErrorKind::Device, complain)?;
        }
        let _lock = self.lock(file, watch).kind(ErrorKind::Device, complain)?;
        // Where there are no links the file itself is there.
        let is_file = place.symlink_metadata().is_ok_and(|meta| meta.is_file() && meta.len() == file.size);
        if is_file && file.hash.of(&place).is_ok_and(|hash| hash == file.hash) {
            return Ok(());
        }
        self.content(commit, file, &blob, watch)?;
        put(&blob, &place).kind(ErrorKind::Device, complain)
    }

    /// Keeps other processes from a file for as long as what is returned is held; `None` where the file
    /// system has no locks.
    fn lock(&self, file: &RemoteFile, watch: &mut dyn FnMut(Event<'_>)) -> io::Result<Option<File>> {
        let lock = File::create(self.locks.join(format!("{}.lock", file.hash.name())))?;
        let locked = match lock.try_lock() {
            Err(TryLockError::WouldBlock) => {
                watch(Event::Locked(&file.name));
                lock.lock()
            }
            Err(TryLockError::Error(e)) => Err(e),
            Ok(()) => Ok(()),
        };
        match locked {
            Err(e) if e.kind() == io::ErrorKind::Unsupported => Ok(None),
            other => other.map(|()| Some(lock)),
        }
    }

    /// Brings a content.
    fn content(
        &self,
        commit: &str,
        file: &RemoteFile,
        blob: &Path,
        watch: &mut dyn FnMut(Event<'_>),
    ) -> Result<()> {
        if blob.metadata().is_ok_and(|meta| meta.len() == file.size) {
            return Ok(());
        }
        let complain = || format!("cannot write {}", blob.display());
        let partial = blob.with_extension("incomplete");
        let resumed = partial.exists();
        self.client.receive(self.id, commit, file, &partial, watch)?;
        if !self.is_whole(file, &partial)? {
            // The beginning that was there may be that of another file.
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

    /// Writes the commit of a branch or tag: last, so that a snapshot that is found is whole. A commit names
    /// itself.
    fn point_at(&self, commit: &str) -> Result<()> {
        if is_commit_hash(self.revision) {
            return Ok(());
        }
        let reference = self.repo.join("refs").join(self.revision);
        let complain = || format!("cannot write {}", reference.display());
        std::fs::create_dir_all(parent(&reference)).kind(ErrorKind::Device, complain)?;
        write_file(&reference, commit.as_bytes())
    }
}

/// Has `place`, a file of a snapshot, lead to `blob`: by a link or, where the file system has none, by being
/// the file itself.
fn put(blob: &Path, place: &Path) -> io::Result<()> {
    use io::ErrorKind::{AlreadyExists, PermissionDenied, Unsupported};
    let target = Path::new("../../blobs").join(blob.file_name().unwrap_or_default());
    let link = || link_file(&target, place);
    let linked = match link() {
        Err(e) if e.kind() == AlreadyExists => {
            if place.canonicalize().ok() == blob.canonicalize().ok() {
                return Ok(());
            }
            // The link leads elsewhere, or to a file that is no longer there.
            std::fs::remove_file(place)?;
            link()
        }
        other => other,
    };
    match linked {
        Err(e) if [PermissionDenied, Unsupported].contains(&e.kind()) => std::fs::rename(blob, place),
        other => other,
    }
}
