//! Launches.

use std::ffi::c_void;
use std::sync::Arc;

use super::abi::{Handle, In, LaunchConfig};
use super::attributes::limits;
use super::function::LoadedFunction;
use super::occupancy::blocks_per_multiprocessor;
use super::state::Driver;
use super::status::{Result, Status};
use super::stream::with_stream;
use super::work::{Kernel, Work};
use super::{api, unsupported};
use crate::machine::{Function, Launch};

/// Blocks of a cluster that every device of the kind allows, and that this one does.
pub const MAX_PORTABLE_CLUSTER: u32 = 8;
/// Blocks of a cluster that a function can opt in to.
pub const MAX_CLUSTER: u32 = 16;

const MAX_GRID: [u32; 3] = [i32::MAX as u32, 65535, 65535];
const MAX_BLOCK: [u32; 3] = [1024, 1024, 64];
const MAX_THREADS: u64 = 1024;

/// `CU_LAUNCH_PARAM_…` in `extra`.
const PARAM_END: usize = 0;
const PARAM_POINTER: usize = 1;
const PARAM_SIZE: usize = 2;

/// `CUlaunchAttributeID`.
mod attribute {
    pub const IGNORE: u32 = 0;
    pub const ACCESS_POLICY_WINDOW: u32 = 1;
    pub const COOPERATIVE: u32 = 2;
    pub const SYNCHRONIZATION_POLICY: u32 = 3;
    pub const CLUSTER_DIMENSION: u32 = 4;
    pub const CLUSTER_SCHEDULING: u32 = 5;
    pub const PROGRAMMATIC_STREAM_SERIALIZATION: u32 = 6;
    pub const PRIORITY: u32 = 8;
    pub const MEM_SYNC_DOMAIN_MAP: u32 = 9;
    pub const MEM_SYNC_DOMAIN: u32 = 10;
    pub const CARVEOUT: u32 = 14;
}

/// How a kernel is to be launched.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Geometry {
    /// Blocks.
    pub grid: [u32; 3],
    /// Threads of a block.
    pub block: [u32; 3],
    /// Blocks of a cluster.
    pub cluster: [u32; 3],
    /// Bytes of dynamic shared memory.
    pub dynamic_shared: u32,
    /// Whether all blocks run at the same time.
    pub cooperative: bool,
    /// Whether it need not wait for the end of the kernel before it in its stream.
    pub programmatic: bool,
}

impl Geometry {
    /// Without clusters.
    pub fn plain(grid: [u32; 3], block: [u32; 3], dynamic_shared: u32) -> Self {
        Geometry { grid, block, cluster: [0; 3], dynamic_shared, cooperative: false, programmatic: false }
    }

    /// As `CUlaunchConfig` says. Attributes that are only hints change nothing.
    pub fn from_config(config: &LaunchConfig) -> Result<Self> {
        let mut geometry = Geometry::plain(config.grid, config.block, config.dynamic_shared);
        // SAFETY: C passes as many attributes as it says.
        let attributes = unsafe { In::new(config.attributes) }.all(config.attribute_count as usize)?;
        for attribute in attributes {
            match attribute.id {
                attribute::PROGRAMMATIC_STREAM_SERIALIZATION => {
                    geometry.programmatic = attribute.value.0[0] != 0;
                }
                attribute::COOPERATIVE => geometry.cooperative = attribute.value.0[0] != 0,
                attribute::CLUSTER_DIMENSION => {
                    geometry.cluster.copy_from_slice(&attribute.value.0[..3]);
                    if geometry.cluster.contains(&0) {
                        return Err(Status::INVALID_VALUE);
                    }
                }
                attribute::IGNORE
                | attribute::ACCESS_POLICY_WINDOW
                | attribute::SYNCHRONIZATION_POLICY
                | attribute::CLUSTER_SCHEDULING
                | attribute::PRIORITY
                | attribute::MEM_SYNC_DOMAIN_MAP
                | attribute::MEM_SYNC_DOMAIN
                | attribute::CARVEOUT => {}
                other => return unsupported(&format!("launch attribute {other}")),
            }
        }
        Ok(geometry)
    }

