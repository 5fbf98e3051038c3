//! Collectives by MPI, whichever there is: the library is looked for when the program runs, and three ABIs
//! are known, that of the MPI standard, MPICH's (Intel MPI, MVAPICH) and Open MPI's.

use std::ffi::{c_char, c_int, c_void};
use std::io::Write;
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use libloading::os::unix::{Library, RTLD_GLOBAL, RTLD_NOW};

use super::fabric::Fabric;
use super::launch::{Launch, Launcher};
use super::library;
pub use super::library::Found;
use super::pace::pause;
use crate::error::{Error, ErrorKind, Result};

/// The library to load, and no other.
pub const MPI_VARIABLE: &str = "DG_MPI";

/// Names under which MPI is there: the standard's, MPICH's, Debian's for MPICH, Open MPI's.
const NAMES: [&str; 4] = ["libmpi_abi.so.1", "libmpi.so.12", "libmpich.so.12", "libmpi.so.40"];

/// Elements and bytes of one call, whose counts are `int`.
const CHUNK: usize = 1 << 27;

/// More values than these are worth a short message first: see [`Mpi::all_reduce`].
const LARGE: usize = 1 << 13;

/// How long a process outlives the failure of another rank in the middle of a collective, at most.
const LAST_WAIT: Duration = Duration::from_secs(5);

/// An argument that is an `int` in one ABI and a pointer in others; both travel in a whole register.
type Handle = usize;

/// A variable for a request, large enough for each ABI; a null request is another number in each of them.
type Request = u64;

type InitThread = unsafe extern "C" fn(*mut c_int, *mut *mut c_void, c_int, *mut c_int) -> c_int;
type CommInt = unsafe extern "C" fn(Handle, *mut c_int) -> c_int;
type SetErrhandler = unsafe extern "C" fn(Handle, Handle) -> c_int;
type Iallreduce =
    unsafe extern "C" fn(Handle, *mut c_void, c_int, Handle, Handle, Handle, *mut Request) -> c_int;
type Ibcast = unsafe extern "C" fn(*mut c_void, c_int, Handle, c_int, Handle, *mut Request) -> c_int;
type Test = unsafe extern "C" fn(*mut Request, *mut c_int, Handle) -> c_int;
type Finalize = unsafe extern "C" fn() -> c_int;
type Version = unsafe extern "C" fn(*mut c_char, *mut c_int) -> c_int;

/// The constants of an ABI.
struct Constants {
    world: Handle,
    int64: Handle,
    byte: Handle,
    sum: Handle,
    in_place: Handle,
    errors_return: Handle,
    status_ignore: Handle,
    /// Calls come from any thread, but one at a time.
    serialized: c_int,
}

/// An MPI library that is loaded.
struct Api {
    init_thread: InitThread,
    comm_rank: CommInt,
    comm_size: CommInt,
    set_errhandler: SetErrhandler,
    iallreduce: Iallreduce,
    ibcast: Ibcast,
    test: Test,
    finalize: Finalize,
    version: Version,
    constants: Constants,
    name: String,
}

/// The ranks that `mpiexec` or `srun` has started, connected by MPI.
pub struct Mpi {
    api: Api,
    rank: usize,
    world: usize,
    failed: Option<Box<dyn Fn() -> bool + Send>>,
    /// Until there is somebody to ask, no collective waits for longer.
    deadline: Instant,
}

/// The MPI that would be used.
///
/// # Errors
/// Of kind `Cluster`, with everything that was tried.
pub fn find() -> Result<Found> {
    let api = Api::load(&names(None))?;
    Ok(Found::of(&api.name, api.version()?))
}

/// The names to try, those of the launcher's own library first.
fn names(launcher: Option<Launcher>) -> Vec<String> {
    let mut names = NAMES;
    if launcher == Some(Launcher::OpenMpi) {
        names.reverse();
    }
    library::names(MPI_VARIABLE, &names)
}

