//! Modules.

use std::ffi::{c_char, c_void};
use std::sync::Arc;

use super::abi::{Handle, In, Out, Text};
use super::attributes::limits;
use super::function::LoadedFunction;
use super::image::{Refusal, find_ptx};
use super::state::{Driver, Kind};
use super::status::{Result, Status};
use super::{api, complain, with_context};
use crate::machine::Module;

/// `CUjit_option`: buffers for what the compiler says, and their sizes.
const INFO_LOG: u32 = 3;
const INFO_LOG_SIZE: u32 = 4;
const ERROR_LOG: u32 = 5;
const ERROR_LOG_SIZE: u32 = 6;

/// A loaded module.
pub struct LoadedModule {
    /// Its context.
    pub context: Handle,
    /// The module.
    pub module: Arc<Module>,
    /// Handles of the functions that were asked for.
    pub functions: Vec<Handle>,
}

/// Where the compiler's words go, by the options of `cuModuleLoadDataEx`.
#[derive(Clone, Copy)]
struct JitOptions {
    count: usize,
    options: In<u32>,
    values: *mut *mut c_void,
}

impl JitOptions {
    fn none() -> Self {
        // SAFETY: null is allowed.
        JitOptions { count: 0, options: unsafe { In::new(std::ptr::null()) }, values: std::ptr::null_mut() }
    }

    /// The slot of an option's value.
    fn slot(self, wanted: u32) -> Option<Out<*mut c_void>> {
        let index = (0..self.count).find(|i| self.options.at(*i) == Ok(wanted))?;
        if self.values.is_null() {
            return None;
        }
        // SAFETY: there are as many values as options.
        Some(unsafe { Out::new(self.values.add(index)) })
    }

    /// Writes a log, cut off where its buffer ends, and how many bytes that took.
    fn write_log(self, buffer: u32, size: u32, text: &str) {
        let (Some(buffer), Some(size)) = (self.slot(buffer), self.slot(size)) else { return };
        let (Ok(pointer), Ok(room)) = (buffer.get(), size.get()) else { return };
        // The size is in the low half of the slot, which is as wide as a pointer.
        let room = room as usize & 0xffff_ffff;
        if pointer.is_null() || room == 0 {
            return;
        }
        let bytes: Vec<c_char> = text.bytes().take(room - 1).chain([0]).map(|byte| byte as c_char).collect();
        let len = bytes.len();
        // SAFETY: the caller says that the buffer has that much room.
        let log = unsafe { Out::new(pointer.cast::<c_char>()) };
        if log.set_all(bytes).is_ok() && size.set(len as *mut c_void).is_err() {
            complain("the size of a log could not be written");
        }
    }
}

impl Driver {
    fn load_module(&mut self, context: Handle, ptx: &str) -> std::result::Result<Handle, Refusal> {
        let module =
            Module::load(ptx, &self.machine.memory).map_err(|message| (Status::INVALID_PTX, message))?;
        let handle = self.new_handle(Kind::Module);
        self.modules.insert(handle, LoadedModule { context, module, functions: Vec::new() });
        Ok(handle)
    }

    fn module(&mut self, handle: Handle) -> Result<&mut LoadedModule> {
        self.modules.get_mut(&handle).ok_or(Status::INVALID_HANDLE)
    }

    fn module_function(&mut self, module: Handle, name: &str) -> Result<Handle> {
        let handle = self.new_handle(Kind::Function);
        let limits = limits(self.machine.options.profile);
        let loaded = self.module(module)?;
        let function = loaded.module.function(name).ok_or(Status::NOT_FOUND)?;
        let context = loaded.context;
        let known = loaded.functions.clone();
        if let Some(known) = known.into_iter().find(|f| self.functions[f].function.name == name) {
            return Ok(known);
        }
        self.module(module)?.functions.push(handle);
        self.functions.insert(handle, LoadedFunction::new(context, module, function, &limits));
        Ok(handle)
    }

