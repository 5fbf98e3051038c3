//! A file of a model on the hub: its name, its size and what its content has to hash to.

use std::fs::File;
use std::io::Read;
use std::path::Path;

use serde::Deserialize;
use sha1::Sha1;
use sha2::{Digest, Sha256};

/// As the hub lists it.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Listed {
    rfilename: String,
    size: Option<u64>,
    blob_id: Option<String>,
    lfs: Option<Lfs>,
}

/// Git holds only a pointer to a large file.
#[derive(Deserialize)]
struct Lfs {
    sha256: String,
    size: u64,
}

/// A file to be downloaded.
#[derive(Clone, Debug, Deserialize, PartialEq, Eq)]
#[serde(try_from = "Listed")]
pub(super) struct RemoteFile {
    /// Path in the model.
    pub name: String,
    /// Size in bytes.
    pub size: u64,
    /// Hash of the content.
    pub hash: Hash,
}

/// What identifies a content, in hexadecimal digits.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Hash {
    /// SHA-256, of files in LFS.
    Sha256(String),
    /// The name of a git blob: SHA-1 of a header with the size, and the content.
    Git(String),
}

impl TryFrom<Listed> for RemoteFile {
    type Error = String;

    fn try_from(listed: Listed) -> Result<Self, String> {
        let Listed { rfilename: name, size, blob_id, lfs } = listed;
        let (size, hash) = match (lfs, size, blob_id) {
            (Some(lfs), ..) => (lfs.size, Hash::Sha256(lfs.sha256)),
            (None, Some(size), Some(id)) => (size, Hash::Git(id)),
            _ => return Err(format!("{name}: expected its size and its hash")),
        };
        let (text, digits) = match &hash {
            Hash::Sha256(text) => (text, 64),
            Hash::Git(text) => (text, 40),
        };
        // The hash becomes the name of a file.
        if text.len() != digits || !text.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b)) {
            return Err(format!("{name}: expected a hash of {digits} hexadecimal digits, found {text:?}"));
        }
        Ok(RemoteFile { name, size, hash })
    }
}

impl Hash {
    /// What the cache calls the content.
    pub fn name(&self) -> &str {
        match self {
            Hash::Sha256(text) | Hash::Git(text) => text,
        }
    }

    /// The hash of the same kind of the file at `path`.
    pub fn of(&self, path: &Path) -> std::io::Result<Hash> {
        Ok(match self {
            Hash::Sha256(_) => Hash::Sha256(digest(Sha256::new(), path)?),
            Hash::Git(_) => {
                let header = format!("blob {}\0", path.metadata()?.len());
                Hash::Git(digest(Sha1::new_with_prefix(header), path)?)
            }
        })
    }
}

fn digest(mut hasher: impl Digest, path: &Path) -> std::io::Result<String> {
    let mut file = File::open(path)?;
    let mut chunk = vec![0; 1 << 20];
    loop {
        match file.read(&mut chunk)? {
            0 => return Ok(hasher.finalize().iter().map(|byte| format!("{byte:02x}")).collect()),
            n => hasher.update(&chunk[..n]),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hashes_are_those_of_git_and_lfs() {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), "hello\n").unwrap();
        // `printf 'hello\n' | git hash-object --stdin`
        let git = Hash::Git("ce013625030ba8dba906f756967f9e9ca394464a".into());
        assert_eq!(git.of(file.path()).unwrap(), git);
        // `printf 'hello\n' | sha256sum`
        let sha256 = "5891b5b522d5df086d0ff0b110fbd9d21bb4fc7163af34d08286a2e846f6be03";
        let sha256 = Hash::Sha256(sha256.into());
        assert_eq!(sha256.of(file.path()).unwrap(), sha256);
    }

    #[test]
    fn a_hash_that_could_be_a_path_is_refused() {
        for listed in [
            r#"{"rfilename": "a", "size": 1, "blobId": "../../../../../../../../etc/passwd......"}"#,
            r#"{"rfilename": "a", "lfs": {"sha256": "ABC", "size": 1}}"#,
            r#"{"rfilename": "a", "size": 1}"#,
        ] {
            let error = serde_json::from_str::<RemoteFile>(listed).unwrap_err().to_string();
            assert!(error.starts_with("a: expected"), "{error}");
        }
    }
}
