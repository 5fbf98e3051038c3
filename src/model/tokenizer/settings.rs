//! What `tokenizer_config.json` and `special_tokens_map.json` change about `tokenizer.json`, as
//! `transformers` 4 applies it.

use std::path::Path;

use serde::Deserialize;
use serde_json::{Value, json};
use tokenizers::processors::PostProcessorWrapper;
use tokenizers::processors::sequence::Sequence;
use tokenizers::{AddedToken, PreTokenizerWrapper};

use crate::error::{Context, Error, ErrorKind, Result};
use crate::model::fields::{SPECIAL_TOKENS_MAP, TOKENIZER_CONFIG, Table};
use crate::model::json::Fields;

/// Files with 100,000 added tokens have some 20 MB.
const MAX_FILE_BYTES: u64 = 32 << 20;

/// Fields that name one special token each.
const ROLES: [&str; 7] =
    ["bos_token", "eos_token", "unk_token", "sep_token", "pad_token", "cls_token", "mask_token"];

/// Fields that name any number of special tokens.
const MORE_TOKENS: [&str; 2] = ["additional_special_tokens", "extra_special_tokens"];

/// The files beside `tokenizer.json`.
pub(super) struct Settings {
    config: Fields,
    map: Fields,
}

/// What a text is given before and after it by the tokenizer.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Around {
    pub(super) before: Vec<u32>,
    pub(super) after: Vec<u32>,
}

