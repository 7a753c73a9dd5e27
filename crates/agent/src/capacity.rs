//! What the machine has to give.

use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

use vimana_model::unit::{MiB, Resources};

use crate::limits::IMAGE_CACHE_SHARE;

/// Memory kept back for the system and the agent.
pub const MEMORY_RESERVE: MiB = MiB(512);

/// Bytes in one block as `stat` counts them, whatever the file system uses.
const STAT_BLOCK_BYTES: u64 = 512;

/// The capacity of this machine: processors times `vcpu_ratio`, memory less
/// [`MEMORY_RESERVE`], and the disk space that is free for `data_dir` or
/// already in it.
///
/// # Errors
/// Where the machine does not tell.
pub fn detect(data_dir: &Path, vcpu_ratio: u32) -> io::Result<Resources> {
    let cores = u32::try_from(std::thread::available_parallelism()?.get()).unwrap_or(u32::MAX);
    let system = rustix::system::sysinfo();
    // The field's width differs between platforms.
    #[allow(clippy::useless_conversion, reason = "not everywhere the same type")]
    let memory_bytes = u64::from(system.totalram).saturating_mul(system.mem_unit.into());
    let memory = MiB::from_bytes(memory_bytes);
    Ok(Resources {
        vcpus: cores.saturating_mul(vcpu_ratio),
        memory_mib: MiB(memory.0.saturating_sub(MEMORY_RESERVE.0)),
        disk_mib: disk(data_dir)?,
    })
}

/// What is free for `directory`, or already in it.
///
/// # Errors
/// Where the file system does not tell.
pub fn disk(directory: &Path) -> io::Result<MiB> {
    let space = rustix::fs::statvfs(directory)?;
    let free = space.f_bavail.saturating_mul(space.f_frsize);
    Ok(MiB::from_bytes(free.saturating_add(held_bytes(directory))))
}

/// Bytes that the image cache in `directory` may fill: a share of the whole
/// disk, so that it stays the same whatever else is on it.
///
/// # Errors
/// Where the file system does not tell.
pub fn image_cache(directory: &Path) -> io::Result<u64> {
    let space = rustix::fs::statvfs(directory)?;
    Ok(space.f_blocks.saturating_mul(space.f_frsize) / IMAGE_CACHE_SHARE)
}

/// This machine's name, for a host that is not given another.
#[must_use]
pub fn machine_name() -> String {
    rustix::system::uname()
        .nodename()
        .to_string_lossy()
        .into_owned()
}

/// Bytes on disk below `directory`. What vanishes meanwhile counts nothing.
fn held_bytes(directory: &Path) -> u64 {
    let Ok(entries) = std::fs::read_dir(directory) else {
        return 0;
    };
    let sizes = entries.flatten().map(|entry| match entry.metadata() {
        Ok(data) if data.is_dir() => held_bytes(&entry.path()),
        Ok(data) => data.blocks().saturating_mul(STAT_BLOCK_BYTES),
        Err(_) => 0,
    });
    sizes.fold(0, u64::saturating_add)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_machine_has_something_to_give() {
        let dir = tempfile::tempdir().unwrap();
        let once = detect(dir.path(), 1).unwrap();
        let fourfold = detect(dir.path(), 4).unwrap();
        assert!(once.vcpus >= 1 && once.disk_mib > MiB(0));
        assert_eq!(fourfold.vcpus, once.vcpus * 4);
    }

    #[test]
    fn held_bytes_are_those_on_disk_not_the_apparent_ones() {
        let dir = tempfile::tempdir().unwrap();
        let sparse = std::fs::File::create(dir.path().join("sparse")).unwrap();
        sparse.set_len(1 << 30).unwrap();
        std::fs::create_dir(dir.path().join("deeper")).unwrap();
        std::fs::write(dir.path().join("deeper/full"), vec![1; 1 << 20]).unwrap();
        let held = held_bytes(dir.path());
        assert!(((1 << 20)..(1 << 26)).contains(&held), "{held}");
    }
}
