//! Which device a command runs on, and the one match on it.

use std::str::FromStr;

use clap::{Args, ValueEnum};

use super::hub::HubArgs;
use super::note;
use crate::cpu::Cpu;
use crate::cuda::{Cuda, has_driver};
use crate::deepguard::DeepGuard;
use crate::error::{Error, Result};
use crate::hub::download::Need;
use crate::ops::Backend;

/// Where to compute.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum DeviceChoice {
    /// The first CUDA device, or the processor where there is none.
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

/// What activations and frozen weights are computed in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum DtypeChoice {
    /// What the device computes in.
    Auto,
    /// 16 bits, with sums in f32: CUDA.
    Bf16,
    /// 32 bits: the processor.
    F32,
}

/// Options of every command that runs a model.
#[derive(Args)]
pub(super) struct DeviceArgs {
    /// Where to compute: auto, cpu, cuda or cuda:N.
    #[arg(long, default_value = "auto")]
    device: DeviceChoice,
    /// What to compute in.
    #[arg(long, value_enum, default_value = "auto")]
    dtype: DtypeChoice,
    #[command(flatten)]
    hub: HubArgs,
}

/// What a command does with a model, on whichever device it is.
pub(super) trait Task {
    fn run<B: Backend>(self, guard: DeepGuard<B>) -> Result<()>;
}

impl DeviceArgs {
    /// Loads `model` on the chosen device and does `task` with it. `revision` is that of a hub id.
    pub(super) fn run(&self, model: &str, revision: Option<&str>, task: impl Task) -> Result<()> {
        let cuda = match self.device {
            DeviceChoice::Cpu => None,
            DeviceChoice::Cuda(ordinal) => Some(Cuda::new(ordinal)?),
            DeviceChoice::Auto if self.dtype == DtypeChoice::F32 => None,
            DeviceChoice::Auto => first_cuda(),
        };
        let dir = self.hub.obtain(model, revision, Need::Model)?;
        match cuda {
            Some(cuda) => {
                self.check_dtype(DtypeChoice::Bf16, "CUDA computes in bf16 only")?;
                note(&format!("device: {}", cuda.info().name));
                task.run(DeepGuard::load(cuda, &dir)?)
            }
            None => {
                self.check_dtype(DtypeChoice::F32, "the processor computes in f32 only")?;
                task.run(DeepGuard::load(Cpu::new(), &dir)?)
            }
        }
    }

    fn check_dtype(&self, there: DtypeChoice, reason: &str) -> Result<()> {
        if self.dtype == DtypeChoice::Auto || self.dtype == there {
            return Ok(());
        }
        Err(Error::usage(format!("--dtype: {reason}; leave it out, or choose another --device")))
    }
}

/// The first CUDA device; `None` where there is no driver, or, after a word about it, no device that can be used.
fn first_cuda() -> Option<Cuda> {
    let opened = has_driver().then(|| Cuda::new(0))?;
    opened.map_err(|error| note(&format!("computing on the processor: {error}"))).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn devices_by_name() {
        for (text, choice) in [
            ("auto", DeviceChoice::Auto),
            ("cpu", DeviceChoice::Cpu),
            ("cuda", DeviceChoice::Cuda(0)),
            ("cuda:3", DeviceChoice::Cuda(3)),
        ] {
            assert_eq!(text.parse(), Ok(choice));
        }
        for text in ["", "gpu", "cuda:", "cuda:x", "cuda:-1", "cpu:0"] {
            assert!(text.parse::<DeviceChoice>().is_err(), "{text}");
        }
    }
}
