//! Functions and their attributes.

use std::ffi::{CString, c_char};
use std::sync::Arc;

use super::abi::{Handle, Out};
use super::attributes::Limits;
use super::state::Driver;
use super::status::{Result, Status};
use super::{api, unsupported, with_context};
use crate::machine::{Function, Profile};

/// PTX has no physical registers: what a kernel has that does not change their number. As many never limits
/// how many blocks fit on a multiprocessor.
pub const REGISTERS: u32 = 32;

/// `CUfunction_attribute`.
mod attribute {
    pub const MAX_THREADS: u32 = 0;
    pub const SHARED: u32 = 1;
    pub const CONSTANT: u32 = 2;
    pub const LOCAL: u32 = 3;
    pub const REGISTERS: u32 = 4;
    pub const PTX_VERSION: u32 = 5;
    pub const BINARY_VERSION: u32 = 6;
    pub const CACHE_MODE_CA: u32 = 7;
    pub const MAX_DYNAMIC_SHARED: u32 = 8;
    pub const CARVEOUT: u32 = 9;
    pub const CLUSTER_SIZE_MUST_BE_SET: u32 = 10;
    pub const REQUIRED_CLUSTER_WIDTH: u32 = 11;
    pub const REQUIRED_CLUSTER_DEPTH: u32 = 13;
    pub const NON_PORTABLE_CLUSTER: u32 = 14;
    pub const CLUSTER_SCHEDULING: u32 = 15;
}

/// A function of a loaded module.
pub struct LoadedFunction {
    /// Its context.
    pub context: Handle,
    /// Its module.
    pub module: Handle,
    /// The kernel.
    pub function: Arc<Function>,
    /// Bytes of dynamic shared memory that a launch may ask for.
    pub max_dynamic_shared: u32,
    /// Whether clusters of more than eight blocks are allowed.
    pub non_portable_cluster: bool,
    carveout: i32,
    cluster_scheduling: i32,
    name: CString,
}

impl LoadedFunction {
    /// A function with the attributes it begins with.
    pub fn new(context: Handle, module: Handle, function: Arc<Function>, limits: &Limits) -> Self {
        LoadedFunction {
            context,
            module,
            max_dynamic_shared: limits.shared.saturating_sub(function.static_shared),
            non_portable_cluster: false,
            carveout: -1,
            cluster_scheduling: 0,
            name: CString::new(function.name.as_str()).unwrap_or_default(),
            function,
        }
    }

    fn attribute(&self, which: u32, profile: Profile) -> Result<i32> {
        let cluster = self.function.required_cluster;
        let version = match profile {
            Profile::A100 => 80,
            Profile::H100 => 90,
        };
        Ok(match which {
            attribute::MAX_THREADS => self.function.max_threads as i32,
            attribute::SHARED => self.function.static_shared as i32,
            attribute::CONSTANT | attribute::CACHE_MODE_CA => 0,
            attribute::LOCAL => self.function.local as i32,
            attribute::REGISTERS => self.function.registers.unwrap_or(REGISTERS) as i32,
            attribute::PTX_VERSION | attribute::BINARY_VERSION => version,
            attribute::MAX_DYNAMIC_SHARED => self.max_dynamic_shared as i32,
            attribute::CARVEOUT => self.carveout,
            attribute::CLUSTER_SIZE_MUST_BE_SET => 0,
            attribute::REQUIRED_CLUSTER_WIDTH..=attribute::REQUIRED_CLUSTER_DEPTH => {
                cluster.map_or(0, |dims| dims[(which - attribute::REQUIRED_CLUSTER_WIDTH) as usize] as i32)
            }
            attribute::NON_PORTABLE_CLUSTER => i32::from(self.non_portable_cluster),
            attribute::CLUSTER_SCHEDULING => self.cluster_scheduling,
            _ => return Err(Status::INVALID_VALUE),
        })
    }

    fn set_attribute(&mut self, which: u32, value: i32, limits: &Limits) -> Result {
        match which {
            attribute::MAX_DYNAMIC_SHARED => {
                let value = u32::try_from(value).map_err(|_| Status::INVALID_VALUE)?;
                if value > limits.shared_opt_in.saturating_sub(self.function.static_shared) {
                    return Err(Status::INVALID_VALUE);
                }
                self.max_dynamic_shared = value;
            }
            attribute::CARVEOUT if (-1..=100).contains(&value) => self.carveout = value,
            attribute::NON_PORTABLE_CLUSTER => self.non_portable_cluster = value != 0,
            attribute::CLUSTER_SCHEDULING if (0..=2).contains(&value) => self.cluster_scheduling = value,
            attribute::REQUIRED_CLUSTER_WIDTH..=attribute::REQUIRED_CLUSTER_DEPTH => {
                return unsupported("setting a required cluster size by attribute");
            }
            _ => return Err(Status::INVALID_VALUE),
        }
        Ok(())
    }
}

impl Driver {
    /// A function that exists.
    pub fn function(&self, handle: Handle) -> Result<&LoadedFunction> {
        self.functions.get(&handle).ok_or(Status::INVALID_HANDLE)
    }
}

api! {
    fn cuFuncGetAttribute(out: Out<i32>, which: u32, function: Handle) {
        out.check()?;
        with_context(|driver, _| {
            out.set(driver.function(function)?.attribute(which, driver.machine.options.profile)?)
        })
    }

    fn cuFuncSetAttribute(function: Handle, which: u32, value: i32) {
        with_context(|driver, _| {
            let limits = super::attributes::limits(driver.machine.options.profile);
            let function = driver.functions.get_mut(&function).ok_or(Status::INVALID_HANDLE)?;
            function.set_attribute(which, value, &limits)
        })
    }

    fn cuFuncSetCacheConfig(function: Handle, config: u32) {
        if config > 3 {
            return Err(Status::INVALID_VALUE);
        }
        with_context(|driver, _| driver.function(function).map(|_| ()))
    }

    fn cuFuncGetModule(out: Out<Handle>, function: Handle) {
        with_context(|driver, _| out.set(driver.function(function)?.module))
    }

    fn cuFuncGetName(out: Out<*const c_char>, function: Handle) {
        with_context(|driver, _| out.set(driver.function(function)?.name.as_ptr()))
    }

    fn cuFuncGetParamInfo(function: Handle, index: usize, offset: Out<usize>, size: Out<usize>) {
        with_context(|driver, _| {
            let params = &driver.function(function)?.function.params;
            let param = params.get(index).ok_or(Status::INVALID_VALUE)?;
            offset.set(param.offset)?;
            size.set_if_wanted(param.size);
            Ok(())
        })
    }

    fn cuFuncGetParamCount(function: Handle, out: Out<usize>) {
        with_context(|driver, _| out.set(driver.function(function)?.function.params.len()))
    }

    fn cuFuncIsLoaded(out: Out<u32>, function: Handle) {
        with_context(|driver, _| {
            driver.function(function)?;
            out.set(1)
        })
    }

    fn cuFuncLoad(function: Handle) {
        with_context(|driver, _| driver.function(function).map(|_| ()))
    }
}
