//! `dg-run info`: what this program was built with, and what it finds on this machine.

use anyhow::Result;
use clap::Args;
use serde::Serialize;

use super::print;
use crate::cuda::images::{IMAGES, Image, KERNELS, KernelInfo, NVCC_VERSION, architectures};
use crate::cuda::{DeviceInfo, EMULATOR_VARIABLE, devices, emulator};
#[cfg(unix)]
use crate::dist::{mpi, nccl};
#[cfg(unix)]
use crate::eval::environment::Environment;
use crate::files::json_text;
use crate::hub::Settings;
use crate::system::Memory;

#[derive(Args)]
pub(super) struct InfoArgs {
    /// Print one JSON object.
    #[arg(long)]
    json: bool,
}

/// Everything that is told.
#[derive(Serialize)]
struct Info {
    version: &'static str,
    system: SystemInfo,
    cpu: CpuInfo,
    hub: HubInfo,
    /// Version of the nvcc that compiled the kernels.
    nvcc: Option<&'static str>,
    images: Vec<ImageInfo>,
    kernels: &'static [KernelInfo],
    /// What stands in for the driver.
    emulator: Option<String>,
    devices: Vec<DeviceInfo>,
    /// Why there are no devices.
    no_devices: Option<String>,
    /// What connects ranks.
    #[cfg(unix)]
    mpi: Option<mpi::Found>,
    /// Why it can't.
    #[cfg(unix)]
    no_mpi: Option<String>,
    /// What connects ranks on GPUs.
    #[cfg(unix)]
    nccl: Option<nccl::Found>,
    /// Why it can't.
    #[cfg(unix)]
    no_nccl: Option<String>,
    /// What `eval` judges with.
    #[cfg(unix)]
    evaluation: Option<Environment>,
    /// Why it can't.
    #[cfg(unix)]
    no_evaluation: Option<String>,
}

#[derive(Serialize)]
struct SystemInfo {
    name: &'static str,
    /// Release of the kernel.
    release: Option<String>,
    memory: Option<Memory>,
}

/// The hub and its cache, as the environment has them.
#[derive(Serialize)]
struct HubInfo {
    #[serde(flatten)]
    settings: Settings,
    /// Hub ids of what is in the cache, if only in part.
    models: Vec<String>,
}

#[derive(Serialize)]
struct CpuInfo {
    architecture: &'static str,
    features: Vec<&'static str>,
    threads: usize,
}

/// What there is for one architecture.
#[derive(Serialize)]
struct ImageInfo {
    architecture: &'static str,
    code: Vec<&'static str>,
}

pub(super) fn run(args: &InfoArgs) -> Result<()> {
    let info = Info::new();
    if !args.json {
        return Ok(print(&info.to_text())?);
    }
    Ok(print(&json_text(&info)?)?)
}

impl Info {
    fn new() -> Self {
        let (devices, no_devices) = match devices() {
            Ok(devices) => (devices, None),
            Err(error) => (Vec::new(), Some(error.to_string())),
        };
        #[cfg(unix)]
        let (mpi, no_mpi) = match mpi::find() {
            Ok(mpi) => (Some(mpi), None),
            Err(error) => (None, Some(error.to_string())),
        };
        #[cfg(unix)]
        let (nccl, no_nccl) = match nccl::find() {
            Ok(nccl) => (Some(nccl), None),
            Err(error) => (None, Some(error.to_string())),
        };
        #[cfg(unix)]
        let (evaluation, no_evaluation) = match Environment::here() {
            Ok(environment) => (Some(environment), None),
            Err(error) => (None, Some(error.to_string())),
        };
        Info {
            version: env!("CARGO_PKG_VERSION"),
            system: SystemInfo {
                name: std::env::consts::OS,
                release: std::fs::read_to_string("/proc/sys/kernel/osrelease")
                    .ok()
                    .map(|text| text.trim().into()),
                memory: Memory::of_process(),
            },
            hub: HubInfo::new(Settings::from_env()),
            cpu: CpuInfo {
                architecture: std::env::consts::ARCH,
                features: crate::cpu::features(),
                threads: rayon::current_num_threads(),
            },
            nvcc: NVCC_VERSION,
            images: architectures(IMAGES).into_iter().map(|arch| ImageInfo::new(arch, IMAGES)).collect(),
            kernels: KERNELS,
            emulator: emulator().map(|path| path.display().to_string()),
            devices,
            no_devices,
            #[cfg(unix)]
            mpi,
            #[cfg(unix)]
            no_mpi,
            #[cfg(unix)]
            nccl,
            #[cfg(unix)]
            no_nccl,
            #[cfg(unix)]
            evaluation,
            #[cfg(unix)]
            no_evaluation,
        }
    }

