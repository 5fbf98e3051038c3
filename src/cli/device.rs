//! Which device a command runs on.

use anyhow::{Context, Result};
use clap::{Args, ValueEnum};
use serde::{Deserialize, Serialize};

use super::hub::HubArgs;
use super::say::{note, warn};
use crate::cuda::devices;
use crate::deepguard::{AnyDevice, AnyGuard, DeepGuard, DeviceChoice, Visitor};
use crate::dist::launch::Launch;
use crate::error::Error;
use crate::hub::download::Need;
use crate::model::config::Config;
use crate::ops::Backend;

/// Which GPUs a process sees.
const VISIBLE: &str = "CUDA_VISIBLE_DEVICES";

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
    pub(super) hub: HubArgs,
}

/// What a command does with a model, on whichever device it is.
pub(super) trait Task {
    /// Looks at the model's configuration before its weights are loaded.
    fn check(&self, _model: &Config) -> Result<()> {
        Ok(())
    }

    /// Prepares the device before the model is loaded on it.
    fn prepare(&mut self, _device: &AnyDevice, _model: &Config) -> Result<()> {
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

    /// Where a rank computes: unless another device is named, on the GPU of its number among the ranks of its
    /// machine, or on the only one that its launcher lets it see.
    pub(super) fn of_rank(&self, launch: &Launch) -> Result<Self> {
        let names_one = !matches!(self.device, DeviceChoice::Auto | DeviceChoice::Cuda(0));
        if launch.world == 1 || names_one || self.dtype == DtypeChoice::F32 {
            return Ok(self.clone());
        }
        let gpus = match (self.device, devices()) {
            (DeviceChoice::Auto, Err(_)) => return Ok(self.clone()),
            (_, found) => found?.len(),
        };
        let (rank, local_rank) = (launch.rank, launch.local_rank);
        let ordinal = match gpus {
            1 if std::env::var_os(VISIBLE).is_some() => 0,
            _ if local_rank < gpus => local_rank,
            _ => {
                return Err(Error::device(format!(
                    "rank {rank}: expected a GPU of its own, found {gpus} for ranks up to number {local_rank} of its \
                     machine, counted from 0; start one rank for each GPU, or set {VISIBLE} for each rank"
                ))
                .into());
            }
        };
        Ok(DeviceArgs { device: DeviceChoice::Cuda(ordinal), ..self.clone() })
    }

    /// The processor, whatever there is.
    pub(super) fn processor() -> Self {
        DeviceArgs { device: DeviceChoice::Cpu, ..DeviceArgs::default() }
    }

    /// A GPU, or an error.
    pub(super) fn any_gpu() -> Self {
        DeviceArgs { device: DeviceChoice::Cuda(0), ..DeviceArgs::default() }
    }

    /// The device [of a rank](Self::of_rank), for the others.
    pub(super) fn name(&self) -> String {
        self.gpu().map_or("processor".to_owned(), |ordinal| format!("GPU {ordinal}"))
    }

    /// The number of the GPU [of a rank](Self::of_rank), if it computes on one.
    pub(super) fn gpu(&self) -> Option<usize> {
        match self.device {
            DeviceChoice::Cuda(ordinal) => Some(ordinal),
            DeviceChoice::Auto | DeviceChoice::Cpu => None,
        }
    }

    /// The identity of that GPU, which no other rank may compute on.
    pub(super) fn uuid(&self) -> Option<String> {
        let ordinal = self.gpu()?;
        devices().ok()?.into_iter().nth(ordinal).map(|device| device.uuid)
    }

    fn accepts(&self, there: DtypeChoice, reason: &str) -> std::result::Result<(), String> {
        if self.dtype == DtypeChoice::Auto || self.dtype == there {
            return Ok(());
        }
        Err(format!("{reason}; leave it out, or choose another --device"))
    }

    /// Loads `model` on the chosen device and does `task` with it. `revision` is that of a hub id.
    pub(super) fn run(&self, model: &str, revision: Option<&str>, mut task: impl Task) -> Result<()> {
        let device = self.open()?;
        let found = match device {
            AnyDevice::Cpu(_) => DeviceChoice::Cpu,
            AnyDevice::Cuda(_) => DeviceChoice::Cuda(0),
        };
        let found = DeviceArgs { device: found, ..self.clone() };
        found.check().map_err(|message| Error::usage(format!("--dtype: {message}")))?;
        let dir = self.hub.obtain(model, revision, Need::Model)?;
        let config = Config::from_dir(&dir)?;
        task.check(&config)?;
        if let AnyDevice::Cuda(cuda) = &device {
            note(&format!("device: {}", cuda.info().name));
        }
        task.prepare(&device, &config)?;
        let guard = AnyGuard::load(device, &dir);
        guard.with_context(|| format!("cannot load the base model {model}"))?.visit(OnDevice(task))
    }

    /// The chosen device; for `auto`, after a word about why it is the processor, where it is.
    fn open(&self) -> Result<AnyDevice> {
        if self.device != DeviceChoice::Auto {
            return Ok(AnyDevice::open(self.device)?);
        }
        if self.dtype == DtypeChoice::F32 {
            note("device: the processor, as --dtype f32 is its type");
            return Ok(AnyDevice::open(DeviceChoice::Cpu)?);
        }
        let (device, reason) = AnyDevice::auto();
        if let Some(reason) = reason {
            note(&format!("device: the processor, as {reason}"));
        }
        Ok(device)
    }
}

/// A task, handed to a model on whichever device.
struct OnDevice<T>(T);

impl<T: Task> Visitor for OnDevice<T> {
    type Output = Result<()>;

    fn visit<B: Backend>(self, guard: DeepGuard<B>) -> Result<()> {
        guard.notes().for_each(warn);
        self.0.run(guard)
    }
}
