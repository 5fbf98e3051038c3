//! The driver that the process has loaded.

use std::ffi::{c_char, c_int, c_uint, c_void};
use std::sync::OnceLock;

use libloading::os::unix::Library;

type Handle = *mut c_void;
/// A function that a stream calls.
pub type HostFunction = unsafe extern "C" fn(*mut c_void);
/// A function that tells whether something is done.
pub type PollFunction = unsafe extern "C" fn(*mut c_void) -> c_int;

/// Its functions.
pub struct Driver {
    alloc_host: unsafe extern "C" fn(*mut *mut c_void, usize, c_uint) -> c_int,
    to_host: unsafe extern "C" fn(*mut c_void, u64, usize, Handle) -> c_int,
    to_device: unsafe extern "C" fn(u64, *const c_void, usize, Handle) -> c_int,
    fill: unsafe extern "C" fn(u64, u8, usize, Handle) -> c_int,
    call: unsafe extern "C" fn(Handle, HostFunction, *mut c_void) -> c_int,
    range: unsafe extern "C" fn(*mut u64, *mut usize, u64) -> c_int,
    current: unsafe extern "C" fn(*mut Handle) -> c_int,
    stream_context: unsafe extern "C" fn(Handle, *mut Handle) -> c_int,
    device: unsafe extern "C" fn(*mut c_int) -> c_int,
    bus_id: unsafe extern "C" fn(*mut c_char, c_int, c_int) -> c_int,
    /// The emulator's alone.
    outside: Option<unsafe extern "C" fn(Handle, PollFunction, *mut c_void) -> c_int>,
}

/// An error of the driver, by its number.
pub type Result<T> = std::result::Result<T, String>;

fn check(what: &str, code: c_int) -> Result<()> {
    if code == 0 { Ok(()) } else { Err(format!("{what} of the driver returned {code}")) }
}

/// A function of the first library that has it.
///
/// # Safety
/// `T` is the type of a pointer to it.
unsafe fn function<T: Copy>(libraries: &[Library], name: &str) -> Result<T> {
    let of = |library: &Library| {
        // SAFETY: by the caller.
        unsafe { library.get::<T>(name) }.ok().map(|symbol| *symbol)
    };
    libraries.iter().find_map(of).ok_or_else(|| format!("the driver has no {name}"))
}

impl Driver {
    /// The driver, which the caller has used before.
    pub fn get() -> Result<&'static Driver> {
        static DRIVER: OnceLock<Result<Driver>> = OnceLock::new();
        DRIVER.get_or_init(Driver::load).as_ref().map_err(String::clone)
    }

    fn load() -> Result<Driver> {
        // SAFETY: the driver is loaded already; there is nothing to initialise.
        let real = unsafe { Library::new("libcuda.so.1") }.ok();
        let libraries: Vec<Library> = [Library::this()].into_iter().chain(real).collect();
        // SAFETY: a function of each name has the type of its field in every driver.
        let driver = unsafe {
            Driver {
                alloc_host: function(&libraries, "cuMemHostAlloc")?,
                to_host: function(&libraries, "cuMemcpyDtoHAsync_v2")?,
                to_device: function(&libraries, "cuMemcpyHtoDAsync_v2")?,
                fill: function(&libraries, "cuMemsetD8Async")?,
                call: function(&libraries, "cuLaunchHostFunc")?,
                range: function(&libraries, "cuMemGetAddressRange_v2")?,
                current: function(&libraries, "cuCtxGetCurrent")?,
                stream_context: function(&libraries, "cuStreamGetCtx")?,
                device: function(&libraries, "cuCtxGetDevice")?,
                bus_id: function(&libraries, "cuDeviceGetPCIBusId")?,
                outside: function(&libraries, "dgemu_outside").ok(),
            }
        };
        std::mem::forget(libraries);
        Ok(driver)
    }

    /// The thread's context.
    pub fn context(&self) -> Result<usize> {
        let mut context = std::ptr::null_mut();
        // SAFETY: the pointer is valid.
        check("cuCtxGetCurrent", unsafe { (self.current)(&mut context) })?;
        if context.is_null() { Err("the thread has no context".to_owned()) } else { Ok(context as usize) }
    }

    /// The context of a stream.
    pub fn context_of(&self, stream: usize) -> Result<usize> {
        let mut context = std::ptr::null_mut();
        // SAFETY: the pointer is valid, and the driver looks for the stream among its own.
        check("cuStreamGetCtx", unsafe { (self.stream_context)(stream as Handle, &mut context) })?;
        Ok(context as usize)
    }

    /// Where the thread's device is plugged in.
    pub fn gpu(&self) -> Result<String> {
        let (mut device, mut text) = (0, [0 as c_char; 32]);
        // SAFETY: the pointers are valid, and the buffer is as long as it says.
        let codes = unsafe {
            [(self.device)(&mut device), (self.bus_id)(text.as_mut_ptr(), text.len() as c_int, device)]
        };
        codes.into_iter().try_for_each(|code| check("cuDeviceGetPCIBusId", code))?;
        Ok(text.iter().take_while(|byte| **byte != 0).map(|byte| *byte as u8 as char).collect())
    }

    /// The allocation that an address lies in: its first byte, and how many there are.
    pub fn allocation(&self, address: u64) -> Result<(u64, u64)> {
        let (mut base, mut len) = (0, 0);
        // SAFETY: the pointers are valid.
        check("cuMemGetAddressRange", unsafe { (self.range)(&mut base, &mut len, address) })?;
        Ok((base, len as u64))
    }

    /// Page-locked memory, for good.
    pub fn alloc_host(&self, len: usize) -> Result<usize> {
        let mut memory = std::ptr::null_mut();
        // SAFETY: the pointer is valid.
        check("cuMemHostAlloc", unsafe { (self.alloc_host)(&mut memory, len.max(1), 0) })?;
        Ok(memory as usize)
    }

    /// Copies to page-locked memory.
    pub fn to_host(&self, to: usize, from: u64, len: usize, stream: usize) -> Result<()> {
        // SAFETY: the memory is never freed, and long enough.
        check("cuMemcpyDtoHAsync", unsafe { (self.to_host)(to as *mut c_void, from, len, stream as Handle) })
    }

    /// Copies from page-locked memory.
    pub fn to_device(&self, to: u64, from: usize, len: usize, stream: usize) -> Result<()> {
        // SAFETY: as above.
        check("cuMemcpyHtoDAsync", unsafe {
            (self.to_device)(to, from as *const c_void, len, stream as Handle)
        })
    }

    /// Fills device memory.
    pub fn fill(&self, address: u64, value: u8, len: usize, stream: usize) -> Result<()> {
        // SAFETY: whoever calls has looked at the range.
        check("cuMemsetD8Async", unsafe { (self.fill)(address, value, len, stream as Handle) })
    }

    /// Has a stream call a function.
    pub fn call(&self, stream: usize, function: HostFunction, data: usize) -> Result<()> {
        // SAFETY: whoever calls keeps the data for good.
        check("cuLaunchHostFunc", unsafe { (self.call)(stream as Handle, function, data as *mut c_void) })
    }

    /// Has a stream wait until `poll` says so; where only the real driver is there, in a host function, which
    /// `wait` is.
    pub fn outside(&self, stream: usize, poll: PollFunction, wait: HostFunction, data: usize) -> Result<()> {
        match self.outside {
            Some(outside) => {
                // SAFETY: as above.
                let code = unsafe { outside(stream as Handle, poll, data as *mut c_void) };
                check("dgemu_outside", code)
            }
            None => self.call(stream, wait, data),
        }
    }
}
