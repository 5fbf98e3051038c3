//! What the environment says about the hub, in the variables of the hub's own client.

use std::ffi::OsString;
use std::fmt;
use std::path::{Path, PathBuf};

use serde::{Serialize, Serializer};

use super::{REPO_PREFIX, is_hub_id};

const ENDPOINT: &str = "https://huggingface.co";

/// Where the hub is, where its cache is, and whether it may be asked.
#[derive(Clone, Debug, Serialize)]
pub struct Settings {
    /// The folder of cached models: `$HF_HUB_CACHE`, else `$HUGGINGFACE_HUB_CACHE`, else `$HF_HOME/hub`, else
    /// `$XDG_CACHE_HOME/huggingface/hub`, else `~/.cache/huggingface/hub`; `None` without a home. (Serialised as it is
    /// shown: JSON has no way to write a path that is not UTF-8.)
    #[serde(serialize_with = "shown")]
    pub cache: Option<PathBuf>,
    /// Address of the hub or of a mirror, without a slash at its end: `$HF_ENDPOINT`, else huggingface.co.
    pub endpoint: String,
    /// `$HF_HUB_OFFLINE` or `$TRANSFORMERS_OFFLINE` is set: nothing is downloaded.
    pub offline: bool,
    /// What access to gated models needs: `$HF_TOKEN`, else what `$HF_TOKEN_PATH` or `$HF_HOME/token` holds. (Serialised is
    /// whether there is one.)
    #[serde(serialize_with = "whether")]
    pub(crate) token: Option<Token>,
}

/// What access is given for.
#[derive(Clone)]
pub(crate) struct Token {
    pub secret: String,
    /// What holds it: the name of a variable or the path of a file.
    pub origin: String,
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Token of {}", self.origin)
    }
}

impl Settings {
    /// Settings of this process.
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
        let path = |name: &str| Some(expand(var(name)?.into(), user_home.as_deref()));
        let text = |name: &str| Some(var(name)?.to_string_lossy().trim().to_owned());
        let on = |name: &str| {
            text(name).is_some_and(|value| ["1", "on", "yes", "true"].contains(&&*value.to_lowercase()))
        };
        let caches = || path("XDG_CACHE_HOME").or_else(|| Some(user_home.as_ref()?.join(".cache")));
        let home = path("HF_HOME").or_else(|| Some(caches()?.join("huggingface")));
        let in_home = |name: &str| Some(home.as_ref()?.join(name));
        let token_file = || Token::of_file(&path("HF_TOKEN_PATH").or_else(|| in_home("token"))?);
        let token = text("HF_TOKEN").map(|secret| Token { secret, origin: "HF_TOKEN".into() });
        let token = token.filter(|token| !token.secret.is_empty()).or_else(token_file);
        let endpoint = text("HF_ENDPOINT").unwrap_or_else(|| ENDPOINT.into());
        Settings {
            cache: path("HF_HUB_CACHE").or_else(|| path("HUGGINGFACE_HUB_CACHE")).or_else(|| in_home("hub")),
            endpoint: endpoint.trim_end_matches('/').to_owned(),
            offline: on("HF_HUB_OFFLINE") || on("TRANSFORMERS_OFFLINE"),
            token: token.filter(|_| !on("HF_HUB_DISABLE_IMPLICIT_TOKEN")),
        }
    }
}

impl Token {
    /// What a file holds, if it is there and holds something.
    fn of_file(path: &Path) -> Option<Self> {
        let secret = std::fs::read_to_string(path).ok()?.trim().to_owned();
        Some(Token { secret, origin: path.display().to_string() }).filter(|token| !token.secret.is_empty())
    }
}

/// `path`, with the user's home for a `~` at its beginning: no shell has seen what stands in a file of variables.
fn expand(path: PathBuf, user_home: Option<&Path>) -> PathBuf {
    match (path.strip_prefix("~"), user_home) {
        (Ok(rest), Some(home)) => home.join(rest),
        _ => path,
    }
}

fn shown<S: Serializer>(path: &Option<PathBuf>, serializer: S) -> Result<S::Ok, S::Error> {
    path.as_ref().map(|path| path.to_string_lossy()).serialize(serializer)
}

fn whether<S: Serializer>(token: &Option<Token>, serializer: S) -> Result<S::Ok, S::Error> {
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
    fn the_default_is_where_caches_are() {
        let cache = |vars: &[_]| among(vars).cache.unwrap();
        assert_eq!(cache(&[("XDG_CACHE_HOME", "/x")]), Path::new("/x/huggingface/hub"));
        assert_eq!(cache(&[("XDG_CACHE_HOME", "/x"), ("HF_HOME", "/c")]), Path::new("/c/hub"));
        assert_eq!(cache(&[("XDG_CACHE_HOME", "")]), Path::new("/home/.cache/huggingface/hub"));
        let homeless = Settings::new(|name| (name == "XDG_CACHE_HOME").then(|| "/x".into()), None);
        assert_eq!(homeless.cache.unwrap(), Path::new("/x/huggingface/hub"));
    }

    #[test]
    fn a_tilde_is_the_home() {
        for name in ["HF_HUB_CACHE", "HUGGINGFACE_HUB_CACHE"] {
            assert_eq!(among(&[(name, "~/models")]).cache.unwrap(), Path::new("/home/models"));
        }
        assert_eq!(among(&[("HF_HOME", "~")]).cache.unwrap(), Path::new("/home/hub"));
        assert_eq!(among(&[("XDG_CACHE_HOME", "~/c")]).cache.unwrap(), Path::new("/home/c/huggingface/hub"));
        for other in ["/a/~/b", "~user/b", "a~"] {
            assert_eq!(among(&[("HF_HUB_CACHE", other)]).cache.unwrap(), Path::new(other));
        }
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
        let file = home.path().join("token").display().to_string();
        let home = ("HF_HOME", home.path().to_str().unwrap());
        let token = |vars: &[_]| among(vars).token.map(|token| (token.secret, token.origin));
        assert_eq!(token(&[home]), None);
        std::fs::write(&file, "\n").unwrap();
        assert_eq!(token(&[home]), None);
        std::fs::write(&file, "of-file\n").unwrap();
        assert_eq!(token(&[home]), Some(("of-file".into(), file.clone())));
        assert_eq!(token(&[("HF_TOKEN_PATH", &file)]), Some(("of-file".into(), file.clone())));
        assert_eq!(token(&[home, ("HF_TOKEN", " first ")]), Some(("first".into(), "HF_TOKEN".into())));
        assert_eq!(token(&[home, ("HF_TOKEN", " ")]), Some(("of-file".into(), file.clone())));
        assert_eq!(token(&[("HF_TOKEN", "t"), ("HF_HUB_DISABLE_IMPLICIT_TOKEN", "1")]), None);
        assert!(!format!("{:?}", among(&[("HF_TOKEN", "secret")])).contains("secret"));
    }
}
