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
        let tokenized = |pairs: &[CodePair]| tokenize(pairs, tokenizer, max_seq_len, config.method);
        Self::numbered(tokenized(&train)?, tokenized(&validation)?)
    }

    /// Pairs that are tokens already, cut to `max_seq_len` tokens each. [`TokenPair::id`] is not looked at;
    /// changes that are not marked are those of a diff of the tokens.
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

    /// Refuses pairs whose changes are not known, for a method that reads them.
    pub(super) fn require_changes(&self, method: Method) -> Result<()> {
        let is_marked = |pair: &TokenPair| {
            let fit = |changes: &Changes| changes.fit(pair.secure.len(), pair.vulnerable.len());
            pair.changes.as_ref().is_some_and(fit)
        };
        let mut pairs = self.train.pairs.iter().chain(&self.validation.pairs);
        match pairs.find(|pair| method.reads_changes() && !is_marked(pair)) {
            Some(pair) => Err(Error::data(format!(
                "pair {}: expected what the fix changed, a mark for every token, as `method` {method} reads it; make \
                 the pairs for this method",
                pair.id
            ))),
            None => Ok(()),
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

    #[test]
    fn what_a_fix_changed_is_looked_for_in_whole_functions() {
        let vulnerable: Vec<u32> = (10..40).collect();
        let secure = [&[1, 2, 3, 4], &vulnerable[..]].concat();
        let data = RunData::from_tokens(vec![pair(&secure, &vulnerable)], Vec::new(), 12).unwrap();
        let expected =
            Changes { secure: (0..12).map(|token| token < 4).collect(), vulnerable: vec![false; 12] };
        assert_eq!(data.train.pairs[0].changes, Some(expected));
        // Marks that there are already stay as they are.
        let own = Changes { secure: vec![true, false, true], vulnerable: vec![false, true] };
        let marked = TokenPair { changes: Some(own.clone()), ..pair(&[1, 2, 3], &[1, 4]) };
        let data = RunData::from_tokens(vec![marked], Vec::new(), 12).unwrap();
        assert_eq!(data.train.pairs[0].changes, Some(own));
    }

    #[test]
    fn a_method_that_reads_changes_needs_them() {
        let with = |changes: Option<Changes>| {
            let pairs = vec![TokenPair { changes, ..pair(&[1, 2, 3], &[1, 4]) }];
            RunData { train: TokenizedPairs { pairs, ..TokenizedPairs::default() }, ..RunData::default() }
        };
        let whole = Changes { secure: vec![false; 3], vulnerable: vec![true; 2] };
        let short = Changes { secure: vec![false; 2], ..whole.clone() };
        for method in Method::ALL {
            assert!(with(Some(whole.clone())).require_changes(method).is_ok());
            for lacking in [None, Some(short.clone())] {
                let refused = with(lacking).require_changes(method).err();
                assert_eq!(refused.is_some(), method.reads_changes(), "{method}");
                assert!(refused.is_none_or(|error| error.to_string().contains("pair 7")));
            }
        }
    }
}