    fn check_size(&self) -> Result {
        let within = |dims: &[u32; 3], greatest: &[u32; 3]| {
            dims.iter().zip(greatest).all(|(d, g)| (1..=*g).contains(d))
        };
        let threads: u64 = self.block.iter().map(|dim| u64::from(*dim)).product();
        if within(&self.grid, &MAX_GRID) && within(&self.block, &MAX_BLOCK) && threads <= MAX_THREADS {
            Ok(())
        } else {
            Err(Status::INVALID_VALUE)
        }
    }

    /// The blocks of a cluster after the function had its say; refuses those that cannot be.
    fn check_cluster(&mut self, function: &LoadedFunction, clusters: bool) -> Result {
        let required = function.function.required_cluster;
        let asked = self.cluster != [0; 3];
        if required.is_some_and(|required| asked && required != self.cluster) {
            return Err(Status::INVALID_CLUSTER_SIZE);
        }
        self.cluster = match required {
            Some(required) => required,
            None if asked => self.cluster,
            None => [1; 3],
        };
        if self.cluster == [1; 3] {
            return Ok(());
        }
        if !clusters {
            return Err(Status::NOT_SUPPORTED);
        }
        let greatest = if function.non_portable_cluster { MAX_CLUSTER } else { MAX_PORTABLE_CLUSTER };
        let blocks: u64 = self.cluster.iter().map(|dim| u64::from(*dim)).product();
        let divides = self.grid.iter().zip(self.cluster).all(|(grid, cluster)| grid.is_multiple_of(cluster));
        if blocks <= greatest.into() && divides { Ok(()) } else { Err(Status::INVALID_CLUSTER_SIZE) }
    }
}

/// The arguments as they lie in `.param` space.
fn gather_params(function: &Function, params: In<*mut c_void>, extra: In<*mut c_void>) -> Result<Vec<u8>> {
    let size = function.params.iter().map(|param| param.offset + param.size).max().unwrap_or(0);
    let mut bytes = vec![0; size];
    if !extra.is_null() {
        if !params.is_null() {
            return Err(Status::INVALID_VALUE);
        }
        let (buffer, len) = extra_buffer(extra)?;
        if len < size {
            return Err(Status::INVALID_VALUE);
        }
        bytes.copy_from_slice(&buffer.all(size)?);
        return Ok(bytes);
    }
    for (i, param) in function.params.iter().enumerate() {
        let pointer = params.at(i)?;
        // SAFETY: C passes a pointer to each parameter.
        let value = unsafe { In::new(pointer.cast::<u8>().cast_const()) }.all(param.size)?;
        bytes[param.offset..param.offset + param.size].copy_from_slice(&value);
    }
    Ok(bytes)
}

/// Reads `extra`: pairs of a name and a value.
fn extra_buffer(extra: In<*mut c_void>) -> Result<(In<u8>, usize)> {
    let (mut buffer, mut len) = (std::ptr::null(), None);
    for i in (0..).step_by(2) {
        let value = || extra.at(i + 1);
        match extra.at(i)? as usize {
            PARAM_END => break,
            PARAM_POINTER => buffer = value()?.cast::<u8>().cast_const(),
            // SAFETY: C passes a pointer to the size.
            PARAM_SIZE => len = Some(unsafe { In::new(value()?.cast::<usize>().cast_const()) }.get()?),
            _ => return Err(Status::INVALID_VALUE),
        }
    }
    // SAFETY: C passes a buffer of that size.
    let buffer = unsafe { In::new(buffer) };
    let len = len.filter(|_| !buffer.is_null()).ok_or(Status::INVALID_VALUE)?;
    Ok((buffer, len))
}