    fn unload(&mut self, context: Handle, handle: Handle) -> Result {
        self.refuse_while_capturing()?;
        let owner = self.module(handle)?.context;
        self.run_all(owner)?;
        self.check_sound(context)?;
        if let Some(module) = self.modules.remove(&handle) {
            module.functions.iter().for_each(|function| drop(self.functions.remove(function)));
        }
        Ok(())
    }
}

/// Loads an image, and says what is wrong with it in the log and on stderr.
///
/// # Safety
/// As for [`find_ptx`].
unsafe fn load(out: Out<Handle>, image: *const c_void, options: JitOptions) -> Result {
    out.check()?;
    with_context(|driver, context| {
        driver.refuse_while_capturing()?;
        let capability = limits(driver.machine.options.profile).capability;
        // SAFETY: by the caller.
        let ptx = unsafe { find_ptx(image, capability, driver.machine.options.version) };
        match ptx.and_then(|ptx| driver.load_module(context, &ptx)) {
            Ok(module) => {
                options.write_log(INFO_LOG, INFO_LOG_SIZE, "");
                options.write_log(ERROR_LOG, ERROR_LOG_SIZE, "");
                out.set(module)
            }
            Err((status, message)) => {
                complain(&format!("a module could not be loaded: {message}"));
                options.write_log(ERROR_LOG, ERROR_LOG_SIZE, &message);
                Err(status)
            }
        }
    })
}

api! {
    fn cuModuleLoadData(out: Out<Handle>, image: *const c_void) {
        // SAFETY: the caller passes an image.
        unsafe { load(out, image, JitOptions::none()) }
    }

    fn cuModuleLoadDataEx(
        out: Out<Handle>, image: *const c_void, count: u32, options: In<u32>, values: *mut *mut c_void,
    ) {
        // SAFETY: the caller passes an image.
        unsafe { load(out, image, JitOptions { count: count as usize, options, values }) }
    }

    fn cuModuleLoadFatBinary(out: Out<Handle>, image: *const c_void) {
        // SAFETY: the caller passes an image.
        unsafe { load(out, image, JitOptions::none()) }
    }

    fn cuModuleLoad(out: Out<Handle>, path: Text) {
        let mut bytes = std::fs::read(path.get()?).map_err(|_| Status::FILE_NOT_FOUND)?;
        bytes.push(0);
        // SAFETY: the bytes end in a zero; what looks like a container is trusted, as the driver does.
        unsafe { load(out, bytes.as_ptr().cast(), JitOptions::none()) }
    }

    fn cuModuleUnload(module: Handle) {
        with_context(|driver, context| driver.unload(context, module))
    }

    fn cuModuleGetFunction(out: Out<Handle>, module: Handle, name: Text) {
        out.check()?;
        let name = name.get()?;
        with_context(|driver, _| out.set(driver.module_function(module, name)?))
    }

    fn cuModuleGetFunctionCount(out: Out<u32>, module: Handle) {
        with_context(|driver, _| out.set(driver.module(module)?.module.functions().len() as u32))
    }

    fn cuModuleEnumerateFunctions(out: Out<Handle>, room: u32, module: Handle) {
        with_context(|driver, _| {
            let names = driver.module(module)?.module.functions();
            let names: Vec<String> = names.into_iter().take(room as usize).map(str::to_owned).collect();
            let functions: Result<Vec<Handle>> =
                names.iter().map(|name| driver.module_function(module, name)).collect();
            out.set_all(functions?)
        })
    }

    fn cuModuleGetGlobal_v2(address: Out<u64>, len: Out<usize>, module: Handle, name: Text) {
        let name = name.get()?;
        with_context(|driver, _| {
            let variable = driver.module(module)?.module.global(name).ok_or(Status::NOT_FOUND)?;
            address.set_if_wanted(variable.address);
            len.set_if_wanted(variable.size as usize);
            Ok(())
        })
    }
}