impl Mpi {
    /// Starts MPI in a process that is a rank by `launch`. No collective waits beyond `deadline` before
    /// [`Fabric::heed`].
    ///
    /// # Errors
    /// Of kind `Cluster`: no MPI, or one that has not started these ranks.
    pub fn start(launch: &Launch, deadline: Instant) -> Result<Self> {
        if !launch.by_mpi {
            return Err(Error::cluster(format!(
                "MPI reaches only ranks that it has started, and these were started by {}; start them with mpiexec, or \
                 with srun --mpi=pmi2 or --mpi=pmix",
                launch.launcher
            )));
        }
        let api = Api::load(&names(Some(launch.launcher)))?;
        // Any other would end the process when it starts.
        let version = api.version()?;
        if launch.launcher == Launcher::OpenMpi && !version.starts_with("Open MPI") {
            return Err(Error::cluster(format!(
                "{} is {version}, and the ranks were started by Open MPI; set {MPI_VARIABLE} to the library of that one",
                api.name
            )));
        }
        let mut provided = 0;
        // SAFETY: MPI permits null for both arguments, and `provided` outlives the call.
        let code = unsafe {
            (api.init_thread)(
                std::ptr::null_mut(),
                std::ptr::null_mut(),
                api.constants.serialized,
                &mut provided,
            )
        };
        api.check("MPI_Init_thread", code)?;
        if provided < api.constants.serialized {
            let name = &api.name;
            return Err(Error::cluster(format!(
                "{name} cannot be called by several threads in turn; use another MPI"
            )));
        }
        // SAFETY: both are constants of this ABI, and MPI is initialised.
        let code = unsafe { (api.set_errhandler)(api.constants.world, api.constants.errors_return) };
        api.check("MPI_Comm_set_errhandler", code)?;
        let rank = api.number("MPI_Comm_rank", api.comm_rank)?;
        let world = api.number("MPI_Comm_size", api.comm_size)?;
        if (rank, world) != (launch.rank, launch.world) {
            return Err(Error::cluster(format!(
                "{} says rank {rank} of {world}, and {} rank {} of {}: the library is another MPI than the one that started \
                 the ranks; set {MPI_VARIABLE} to the library of that one",
                api.name, launch.launcher, launch.rank, launch.world
            )));
        }
        Ok(Mpi { api, rank, world, failed: None, deadline })
    }

    /// Waits for a request that has begun with `code`. The memory that it uses has to outlive the process if
    /// the result is an error.
    fn wait(&self, call: &str, code: c_int, mut request: Request, pace: Pace) -> Result<()> {
        self.api.check(call, code)?;
        let began = Instant::now();
        loop {
            let mut done = 0;
            // SAFETY: the request has begun, and both variables outlive the call.
            let code = unsafe { (self.api.test)(&mut request, &mut done, self.api.constants.status_ignore) };
            self.api.check("MPI_Test", code)?;
            if done != 0 {
                return Ok(());
            }
            match &self.failed {
                Some(failed) if failed() => return Err(Error::cluster("another rank has failed")),
                None if Instant::now() > self.deadline => {
                    return Err(Error::cluster(
                        "MPI does not reach all ranks in time; see whether all of them run, or wait longer with \
                         --dist-timeout",
                    ));
                }
                _ => pace.pause(began.elapsed()),
            }
        }
    }

    fn reduce(&mut self, values: &mut [i64], pace: Pace) -> Result<()> {
        let Constants { world, int64, sum, in_place, .. } = self.api.constants;
        let mut request = 0;
        // SAFETY: the values stay where they are until the request is done: `wait` returns before only if the
        // caller then ends the process. Their number fits, as they are at most a chunk.
        let code = unsafe {
            let count = values.len() as c_int;
            (self.api.iallreduce)(
                in_place,
                values.as_mut_ptr().cast(),
                count,
                int64,
                sum,
                world,
                &mut request,
            )
        };
        self.wait("MPI_Iallreduce", code, request, pace)
    }

