//! Which device a command runs on, and the one match on it.

use std::str::FromStr;

use anyhow::{Context, Result};
use clap::{Args, ValueEnum};
use serde::{Deserialize, Serialize};

use super::hub::HubArgs;
use super::say::note;
use crate::cpu::Cpu;
use crate::cuda::{Cuda, has_driver};
use crate::deepguard::DeepGuard;
use crate::error::Error;
use crate::hub::download::Need;
use crate::model::config::Config;
use crate::ops::Backend;

/// Where to compute.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
enum DeviceChoice {
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

impl From<DeviceChoice> for String {
    fn from(choice: DeviceChoice) -> Self {
        match choice {
            DeviceChoice::Auto => "auto".into(),
            DeviceChoice::Cpu => "cpu".into(),
            DeviceChoice::Cuda(ordinal) => format!("cuda:{ordinal}"),
        }
    }
}

/// What activations and frozen weights are computed in.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
enum DtypeChoice {
    /// What the device computes in.
    #[default]
    Auto,
    /// 16 bits, with sums in f32: CUDA.
    Bf16,
    /// 32 bits: the processor.
    F32,
}

/// Options of every command that runs a model.
#[derive(Args, Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(super) struct DeviceArgs {
    /// Where to compute: auto, cpu, cuda or cuda:N.
    #[arg(long, default_value = "auto", help_heading = "Device and memory")]
    device: DeviceChoice,
    /// What to compute in.
    #[arg(long, value_enum, default_value = "auto", help_heading = "Device and memory")]
    dtype: DtypeChoice,
    #[command(flatten)]
    #[serde(flatten)]
    hub: HubArgs,
}

/// What a command does with a model, on whichever device it is.
pub(super) trait Task {
    /// Looks at the model's configuration before its weights are loaded.
    fn check(&self, _model: &Config) -> Result<()> {
        Ok(())
    }

    fn run<B: Backend>(self, guard: DeepGuard<B>) -> Result<()>;
}

impl DeviceArgs {
    /// Whether device and type go together, so far as that does not depend on the machine.
    pub(super) fn check(&self) -> std::result::Result<(), String> {
        match self.device {
            DeviceChoice::Auto => Ok(()),
            DeviceChoice::Cpu => self.accepts(DtypeChoice::F32, "the processor computes in f32 only"),
            DeviceChoice::Cuda(_) => self.accepts(DtypeChoice::Bf16, "CUDA computes in bf16 only"),
        }
    }

    fn accepts(&self, there: DtypeChoice, reason: &str) -> std::result::Result<(), String> {
        if self.dtype == DtypeChoice::Auto || self.dtype == there {
            return Ok(());
        }
        Err(format!("{reason}; leave it out, or choose another --device"))
    }

    /// Loads `model` on the chosen device and does `task` with it. `revision` is that of a hub id.
    pub(super) fn run(&self, model: &str, revision: Option<&str>, task: impl Task) -> Result<()> {
        let cuda = match self.device {
            DeviceChoice::Cpu => None,
            DeviceChoice::Cuda(ordinal) => Some(Cuda::new(ordinal)?),
            DeviceChoice::Auto if self.dtype == DtypeChoice::F32 => None,
            DeviceChoice::Auto => first_cuda(),
        };
        let found = if cuda.is_some() { DeviceChoice::Cuda(0) } else { DeviceChoice::Cpu };
        let found = DeviceArgs { device: found, ..self.clone() };
        found.check().map_err(|message| Error::usage(format!("--dtype: {message}")))?;
        let dir = self.hub.obtain(model, revision, Need::Model)?;
        task.check(&Config::from_dir(&dir)?)?;
        let loading = || format!("cannot load the base model {model}");
        match cuda {
            Some(cuda) => {
                note(&format!("device: {}", cuda.info().name));
                task.run(DeepGuard::load(cuda, &dir).with_context(loading)?)
            }
            None => task.run(DeepGuard::load(Cpu::new(), &dir).with_context(loading)?),
        }
    }
}

/// The first CUDA device; `None`, after a word about it, where there is no driver or no device that can be used.
fn first_cuda() -> Option<Cuda> {
    if !has_driver() {
        note("device: the processor, as there is no CUDA driver");
        return None;
    }
    Cuda::new(0).map_err(|error| note(&format!("device: the processor, as {error}"))).ok()
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
            assert_eq!(by_name(&String::from(choice)).unwrap(), choice);
        }
        for text in ["", "gpu", "cuda:", "cuda:x", "cuda:-1", "cpu:0"] {
            assert!(text.parse::<DeviceChoice>().is_err(), "{text}");
        }
    }
}
