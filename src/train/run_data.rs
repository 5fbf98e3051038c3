//! What a run learns from: pairs of files or of memory, as tokens.

#[cfg(feature = "text")]
use std::path::Path;

use crate::error::{Error, Result};
use crate::train::batch::TokenPair;
use crate::train::changes::Changes;
use crate::train::data::TokenizedPairs;
use crate::train::method::Method;

#[cfg(feature = "text")]
use crate::{
    model::tokenizer::Tokenizer,
    train::config::TrainConfig,
    train::data::{read_pairs, tokenize},
    train::observer::{Observer, Stage},
    train::records::{CodePair, validation_path},
    train::schedule::epoch_order,
};

/// Training and validation pairs.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct RunData {
    /// Pairs that are trained on, and what was left out.
    pub train: TokenizedPairs,
    /// Pairs that are evaluated, and what was left out. There may be none.
    pub validation: TokenizedPairs,
}

impl RunData {
    /// Reads the pairs that `config`, which is [for the model](TrainConfig::for_model), names.
    ///
    /// # Errors
    /// Kind `Data`: pairs that cannot be read, or none from which anything can be learnt.
    #[cfg(feature = "text")]
    pub fn read(config: &TrainConfig, tokenizer: &Tokenizer, observer: &mut dyn Observer) -> Result<Self> {
        observer.on_stage(Stage::Reading);
        let read = |path: &Path, split| read_pairs(path, split, config.on_bad_record);
        let (train, bad_train) = read(&config.data, "train")?;
        let (validation, bad_validation) = match validation_path(&config.data, config.val_data.as_deref()) {
            Some(path) => read(&path, "val").map(|(pairs, bad)| (Some(pairs), bad))?,
            None => (None, 0),
        };
        let data = Self::from_pairs(train, validation, config, tokenizer, observer);
        let mut data = data.map_err(|e| e.context(config.data.display()))?;
        (data.train.bad_records, data.validation.bad_records) = (bad_train, bad_validation);
        Ok(data)
    }

    /// Pairs of functions. Without validation pairs, `val_fraction` of the training pairs are set aside.
    /// `config` is [for the model](TrainConfig::for_model).
    ///
    /// # Errors
    /// Kind `Data`: there is no pair from which anything can be learnt. Kind `Model`: the tokenizer fails on
    /// a text.
    #[cfg(feature = "text")]
    pub fn from_pairs(
        mut train: Vec<CodePair>,
        validation: Option<Vec<CodePair>>,
        config: &TrainConfig,
        tokenizer: &Tokenizer,
        observer: &mut dyn Observer,
    ) -> Result<Self> {
        let validation = validation.unwrap_or_else(|| set_aside(&mut train, config));
        let max_seq_len = config.objective().max_seq_len;
        observer.on_stage(Stage::Tokenizing { pairs: train.len() + validation.len() });
        let tokenized = |pairs: &[CodePair]| -> Result<TokenizedPairs> {
            let mut tokens = tokenize(pairs, tokenizer, max_seq_len)?;
            if config.method == Method::Sven {
                mark_texts(&mut tokens.pairs, pairs, tokenizer)?;
            }
            Ok(tokens)
        };
        Self::numbered(tokenized(&train)?, tokenized(&validation)?)
    }

    /// Pairs that are tokens already, cut to `max_seq_len` tokens each. [`TokenPair::id`] is not looked at.
    ///
    /// # Errors
    /// Kind `Data`: there is no pair from which anything can be learnt.
    pub fn from_tokens(
        train: Vec<TokenPair>,
        validation: Vec<TokenPair>,
        max_seq_len: usize,
    ) -> Result<Self> {
        let cut = |pairs: Vec<TokenPair>| TokenizedPairs::new(pairs, max_seq_len);
        Self::numbered(cut(train), cut(validation))
    }

