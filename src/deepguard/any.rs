//! A guard on a device that is chosen when the program runs.

use std::fmt;
use std::path::Path;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use super::{DeepGuard, TextScores};
use crate::cpu::Cpu;
#[cfg(feature = "cuda")]
use crate::cuda::{Cuda, has_driver};
use crate::decode::{CoDecoding, GenerateOptions, Generated};
use crate::error::{Error, Result};
use crate::model::{Config, Tokenizer};
use crate::ops::{Backend, Device};
use crate::train::records::CodePair;
use crate::train::{Observer, RunSummary, TrainConfig};

/// Where to compute. As text: `auto`, `cpu`, `cuda` or `cuda:N`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
#[non_exhaustive]
pub enum DeviceChoice {
    /// The first CUDA device, or the processor where there is none.
    #[default]
    Auto,
    /// The processor.
    Cpu,
    /// The CUDA device of this number.
    Cuda(usize),
}

impl FromStr for DeviceChoice {
    type Err = String;

    fn from_str(text: &str) -> std::result::Result<Self, String> {
        let number = |text: &str| text.parse().ok().map(DeviceChoice::Cuda);
        let choice = match text.split_once(':') {
            None if text == "auto" => Some(DeviceChoice::Auto),
            None if text == "cpu" => Some(DeviceChoice::Cpu),
            None if text == "cuda" => Some(DeviceChoice::Cuda(0)),
            Some(("cuda", ordinal)) => number(ordinal),
            _ => None,
        };
        choice.ok_or_else(|| "expected auto, cpu, cuda or cuda:N".into())
    }
}

impl TryFrom<String> for DeviceChoice {
    type Error = String;

    fn try_from(text: String) -> std::result::Result<Self, String> {
        text.parse()
    }
}

impl fmt::Display for DeviceChoice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            DeviceChoice::Auto => f.write_str("auto"),
            DeviceChoice::Cpu => f.write_str("cpu"),
            DeviceChoice::Cuda(ordinal) => write!(f, "cuda:{ordinal}"),
        }
    }
}

impl From<DeviceChoice> for String {
    fn from(choice: DeviceChoice) -> Self {
        choice.to_string()
    }
}

/// A device that is ready to compute.
#[derive(Clone)]
#[non_exhaustive]
pub enum AnyDevice {
    /// The processor.
    Cpu(Cpu),
    /// A CUDA device.
    #[cfg(feature = "cuda")]
    Cuda(Cuda),
}

impl AnyDevice {
    /// Opens the device of a choice.
    ///
    /// # Errors
    /// Kind `Device`: a CUDA device that is not there or cannot be used. `Auto` has no errors.
    pub fn open(choice: DeviceChoice) -> Result<Self> {
        match choice {
            DeviceChoice::Auto => Ok(Self::auto().0),
            DeviceChoice::Cpu => Ok(AnyDevice::Cpu(Cpu::new())),
            #[cfg(feature = "cuda")]
            DeviceChoice::Cuda(ordinal) => Cuda::new(ordinal).map(AnyDevice::Cuda),
            #[cfg(not(feature = "cuda"))]
            DeviceChoice::Cuda(_) => Err(without_cuda()),
        }
    }

    /// The first CUDA device; or the processor, and why there is no other.
    pub fn auto() -> (Self, Option<Error>) {
        #[cfg(feature = "cuda")]
        let opened = match has_driver() {
            true => Cuda::new(0).map(AnyDevice::Cuda),
            false => Err(Error::device("there is no CUDA driver")),
        };
        #[cfg(not(feature = "cuda"))]
        let opened: Result<Self> = Err(without_cuda());
        match opened {
            Ok(cuda) => (cuda, None),
            Err(reason) => (AnyDevice::Cpu(Cpu::new()), Some(reason)),
        }
    }

    /// What the device is, for people.
    pub fn description(&self) -> String {
        match self {
            AnyDevice::Cpu(cpu) => cpu.description(),
            #[cfg(feature = "cuda")]
            AnyDevice::Cuda(cuda) => cuda.description(),
        }
    }
}

#[cfg(not(feature = "cuda"))]
fn without_cuda() -> Error {
    Error::device("deepguard was built without its feature cuda")
}

/// A [`DeepGuard`] on whichever device.
///
/// Methods of [`DeepGuard`] that this type lacks are reached by [`AnyGuard::visit`], or by a match.
#[non_exhaustive]
pub enum AnyGuard {
    /// On the processor.
    Cpu(DeepGuard<Cpu>),
    /// On a CUDA device.
    #[cfg(feature = "cuda")]
    Cuda(DeepGuard<Cuda>),
}

