//! What the driver keeps on disk: a directory per VM, a few JSON records in it.
//!
//! A machine's own disk is in that directory, or in one of the same name in a
//! further datastore of the host, which the directory then has a link into: see
//! [`home`].
//!
//! `<vm_id>/` appears and disappears whole: it is made as `<vm_id>.part` and
//! renamed, renamed to `<vm_id>.gone` and removed. Records are replaced whole
//! and are on the disk before a call returns. All calls block.

use std::fmt::Display;
use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use vimana_driver::{IncarnationSpec, Power};
use vimana_model::{VmId, VolumeId};

use crate::argv::DISK;
use crate::limits::RECORD_BYTES;
use crate::process::Identity;

/// A kind of record.
pub trait Record: Serialize + DeserializeOwned {
    const FILE: &'static str;
}

/// What is to run.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Prepared {
    pub spec: IncarnationSpec,
    pub image: String,
}

/// A process that runs it, or is about to.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Started {
    pub run_epoch: u64,
    /// Absent until the process is known; before that no guest code ran.
    pub process: Option<Identity>,
}

/// How a run ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Ended {
    pub run_epoch: u64,
    pub power: Power,
    /// Stopped by us, not by the guest.
    pub stopped: bool,
}

/// A memory in the file [`MEMORY`], and what it belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Saved {
    /// Guest code ran up to this run; only a later one may go on.
    pub ran_epoch: u64,
    /// A machine that has this memory may have been let run since.
    pub let_go: bool,
    /// The disk the memory fits to.
    pub disk: DiskMark,
}

/// Tells whether anyone wrote to the disks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DiskMark {
    bytes: u64,
    modified_s: i64,
    modified_ns: i64,
}

/// The guest is being restarted: until it is up again, a machine that stands
/// still waits for us to go on.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Restarting {
    pub run_epoch: u64,
}

impl DiskMark {
    /// Of the disk in a VM's directory and of its volumes' files, all as they
    /// are now: their sizes together, and when the last of them was written.
    pub fn of(dir: &Path, volumes: &[PathBuf]) -> io::Result<Self> {
        let disk = dir.join(DISK);
        let mut mark = Self {
            bytes: 0,
            modified_s: i64::MIN,
            modified_ns: 0,
        };
        for file in std::iter::once(&disk).chain(volumes) {
            let facts = fs::metadata(file)?;
            let modified = (facts.mtime(), facts.mtime_nsec());
            mark.bytes = mark.bytes.saturating_add(facts.len());
            (mark.modified_s, mark.modified_ns) = modified.max((mark.modified_s, mark.modified_ns));
        }
        Ok(mark)
    }
}

impl Record for Prepared {
    const FILE: &'static str = "spec.json";
}
impl Record for Started {
    const FILE: &'static str = "process.json";
}
impl Record for Ended {
    const FILE: &'static str = "ended.json";
}
impl Record for Saved {
    const FILE: &'static str = "saved.json";
}
impl Record for Restarting {
    const FILE: &'static str = "restarting.json";
}

/// A saved memory; it counts only beside its record.
pub const MEMORY: &str = "memory";
/// One that is being written.
pub const MEMORY_PART: &str = "memory.part";

/// Where everything is.
#[derive(Clone, Debug)]
pub struct Layout {
    state: PathBuf,
    /// Of a directory that several agents use: whose what is half made is.
    owner: Option<String>,
}

/// What a name in the state directory means.
#[derive(Debug, PartialEq, Eq)]
pub enum Entry {
    Vm(VmId),
    Volume(VolumeId),
    /// Half made or half removed; nothing ever ran in it.
    Debris,
    Other,
}

const HALF_MADE: &str = ".part";
const HALF_GONE: &str = ".gone";
/// A copy of a volume; nobody waits for it any more.
const COPY: &str = ".copy";

impl Layout {
    #[must_use]
    pub fn new(state: PathBuf) -> Self {
        Self { state, owner: None }
    }

    /// A directory that other agents use as well.
    #[must_use]
    pub fn shared(state: PathBuf, owner: &str) -> Self {
        Self {
            state,
            owner: Some(format!(".{owner}")),
        }
    }

    #[must_use]
    pub fn state(&self) -> &Path {
        &self.state
    }

    #[must_use]
    pub fn vm(&self, vm: VmId) -> PathBuf {
        self.state.join(vm.to_string())
    }

    #[must_use]
    pub fn volume(&self, volume: VolumeId) -> PathBuf {
        self.state.join(volume.to_string())
    }

    /// Where a copy of a volume is made and kept.
    #[must_use]
    pub fn copy(&self, volume: &VolumeId) -> Scratch {
        Scratch(self.state.join(format!("{volume}{COPY}")))
    }

