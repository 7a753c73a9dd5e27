//! A process that reads somebody's file must expect to be taken over by it.
//! [`confine`] leaves it nothing to take: its files to read, one to write, no
//! network, and so much memory, time and disk.

use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use landlock::{
    ABI, Access as _, AccessFs, CompatLevel, Compatible as _, PathBeneath, PathFd, Ruleset,
    RulesetAttr as _, RulesetCreatedAttr as _, RulesetStatus, path_beneath_rules,
};
use rustix::process::{Resource, Rlimit, setrlimit};
use seccompiler::{BpfProgram, SeccompAction, SeccompFilter, TargetArch};

/// What is left to a confined process.
#[derive(Clone, Copy, Debug)]
pub struct Bounds<'a> {
    /// The files it may read.
    pub input: &'a [PathBuf],
    /// The one file it may write; it is there already.
    pub output: &'a Path,
    pub max_output_bytes: u64,
    pub max_memory_bytes: u64,
    pub max_cpu_seconds: u64,
}

/// What every program needs to be a program: libraries, and where to find them.
const PROGRAMS: &[&str] = &[
    "/usr",
    "/lib",
    "/lib64",
    "/bin",
    "/etc/ld.so.cache",
    "/etc/alternatives",
];
const DEVICES: &[&str] = &["/dev/null", "/dev/zero", "/dev/urandom"];
const MAX_OPEN_FILES: u64 = 64;

/// The newest rights that kernels of today all know: 6.2.
const RIGHTS: ABI = ABI::V3;

/// System calls that reach other machines, other processes, or the kernel's
/// own doors. A conversion needs none of them.
const REFUSED: &[i64] = &[
    libc::SYS_socket,
    libc::SYS_socketpair,
    libc::SYS_connect,
    libc::SYS_bind,
    libc::SYS_ptrace,
    libc::SYS_process_vm_readv,
    libc::SYS_process_vm_writev,
    libc::SYS_pidfd_getfd,
    libc::SYS_kill,
    libc::SYS_tkill,
    libc::SYS_mount,
    libc::SYS_umount2,
    libc::SYS_unshare,
    libc::SYS_setns,
    libc::SYS_bpf,
    libc::SYS_keyctl,
    libc::SYS_add_key,
    libc::SYS_request_key,
    libc::SYS_userfaultfd,
    libc::SYS_perf_event_open,
    libc::SYS_io_uring_setup,
];

/// Confines the calling thread, and whatever it becomes or starts, for good.
///
/// # Errors
/// The kernel cannot do one of these things; then nothing may be converted.
pub fn confine(bounds: &Bounds<'_>) -> Result<()> {
    limit(bounds).context("the limits cannot be set")?;
    rustix::thread::set_no_new_privs(true).context("privileges cannot be given up")?;
    view(bounds).context("the view of the files cannot be narrowed")?;
    calls().context("system calls cannot be refused")
}

fn limit(bounds: &Bounds<'_>) -> Result<()> {
    for (resource, most) in [
        (Resource::As, bounds.max_memory_bytes),
        (Resource::Cpu, bounds.max_cpu_seconds),
        (Resource::Fsize, bounds.max_output_bytes),
        (Resource::Nofile, MAX_OPEN_FILES),
        (Resource::Core, 0),
    ] {
        let most = Some(most);
        setrlimit(
            resource,
            Rlimit {
                current: most,
                maximum: most,
            },
        )?;
    }
    Ok(())
}

fn view(bounds: &Bounds<'_>) -> Result<()> {
    let all = AccessFs::from_all(RIGHTS);
    let read = AccessFs::from_read(RIGHTS);
    let of_a_file = AccessFs::ReadFile;
    let to_a_file = AccessFs::ReadFile | AccessFs::WriteFile | AccessFs::Truncate;
    let there =
        |paths: &'static [&'static str]| paths.iter().filter(|path| Path::new(path).exists());
    let mut ruleset = Ruleset::default()
        .set_compatibility(CompatLevel::HardRequirement)
        .handle_access(all)?
        .create()?
        .set_compatibility(CompatLevel::BestEffort)
        .add_rules(path_beneath_rules(there(PROGRAMS), read))?
        .add_rules(path_beneath_rules(there(DEVICES), to_a_file))?
        .add_rule(PathBeneath::new(PathFd::new(bounds.output)?, to_a_file))?;
    for input in bounds.input {
        ruleset = ruleset.add_rule(PathBeneath::new(PathFd::new(input)?, of_a_file))?;
    }
    let status = ruleset.restrict_self()?;
    anyhow::ensure!(
        status.ruleset == RulesetStatus::FullyEnforced,
        "this kernel has no Landlock, or an old one (Linux 6.2 has it)"
    );
    Ok(())
}

fn calls() -> Result<()> {
    let arch = TargetArch::try_from(std::env::consts::ARCH)?;
    let refused = REFUSED.iter().map(|call| (*call, Vec::new())).collect();
    let filter = SeccompFilter::new(
        refused,
        SeccompAction::Allow,
        SeccompAction::Errno(libc::EPERM.unsigned_abs()),
        arch,
    )?;
    let program: BpfProgram = filter.try_into()?;
    Ok(seccompiler::apply_filter(&program)?)
}