/// Work that is written once for every backend.
pub trait Visitor {
    /// Result of the work.
    type Output;

    /// Does the work.
    fn visit<B: Backend>(self, guard: DeepGuard<B>) -> Self::Output;
}

/// The one match on the device.
macro_rules! on_device {
    ($any:expr, $guard:ident => $work:expr) => {
        match $any {
            AnyGuard::Cpu($guard) => $work,
            #[cfg(feature = "cuda")]
            AnyGuard::Cuda($guard) => $work,
        }
    };
}

impl AnyGuard {
    /// As [`DeepGuard::load`].
    ///
    /// # Errors
    /// As [`DeepGuard::load`].
    pub fn load(device: AnyDevice, dir: impl AsRef<Path>) -> Result<Self> {
        match device {
            AnyDevice::Cpu(cpu) => DeepGuard::load(cpu, dir).map(AnyGuard::Cpu),
            #[cfg(feature = "cuda")]
            AnyDevice::Cuda(cuda) => DeepGuard::load(cuda, dir).map(AnyGuard::Cuda),
        }
    }

    /// Hands the guard to work that is generic over backends.
    pub fn visit<V: Visitor>(self, visitor: V) -> V::Output {
        on_device!(self, guard => visitor.visit(guard))
    }

    /// The base model's configuration.
    pub fn config(&self) -> &Config {
        on_device!(self, guard => &guard.model.config)
    }

    /// The base model's tokenizer.
    pub fn tokenizer(&self) -> &Tokenizer {
        on_device!(self, guard => &guard.tokenizer)
    }

    /// As [`DeepGuard::attach`].
    ///
    /// # Errors
    /// As [`DeepGuard::attach`].
    pub fn attach(&mut self, adapter: &Path) -> Result<()> {
        on_device!(self, guard => guard.attach(adapter))
    }

    /// As [`DeepGuard::attach_expert`].
    ///
    /// # Errors
    /// As [`DeepGuard::attach_expert`].
    pub fn attach_expert(&mut self, model: Option<&Path>, adapter: &Path, options: CoDecoding) -> Result<()> {
        on_device!(self, guard => guard.attach_expert(model, adapter, options))
    }

    /// As [`DeepGuard::train`].
    ///
    /// # Errors
    /// As [`DeepGuard::train`].
    pub fn train(&mut self, config: &TrainConfig, observer: &mut dyn Observer) -> Result<RunSummary> {
        on_device!(self, guard => guard.train(config, observer))
    }

    /// As [`DeepGuard::train_on`].
    ///
    /// # Errors
    /// As [`DeepGuard::train_on`].
    pub fn train_on(
        &mut self,
        pairs: Vec<CodePair>,
        validation: Option<Vec<CodePair>>,
        config: &TrainConfig,
        observer: &mut dyn Observer,
    ) -> Result<RunSummary> {
        on_device!(self, guard => guard.train_on(pairs, validation, config, observer))
    }

    /// As [`DeepGuard::score`].
    ///
    /// # Errors
    /// As [`DeepGuard::score`].
    pub fn score(&self, text: &str) -> Result<TextScores> {
        on_device!(self, guard => guard.score(text))
    }

    /// As [`DeepGuard::score_batch`].
    ///
    /// # Errors
    /// As [`DeepGuard::score_batch`].
    pub fn score_batch<T: AsRef<str>>(&self, texts: &[T]) -> Result<Vec<TextScores>> {
        on_device!(self, guard => guard.score_batch(texts))
    }

    /// As [`DeepGuard::generate`].
    ///
    /// # Errors
    /// As [`DeepGuard::generate`].
    pub fn generate(
        &self,
        prompt: &str,
        options: &GenerateOptions,
        on_token: &mut dyn FnMut(usize, u32) -> bool,
    ) -> Result<Generated> {
        on_device!(self, guard => guard.generate(prompt, options, on_token))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn devices_by_name() {
        let by_name = |text: &str| serde_json::from_value::<DeviceChoice>(text.into());
        for (text, choice) in [
            ("auto", DeviceChoice::Auto),
            ("cpu", DeviceChoice::Cpu),
            ("cuda", DeviceChoice::Cuda(0)),
            ("cuda:3", DeviceChoice::Cuda(3)),
        ] {
            assert_eq!(text.parse(), Ok(choice));
            assert_eq!(by_name(&choice.to_string()).unwrap(), choice);
        }
        for text in ["", "gpu", "cuda:", "cuda:x", "cuda:-1", "cpu:0"] {
            assert!(text.parse::<DeviceChoice>().is_err() && by_name(text).is_err(), "{text}");
        }
    }
}