    #[must_use]
    pub fn entry(&self, name: &str) -> Entry {
        let half = name
            .strip_suffix(HALF_MADE)
            .or_else(|| name.strip_suffix(HALF_GONE))
            .or_else(|| name.strip_suffix(COPY));
        let half = half.and_then(|half| half.strip_suffix(self.owner()));
        let entry = |name: &str| match (name.parse(), name.parse()) {
            (Ok(vm), _) => Some(Entry::Vm(vm)),
            (Err(_), Ok(volume)) => Some(Entry::Volume(volume)),
            (Err(_), Err(_)) => None,
        };
        match half.and_then(entry) {
            Some(_) => Entry::Debris,
            None => entry(name).unwrap_or(Entry::Other),
        }
    }

    fn owner(&self) -> &str {
        self.owner.as_deref().unwrap_or_default()
    }

    fn half(&self, name: &impl Display, end: &str) -> Scratch {
        Scratch(self.state.join(format!("{name}{}{end}", self.owner())))
    }

    /// Makes a VM's directory whole or not at all: `fill` gets the place.
    ///
    /// # Errors
    /// Of `fill` and of the file system; nothing is left then.
    pub fn create<E: From<io::Error>>(
        &self,
        vm: VmId,
        fill: impl FnOnce(&Path) -> Result<(), E>,
    ) -> Result<(), E> {
        let part = self.begin(&vm)?;
        fill(&part.0)?;
        self.complete(&part, &vm)?;
        Ok(())
    }

    /// The place where a directory of that name is made, empty.
    ///
    /// # Errors
    /// Of the file system.
    pub fn begin(&self, name: &impl Display) -> io::Result<Scratch> {
        let part = self.half(name, HALF_MADE);
        part.remove()?;
        make_dir(&part.0)?;
        Ok(part)
    }

    /// What was begun appears, whole.
    ///
    /// # Errors
    /// Of the file system.
    pub fn complete(&self, part: &Scratch, name: &impl Display) -> io::Result<()> {
        sync(&part.0)?;
        fs::rename(&part.0, self.state.join(name.to_string()))?;
        sync(&self.state)
    }

    /// Removes a directory; fine if there is none.
    ///
    /// # Errors
    /// Of the file system; what is left is not taken for a VM or a volume.
    pub fn remove(&self, name: &impl Display) -> io::Result<()> {
        let gone = self.half(name, HALF_GONE);
        gone.remove()?;
        match fs::rename(self.state.join(name.to_string()), &gone.0) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(()),
            renamed => renamed?,
        }
        sync(&self.state)?;
        gone.remove()
    }
}

/// A directory that does not outlive its use.
pub struct Scratch(pub PathBuf);

impl Scratch {
    /// Lets it outlive this use.
    pub fn keep(mut self) {
        self.0 = PathBuf::new();
    }

    pub fn remove(&self) -> io::Result<()> {
        match fs::remove_dir_all(&self.0) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(()),
            removed => removed,
        }
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        if let Err(error) = self.remove() {
            tracing::warn!(%error, dir = %self.0.display(), "a left-over directory stays");
        }
    }
}

/// A directory only the agent's user can look into.
pub fn make_dir(path: &Path) -> io::Result<()> {
    DirBuilder::new().recursive(true).mode(0o700).create(path)
}

/// A new file only the agent's user can read.
pub fn new_file(path: &Path) -> io::Result<File> {
    OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(path)
}

/// Writes a whole file; it is on the disk when this returns.
pub fn write_file(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let mut file = new_file(path)?;
    file.write_all(bytes)?;
    file.sync_all()
}

/// Puts a file in the place of whatever had its name.
pub fn replace_file(dir: &Path, name: &str, bytes: &[u8]) -> io::Result<()> {
    let new = dir.join(format!("{name}.new"));
    remove_file(&new)?;
    let written = write_file(&new, bytes).and_then(|()| fs::rename(&new, dir.join(name)));
    if written.is_err() {
        let _ = fs::remove_file(&new);
    }
    written?;
    sync(dir)
}

/// Fine if there is none.
pub fn remove_file(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(()),
        removed => removed,
    }
}

pub fn write<R: Record>(dir: &Path, record: &R) -> io::Result<()> {
    replace_file(dir, R::FILE, &serde_json::to_vec(record)?)
}

/// Like [`write`], for what counts only as long as a process lives that the host's
/// end takes along: it does not wait for the disk.
pub fn write_for_now<R: Record>(dir: &Path, record: &R) -> io::Result<()> {
    let new = dir.join(format!("{}.new", R::FILE));
    remove_file(&new)?;
    new_file(&new)?.write_all(&serde_json::to_vec(record)?)?;
    fs::rename(&new, dir.join(R::FILE))
}

