//! For tests: loads the emulator as the driver, and reads what only the emulator can tell.
//!
//! The library that the tests load and the one that they are linked with have statics of their own, so
//! everything here goes through the loaded library's C functions.

use std::ffi::{CString, c_char, c_int, c_void};
use std::path::{Path, PathBuf};
use std::sync::OnceLock;
use std::time::Duration;

use libloading::os::unix::{Library, RTLD_GLOBAL, RTLD_NOW, Symbol};

use crate::counters::Counters;
pub use crate::driver::sample::Launched;

/// The file that cargo builds.
const FILE: &str = "libcuda_emulator.so";

/// The loaded emulator.
pub struct Client {
    library: Library,
}

/// Loads the emulator that was built beside this program, as `libcuda.so`, for the rest of the process.
///
/// # Errors
/// Where there is none, or it cannot be loaded.
pub fn load() -> Result<&'static Client, String> {
    static CLIENT: OnceLock<Result<Client, String>> = OnceLock::new();
    CLIENT.get_or_init(|| Client::open(&find()?)).as_ref().map_err(String::clone)
}

/// The library in the directory of this program, the one above, or the dependencies in either.
fn find() -> Result<PathBuf, String> {
    let program = std::env::current_exe().map_err(|error| format!("this program is nowhere: {error}"))?;
    let own = program.parent().unwrap_or(Path::new("/"));
    let above = own.parent().unwrap_or(own);
    let places = [own.to_owned(), own.join("deps"), above.to_owned(), above.join("deps")];
    let found = places.iter().map(|place| place.join(FILE)).find(|file| file.is_file());
    found.ok_or_else(|| format!("there is no {FILE} beside {}", program.display()))
}

impl Client {
    fn open(path: &Path) -> Result<Client, String> {
        // SAFETY: the library is ours, and its initialisers do nothing.
        let library = unsafe { Library::open(Some(path), RTLD_NOW | RTLD_GLOBAL) };
        let library = library.map_err(|error| format!("{} cannot be loaded: {error}", path.display()))?;
        Ok(Client { library })
    }

    /// # Safety
    /// `T` is the type of that function.
    unsafe fn symbol<T>(&self, name: &str) -> Result<Symbol<T>, String> {
        // SAFETY: by the caller.
        unsafe { self.library.get(name) }.map_err(|error| format!("{name}: {error}"))
    }

    /// Counters of all kernels since they were set back.
    pub fn counters(&self) -> Result<Counters, String> {
        self.read_counters(false)
    }

    /// The same, and sets them back.
    pub fn take_counters(&self) -> Result<Counters, String> {
        self.read_counters(true)
    }

    fn read_counters(&self, reset: bool) -> Result<Counters, String> {
        let mut counters = Counters::default();
        // SAFETY: that is the function's type, and the pointer is valid.
        let code = unsafe {
            let read =
                self.symbol::<unsafe extern "C" fn(*mut Counters, c_int) -> c_int>("dgemu_counters")?;
            read(&mut counters, reset.into())
        };
        check("dgemu_counters", code).map(|()| counters)
    }

    /// Counters of one kernel.
    ///
    /// # Errors
    /// Where it did not run.
    pub fn kernel_counters(&self, name: &str) -> Result<Counters, String> {
        let mut counters = Counters::default();
        let name = CString::new(name).map_err(|error| error.to_string())?;
        // SAFETY: that is the function's type, and the pointers are valid.
        let code = unsafe {
            type Read = unsafe extern "C" fn(*const c_char, *mut Counters) -> c_int;
            self.symbol::<Read>("dgemu_kernel_counters")?(name.as_ptr(), &mut counters)
        };
        check("dgemu_kernel_counters", code).map(|()| counters)
    }

    /// How often a function of the driver, such as `cuLaunchKernel`, was called.
    pub fn calls(&self, name: &str) -> Result<u64, String> {
        self.number_of("dgemu_calls", name)
    }

    /// The number of the last call of a function of the driver among the calls of all: which of two came
    /// later.
    pub fn last_call(&self, name: &str) -> Result<u64, String> {
        self.number_of("dgemu_last_call", name)
    }

    /// Time that the program had spent outside the driver when it called a function of it last: between two
    /// calls, what the program itself takes, however long the emulator is at them.
    pub fn time_outside(&self, name: &str) -> Result<Duration, String> {
        self.number_of("dgemu_time_outside", name).map(Duration::from_nanos)
    }

    /// What a function of the emulator tells of a function of the driver.
    fn number_of(&self, function: &str, name: &str) -> Result<u64, String> {
        let mut number = 0;
        let name = CString::new(name).map_err(|error| error.to_string())?;
        // SAFETY: that is the function's type, and the pointers are valid.
        let code = unsafe {
            type Read = unsafe extern "C" fn(*const c_char, *mut u64) -> c_int;
            self.symbol::<Read>(function)?(name.as_ptr(), &mut number)
        };
        check(function, code).map(|()| number)
    }

