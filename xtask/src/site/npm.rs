//! What comes from npm, pinned by `app/js/package-lock.json`, kept in the
//! cache.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};

use super::assets::digest;

/// Installs the locked packages once per lock file; gives `node_modules`.
pub fn install(root: &Path, cache: &Path) -> Result<PathBuf> {
    let js = root.join("app/js");
    let lock = std::fs::read(js.join("package-lock.json")).context("app/js/package-lock.json")?;
    let dir = cache.join("site-npm").join(digest(&lock));
    let modules = dir.join("node_modules");
    let done = dir.join("installed");
    if done.exists() {
        return Ok(modules);
    }
    std::fs::create_dir_all(&dir)?;
    for name in ["package.json", "package-lock.json", ".npmrc"] {
        std::fs::copy(js.join(name), dir.join(name)).with_context(|| format!("app/js/{name}"))?;
    }
    println!("site: npm ci (terminal, wasm optimizer)");
    let status = Command::new("npm")
        .args(["ci", "--prefer-offline", "--loglevel=error", "--cache"])
        .arg(cache.join("npm"))
        .current_dir(&dir)
        .status()
        .context("npm is missing: install it (Debian: apt-get install npm)")?;
    ensure!(status.success(), "npm ci failed in {}", dir.display());
    std::fs::write(done, "")?;
    Ok(modules)
}

pub fn read(modules: &Path, name: &str) -> Result<Vec<u8>> {
    let path = modules.join(name);
    let bytes = std::fs::read(&path).with_context(|| format!("cannot read {}", path.display()))?;
    // The maps stay behind; without this line nobody asks for them.
    match String::from_utf8(bytes) {
        Ok(text) => {
            let kept = text
                .lines()
                .filter(|line| !line.starts_with("//# sourceMappingURL="));
            Ok(kept.collect::<Vec<_>>().join("\n").into_bytes())
        }
        Err(error) => Ok(error.into_bytes()),
    }
}