    fn send(&mut self, root: usize, bytes: &mut [u8], pace: Pace) -> Result<()> {
        let Constants { world, byte, .. } = self.api.constants;
        let mut request = 0;
        // SAFETY: as above.
        let code = unsafe {
            let count = bytes.len() as c_int;
            (self.api.ibcast)(bytes.as_mut_ptr().cast(), count, byte, root as c_int, world, &mut request)
        };
        self.wait("MPI_Ibcast", code, request, pace)
    }

    fn send_all(&mut self, root: usize, bytes: &mut Vec<u8>) -> Result<()> {
        let mut length = Box::new((bytes.len() as u64).to_le_bytes());
        if let Err(error) = self.send(root, &mut length[..], Pace::Patient) {
            // Others may still write there.
            Box::leak(length);
            return Err(error);
        }
        bytes.resize(u64::from_le_bytes(*length) as usize, 0);
        bytes.chunks_mut(CHUNK).try_for_each(|chunk| self.send(root, chunk, Pace::Eager))
    }
}

impl Fabric for Mpi {
    fn name(&self) -> String {
        self.api.version().unwrap_or_else(|_| "MPI".to_owned())
    }

    fn rank(&self) -> usize {
        self.rank
    }

    fn world(&self) -> usize {
        self.world
    }

    fn heed(&mut self, failed: Box<dyn Fn() -> bool + Send>) {
        self.failed = Some(failed);
    }

    /// MPI moves data only while it is asked whether it is done, so what is large needs all ranks to ask
    /// without a pause; who comes early would keep a core busy that others on its machine compute with. So
    /// all ranks meet over one number first, and that is waited for with pauses.
    fn all_reduce(&mut self, values: &mut [i64]) -> Result<()> {
        let met = if values.len() > LARGE { self.reduce(&mut [0], Pace::Patient) } else { Ok(()) };
        let pace = if values.len() > LARGE { Pace::Eager } else { Pace::Patient };
        let reduced =
            met.and_then(|()| values.chunks_mut(CHUNK).try_for_each(|chunk| self.reduce(chunk, pace)));
        reduced.inspect_err(|error| end_process(error))
    }

    fn broadcast(&mut self, root: usize, bytes: &mut Vec<u8>) -> Result<()> {
        let sent = self.send_all(root, bytes);
        if sent.is_err() && self.failed.is_some() {
            sent.inspect_err(|error| end_process(error))
        } else {
            // Before there is somebody to ask, nobody ends the process: the memory stays.
            sent.inspect_err(|_| std::mem::forget(std::mem::take(bytes)))
        }
    }

    fn finish(self: Box<Self>) -> Result<()> {
        // SAFETY: MPI is initialised, no request is pending, and nothing is called after this.
        let code = unsafe { (self.api.finalize)() };
        self.api.check("MPI_Finalize", code)
    }
}

/// The end of a collective that others may still write for. Whoever watches the ranks ends the process with
/// its message; else it ends here.
fn end_process(error: &Error) -> ! {
    thread::sleep(LAST_WAIT);
    let _ = writeln!(std::io::stderr(), "{error}");
    // Without MPI's own last words, which may wait for the others.
    signal_hook::low_level::exit(ErrorKind::Cluster.exit_code().into())
}

/// How often MPI is asked whether it is done.
#[derive(Clone, Copy)]
enum Pace {
    /// All are there: without a pause, but letting others compute.
    Eager,
    /// Some may come late.
    Patient,
}

impl Pace {
    fn pause(self, waited: Duration) {
        match self {
            Pace::Eager => thread::yield_now(),
            Pace::Patient => pause(waited),
        }
    }
}

impl Api {
    /// The first of these libraries that is there.
    fn load(names: &[String]) -> Result<Self> {
        // Open MPI's own plug-ins look for its symbols among the global ones.
        library::load("MPI", MPI_VARIABLE, names, RTLD_NOW | RTLD_GLOBAL, Api::of)
    }

