//! The second choice: Landlock for files and TCP, seccomp for sockets and system calls that no program needs.
//! There are no namespaces, so a program sees the machine's processes, and a full temporary folder is full
//! for all.

use std::collections::BTreeMap;
use std::io;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use landlock::{
    ABI, Access, AccessFs, AccessNet, CompatLevel, Compatible, Ruleset, RulesetAttr, RulesetCreatedAttr,
    Scope, path_beneath_rules,
};
use rustix::process::Signal;
use seccompiler::{BpfProgram, SeccompAction, SeccompFilter, SeccompRule};

use crate::error::{Context, Error, ErrorKind, Result};

/// What the kernel has to have: rules for files that also cover truncation and TCP.
const LEAST: ABI = ABI::V4;

/// Devices that programs may use.
const DEVICES: [&str; 5] = ["/dev/null", "/dev/zero", "/dev/full", "/dev/random", "/dev/urandom"];

/// System calls that no candidate needs and that reach beyond its own files and processes.
const REFUSED: [libc::c_long; 21] = [
    // Landlock does not keep a program from the sockets of services in the file system. Pairs of sockets are
    // left.
    libc::SYS_socket,
    libc::SYS_ptrace,
    libc::SYS_process_vm_readv,
    libc::SYS_process_vm_writev,
    libc::SYS_mount,
    libc::SYS_umount2,
    libc::SYS_pivot_root,
    libc::SYS_chroot,
    libc::SYS_unshare,
    libc::SYS_setns,
    libc::SYS_bpf,
    libc::SYS_perf_event_open,
    libc::SYS_userfaultfd,
    libc::SYS_io_uring_setup,
    libc::SYS_keyctl,
    libc::SYS_add_key,
    libc::SYS_request_key,
    libc::SYS_kexec_load,
    libc::SYS_reboot,
    libc::SYS_init_module,
    libc::SYS_finit_module,
];

/// Makes a command give up everything but reading some paths and writing below one.
pub(super) fn confine(command: &mut Command, readable: &[PathBuf], writable: &Path) -> Result<()> {
    let mut ruleset = Some(ruleset(readable, writable).map_err(|why| {
        Error::device("Landlock does not work here, version 4 or later of which a kernel from 6.7 on has")
            .with_source(why)
    })?);
    let filter = filter().kind(ErrorKind::Internal, || "cannot make the filter of system calls".into())?;
    let enter = move || {
        rustix::process::setsid()?;
        rustix::process::set_parent_process_death_signal(Some(Signal::KILL))?;
        let refused = || io::Error::from(io::ErrorKind::PermissionDenied);
        ruleset.take().ok_or_else(refused)?.restrict_self().map_err(|_| refused())?;
        seccompiler::apply_filter(&filter).map_err(|_| refused())
    };
    // SAFETY: `enter` runs in the child between fork and exec, where only what is async-signal-safe may be
    // called. Ruleset and filter were built before; what is left are system calls. Only an error would
    // allocate, and glibc keeps its allocator usable in a child.
    unsafe { command.pre_exec(enter) };
    Ok(())
}

fn ruleset(
    readable: &[PathBuf],
    writable: &Path,
) -> std::result::Result<landlock::RulesetCreated, landlock::RulesetError> {
    Ruleset::default()
        .set_compatibility(CompatLevel::HardRequirement)
        .handle_access(AccessFs::from_all(LEAST))?
        .handle_access(AccessNet::from_all(LEAST))?
        .set_compatibility(CompatLevel::BestEffort)
        .scope(Scope::from_all(ABI::V6))?
        .create()?
        .add_rules(path_beneath_rules(readable, AccessFs::from_read(LEAST)))?
        .add_rules(path_beneath_rules(["/proc"], AccessFs::from_read(LEAST)))?
        .add_rules(path_beneath_rules(DEVICES, AccessFs::from_file(LEAST)))?
        .add_rules(path_beneath_rules([writable], AccessFs::from_all(LEAST)))
}

fn filter() -> std::result::Result<BpfProgram, Box<dyn std::error::Error + Send + Sync>> {
    let rules: BTreeMap<i64, Vec<SeccompRule>> = REFUSED.iter().map(|call| (*call, Vec::new())).collect();
    let refuse = SeccompAction::Errno(libc::EPERM as u32);
    let filter = SeccompFilter::new(rules, SeccompAction::Allow, refuse, std::env::consts::ARCH.try_into()?)?;
    Ok(filter.try_into()?)
}
