//! The files of saved machines.
//!
//! Without a directory they exist in the simulation alone: below a path that
//! is no real one, read and written through [`SimHost::read_file`] and
//! [`SimHost::write_file`] by whatever plays the datastore. With a directory
//! they are real and small, for agents that carry files over a real network.
//!
//! [`SimHost::read_file`]: crate::SimHost::read_file
//! [`SimHost::write_file`]: crate::SimHost::write_file

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};

use bytes::Bytes;
use vimana_driver::{DiskPlan, Fault, FaultKind, Part};
use vimana_model::{VmId, VolumeId};

/// No such directory exists on any machine.
const NOWHERE: &str = "/simulated";
/// Below a VM's other files.
const BACKUP: &str = "backup";

#[derive(Default)]
pub(crate) struct Files {
    /// Where files are real.
    pub dir: Option<PathBuf>,
    held: BTreeMap<PathBuf, Bytes>,
    copies: BTreeMap<VolumeId, PathBuf>,
}

/// What a simulated machine remembers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Contents {
    /// On its disk: how often it was started.
    pub boots: u32,
    /// In its memory: how often it was asked to count.
    pub count: u32,
}

impl Files {
    pub fn read(&self, path: &Path) -> io::Result<Bytes> {
        match self.held.get(path) {
            Some(bytes) => Ok(bytes.clone()),
            None if path.starts_with(NOWHERE) => Err(io::ErrorKind::NotFound.into()),
            None => std::fs::read(path).map(Bytes::from),
        }
    }

    /// Holds a file in the simulation, whatever its path.
    pub fn write(&mut self, path: PathBuf, bytes: Bytes) {
        self.held.insert(path, bytes);
    }

    /// Makes files of a machine that ran up to run `run_epoch`, with what each of its
    /// parts remembers.
    pub fn export(
        &mut self,
        vm: VmId,
        run_epoch: u64,
        parts: &[(Part, u32)],
    ) -> io::Result<Vec<(Part, PathBuf)>> {
        let place = self.place(vm);
        let mut files = Vec::new();
        for (part, value) in parts {
            let path = place.join(part.to_string());
            let bytes = Bytes::from(content(vm, run_epoch, *part, *value));
            if self.dir.is_some() {
                std::fs::create_dir_all(&place)?;
                std::fs::write(&path, &bytes)?;
            } else {
                self.held.insert(path.clone(), bytes);
            }
            files.push((*part, path));
        }
        Ok(files)
    }

    /// Takes what [`Self::export`] made, here or on another host.
    pub fn import(
        &mut self,
        vm: VmId,
        files: &[(Part, PathBuf)],
        disks: &DiskPlan,
    ) -> Result<BTreeMap<Part, u32>, Fault> {
        let mut values = BTreeMap::new();
        let mut runs = Vec::new();
        let here = |wanted: &Part| files.iter().any(|(part, _)| part == wanted);
        if !disks.parts(false).iter().all(here) {
            return Err(bad("a disk of it is missing"));
        }
        for (part, path) in files {
            let bytes = self
                .read(path)
                .map_err(|error| Fault::io("reading the saved machine", &error))?;
            let (run_epoch, value) =
                parse(vm, *part, &bytes).ok_or_else(|| bad("a part of it is damaged"))?;
            values.insert(*part, value);
            runs.push(run_epoch);
        }
        runs.dedup();
        if runs.len() > 1 {
            return Err(bad("its parts are of different runs"));
        }
        // Taken over: they are gone from where they were.
        for (_, path) in files {
            self.held.remove(path);
        }
        Ok(values)
    }

    /// Makes a file of a VM's backup.
    pub fn put_backup(&mut self, vm: VmId, name: &str, bytes: Bytes) -> io::Result<PathBuf> {
        let place = self.place(vm).join(BACKUP);
        let path = place.join(name);
        if self.dir.is_some() {
            std::fs::create_dir_all(&place)?;
            std::fs::write(&path, &bytes)?;
        } else {
            self.held.insert(path.clone(), bytes);
        }
        Ok(path)
    }

    /// Removes the files of a VM's backup.
    pub fn remove_backup(&mut self, vm: VmId) {
        self.remove_below(&self.place(vm).join(BACKUP));
    }

    /// Makes a copy of a volume, in the place of an earlier one.
    pub fn copy(&mut self, volume: VolumeId, bytes: Vec<u8>) -> io::Result<PathBuf> {
        let dir = self.dir.as_deref().unwrap_or(Path::new(NOWHERE));
        let path = dir.join(format!("{volume}.copy"));
        if self.dir.is_some() {
            std::fs::create_dir_all(dir)?;
            std::fs::write(&path, &bytes)?;
        } else {
            self.held.insert(path.clone(), Bytes::from(bytes));
        }
        self.copies.insert(volume, path.clone());
        Ok(path)
    }

    pub fn remove_copy(&mut self, volume: VolumeId) -> io::Result<()> {
        let Some(path) = self.copies.remove(&volume) else {
            return Ok(());
        };
        match self.held.remove(&path) {
            Some(_) => Ok(()),
            None => std::fs::remove_file(path),
        }
    }

    pub fn remove_copies(&mut self) {
        let copied: Vec<VolumeId> = self.copies.keys().copied().collect();
        for volume in copied {
            // Where it was real and is gone, it is gone.
            let _ = self.remove_copy(volume);
        }
    }

    pub fn copies(&self) -> Vec<PathBuf> {
        self.copies.values().cloned().collect()
    }

    /// Removes what was exported of a VM.
    pub fn remove(&mut self, vm: VmId) {
        self.remove_below(&self.place(vm));
    }

    fn remove_below(&mut self, place: &Path) {
        self.held.retain(|path, _| !path.starts_with(place));
        if self.dir.is_some() {
            // Never there, as a rule; an empty name is all that could stay.
            let _ = std::fs::remove_dir_all(place);
        }
    }

    /// The files held for a VM.
    pub fn of(&self, vm: VmId) -> Vec<PathBuf> {
        let place = self.place(vm);
        let real = std::fs::read_dir(&place).into_iter().flatten().flatten();
        let real = real.map(|entry| entry.path()).filter(|path| path.is_file());
        let held = self.held.keys().filter(|path| path.starts_with(&place));
        held.cloned().chain(real).collect()
    }

    fn place(&self, vm: VmId) -> PathBuf {
        let dir = self.dir.as_deref().unwrap_or(Path::new(NOWHERE));
        dir.join(vm.to_string())
    }
}

fn bad(what: &str) -> Fault {
    let message = format!("the saved machine cannot be used: {what}");
    Fault::new(FaultKind::BadImage, message)
}

fn content(vm: VmId, run_epoch: u64, part: Part, value: u32) -> String {
    format!("{part} of {vm} after run {run_epoch}: {value}\n")
}

/// Run and value of a part's content; `None` where it is of something else.
fn parse(vm: VmId, part: Part, bytes: &[u8]) -> Option<(u64, u32)> {
    let text = std::str::from_utf8(bytes).ok()?;
    let text = text.strip_prefix(&format!("{part} of {vm} after run "))?;
    let (run_epoch, value) = text.strip_suffix('\n')?.split_once(": ")?;
    Some((run_epoch.parse().ok()?, value.parse().ok()?))
}