    /// The last fault in words; empty if there was none.
    pub fn last_fault(&self) -> Result<String, String> {
        type Read = unsafe extern "C" fn(*mut c_char, usize, *mut usize) -> c_int;
        // SAFETY: that is the function's type.
        let read = unsafe { self.symbol::<Read>("dgemu_last_fault")? };
        let mut needed = 0;
        // SAFETY: the function only writes the length.
        check("dgemu_last_fault", unsafe { read(std::ptr::null_mut(), 0, &mut needed) })?;
        let mut text = vec![0u8; needed + 1];
        // SAFETY: the buffer is as long as it says.
        check("dgemu_last_fault", unsafe { read(text.as_mut_ptr().cast(), text.len(), &mut needed) })?;
        let end = text.iter().position(|byte| *byte == 0).unwrap_or(text.len());
        Ok(String::from_utf8_lossy(&text[..end]).into_owned())
    }

    /// Has a stream wait until `poll` does not return 0 any more. It is called with `data` while the stream's
    /// work is done, by any thread, and may not call the driver.
    ///
    /// # Safety
    /// Both have to stay good until then, for calls on any thread.
    pub unsafe fn outside(
        &self,
        stream: *mut c_void,
        poll: unsafe extern "C" fn(*mut c_void) -> c_int,
        data: *mut c_void,
    ) -> Result<(), String> {
        type Poll = unsafe extern "C" fn(*mut c_void) -> c_int;
        type Outside = unsafe extern "C" fn(*mut c_void, Poll, *mut c_void) -> c_int;
        // SAFETY: that is the function's type; the caller promises the rest.
        check("dgemu_outside", unsafe { self.symbol::<Outside>("dgemu_outside")?(stream, poll, data) })
    }

    /// The seed of the random orders from here on, of the current context and of those to be made.
    pub fn set_seed(&self, seed: u64) -> Result<(), String> {
        // SAFETY: that is the function's type.
        let code = unsafe { self.symbol::<unsafe extern "C" fn(u64) -> c_int>("dgemu_set_seed")?(seed) };
        check("dgemu_set_seed", code)
    }

    /// From here on at most so many clusters of each launch run, by how the kernel's name begins: the first
    /// entry that fits counts. New memory is of `total` bytes, and all of it counts as written.
    /// [`Self::launched`] begins anew.
    pub fn sample(&self, clusters: &[(&str, u64)], total: u64) -> Result<(), String> {
        type Sample = unsafe extern "C" fn(*const c_char, u64) -> c_int;
        let entries: Vec<String> = clusters.iter().map(|(begin, most)| format!("{begin}={most}")).collect();
        let clusters = CString::new(entries.join(",")).map_err(|error| error.to_string())?;
        // SAFETY: that is the function's type.
        let sample = unsafe { self.symbol::<Sample>("dgemu_sample")? };
        // SAFETY: as above, and the pointer is valid.
        check("dgemu_sample", unsafe { sample(clusters.as_ptr(), total) })
    }

    /// The launches since sampling began, with the names of their kernels.
    pub fn launched(&self) -> Result<Vec<(String, Launched)>, String> {
        type Read = unsafe extern "C" fn(usize, *mut c_char, usize, *mut Launched) -> c_int;
        // SAFETY: that is the function's type.
        let read = unsafe { self.symbol::<Read>("dgemu_launched")? };
        let next = |number: usize| {
            let (mut name, mut launched) = ([0u8; 128], Launched::default());
            // SAFETY: the buffer is as long as it says, and the pointer is valid.
            let code = unsafe { read(number, name.as_mut_ptr().cast(), name.len(), &mut launched) };
            let name = name.split(|&byte| byte == 0).next().unwrap_or_default();
            (code == 0).then(|| (String::from_utf8_lossy(name).into_owned(), launched))
        };
        Ok((0..).map_while(next).collect())
    }

    /// Whether launches from here on count what takes a record of every access, which is slow: bytes that
    /// DRAM sees, and loads in flight. `blocks_per_processor` is how many blocks a multiprocessor runs at the
    /// same time, which its registers decide too; without it as many as threads and shared memory allow.
    pub fn set_traffic(&self, counted: bool, blocks_per_processor: Option<u32>) -> Result<(), String> {
        type Set = unsafe extern "C" fn(c_int, u32) -> c_int;
        // SAFETY: that is the function's type.
        let set = unsafe { self.symbol::<Set>("dgemu_set_traffic")? };
        // SAFETY: as above.
        check("dgemu_set_traffic", unsafe { set(counted.into(), blocks_per_processor.unwrap_or(0)) })
    }

    /// Whether kernels run from here on. Where they do not, they are queued, and leave memory as it is: for
    /// what the host does, at sizes at which nothing can be emulated.
    pub fn set_executes(&self, executes: bool) -> Result<(), String> {
        // SAFETY: that is the function's type.
        let set = unsafe { self.symbol::<unsafe extern "C" fn(c_int) -> c_int>("dgemu_set_executes")? };
        // SAFETY: as above.
        check("dgemu_set_executes", unsafe { set(executes.into()) })
    }
}

fn check(name: &str, code: c_int) -> Result<(), String> {
    if code == 0 { Ok(()) } else { Err(format!("{name} returned {code}")) }
}