    fn of(library: Library, name: &str) -> std::result::Result<Self, libloading::Error> {
        let file = Path::new(name).file_name().unwrap_or_default().to_string_lossy().into_owned();
        // SAFETY: the functions have these types in every ABI, as far as registers go: handles are an `int`
        // or a pointer, each in a register of its own, of which MPICH reads the lower half. None of the
        // pointers outlives the library, which is never unloaded: MPI cannot be started a second time.
        let api = unsafe {
            Api {
                init_thread: *library.get::<InitThread>(b"MPI_Init_thread\0")?,
                comm_rank: *library.get::<CommInt>(b"MPI_Comm_rank\0")?,
                comm_size: *library.get::<CommInt>(b"MPI_Comm_size\0")?,
                set_errhandler: *library.get::<SetErrhandler>(b"MPI_Comm_set_errhandler\0")?,
                iallreduce: *library.get::<Iallreduce>(b"MPI_Iallreduce\0")?,
                ibcast: *library.get::<Ibcast>(b"MPI_Ibcast\0")?,
                test: *library.get::<Test>(b"MPI_Test\0")?,
                finalize: *library.get::<Finalize>(b"MPI_Finalize\0")?,
                version: *library.get::<Version>(b"MPI_Get_library_version\0")?,
                constants: Constants::of(&library, &file)?,
                name: name.to_owned(),
            }
        };
        std::mem::forget(library);
        Ok(api)
    }

    fn check(&self, call: &str, code: c_int) -> Result<()> {
        match code {
            0 => Ok(()),
            code => Err(Error::cluster(format!("{}: {call} failed with code {code}", self.name))),
        }
    }

    fn number(&self, call: &str, function: CommInt) -> Result<usize> {
        let mut number = 0;
        // SAFETY: MPI is initialised, the communicator is a constant of this ABI, and `number` outlives the
        // call.
        let code = unsafe { function(self.constants.world, &mut number) };
        self.check(call, code)?;
        Ok(number as usize)
    }

    /// Name and version of the library, as it says them; may be asked before it is initialised.
    fn version(&self) -> Result<String> {
        /// Longest in every ABI.
        const LONGEST: usize = 8192;
        let (mut text, mut length) = (vec![0_u8; LONGEST], 0);
        // SAFETY: no ABI writes more than these bytes.
        let code = unsafe { (self.version)(text.as_mut_ptr().cast(), &mut length) };
        self.check("MPI_Get_library_version", code)?;
        text.truncate(usize::try_from(length).unwrap_or(0).min(LONGEST));
        let text = String::from_utf8_lossy(&text).replace('\0', "");
        // What is behind a comma, on other lines and in columns is for those who build it.
        let first = text.lines().find(|line| !line.trim().is_empty()).unwrap_or("MPI");
        Ok(first.split(',').next().unwrap_or("MPI").split_whitespace().collect::<Vec<_>>().join(" "))
    }
}

impl Constants {
    fn of(library: &Library, file: &str) -> std::result::Result<Self, libloading::Error> {
        // SAFETY: only its address is taken, and it is data of the library, which is never unloaded.
        let address =
            |symbol: &[u8]| unsafe { library.get::<*mut c_void>(symbol).map(|s| s.into_raw() as Handle) };
        if let Ok(world) = address(b"ompi_mpi_comm_world\0") {
            return Ok(Constants {
                world,
                int64: address(b"ompi_mpi_int64_t\0")?,
                byte: address(b"ompi_mpi_byte\0")?,
                sum: address(b"ompi_mpi_op_sum\0")?,
                in_place: 1,
                errors_return: address(b"ompi_mpi_errors_return\0")?,
                status_ignore: 0,
                serialized: 2,
            });
        }
        Ok(match file.starts_with("libmpi_abi.") {
            true => Constants {
                world: 0x101,
                int64: 0x258,
                byte: 0x247,
                sum: 0x21,
                in_place: 1,
                errors_return: 0x143,
                status_ignore: 0,
                serialized: 2048,
            },
            false => Constants {
                world: 0x4400_0000,
                int64: 0x4c00_083a,
                byte: 0x4c00_010d,
                sum: 0x5800_0003,
                in_place: usize::MAX,
                errors_return: 0x5400_0001,
                status_ignore: 1,
                serialized: 2,
            },
        })
    }
}
