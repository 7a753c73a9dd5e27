//! The names of the built assets, as `cargo xtask site` wrote them.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde::Deserialize;

/// Path under which the server serves `SITE/assets`.
#[cfg(feature = "ssr")]
pub const ASSETS_PATH: &str = "/assets";

/// Names of the files in `SITE/assets`. Each carries a hash of its content, so
/// each may be cached for ever.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct SiteAssets {
    /// Glue of wasm-bindgen; a module that loads [`Self::wasm`].
    pub js: Arc<str>,
    /// Loads the parts of the wasm that only some pages need; [`Self::js`] and
    /// it import each other.
    pub loader: Arc<str>,
    pub wasm: Arc<str>,
    /// Those parts, by the chunk that the pages name.
    pub chunks: BTreeMap<Arc<str>, Vec<Arc<str>>>,
    pub css: Arc<str>,
    /// Glue around the terminal; a module, loaded on the console alone.
    pub console_js: Arc<str>,
    /// Sends files; a module, loaded with the first one.
    pub upload_js: Arc<str>,
    pub icon: Arc<str>,
}

/// `SITE/manifest.json` cannot be used.
#[derive(Debug)]
pub struct ManifestError(serde_json::Error);

impl std::fmt::Display for ManifestError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("the site's manifest cannot be read; build it with `cargo xtask site`")
    }
}

impl std::error::Error for ManifestError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        Some(&self.0)
    }
}

#[derive(Deserialize)]
struct Manifest {
    entry: SiteAssets,
}

impl SiteAssets {
    /// Reads the text of `SITE/manifest.json`.
    ///
    /// # Errors
    /// When it is no manifest, or lacks a name.
    pub fn from_manifest(text: &str) -> Result<Self, ManifestError> {
        serde_json::from_str::<Manifest>(text)
            .map(|manifest| manifest.entry)
            .map_err(ManifestError)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_manifest_without_a_name_is_refused() {
        assert!(SiteAssets::from_manifest(r#"{"entry":{"js":"a.js"}}"#).is_err());
    }
}
