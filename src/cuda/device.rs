//! A CUDA device with the kernels on it.

use std::sync::Arc;

use cudarc::driver::{CudaContext, CudaStream};

use super::driver::{self, DeviceInfo, complaint};
use super::gemm;
use super::images::{self, IMAGES};
use super::launch::{Kernel, Module};
use crate::error::{Error, Result};

/// A CUDA device: its context, a stream that all work goes to in order, and the kernels loaded for it.
#[derive(Clone)]
pub struct Cuda {
    pub(super) stream: Arc<CudaStream>,
    pub(super) kernels: Arc<Kernels>,
    pub(super) info: DeviceInfo,
}

/// Every kernel, by name.
pub(super) struct Kernels {
    pub rms_norm: Kernel,
    pub rms_norm_backward: Kernel,
    pub adamw: Kernel,
    pub sum_of_squares: Kernel,
    pub sum_of_partials: Kernel,
    pub gemm_nt: Kernel,
    /// Only where there are TMA and wgmma.
    pub gemm_nt_sm90: Option<Kernel>,
}

impl Cuda {
    /// Opens a device with the code that suits it best: machine code for exactly its architecture, else PTX, which the
    /// driver compiles. Under `DG_EMULATOR`, PTX.
    ///
    /// Device errors: no driver, no such device, or no kernels that run on it.
    pub fn new(ordinal: usize) -> Result<Self> {
        Self::open(ordinal, driver::emulator().is_some())
    }

    /// As [`new`](Self::new), but with PTX in any case.
    pub fn with_ptx(ordinal: usize) -> Result<Self> {
        Self::open(ordinal, true)
    }

    fn open(ordinal: usize, ptx_only: bool) -> Result<Self> {
        if IMAGES.is_empty() {
            return Err(Error::device(
                "this deepguard has no CUDA kernels: there was no nvcc when it was built; make toolkit gets one, then \
                 build again",
            ));
        }
        driver::start()?;
        let info = driver::device(ordinal)?;
        let what = || format!("CUDA device {ordinal} ({})", info.name);
        let context = CudaContext::new(ordinal).map_err(|e| complaint(what(), e))?;
        let stream = context.new_stream().map_err(|e| complaint(what(), e))?;
        let kernels = load(&context, &info, ptx_only).map_err(|e| e.context(what()))?;
        Ok(Cuda { stream, kernels: Arc::new(kernels), info })
    }

    /// What the driver says of the device.
    pub fn info(&self) -> &DeviceInfo {
        &self.info
    }

    /// The stream of all work: allocate, copy and wait with it.
    pub fn stream(&self) -> &Arc<CudaStream> {
        &self.stream
    }
}

/// Loads everything at the start: a kernel that does not load is an error here, not in the middle of a run.
fn load(context: &Arc<CudaContext>, info: &DeviceInfo, ptx_only: bool) -> Result<Kernels> {
    let find = |file| images::choose(IMAGES, file, info.capability, ptx_only);
    let module = |file| Module::load(context, find(file).ok_or_else(|| no_kernels(info))?);
    let (norm, optim, gemm) = (module("norm")?, module("optim")?, module("gemm")?);
    let gemm_sm90 = find("gemm_sm90").map(|image| Module::load(context, image)).transpose()?;
    let gemm_nt_sm90 = gemm_sm90.map(|module| module.kernel("gemm_nt_sm90")?.allow_shared(gemm::SM90_SHARED));
    Ok(Kernels {
        rms_norm: norm.kernel("rms_norm")?,
        rms_norm_backward: norm.kernel("rms_norm_backward")?,
        adamw: optim.kernel("adamw")?,
        sum_of_squares: optim.kernel("sum_of_squares")?,
        sum_of_partials: optim.kernel("sum_of_partials")?,
        gemm_nt: gemm.kernel("gemm_nt")?.allow_shared(gemm::SHARED)?,
        gemm_nt_sm90: gemm_nt_sm90.transpose()?,
    })
}

fn no_kernels(info: &DeviceInfo) -> Error {
    let there = images::architectures(IMAGES).join(", sm_");
    let found = info.capability;
    Error::device(if found < 80 {
        format!("expected compute capability 8.0 or later, found {}.{}", found / 10, found % 10)
    } else {
        format!("no kernels for sm_{found}, only for sm_{there}; build with DG_CUDA_ARCHS={found}")
    })
}
