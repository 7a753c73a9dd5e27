//! Files of this machine, opened without being led astray.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd as _, AsRawFd as _, OwnedFd};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustix::fs::{CWD, FileType, Mode, OFlags, ResolveFlags, fstat, open, openat2};
use rustix::io::Errno;
use vimana_fetch::FetchError;

/// A regular file that was found. It stays that one, whatever its path leads
/// to later.
#[derive(Clone, Debug)]
pub struct LocalFile {
    path: PathBuf,
    /// Not open for anything yet.
    place: Arc<OwnedFd>,
}

/// Why a path leads to no file that is read; a verb phrase about it.
#[derive(Debug, thiserror::Error)]
pub enum LocalError {
    #[error("is in no directory that images may be taken from")]
    NotAllowed,
    #[error("leads out of the directory that images may be taken from")]
    LeadsOut,
    #[error("is not there")]
    NotFound,
    #[error("is no regular file")]
    NoFile,
    #[error("cannot be read: {0}")]
    Io(io::Error),
}

impl From<Errno> for LocalError {
    fn from(error: Errno) -> Self {
        match error {
            Errno::NOENT | Errno::NOTDIR => Self::NotFound,
            // What the kernel answers where the way would lead out.
            Errno::XDEV | Errno::LOOP => Self::LeadsOut,
            error => Self::Io(error.into()),
        }
    }
}

impl LocalFile {
    /// Finds a file below one of `dirs`, from where no link and no `..` leads
    /// out. Blocks no longer than the file system does.
    ///
    /// # Errors
    /// There is none, or it is no regular file.
    pub fn beneath(dirs: &[PathBuf], path: &Path) -> Result<Self, LocalError> {
        let below = |dir: &PathBuf| {
            let rest = path.strip_prefix(dir).ok()?;
            Some((dir.clone(), rest.to_owned()))
        };
        let mut error = LocalError::NotAllowed;
        for (dir, rest) in dirs.iter().filter_map(below) {
            match find_beneath(&dir, &rest) {
                Ok(place) => return Self::at(path, place),
                Err(why) => error = why,
            }
        }
        Err(error)
    }

    /// Finds a file that is trusted.
    ///
    /// # Errors
    /// There is none, or it is no regular file.
    pub fn anywhere(path: &Path) -> Result<Self, LocalError> {
        let place = open(path, OFlags::PATH | OFlags::CLOEXEC, Mode::empty())?;
        Self::at(path, place)
    }

    fn at(path: &Path, place: OwnedFd) -> Result<Self, LocalError> {
        let found = fstat(&place)?;
        if FileType::from_raw_mode(found.st_mode) != FileType::RegularFile {
            return Err(LocalError::NoFile);
        }
        Ok(Self {
            path: path.to_owned(),
            place: Arc::new(place),
        })
    }

    pub(crate) fn identity(&self) -> String {
        self.path.display().to_string()
    }

    /// The file, from its beginning; its length; and what tells its content
    /// from another.
    pub(crate) async fn open(&self) -> Result<(tokio::fs::File, u64, String), FetchError> {
        let place = Arc::clone(&self.place);
        let opened = tokio::task::spawn_blocking(move || {
            // The way by which a place that was found is opened, whatever its
            // path means by now.
            let file = File::open(format!("/proc/self/fd/{}", place.as_fd().as_raw_fd()))?;
            let found = file.metadata()?;
            Ok::<_, io::Error>((file, found))
        });
        let opened = opened.await.map_err(io::Error::other).flatten();
        let (file, found) = opened.map_err(|error| FetchError::Denied(error.to_string()))?;
        let version = format!(
            "{}:{} {} {}.{}",
            found.dev(),
            found.ino(),
            found.len(),
            found.mtime(),
            found.mtime_nsec()
        );
        Ok((tokio::fs::File::from_std(file), found.len(), version))
    }
}

/// Neither opens it for reading nor looks what it is: that may do something to
/// a device, and wait for ever at a pipe.
fn find_beneath(dir: &Path, rest: &Path) -> Result<OwnedFd, LocalError> {
    let place = OFlags::PATH | OFlags::CLOEXEC;
    let dir = rustix::fs::openat(CWD, dir, place | OFlags::DIRECTORY, Mode::empty())?;
    let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_MAGICLINKS;
    let rest = match rest.as_os_str().is_empty() {
        true => Path::new("."),
        false => rest,
    };
    Ok(openat2(dir, rest, place, Mode::empty(), resolve)?)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn only_regular_files_below_what_is_allowed_are_found() {
        let dir = tempfile::tempdir().unwrap();
        let (inside, outside) = (dir.path().join("in"), dir.path().join("out"));
        for made in [&inside, &outside, &inside.join("sub")] {
            std::fs::create_dir(made).unwrap();
        }
        std::fs::write(inside.join("sub/disk.img"), [7; 10]).unwrap();
        std::fs::write(outside.join("secret"), [8; 10]).unwrap();
        symlink(outside.join("secret"), inside.join("away")).unwrap();
        symlink("../out/secret", inside.join("up")).unwrap();
        symlink(&outside, inside.join("aside")).unwrap();
        symlink("sub/disk.img", inside.join("within")).unwrap();
        symlink("turn", inside.join("turn")).unwrap();
        let fifo = rustix::fs::mknodat(CWD, inside.join("pipe"), FileType::Fifo, Mode::RUSR, 0);
        fifo.unwrap();
        let dirs = [outside.join("none"), inside.clone()];
        let find = |path: &Path| LocalFile::beneath(&dirs, path);
        assert!(find(&inside.join("sub/disk.img")).is_ok());
        assert!(find(&inside.join("within")).is_ok());
        for name in ["away", "up", "aside/secret", "turn", "sub/../../out/secret"] {
            let refused = find(&inside.join(name)).unwrap_err();
            assert!(matches!(refused, LocalError::LeadsOut), "{name}: {refused}");
        }
        for name in ["pipe", "sub", "", "."] {
            let refused = find(&inside.join(name)).unwrap_err();
            assert!(matches!(refused, LocalError::NoFile), "{name}: {refused}");
        }
        for path in [
            outside.join("secret"),
            dir.path().join("inn"),
            "/etc/passwd".into(),
        ] {
            let refused = find(&path).unwrap_err();
            assert!(
                matches!(refused, LocalError::NotAllowed),
                "{path:?}: {refused}"
            );
        }
        let refused = find(&inside.join("none")).unwrap_err();
        assert!(matches!(refused, LocalError::NotFound), "{refused}");
        assert!(LocalFile::beneath(&[], &inside.join("within")).is_err());
    }

    #[tokio::test]
    async fn what_was_found_stays_what_it_is() {
        use tokio::io::AsyncReadExt as _;
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("disk.img");
        std::fs::write(&path, [7; 10]).unwrap();
        let found = LocalFile::beneath(&[dir.path().to_owned()], &path).unwrap();
        std::fs::remove_file(&path).unwrap();
        symlink("/etc/passwd", &path).unwrap();
        let (mut file, total, version) = found.open().await.unwrap();
        let mut bytes = Vec::new();
        file.read_to_end(&mut bytes).await.unwrap();
        assert_eq!((bytes.as_slice(), total), ([7; 10].as_slice(), 10));
        assert_eq!(found.open().await.unwrap().2, version);
    }
}