impl Settings {
    /// Reads the files of a model directory; one that is missing says nothing.
    pub(super) fn read(dir: &Path) -> Result<Settings> {
        let read = |table: &'static Table| match dir.join(table.file) {
            path if path.exists() => Fields::read(&path, table, MAX_FILE_BYTES),
            path => Fields::parse(path.display().to_string(), table, b"{}"),
        };
        let settings = Settings { config: read(&TOKENIZER_CONFIG)?, map: read(&SPECIAL_TOKENS_MAP)? };
        let refusal = settings.config.refusals().next();
        refusal.map_or(Ok(settings), Err)
    }

    /// Sentences about what was not read.
    pub(super) fn notes(&self) -> impl Iterator<Item = String> {
        [self.config.unknown(), self.map.unknown()].into_iter().flatten()
    }

    /// Makes `tokenizer` what the files say.
    pub(super) fn apply(&self, tokenizer: &mut tokenizers::Tokenizer) -> Result<()> {
        self.add_listed_tokens(tokenizer)?;
        self.add_special_tokens(tokenizer)?;
        if self.config.flag("split_special_tokens")? == Some(true) {
            tokenizer.set_encode_special_tokens(true);
        }
        self.set_prefix_space(tokenizer)?;
        self.set_around(tokenizer)
    }

    /// The tokens of `added_tokens_decoder`, each under its id.
    fn add_listed_tokens(&self, tokenizer: &mut tokenizers::Tokenizer) -> Result<()> {
        const FIELD: &str = "added_tokens_decoder";
        let Some(listed) = self.config.object(FIELD)? else { return Ok(()) };
        let wrong = |id: &str, expected: &str| listed.unexpected(id, expected);
        let mut tokens: Vec<(u32, AddedToken)> = Vec::new();
        for id in listed.names() {
            let key = id.parse::<u32>().map_err(|_| wrong(id, "a token id as its key"))?;
            let token = listed.get(id).and_then(added_token);
            tokens.push((key, token.ok_or_else(|| wrong(id, "a token with its content"))?));
        }
        tokens.sort_by_key(|(id, _)| *id);
        for (id, token) in &tokens {
            let there = tokenizer.id_to_token(*id).filter(|there| *there != token.content);
            let elsewhere = tokenizer.token_to_id(&token.content).filter(|other| other != id);
            if let Some(there) = there {
                let expected = format!("the token {there:?} of tokenizer.json");
                return Err(wrong(&id.to_string(), &expected));
            }
            if let Some(other) = elsewhere {
                let expected = format!("{:?} to have the id {other} of tokenizer.json", token.content);
                return Err(wrong(&id.to_string(), &expected));
            }
        }
        self.add(tokenizer, tokens.iter().map(|(_, token)| token.clone()).collect())?;
        match tokens.iter().find(|(id, token)| tokenizer.token_to_id(&token.content) != Some(*id)) {
            None => Ok(()),
            Some((id, token)) => {
                let next = tokenizer.token_to_id(&token.content).unwrap_or_default();
                Err(wrong(&id.to_string(), &format!("the next id that is free in tokenizer.json, {next}")))
            }
        }
    }

    /// The tokens with a role that `tokenizer.json` does not match as a whole.
    fn add_special_tokens(&self, tokenizer: &mut tokenizers::Tokenizer) -> Result<()> {
        let mut tokens = Vec::new();
        for name in ROLES {
            tokens.extend(self.role(name)?);
        }
        for name in MORE_TOKENS {
            let Some((fields, given)) = self.given(name) else { continue };
            let listed: Option<Vec<AddedToken>> = match given {
                Value::Array(values) => values.iter().map(added_token).collect(),
                Value::Object(named) => named.values().map(added_token).collect(),
                _ => None,
            };
            tokens.extend(listed.ok_or_else(|| fields.unexpected(name, "a list of tokens"))?);
        }
        let known = tokenizer.get_added_vocabulary().get_vocab();
        tokens.retain(|token| !token.content.is_empty() && !known.contains_key(&token.content));
        tokens.iter_mut().for_each(|token| token.special = true);
        self.add(tokenizer, tokens)
    }

    fn add(&self, tokenizer: &mut tokenizers::Tokenizer, tokens: Vec<AddedToken>) -> Result<()> {
        if tokens.is_empty() {
            return Ok(());
        }
        let added = tokenizer.add_tokens(tokens);
        added.map(drop).kind(ErrorKind::Model, || format!("{}: cannot add tokens", self.config.label()))
    }

    /// A field of `tokenizer_config.json`, or else of `special_tokens_map.json`, and which of them has it.
    fn given(&self, name: &str) -> Option<(&Fields, &Value)> {
        let both = [&self.config, &self.map].into_iter();
        both.filter_map(|fields| Some((fields, fields.get(name)?))).next()
    }

    /// The token of a role, if there is one.
    fn role(&self, name: &str) -> Result<Option<AddedToken>> {
        let Some((fields, value)) = self.given(name) else { return Ok(None) };
        let token = added_token(value);
        token.map(Some).ok_or_else(|| fields.unexpected(name, "a token, or an object with its content"))
    }

    /// `add_prefix_space`: a switch of the pre-tokenizer, where that is a byte-level one. A Llama tokenizer
    /// that says otherwise than its `tokenizer.json` was meant to be converted anew, from files that are not
    /// read.
    fn set_prefix_space(&self, tokenizer: &mut tokenizers::Tokenizer) -> Result<()> {
        let Some(wanted) = self.config.flag("add_prefix_space")? else { return Ok(()) };
        if let Some(PreTokenizerWrapper::ByteLevel(byte_level)) = tokenizer.get_pre_tokenizer().cloned() {
            tokenizer.with_pre_tokenizer(Some(byte_level.add_prefix_space(wanted)));
            return Ok(());
        }
        let is_llama = self.config.text("tokenizer_class")?.is_some_and(|class| class.contains("Llama"));
        match prefixes(tokenizer) {
            Some(found) if is_llama && found != wanted => {
                let expected = format!("{found}, as tokenizer.json has it");
                Err(self.config.unexpected("add_prefix_space", &expected))
            }
            _ => Ok(()),
        }
    }

    /// `add_bos_token` and `add_eos_token`: what stands around a text, whatever `tokenizer.json` has there.
    fn set_around(&self, tokenizer: &mut tokenizers::Tokenizer) -> Result<()> {
        let found = around(tokenizer)?;
        let before = self.around_token(tokenizer, "add_bos_token", "bos_token")?;
        let after = self.around_token(tokenizer, "add_eos_token", "eos_token")?;
        let wanted = Around {
            before: before.unwrap_or_else(|| found.before.clone()),
            after: after.unwrap_or_else(|| found.after.clone()),
        };
        if wanted == found {
            return Ok(());
        }
        let mut steps = byte_level_steps(tokenizer.get_post_processor());
        steps.extend(template(tokenizer, &wanted)?);
        let processor = match steps.len() {
            0 | 1 => steps.pop(),
            _ => Some(PostProcessorWrapper::Sequence(Sequence::new(steps))),
        };
        tokenizer.with_post_processor(processor);
        Ok(())
    }

    /// The tokens that a switch asks for; `None` where it says nothing.
    fn around_token(
        &self,
        tokenizer: &tokenizers::Tokenizer,
        switch: &str,
        role: &str,
    ) -> Result<Option<Vec<u32>>> {
        match self.config.flag(switch)? {
            None => Ok(None),
            Some(false) => Ok(Some(Vec::new())),
            Some(true) => {
                let token = self.role(role)?;
                let id = token.and_then(|token| tokenizer.token_to_id(&token.content));
                id.map(|id| Some(vec![id])).ok_or_else(|| {
                    self.config.unexpected(switch, &format!("false, as there is no {role} to be added"))
                })
            }
        }
    }
}