    /// Marks what the fixes changed, for a method that asks.
    pub(super) fn mark_changes(&mut self, method: Method) {
        if !method.reads_changes() {
            return;
        }
        let pairs = self.train.pairs.iter_mut().chain(&mut self.validation.pairs);
        for pair in pairs.filter(|pair| pair.changes == Changes::default()) {
            pair.changes = Changes::of_tokens(&pair.secure, &pair.vulnerable);
        }
    }

    /// The base cache knows pairs by their number: validation pairs follow the training pairs.
    fn numbered(train: TokenizedPairs, mut validation: TokenizedPairs) -> Result<Self> {
        if train.pairs.is_empty() {
            return Err(none_left(&train));
        }
        let first = train.pairs.iter().map(|p| p.id + 1).max().unwrap_or(0);
        validation.pairs.iter_mut().for_each(|pair| pair.id += first);
        Ok(RunData { train, validation })
    }
}

/// Marks what the fixes changed in the texts, whose tokens may have been cut.
#[cfg(feature = "text")]
fn mark_texts(tokens: &mut [TokenPair], texts: &[CodePair], tokenizer: &Tokenizer) -> Result<()> {
    let ranges = |text: &str| -> Result<Vec<std::ops::Range<usize>>> {
        Ok(tokenizer.encode_with_offsets(text)?.into_iter().map(|(_, range)| range).collect())
    };
    for pair in tokens {
        let CodePair { secure, vulnerable, .. } = &texts[pair.id];
        let (of_secure, of_vulnerable) = (ranges(secure)?, ranges(vulnerable)?);
        pair.changes = Changes::of_texts((secure, &of_secure), (vulnerable, &of_vulnerable));
        pair.changes.secure.truncate(pair.secure.len());
        pair.changes.vulnerable.truncate(pair.vulnerable.len());
    }
    Ok(())
}

/// Takes validation pairs out of the training pairs, of which one at least is left.
#[cfg(feature = "text")]
fn set_aside(train: &mut Vec<CodePair>, config: &TrainConfig) -> Vec<CodePair> {
    let order = epoch_order(train.len(), config.seed, usize::MAX);
    let held_out = (train.len() as f64 * config.val_fraction).round() as usize;
    let held_out = held_out.min(train.len().saturating_sub(1));
    let chosen = |order: &[usize]| order.iter().map(|&i| train[i].clone()).collect();
    let (validation, rest) = (chosen(&order[..held_out]), chosen(&order[held_out..]));
    *train = rest;
    validation
}

/// A data set of which nothing can be learnt.
fn none_left(train: &TokenizedPairs) -> Error {
    let (identical, limit) = (train.identical, &train.limit);
    let error = Error::data(format!(
        "no pair is left: the halves of {identical} are identical, and those of {} are within {} tokens",
        limit.lost, limit.max_seq_len
    ));
    match limit.lost {
        0 => error,
        _ => error.advice(format!("raise `max_seq_len` to {}", limit.keeps_99_percent())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::ErrorKind;

    fn pair(secure: &[u32], vulnerable: &[u32]) -> TokenPair {
        TokenPair::new(7, secure.to_vec(), vulnerable.to_vec())
    }

    #[test]
    fn pairs_of_tokens_are_cut_counted_and_numbered() {
        let train =
            vec![pair(&[1, 2, 3], &[1, 4]), pair(&[5], &[5]), pair(&[1, 2, 3], &[1, 2]), pair(&[6], &[7])];
        let data = RunData::from_tokens(train, vec![pair(&[8], &[9])], 2).unwrap();
        let secure: Vec<_> = data.train.pairs.iter().map(|pair| (pair.id, pair.secure.clone())).collect();
        assert_eq!(secure, [(0, vec![1, 2]), (3, vec![6])]);
        assert_eq!((data.train.identical, data.train.limit.lost, data.train.limit.cut), (1, 1, 1));
        assert_eq!(data.validation.pairs[0].id, 4, "no training pair has the number");
        let error = RunData::from_tokens(vec![pair(&[1], &[1])], Vec::new(), 2).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Data);
    }
}
