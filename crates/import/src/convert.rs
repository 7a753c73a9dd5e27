//! Other hypervisors' images become qcow2 ones, in a process that sees nothing
//! but the two files.

use std::fs::File;
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};
use std::process::Stdio;

use sha2::{Digest as _, Sha256};
use tokio::process::Command;
use tokio::task::spawn_blocking;
use tokio::time::timeout;
use vimana_format::{Content, check};

use crate::checksum::hex;
use crate::limits::{CONVERT_TIMEOUT, MAX_COMPLAINT_CHARS, PIECE_BYTES};
use crate::{Bounds, Checksum, ImportError, Staged, Staging};

/// What the converter calls it; none for what needs, or finds, no conversion.
pub const fn format(content: Content) -> Option<&'static str> {
    match content {
        Content::Vmdk => Some("vmdk"),
        Content::Vdi => Some("vdi"),
        Content::Vhdx => Some("vhdx"),
        Content::Qcow2
        | Content::Vhd
        | Content::Qed
        | Content::Luks
        | Content::Gzip
        | Content::Xz
        | Content::Zstd
        | Content::Archive
        | Content::Page
        | Content::Raw => None,
    }
}

/// Turns `staged`, which is of that format, into a qcow2 image beside it.
pub async fn convert(
    converter: &Path,
    format: &str,
    staged: Staged,
    staging: &Staging,
    bounds: Bounds,
) -> Result<Staged, ImportError> {
    let input = std::slice::from_ref(&staged.path);
    let path = run(converter, format, input, staging, bounds).await?;
    let staged = Staged {
        path,
        content: Content::Qcow2,
        ..staged
    };
    let measured = spawn_blocking(move || measured(staged)).await;
    measured.map_err(ImportError::panicked)?
}

/// Makes one qcow2 image of files that each lie over the next one, whatever
/// their headers say.
///
/// # Errors
/// They cannot be read, or the image is not acceptable.
pub async fn merge(
    converter: &Path,
    chain: &[PathBuf],
    staging: &Staging,
    bounds: Bounds,
) -> Result<Staged, ImportError> {
    let _lock = staging.lock().await?;
    let path = run(converter, "qcow2", chain, staging, bounds).await?;
    let staged = Staged {
        path,
        content: Content::Qcow2,
        size_bytes: 0,
        virtual_bytes: 0,
        sha256: String::new(),
        fetched_bytes: 0,
        fetched_checksum: Checksum::Sha256([0; 32]),
        version: None,
    };
    let measured = spawn_blocking(move || measured(staged)).await;
    let staged = measured.map_err(ImportError::panicked)??;
    if staged.virtual_bytes > bounds.max_virtual_bytes {
        return Err(ImportError::TooLarge(bounds.max_virtual_bytes));
    }
    let fetched_checksum = staged.sha256.parse().map_err(|_| ImportError::Defect)?;
    Ok(Staged {
        fetched_bytes: staged.size_bytes,
        fetched_checksum,
        ..staged
    })
}

/// Has the converter make an image of `chain`: where that is.
async fn run(
    converter: &Path,
    format: &str,
    chain: &[PathBuf],
    staging: &Staging,
    bounds: Bounds,
) -> Result<PathBuf, ImportError> {
    let output = staging.converted();
    match tokio::fs::remove_file(&output).await {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error.into()),
        _ => {}
    }
    let ran = Command::new(converter)
        .args(["--format", format, "--max-bytes"])
        .arg(bounds.max_bytes.to_string())
        .arg("--output")
        .arg(&output)
        .args(chain)
        .env_clear()
        .stdin(Stdio::null())
        .kill_on_drop(true)
        .output();
    let ran = timeout(CONVERT_TIMEOUT, ran).await;
    let ran = ran.map_err(|_| ImportError::Converted("it took too long".to_owned()))??;
    if !ran.status.success() {
        let said = String::from_utf8_lossy(&ran.stderr);
        tracing::warn!(status = %ran.status, %said, "an image was not converted");
        return Err(ImportError::Converted(complaint(&said, staging)));
    }
    Ok(output)
}

/// The file's own figures in place of its source's.
fn measured(staged: Staged) -> Result<Staged, ImportError> {
    let mut file = File::open(&staged.path)?;
    let header = check(staged.content, &file)?;
    if header.virtual_bytes < staged.virtual_bytes {
        let what = "less came out than was in it".to_owned();
        return Err(ImportError::Converted(what));
    }
    let (mut hasher, mut bytes) = (Sha256::new(), 0_u64);
    let mut buffer = vec![0; PIECE_BYTES];
    loop {
        let count = file.read(&mut buffer)?;
        let Some(piece) = buffer.get(..count).filter(|piece| !piece.is_empty()) else {
            break;
        };
        hasher.update(piece);
        bytes = bytes.saturating_add(count as u64);
    }
    file.sync_all()?;
    Ok(Staged {
        size_bytes: bytes,
        virtual_bytes: header.virtual_bytes,
        sha256: hex(&hasher.finalize()),
        ..staged
    })
}

/// What the tool said last, without our directories in it.
fn complaint(said: &str, staging: &Staging) -> String {
    let last = said.lines().last().unwrap_or_default();
    let dir = staging.dir().join("");
    let bare = last.replace(&*dir.to_string_lossy(), "");
    let bare: String = bare.chars().filter(|char| !char.is_control()).collect();
    bare.chars().take(MAX_COMPLAINT_CHARS).collect()
}