/// What `tokenizer` puts around a text.
pub(super) fn around(tokenizer: &tokenizers::Tokenizer) -> Result<Around> {
    let complain = || "cannot encode a text".to_owned();
    let encoding = super::no_panic(|| tokenizer.encode("x", true)).kind(ErrorKind::Model, complain)?;
    let (ids, mask) = (encoding.get_ids(), encoding.get_special_tokens_mask());
    let before = mask.iter().take_while(|&&special| special == 1).count();
    let after = mask[before..].iter().rev().take_while(|&&special| special == 1).count();
    Ok(Around { before: ids[..before].to_vec(), after: ids[ids.len() - after..].to_vec() })
}

/// A special token as the files write it: its content, or an object. Absent properties have the values of
/// `transformers`.
fn added_token(value: &Value) -> Option<AddedToken> {
    #[derive(Deserialize)]
    struct Written {
        content: String,
        #[serde(default)]
        single_word: bool,
        #[serde(default)]
        lstrip: bool,
        #[serde(default)]
        rstrip: bool,
        normalized: Option<bool>,
        #[serde(default)]
        special: bool,
    }
    if let Value::String(content) = value {
        return Some(AddedToken::from(content.as_str(), true));
    }
    let written = Written::deserialize(value).ok()?;
    let token = AddedToken::from(written.content, written.special);
    let token = token.single_word(written.single_word).lstrip(written.lstrip).rstrip(written.rstrip);
    Some(token.normalized(written.normalized.unwrap_or(!written.special)))
}

/// Whether `tokenizer.json` puts a space before a text; `None` where none of its parts is about that.
fn prefixes(tokenizer: &tokenizers::Tokenizer) -> Option<bool> {
    let parts = [json!(tokenizer.get_normalizer()), json!(tokenizer.get_pre_tokenizer())];
    let found: Vec<bool> = parts.iter().flat_map(prefixes_of).collect();
    (!found.is_empty()).then(|| found.contains(&true))
}

fn prefixes_of(part: &Value) -> Vec<bool> {
    let own = match part["type"].as_str() {
        Some("Prepend") => Some(true),
        Some("Metaspace") => part["prepend_scheme"].as_str().map(|scheme| scheme != "never"),
        _ => part["add_prefix_space"].as_bool(),
    };
    let inner = ["normalizers", "pretokenizers"].into_iter().filter_map(|name| part[name].as_array());
    own.into_iter().chain(inner.flatten().flat_map(prefixes_of)).collect()
}

/// The steps of a post-processor that are about offsets alone.
fn byte_level_steps(processor: Option<&PostProcessorWrapper>) -> Vec<PostProcessorWrapper> {
    match processor {
        Some(step @ PostProcessorWrapper::ByteLevel(_)) => vec![step.clone()],
        Some(PostProcessorWrapper::Sequence(steps)) => {
            steps.as_ref().iter().flat_map(|step| byte_level_steps(Some(step))).collect()
        }
        _ => Vec::new(),
    }
}

/// A template that puts these tokens around a text; `None` where there are none.
fn template(tokenizer: &tokenizers::Tokenizer, around: &Around) -> Result<Option<PostProcessorWrapper>> {
    if *around == Around::default() {
        return Ok(None);
    }
    let with_text = |id: &u32| (*id as usize, tokenizer.id_to_token(*id).unwrap_or_default());
    let [before, after] =
        [&around.before, &around.after].map(|ids| ids.iter().map(with_text).collect::<Vec<_>>());
    let template = template_json(&before, &after);
    serde_json::from_value(template).map(Some).map_err(|e| Error::internal("a template").with_source(e))
}

/// The post-processor of a `tokenizer.json` that puts special tokens, each an id with its text, before and
/// after every sequence.
pub(crate) fn template_json<T: AsRef<str>>(before: &[(usize, T)], after: &[(usize, T)]) -> Value {
    let sequence = |name: &str, part: u32| {
        let special =
            |(_, text): &(usize, T)| json!({"SpecialToken": {"id": text.as_ref(), "type_id": part}});
        let mut pieces: Vec<Value> = before.iter().map(special).collect();
        pieces.push(json!({"Sequence": {"id": name, "type_id": part}}));
        pieces.extend(after.iter().map(special));
        pieces
    };
    let used = before.iter().chain(after).map(|(id, text)| {
        let text = text.as_ref();
        (text.to_owned(), json!({"id": text, "ids": [id], "tokens": [text]}))
    });
    let pair = [sequence("A", 0), sequence("B", 1)].concat();
    json!({
        "type": "TemplateProcessing",
        "single": sequence("A", 0),
        "pair": pair,
        "special_tokens": used.collect::<serde_json::Map<_, _>>(),
    })
}
