//! What has come of saved machines: files that outlive a try, a command and
//! the agent, until the machine was taken over or nobody wants it here.

use std::io;
use std::path::{Path, PathBuf};

use tokio::fs;
use vimana_driver::{Fault, FaultKind, Part, SavedMachine, SavedPart};
use vimana_model::VmId;

use super::digest::is_digest;
use crate::limits::PARTIAL_LIFE;

/// What they are called, with machine, run, part and checksum after it.
const PREFIX: &str = ".partial-";

/// The directory with them. An agent has one try at a time for a machine.
pub struct Partials {
    directory: PathBuf,
}

impl Partials {
    /// Takes over `directory`; what nobody has gone on with for too long goes,
    /// as does what is none.
    ///
    /// # Errors
    /// Where the directory cannot be cleaned.
    pub fn open(directory: PathBuf) -> io::Result<Self> {
        for entry in std::fs::read_dir(&directory)? {
            let entry = entry?;
            let name = entry.file_name();
            if !name.as_encoded_bytes().starts_with(PREFIX.as_bytes()) {
                continue;
            }
            let data = entry.metadata()?;
            // One of the future, by a clock that was set, is young.
            let age = data.modified()?.elapsed().unwrap_or_default();
            if data.is_dir() {
                std::fs::remove_dir_all(entry.path())?;
            } else if name.to_str().and_then(vm_of).is_none() || age > PARTIAL_LIFE {
                std::fs::remove_file(entry.path())?;
            }
        }
        Ok(Self { directory })
    }

    /// Where each part goes. What there is of other runs or contents of the
    /// machine is removed.
    ///
    /// # Errors
    /// `BadImage` for a checksum that is none, or `Host`.
    pub async fn of(
        &self,
        vm_id: VmId,
        saved: &SavedMachine,
    ) -> Result<Vec<(SavedPart, PathBuf)>, Fault> {
        let mut files = Vec::with_capacity(saved.parts.len());
        for part in &saved.parts {
            let digest = part.sha256.to_ascii_lowercase();
            if !is_digest(&digest) {
                let message = "the saved machine's checksum is none";
                return Err(Fault::new(FaultKind::BadImage, message));
            }
            let (run, name) = (saved.run_epoch, part.part);
            let name = format!("{PREFIX}{vm_id}-{run}-{name}-{digest}");
            files.push((part.clone(), self.directory.join(name)));
        }
        let kept = |path: &Path| files.iter().any(|(_, kept)| kept == path);
        let removed = self.remove(vm_id, kept).await;
        removed.map_err(|error| Fault::io("storing the saved machine", &error))?;
        Ok(files)
    }

    /// Removes what there is of a machine.
    pub async fn forget(&self, vm_id: VmId) {
        if let Err(error) = self.remove(vm_id, |_| false).await {
            // The next start removes it, in time.
            tracing::warn!(%vm_id, %error, "what was fetched of a machine is not removed");
        }
    }

    async fn remove(&self, vm_id: VmId, kept: impl Fn(&Path) -> bool) -> io::Result<()> {
        let mut entries = fs::read_dir(&self.directory).await?;
        while let Some(entry) = entries.next_entry().await? {
            let (name, path) = (entry.file_name(), entry.path());
            if name.to_str().and_then(vm_of) != Some(vm_id) || kept(&path) {
                continue;
            }
            match fs::remove_file(path).await {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                Ok(()) | Err(_) => {}
            }
        }
        Ok(())
    }
}

/// Whose file is called so.
fn vm_of(name: &str) -> Option<VmId> {
    let mut words = name.strip_prefix(PREFIX)?.split('-');
    let (vm, run, part, digest) = (words.next()?, words.next()?, words.next()?, words.next()?);
    let is_part = part.parse::<Part>().is_ok();
    let is_one = words.next().is_none() && is_part && is_digest(digest);
    run.parse::<u64>().ok()?;
    vm.parse().ok().filter(|_| is_one)
}