impl Driver {
    /// Checks a launch and copies its arguments.
    pub fn prepare(
        &self,
        handle: Handle,
        mut geometry: Geometry,
        params: In<*mut c_void>,
        extra: In<*mut c_void>,
    ) -> Result<Arc<Kernel>> {
        let loaded = self.function(handle)?;
        self.check_launch(loaded, &mut geometry)?;
        let Geometry { grid, block, cluster, dynamic_shared, cooperative, programmatic } = geometry;
        let params = gather_params(&loaded.function, params, extra)?;
        let launch = Launch { grid, block, cluster, dynamic_shared, params, cooperative };
        Ok(Arc::new(Kernel { handle, function: Arc::clone(&loaded.function), launch, programmatic }))
    }

    fn check_launch(&self, loaded: &LoadedFunction, geometry: &mut Geometry) -> Result {
        let limits = limits(self.machine.options.profile);
        geometry.check_size()?;
        // The instructions and the attribute came together, with compute capability 9.0.
        if geometry.programmatic && limits.capability < 90 {
            return Err(Status::NOT_SUPPORTED);
        }
        let threads = geometry.block.iter().product();
        if loaded.function.required_block.is_some_and(|required| required != geometry.block) {
            return Err(Status::INVALID_VALUE);
        }
        if geometry.dynamic_shared > loaded.max_dynamic_shared {
            return Err(Status::INVALID_VALUE);
        }
        if threads > loaded.function.max_threads {
            return Err(Status::LAUNCH_OUT_OF_RESOURCES);
        }
        if loaded.function.registers.is_some()
            && blocks_per_multiprocessor(loaded, &limits, threads, geometry.dynamic_shared) == 0
        {
            return Err(Status::LAUNCH_OUT_OF_RESOURCES);
        }
        geometry.check_cluster(loaded, limits.clusters)?;
        if geometry.cooperative {
            let blocks = blocks_per_multiprocessor(loaded, &limits, threads, geometry.dynamic_shared);
            let grid: u64 = geometry.grid.iter().map(|dim| u64::from(*dim)).product();
            if grid > u64::from(blocks) * u64::from(limits.multiprocessors) {
                return Err(Status::COOPERATIVE_LAUNCH_TOO_LARGE);
            }
        }
        Ok(())
    }
}

fn launch(
    function: Handle,
    stream: Handle,
    geometry: Geometry,
    params: In<*mut c_void>,
    extra: In<*mut c_void>,
) -> Result {
    with_stream(stream, |driver, stream| {
        if driver.function(function)?.context != driver.stream(stream)?.context {
            return Err(Status::INVALID_HANDLE);
        }
        let kernel = driver.prepare(function, geometry, params, extra)?;
        driver.submit(stream, Work::Kernel(kernel)).map(|_| ())
    })
}

/// No `extra`.
fn none() -> In<*mut c_void> {
    // SAFETY: null is allowed.
    unsafe { In::new(std::ptr::null()) }
}

api! {
    fn cuLaunchKernel(
        function: Handle, grid_x: u32, grid_y: u32, grid_z: u32, block_x: u32, block_y: u32, block_z: u32,
        dynamic: u32, stream: Handle, params: In<*mut c_void>, extra: In<*mut c_void>,
    ) {
        let geometry = Geometry::plain([grid_x, grid_y, grid_z], [block_x, block_y, block_z], dynamic);
        launch(function, stream, geometry, params, extra)
    }

    fn cuLaunchCooperativeKernel(
        function: Handle, grid_x: u32, grid_y: u32, grid_z: u32, block_x: u32, block_y: u32, block_z: u32,
        dynamic: u32, stream: Handle, params: In<*mut c_void>,
    ) {
        let geometry = Geometry::plain([grid_x, grid_y, grid_z], [block_x, block_y, block_z], dynamic);
        launch(function, stream, Geometry { cooperative: true, ..geometry }, params, none())
    }

    fn cuLaunchKernelEx(
        config: In<LaunchConfig>, function: Handle, params: In<*mut c_void>, extra: In<*mut c_void>,
    ) {
        let config = config.get()?;
        launch(function, config.stream, Geometry::from_config(&config)?, params, extra)
    }
}
