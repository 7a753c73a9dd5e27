//! What the browser loads: wasm, its glue, styles, terminal; each under a name
//! with its hash, compressed beforehand, and all named in a manifest.
//!
//! ```text
//! SITE/manifest.json   { "entry": { "js", "loader", "wasm", "css", "console_js", "upload_js", "icon",
//!                                   "chunks": { CHUNK: [NAME, …] } },
//!                        "files": { NAME: { "bytes", "brotli", "gzip" } } }
//! SITE/assets/NAME     and NAME.br, NAME.gz
//! ```

mod assets;
mod css;
mod npm;
mod wasm;

use std::collections::BTreeMap;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::time::Instant;

use anyhow::{Context, Result, bail};

use assets::{Entry, Site};

/// How much care to take.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// As small as it gets.
    Release,
    /// As quick to build as it gets.
    Dev,
}

pub struct Options {
    mode: Mode,
    cache: PathBuf,
    out: PathBuf,
}

impl Options {
    pub fn parse(arguments: &[String]) -> Result<Self> {
        let cache = cache_dir()?;
        let mut options = Self {
            mode: Mode::Release,
            out: cache.join("site"),
            cache,
        };
        let mut arguments = arguments.iter();
        while let Some(argument) = arguments.next() {
            match argument.as_str() {
                "--release" => options.mode = Mode::Release,
                "--dev" => options.mode = Mode::Dev,
                "--out" => {
                    options.out = arguments.next().context("--out wants a directory")?.into();
                }
                other => bail!("no such option: {other}"),
            }
        }
        Ok(options)
    }
}

fn cache_dir() -> Result<PathBuf> {
    let set = |name: &str| {
        std::env::var_os(name)
            .filter(|value| !value.is_empty())
            .map(PathBuf::from)
    };
    set("VIMANA_CACHE")
        .or_else(|| set("XDG_CACHE_HOME").map(|dir| dir.join("vimana")))
        .or_else(|| set("HOME").map(|dir| dir.join(".cache/vimana")))
        .context("neither VIMANA_CACHE, XDG_CACHE_HOME nor HOME is set")
}

/// The repository's root, as cargo says when it runs us; several checkouts
/// share one build directory, so that what was true at build time is not now.
fn root() -> Result<PathBuf> {
    let ours = std::env::var_os("CARGO_MANIFEST_DIR").context("run this as `cargo xtask`")?;
    let root = Path::new(&ours).parent().map(Path::to_owned);
    root.context("xtask is at the top of the repository")
}

pub fn build(options: &Options) -> Result<()> {
    let started = Instant::now();
    let root = &root()?;
    // Held until the end: two builds must not write the same files.
    let _alone = lock(&options.cache)?;
    let modules = npm::install(root, &options.cache)?;
    let browser = wasm::build(options, &modules)?;
    let styles = css::collect(&root.join("style"))?;

    let mut site = Site::new(&options.out, options.mode)?;
    let xterm = site.add(
        "xterm.mjs",
        &npm::read(&modules, "@xterm/xterm/lib/xterm.mjs")?,
    )?;
    let fit = site.add(
        "fit.mjs",
        &npm::read(&modules, "@xterm/addon-fit/lib/addon-fit.mjs")?,
    )?;
    let xterm_css = site.add(
        "xterm.css",
        &npm::read(&modules, "@xterm/xterm/css/xterm.css")?,
    )?;
    let console = read_text(&root.join("app/js/console.js"))?
        .replace(
            "\"@xterm/xterm/css/xterm.css\"",
            &format!("\"./{xterm_css}\""),
        )
        .replace("\"@xterm/xterm\"", &format!("\"./{xterm}\""))
        .replace("\"@xterm/addon-fit\"", &format!("\"./{fit}\""));
    let served = serve(&mut site, browser)?;
    let entry = Entry {
        js: served.js,
        loader: served.loader,
        wasm: served.wasm,
        chunks: served.chunks,
        css: site.add("app.css", styles.as_bytes())?,
        console_js: site.add("console.js", console.as_bytes())?,
        upload_js: site.add(
            "upload.js",
            read_text(&root.join("app/js/upload.js"))?.as_bytes(),
        )?,
        icon: site.add(
            "icon.svg",
            read_text(&root.join("style/icon.svg"))?.as_bytes(),
        )?,
    };
    site.finish(entry)?;
    println!(
        "site: {} in {:.1} s",
        options.out.display(),
        started.elapsed().as_secs_f32()
    );
    Ok(())
}

/// The names that the browser's half is served under.
struct Served {
    js: String,
    loader: String,
    wasm: String,
    chunks: BTreeMap<String, Vec<String>>,
}

fn serve(site: &mut Site, browser: wasm::Browser) -> Result<Served> {
    let (mut js, mut loader) = (browser.js, browser.loader);
    for (import, text) in browser.modules {
        let name = site.add("module.js", text.as_bytes())?;
        js = js.replace(&import, &format!("./{name}"));
    }
    let mut names = BTreeMap::new();
    for (part, wasm) in browser.parts {
        let stem = part.strip_prefix("split_").unwrap_or("shared");
        let name = site.add(&format!("{stem}.wasm"), &wasm)?;
        loader = loader.replace(&wasm::part_path(&part), &format!("./{name}"));
        names.insert(part, name);
    }
    let named = |parts: Vec<String>| {
        let names = parts.iter().filter_map(|part| names.get(part).cloned());
        names.collect::<Vec<_>>()
    };
    let chunks = browser.chunks.into_iter();
    let chunks = chunks.map(|(chunk, parts)| (chunk, named(parts)));
    // They import each other: neither's own hash can be in the other's text.
    let both = assets::digest([js.as_bytes(), loader.as_bytes()].concat().as_slice());
    let (js_name, loader_name) = (format!("app.{both}.js"), format!("loader.{both}.js"));
    // Where they import; the wasm goes on asking for what they had been called.
    let import = |text: &str, from: &str, name: &str| {
        text.replace(&format!("from \"{from}\""), &format!("from \"./{name}\""))
    };
    let js = import(&js, wasm::LOADER_JS, &loader_name);
    let loader = import(&loader, wasm::APP_JS, &js_name);
    site.add_as(&js_name, js.as_bytes())?;
    site.add_as(&loader_name, loader.as_bytes())?;
    Ok(Served {
        chunks: chunks.collect(),
        wasm: site.add("app.wasm", &browser.wasm)?,
        js: js_name,
        loader: loader_name,
    })
}

fn lock(cache: &Path) -> Result<File> {
    std::fs::create_dir_all(cache)?;
    let file = File::create(cache.join("site.lock"))?;
    if file.try_lock().is_err() {
        println!("site: waiting for another build of it");
        file.lock()?;
    }
    Ok(file)
}

fn read_text(path: &Path) -> Result<String> {
    std::fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))
}
