//! Files with their hash in their name, compressed beforehand.

use std::collections::BTreeMap;
use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use anyhow::{Context, Result};
use serde::Serialize;
use sha2::{Digest as _, Sha256};

use super::Mode;

/// How long a file of an earlier build stays, for the tabs that are open.
const KEEP: Duration = Duration::from_secs(24 * 60 * 60);

/// What the server and the shell ask for by role.
#[derive(Serialize)]
pub struct Entry {
    pub js: String,
    /// Loads the parts of the wasm that only some pages need.
    pub loader: String,
    pub wasm: String,
    /// Those parts, by what the pages call them together.
    pub chunks: BTreeMap<String, Vec<String>>,
    pub css: String,
    pub console_js: String,
    pub upload_js: String,
    pub icon: String,
}

#[derive(Serialize)]
struct Sizes {
    bytes: u64,
    brotli: u64,
    gzip: u64,
}

#[derive(Serialize)]
struct Manifest {
    entry: Entry,
    files: BTreeMap<String, Sizes>,
}

pub struct Site {
    out: PathBuf,
    mode: Mode,
    files: BTreeMap<String, Sizes>,
}

/// The first 16 hexadecimal digits of the SHA-256.
pub fn digest(bytes: &[u8]) -> String {
    Sha256::digest(bytes)
        .iter()
        .take(8)
        .map(|byte| format!("{byte:02x}"))
        .collect()
}

impl Site {
    pub fn new(out: &Path, mode: Mode) -> Result<Self> {
        fs::create_dir_all(out.join("assets"))
            .with_context(|| format!("cannot make {}", out.display()))?;
        Ok(Self {
            out: out.to_owned(),
            mode,
            files: BTreeMap::new(),
        })
    }

    /// Adds a file and gives the name it is served under.
    pub fn add(&mut self, name: &str, bytes: &[u8]) -> Result<String> {
        let (stem, extension) = name.rsplit_once('.').context("an asset has an extension")?;
        // Served by extension: `.js` is a script to everyone.
        let extension = if extension == "mjs" { "js" } else { extension };
        let name = format!("{stem}.{}.{extension}", digest(bytes));
        self.add_as(&name, bytes)?;
        Ok(name)
    }

    /// Adds a file under a name that is another whenever its content is.
    pub fn add_as(&mut self, name: &str, bytes: &[u8]) -> Result<()> {
        let path = self.out.join("assets").join(name);
        let (br, gz) = (beside(&path, "br"), beside(&path, "gz"));
        if !path.exists() {
            write(&br, &brotli(bytes, self.mode)?)?;
            write(&gz, &gzip(bytes, self.mode)?)?;
            // Last: where it is, its compressed forms are.
            write(&path, bytes)?;
        }
        let size = |path: &Path| fs::metadata(path).map(|data| data.len());
        let sizes = Sizes {
            bytes: size(&path)?,
            brotli: size(&br)?,
            gzip: size(&gz)?,
        };
        self.files.insert(name.to_owned(), sizes);
        Ok(())
    }

    /// Writes the manifest, prints the sizes, removes what is long out of use.
    pub fn finish(self, entry: Entry) -> Result<()> {
        for (name, sizes) in &self.files {
            let Sizes {
                bytes,
                brotli,
                gzip,
            } = sizes;
            println!("{name:<32} {bytes:>9} B {gzip:>9} gzip {brotli:>9} brotli");
        }
        self.sweep()?;
        let manifest = Manifest {
            entry,
            files: self.files,
        };
        write(
            &self.out.join("manifest.json"),
            serde_json::to_string_pretty(&manifest)?.as_bytes(),
        )
    }

    fn sweep(&self) -> Result<()> {
        for file in fs::read_dir(self.out.join("assets"))? {
            let file = file?;
            let name = file.file_name();
            let name = name.to_string_lossy();
            let plain = name.trim_end_matches(".br").trim_end_matches(".gz");
            let age = file
                .metadata()?
                .modified()
                .map(|at| SystemTime::now().duration_since(at));
            let old = matches!(age, Ok(Ok(age)) if age > KEEP);
            if old && !self.files.contains_key(plain) {
                fs::remove_file(file.path())?;
            }
        }
        Ok(())
    }
}

fn beside(path: &Path, extension: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(".");
    name.push(extension);
    name.into()
}

/// Whole or not at all.
pub fn write(path: &Path, bytes: &[u8]) -> Result<()> {
    let part = beside(path, "part");
    fs::write(&part, bytes)
        .and_then(|()| fs::rename(&part, path))
        .with_context(|| format!("cannot write {}", path.display()))
}

fn brotli(bytes: &[u8], mode: Mode) -> Result<Vec<u8>> {
    let quality = if mode == Mode::Release { 11 } else { 4 };
    let mut out = Vec::new();
    brotli::CompressorWriter::new(&mut out, 1 << 16, quality, 22).write_all(bytes)?;
    Ok(out)
}

fn gzip(bytes: &[u8], mode: Mode) -> Result<Vec<u8>> {
    let level = if mode == Mode::Release { 9 } else { 3 };
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::new(level));
    encoder.write_all(bytes)?;
    Ok(encoder.finish()?)
}