    fn to_text(&self) -> String {
        let CpuInfo { architecture, features, threads } = &self.cpu;
        let mut text = format!("dg-run {}\n{}", self.version, self.system.to_text());
        text += &format!("CPU: {architecture} ({}), {threads} threads\n", features.join(", "));
        text += &self.hub.to_text();
        text += &match self.nvcc {
            Some(version) => format!("CUDA kernels: by nvcc {version} for {}\n", self.targets()),
            None => "CUDA kernels: none, as there was no nvcc when this was built\n".into(),
        };
        if let Some(path) = &self.emulator {
            text += &format!("CUDA driver: {path}, by {EMULATOR_VARIABLE}\n");
        }
        for device in &self.devices {
            let DeviceInfo { ordinal, name, capability, multiprocessors, memory, .. } = device;
            let (major, minor, gib) = (capability / 10, capability % 10, gib(*memory as u64));
            text += &format!(
                "CUDA device {ordinal}: {name}, compute capability {major}.{minor}, {multiprocessors} multiprocessors, \
                 {gib:.1} GiB\n"
            );
        }
        if self.devices.is_empty() {
            text += &format!("CUDA devices: {}\n", self.no_devices.as_deref().unwrap_or("none"));
        }
        #[cfg(unix)]
        {
            text += &self.collectives_text();
            text += &self.evaluation_text();
        }
        text + &self.kernel_table()
    }

    #[cfg(unix)]
    fn collectives_text(&self) -> String {
        let mpi = self.mpi.as_ref().map(|mpi::Found { path, version }| format!("{version}, {path}"));
        let nccl = self.nccl.as_ref().map(|nccl::Found { path, version }| format!("{version}, {path}"));
        let line = |name: &str, found: Option<String>, why: &Option<String>| {
            let found = found.unwrap_or_else(|| format!("none: {}", why.as_deref().unwrap_or_default()));
            format!("{name}: {found}\n")
        };
        line("MPI", mpi, &self.no_mpi) + &line("NCCL", nccl, &self.no_nccl)
    }

    #[cfg(unix)]
    fn evaluation_text(&self) -> String {
        let Some(Environment { sandbox, python, tools, .. }) = &self.evaluation else {
            let why = self.no_evaluation.as_deref().unwrap_or("none");
            return format!("evaluation sandbox: none: {why}\n");
        };
        let tools = tools.iter().map(|(name, version)| format!("{name} ({version})"));
        let tools = tools.collect::<Vec<_>>().join(", ");
        format!("evaluation sandbox: {sandbox}, Python {python}\nevaluation tools: {tools}\n")
    }

    fn targets(&self) -> String {
        let one = |image: &ImageInfo| format!("sm_{} ({})", image.architecture, image.code.join(", "));
        self.images.iter().map(one).collect::<Vec<_>>().join(", ")
    }

    fn kernel_table(&self) -> String {
        if self.kernels.is_empty() {
            return String::new();
        }
        let mut table = format!(
            "\n{:<20} {:<7} {:>9} {:>12} {:>11} {:>11}\n",
            "kernel", "for", "registers", "shared bytes", "stack bytes", "spill bytes"
        );
        for KernelInfo { name, arch, registers, shared, stack, spills, .. } in self.kernels {
            let arch = format!("sm_{arch}");
            table += &format!("{name:<20} {arch:<7} {registers:>9} {shared:>12} {stack:>11} {spills:>11}\n");
        }
        table
    }
}

impl SystemInfo {
    fn to_text(&self) -> String {
        let release = self.release.as_deref().unwrap_or("of unknown release");
        let system = format!("system: {} {release}\n", self.name);
        system + &self.memory.as_ref().map(memory_text).unwrap_or_default()
    }
}

/// What there is, what may be used of it, and the limit that leaves the least.
fn memory_text(memory: &Memory) -> String {
    let text = format!("memory: {:.2} GiB free of {:.2}\n", gib(memory.available), gib(memory.total));
    let limit = memory.limit.as_ref().map(|limit| {
        let (bytes, used) = (gib(limit.bytes), gib(limit.used));
        format!("memory limit: {bytes:.2} GiB, {used:.2} used, by {}\n", limit.of)
    });
    text + &limit.unwrap_or_default()
}

impl HubInfo {
    fn new(settings: Settings) -> Self {
        HubInfo { models: settings.cached_models(), settings }
    }

    fn to_text(&self) -> String {
        let Settings { cache, endpoint, offline, token } = &self.settings;
        let offline = if *offline { ", offline" } else { "" };
        let token = if token.is_some() { "a token" } else { "no token" };
        let cache = cache.as_ref().map_or("none".to_owned(), |cache| cache.display().to_string());
        let models = if self.models.is_empty() { "no models".into() } else { self.models.join(", ") };
        format!("hub: {endpoint}, {token}{offline}\nhub cache: {cache}: {models}\n")
    }
}

fn gib(bytes: u64) -> f64 {
    bytes as f64 / f64::from(1 << 30)
}

impl ImageInfo {
    fn new(architecture: &'static str, images: &[Image]) -> Self {
        let mut code = Vec::new();
        for image in images.iter().filter(|image| image.arch == architecture) {
            if !code.contains(&image.code.name()) {
                code.push(image.code.name());
            }
        }
        ImageInfo { architecture, code }
    }
}