/// `None` where there is none; a damaged record is an error.
pub fn read<R: Record>(dir: &Path) -> io::Result<Option<R>> {
    let file = match File::open(dir.join(R::FILE)) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
        file => file?,
    };
    let mut bytes = Vec::new();
    file.take(RECORD_BYTES).read_to_end(&mut bytes)?;
    Ok(Some(serde_json::from_slice(&bytes)?))
}

pub fn erase<R: Record>(dir: &Path) -> io::Result<()> {
    remove_file(&dir.join(R::FILE))?;
    sync(dir)
}

/// Removes a saved memory: first what makes it count, then the file.
pub fn erase_saved(dir: &Path) -> io::Result<()> {
    erase::<Saved>(dir)?;
    remove_file(&home(dir).join(MEMORY))
}

/// Where the machine's own disk is, its memory where that is saved, and whatever
/// else is as large. Blocks.
pub fn home(dir: &Path) -> PathBuf {
    let disk = fs::read_link(dir.join(DISK)).ok();
    let elsewhere = disk.as_deref().and_then(Path::parent);
    elsewhere.unwrap_or(dir).to_owned()
}

/// The name of a file there, as QEMU finds it from the VM's directory. Paths of
/// datastores are text: see `QemuDriver::open`. Blocks.
pub fn in_home(dir: &Path, name: &str) -> String {
    let home = home(dir);
    if home == dir {
        return name.to_owned();
    }
    home.join(name).to_string_lossy().into_owned()
}

/// The names in a directory are on the disk when this returns.
pub fn sync(dir: &Path) -> io::Result<()> {
    File::open(dir)?.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn vm() -> VmId {
        VmId::from_parts(1, [1; 10])
    }

    fn names(dir: &Path) -> Vec<String> {
        let entries = fs::read_dir(dir).unwrap();
        let mut names: Vec<_> = entries
            .map(|e| e.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        names
    }

    #[test]
    fn directory_appears_whole_or_not_at_all() {
        let state = tempfile::tempdir().unwrap();
        let layout = Layout::new(state.path().to_owned());
        let failed = layout.create(vm(), |dir| {
            write_file(&dir.join("disk"), b"half")?;
            Err(io::Error::from(io::ErrorKind::StorageFull))
        });
        assert_eq!(failed.unwrap_err().kind(), io::ErrorKind::StorageFull);
        assert_eq!(names(state.path()), [""; 0]);
        layout
            .create(vm(), |dir| write_file(&dir.join("disk"), b"whole"))
            .unwrap();
        assert_eq!(names(state.path()), [vm().to_string()]);
        layout.remove(&vm()).unwrap();
        layout.remove(&vm()).unwrap();
        assert_eq!(names(state.path()), [""; 0]);
    }

    #[test]
    fn record_round_trips_and_is_private() {
        use std::os::unix::fs::PermissionsExt as _;
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(read::<Ended>(dir.path()).unwrap(), None);
        let ended = Ended {
            run_epoch: 3,
            power: Power::Off,
            stopped: true,
        };
        write(dir.path(), &ended).unwrap();
        write(dir.path(), &ended).unwrap();
        assert_eq!(names(dir.path()), ["ended.json"]);
        let mode = fs::metadata(dir.path().join("ended.json")).unwrap();
        assert_eq!(mode.permissions().mode() & 0o777, 0o600);
        assert_eq!(read(dir.path()).unwrap(), Some(ended));
        erase::<Ended>(dir.path()).unwrap();
        assert_eq!(names(dir.path()), [""; 0]);
    }

    #[test]
    fn names_in_the_state_directory_are_told_apart() {
        let id = vm().to_string();
        let own = Layout::new(PathBuf::new());
        let shared = Layout::shared(PathBuf::new(), "host-a");
        assert_eq!(own.entry(&id), Entry::Vm(vm()));
        for end in ["part", "gone", "copy"] {
            assert_eq!(own.entry(&format!("{id}.{end}")), Entry::Debris);
            // What others make is not ours to remove.
            assert_eq!(shared.entry(&format!("{id}.{end}")), Entry::Other);
            assert_eq!(shared.entry(&format!("{id}.host-b.{end}")), Entry::Other);
            assert_eq!(shared.entry(&format!("{id}.host-a.{end}")), Entry::Debris);
        }
        for other in ["lock", "x.part", "..", "accelerator.json"] {
            assert_eq!(own.entry(other), Entry::Other, "{other}");
        }
    }
}
