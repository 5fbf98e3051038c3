//! One golden case on disk: `<case>.json` and `<case>.safetensors`.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use deepguard::train::batch::TokenPair;
use safetensors::{Dtype, SafeTensors};
use serde_json::Value;

/// Anything that keeps a case from running.
pub type Result<T> = std::result::Result<T, Box<dyn std::error::Error>>;

/// A stored tensor; integers are kept exactly, as f64 holds any i32 and f32.
pub struct Tensor {
    pub shape: Vec<usize>,
    pub values: Vec<f64>,
    pub is_integer: bool,
}

impl Tensor {
    pub fn f32(&self) -> Vec<f32> {
        self.values.iter().map(|&v| v as f32).collect()
    }

    pub fn ids(&self) -> Vec<u32> {
        self.values.iter().map(|&v| v as u32).collect()
    }

    /// The element at `index`, one number per dimension.
    pub fn at(&self, index: &[usize]) -> f64 {
        assert_eq!(index.len(), self.shape.len(), "a tensor of shape {:?}", self.shape);
        let flat = index.iter().zip(&self.shape).fold(0, |flat, (&i, &n)| {
            assert!(i < n);
            flat * n + i
        });
        self.values[flat]
    }
}

/// All tensors of a file.
pub fn read_tensors(path: &Path) -> Result<BTreeMap<String, Tensor>> {
    let bytes = std::fs::read(path).map_err(|e| format!("{}: {e}", path.display()))?;
    let file = SafeTensors::deserialize(&bytes)?;
    file.iter().map(|(name, view)| Ok((name.to_owned(), read_tensor(name, &view)?))).collect()
}

fn read_tensor(name: &str, view: &safetensors::tensor::TensorView<'_>) -> Result<Tensor> {
    let words = view.data().chunks_exact(4).map(|b| [b[0], b[1], b[2], b[3]]);
    let values = match view.dtype() {
        Dtype::F32 => words.map(|b| f64::from(f32::from_le_bytes(b))).collect(),
        Dtype::I32 => words.map(|b| f64::from(i32::from_le_bytes(b))).collect(),
        other => return Err(format!("{name}: {other:?} is not F32 or I32").into()),
    };
    Ok(Tensor { shape: view.shape().to_vec(), values, is_integer: view.dtype() == Dtype::I32 })
}

/// A case with its inputs prepared: rows without their padding.
pub struct Case {
    /// The folder with `models/`, `lora/` and `cases/`.
    pub folder: PathBuf,
    pub json: Value,
    pub tensors: BTreeMap<String, Tensor>,
}

impl Case {
    pub fn open(folder: &Path, json: &Path) -> Result<Case> {
        let text = std::fs::read_to_string(json).map_err(|e| format!("{}: {e}", json.display()))?;
        Ok(Case {
            folder: folder.to_owned(),
            json: serde_json::from_str(&text).map_err(|e| format!("{}: {e}", json.display()))?,
            tensors: read_tensors(&json.with_extension("safetensors"))?,
        })
    }

    pub fn tensor(&self, name: &str) -> Option<&Tensor> {
        self.tensors.get(name)
    }

    pub fn required(&self, name: &str) -> Result<&Tensor> {
        self.tensor(name).ok_or_else(|| format!("there is no tensor {name}").into())
    }

    /// A number of the JSON, by its path.
    pub fn number(&self, path: &[&str]) -> Option<f64> {
        path.iter().try_fold(&self.json, |value, key| value.get(key))?.as_f64()
    }

    pub fn text(&self, key: &str) -> Option<&str> {
        self.json.get(key)?.as_str()
    }

    pub fn is_real_model(&self) -> bool {
        self.json.get("model_safetensors_sha256").is_some()
    }

    pub fn pad_token(&self) -> Option<u32> {
        self.number(&["pad_token_id"]).map(|id| id as u32)
    }

    /// Token ids of every row of one side, padding included.
    pub fn padded_rows(&self, side: &str) -> Result<Vec<Vec<u32>>> {
        let ids = self.required(&format!("inputs/input_ids_{side}"))?;
        Ok(ids.ids().chunks(ids.shape[1]).map(<[u32]>::to_vec).collect())
    }

    /// Real tokens of every row of one side. Padding lies on the right.
    pub fn rows(&self, side: &str) -> Result<Vec<Vec<u32>>> {
        let mut rows = self.padded_rows(side)?;
        if let Some(mask) = self.tensor(&format!("inputs/attention_mask_{side}")) {
            for (i, (row, mask)) in rows.iter_mut().zip(mask.values.chunks(mask.shape[1])).enumerate() {
                let real = mask.iter().take_while(|&&m| m == 1.0).count();
                if mask[real..].contains(&1.0) {
                    return Err(format!("{side} row {i}: the attention mask is not ones, then zeros").into());
                }
                row.truncate(real);
            }
        }
        Ok(rows)
    }

    pub fn pairs(&self) -> Result<Vec<TokenPair>> {
        let rows = self.rows("secure")?.into_iter().zip(self.rows("vulnerable")?);
        Ok(rows
            .enumerate()
            .map(|(id, (secure, vulnerable))| TokenPair::new(id, secure, vulnerable))
            .collect())
    }

    /// Whether some position is padding. The published code scores padding too; we have none, so that such a
    /// case's `*_masked` numbers are the ones that we must reproduce.
    pub fn is_padded(&self) -> bool {
        let masked = |side| self.tensor(&format!("inputs/attention_mask_{side}"));
        ["secure", "vulnerable"].into_iter().filter_map(masked).any(|mask| mask.values.contains(&0.0))
    }

    /// The positions for which the big tensors are stored.
    pub fn positions(&self) -> Vec<usize> {
        self.tensor("positions").map_or(Vec::new(), |t| t.values.iter().map(|&v| v as usize).collect())
    }
}
