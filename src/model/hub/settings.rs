//! What the environment says about the hub, in the variables of the hub's own client.

use std::ffi::OsString;
use std::path::PathBuf;

use serde::{Serialize, Serializer};

use super::{REPO_PREFIX, is_hub_id};

const ENDPOINT: &str = "https://huggingface.co";

/// Where the hub is, where its cache is, and whether it may be asked.
#[derive(Clone, Debug, Serialize)]
pub struct Settings {
    /// The folder of cached models: `$HF_HUB_CACHE`, else `$HUGGINGFACE_HUB_CACHE`, else `$HF_HOME/hub`, else
    /// `~/.cache/huggingface/hub`; `None` without a home.
    pub cache: Option<PathBuf>,
    /// Address of the hub or of a mirror, without a slash at its end: `$HF_ENDPOINT`, else huggingface.co.
    pub endpoint: String,
    /// `$HF_HUB_OFFLINE` or `$TRANSFORMERS_OFFLINE` is set: nothing is downloaded.
    pub offline: bool,
    /// What access to gated models needs: `$HF_TOKEN`, else what `$HF_TOKEN_PATH` or `$HF_HOME/token` holds. (Serialised is
    /// whether there is one.)
    #[serde(serialize_with = "whether")]
    pub(crate) token: Option<String>,
}

impl Settings {
    /// Of this process.
    pub fn from_env() -> Self {
        Self::new(|name| std::env::var_os(name), std::env::home_dir())
    }

    /// Hub ids of the models that have a folder in the cache, in their order.
    pub fn cached_models(&self) -> Vec<String> {
        let entries = self.cache.as_ref().and_then(|cache| std::fs::read_dir(cache).ok());
        let id = |entry: std::io::Result<std::fs::DirEntry>| {
            let name = entry.ok()?.file_name().into_string().ok()?;
            Some(name.strip_prefix(REPO_PREFIX)?.replacen("--", "/", 1)).filter(|id| is_hub_id(id))
        };
        let mut ids: Vec<_> = entries.into_iter().flatten().filter_map(id).collect();
        ids.sort();
        ids
    }

    fn new(var: impl Fn(&str) -> Option<OsString>, user_home: Option<PathBuf>) -> Self {
        let var = |name: &str| var(name).filter(|value| !value.is_empty());
        let path = |name: &str| var(name).map(PathBuf::from);
        let text = |name: &str| Some(var(name)?.to_string_lossy().trim().to_owned());
        let on = |name: &str| {
            text(name).is_some_and(|value| ["1", "on", "yes", "true"].contains(&&*value.to_lowercase()))
        };
        let home = path("HF_HOME").or_else(|| Some(user_home?.join(".cache/huggingface")));
        let in_home = |name: &str| Some(home.as_ref()?.join(name));
        let token_file = || std::fs::read_to_string(path("HF_TOKEN_PATH").or_else(|| in_home("token"))?).ok();
        let token = text("HF_TOKEN").or_else(|| Some(token_file()?.trim().to_owned()));
        let endpoint = text("HF_ENDPOINT").unwrap_or_else(|| ENDPOINT.into());
        Settings {
            cache: path("HF_HUB_CACHE").or_else(|| path("HUGGINGFACE_HUB_CACHE")).or_else(|| in_home("hub")),
            endpoint: endpoint.trim_end_matches('/').to_owned(),
            offline: on("HF_HUB_OFFLINE") || on("TRANSFORMERS_OFFLINE"),
            token: token.filter(|token| !token.is_empty() && !on("HF_HUB_DISABLE_IMPLICIT_TOKEN")),
        }
    }
}

fn whether<S: Serializer>(token: &Option<String>, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_bool(token.is_some())
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    fn among(vars: &[(&str, &str)]) -> Settings {
        let find = |name: &str| vars.iter().find(|(n, _)| *n == name).map(|(_, value)| value.into());
        Settings::new(find, Some("/home".into()))
    }

    #[test]
    fn the_first_variable_decides_where_the_cache_is() {
        let vars = [("HF_HUB_CACHE", "/a"), ("HUGGINGFACE_HUB_CACHE", "/b"), ("HF_HOME", "/c")];
        let cache = |vars: &[_]| among(vars).cache.unwrap();
        assert_eq!(cache(&vars), Path::new("/a"));
        assert_eq!(cache(&vars[1..]), Path::new("/b"));
        assert_eq!(cache(&vars[2..]), Path::new("/c/hub"));
        assert_eq!(cache(&[("HF_HUB_CACHE", "")]), Path::new("/home/.cache/huggingface/hub"));
        assert_eq!(Settings::new(|_| None, None).cache, None);
    }

    #[test]
    fn offline_by_either_variable_in_any_spelling() {
        for (name, value) in
            [("HF_HUB_OFFLINE", "1"), ("TRANSFORMERS_OFFLINE", "Yes"), ("HF_HUB_OFFLINE", "ON")]
        {
            assert!(among(&[(name, value)]).offline, "{name}={value}");
        }
        for value in ["", "0", "false", "no"] {
            assert!(!among(&[("HF_HUB_OFFLINE", value)]).offline, "{value}");
        }
    }

    #[test]
    fn endpoint_and_token() {
        assert_eq!(among(&[]).endpoint, ENDPOINT);
        assert_eq!(among(&[("HF_ENDPOINT", "http://mirror/")]).endpoint, "http://mirror");
        let home = tempfile::tempdir().unwrap();
        let home_dir = home.path().to_str().unwrap();
        assert_eq!(among(&[("HF_HOME", home_dir)]).token, None);
        std::fs::write(home.path().join("token"), "of-file\n").unwrap();
        assert_eq!(among(&[("HF_HOME", home_dir)]).token.as_deref(), Some("of-file"));
        assert_eq!(among(&[("HF_HOME", home_dir), ("HF_TOKEN", " first ")]).token.as_deref(), Some("first"));
        let disabled = [("HF_TOKEN", "t"), ("HF_HUB_DISABLE_IMPLICIT_TOKEN", "1")];
        assert_eq!(among(&disabled).token, None);
    }
}
