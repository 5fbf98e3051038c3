//! Has system calls of a process fail, as they do on file systems without links or without locks.

use std::io;
use std::os::unix::process::CommandExt;
use std::process::Command;

use libc::{BPF_ABS, BPF_JEQ, BPF_JMP, BPF_K, BPF_LD, BPF_RET, BPF_W, c_long, sock_filter};

/// No links, as on exFAT.
pub const NO_LINKS: &[(c_long, i32)] = &[
    (libc::SYS_symlinkat, libc::EPERM),
    #[cfg(target_arch = "x86_64")]
    (libc::SYS_symlink, libc::EPERM),
];

/// No locks, as on some file systems of a network.
pub const NO_LOCKS: &[(c_long, i32)] = &[(libc::SYS_flock, libc::EOPNOTSUPP)];

/// Has each of `calls` fail with its error.
pub fn refuse(command: &mut Command, calls: &[(c_long, i32)]) {
    // The number of the call is what the kernel's description of it begins with.
    let mut filter = vec![instruction(BPF_LD | BPF_W | BPF_ABS, 0, 0)];
    for (call, error) in calls {
        filter.push(instruction(BPF_JMP | BPF_JEQ | BPF_K, *call as u32, 1));
        filter.push(instruction(BPF_RET | BPF_K, libc::SECCOMP_RET_ERRNO | *error as u32, 0));
    }
    filter.push(instruction(BPF_RET | BPF_K, libc::SECCOMP_RET_ALLOW, 0));
    // SAFETY: between fork and exec there are two system calls, and no memory is allocated.
    unsafe { command.pre_exec(move || install(&filter)) };
}

/// `otherwise` is how many of the next instructions a comparison that fails leaves out.
fn instruction(code: u32, k: u32, otherwise: u8) -> sock_filter {
    sock_filter { code: code as u16, jt: 0, jf: otherwise, k }
}

fn install(filter: &[sock_filter]) -> io::Result<()> {
    let program = libc::sock_fprog { len: filter.len() as u16, filter: filter.as_ptr().cast_mut() };
    // SAFETY: the program, and the instructions it points to, outlive the calls, which read them only.
    let installed = unsafe {
        libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0
            && libc::prctl(libc::PR_SET_SECCOMP, libc::SECCOMP_MODE_FILTER, &program) == 0
    };
    if installed { Ok(()) } else { Err(io::Error::last_os_error()) }
}
