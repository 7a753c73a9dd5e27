//! The browser's half: compiled, split into what every page needs and what only
//! some do, bound to JavaScript, made small.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, anyhow, bail, ensure};
use serde::{Deserialize, Serialize};
use wasm_bindgen_cli_support::Bindgen;

use super::assets::{digest, write};
use super::{Mode, Options};

const TARGET: &str = "wasm32-unknown-unknown";

/// What rustc emits and every browser of the last years takes.
const FEATURES: [&str; 6] = [
    "--enable-bulk-memory",
    "--enable-nontrapping-float-to-int",
    "--enable-sign-ext",
    "--enable-mutable-globals",
    "--enable-reference-types",
    "--enable-multivalue",
];

/// How the modules that are made here call each other; [`super`] gives them the
/// names they are served under.
pub const APP_JS: &str = "./app.js";
pub const LOADER_JS: &str = "./loader.js";

#[derive(Serialize, Deserialize)]
pub struct Browser {
    pub js: String,
    /// Loads the parts; it and `js` import each other.
    pub loader: String,
    /// Modules that crates bring along: what `js` imports each as, and its text.
    pub modules: BTreeMap<String, String>,
    /// Which parts the pages of a chunk need, by the chunk's name.
    pub chunks: BTreeMap<String, Vec<String>>,
    #[serde(skip)]
    pub wasm: Vec<u8>,
    /// What is loaded later, by the name of the part: `loader` fetches each as
    /// [`part_path`].
    #[serde(skip)]
    pub parts: BTreeMap<String, Vec<u8>>,
}

/// What the loader calls a part.
pub fn part_path(part: &str) -> String {
    format!("./{part}.wasm")
}

pub fn build(options: &Options, modules: &Path) -> Result<Browser> {
    let compiled = compile(options)?;
    let raw = fs::read(&compiled).with_context(|| format!("cannot read {}", compiled.display()))?;
    // Splitting, binding and optimizing take seconds; the same input gives the
    // same output.
    let work = options.cache.join("site-work").join(digest(&raw));
    let (done, main) = (work.join("browser.json"), work.join("app.wasm"));
    if !done.exists() {
        fs::create_dir_all(&work)?;
        let Split { main: wasm, chunks } = split(&raw, &work)?;
        let mut bound = bind(wasm, options.mode)?;
        bound.chunks = chunks;
        bound.loader = super::read_text(&work.join(LOADER_JS))?;
        write(&main, &bound.wasm)?;
        if options.mode == Mode::Release {
            optimize(&main, modules)?;
            for part in parts(&bound.chunks) {
                optimize(&work.join(part_path(part)), modules)?;
            }
        }
        write(&done, &serde_json::to_vec(&bound)?)?;
    }
    let mut browser: Browser = serde_json::from_slice(&fs::read(&done)?)?;
    browser.wasm = fs::read(&main)?;
    for part in parts(&browser.chunks) {
        let wasm = fs::read(work.join(part_path(part)))?;
        browser.parts.insert(part.to_owned(), wasm);
    }
    Ok(browser)
}

/// Each part once.
fn parts(chunks: &BTreeMap<String, Vec<String>>) -> BTreeSet<&str> {
    chunks.values().flatten().map(String::as_str).collect()
}

struct Split {
    main: Vec<u8>,
    chunks: BTreeMap<String, Vec<String>>,
}

/// Takes out what is reached through the lazy pages alone; the parts and their
/// loader are in `work` then.
fn split(raw: &[u8], work: &Path) -> Result<Split> {
    let main = work.join("main.wasm");
    let mut options = wasm_split_cli_support::Options::new(raw);
    options.output_dir = work;
    options.main_out_path = &main;
    options.link_name = LOADER_JS;
    options.main_module = APP_JS;
    let split = wasm_split_cli_support::transform(options);
    let split = split.map_err(|error| anyhow!("the wasm cannot be split: {error:?}"))?;
    let wasm = fs::read(&main)?;
    fs::remove_file(&main)?;
    Ok(Split {
        main: wasm,
        chunks: split.prefetch_map.into_iter().collect(),
    })
}

#[derive(Deserialize)]
struct Message {
    reason: String,
    #[serde(default)]
    filenames: Vec<PathBuf>,
}

/// Runs cargo and gives the wasm file.
fn compile(options: &Options) -> Result<PathBuf> {
    let profile = match options.mode {
        Mode::Release => "wasm",
        Mode::Dev => "dev",
    };
    let mut cargo = cargo(&options.cache)?;
    cargo
        .args(["rustc", "--locked", "--package", "vimana-frontend", "--lib"])
        .args(["--target", TARGET, "--profile", profile])
        .args(["--crate-type", "cdylib"])
        .arg("--message-format=json-render-diagnostics")
        // Where a function is mentioned: the split goes by it.
        .args(["--", "-Clink-arg=--emit-relocs"])
        .current_dir(super::root()?)
        .stdin(Stdio::null())
        .stderr(Stdio::inherit());
    let output = cargo.output().context("cannot start cargo")?;
    ensure!(
        output.status.success(),
        "the browser's half does not compile"
    );
    String::from_utf8_lossy(&output.stdout)
        .lines()
        .filter_map(|line| serde_json::from_str::<Message>(line).ok())
        .filter(|message| message.reason == "compiler-artifact")
        .flat_map(|message| message.filenames)
        .find(|file| {
            file.file_name()
                .is_some_and(|name| name == "vimana_frontend.wasm")
        })
        .context("cargo names no wasm file")
}

/// Cargo of the pinned toolchain; or Debian's newer one where set-up found that
/// the pinned one has no wasm target (see `tools/setup.sh`).
fn cargo(cache: &Path) -> Result<Command> {
    let toolchain = fs::read_to_string(cache.join("wasm-toolchain")).unwrap_or_default();
    match toolchain.trim() {
        "" | "rustup" => Ok(Command::new(
            std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()),
        )),
        "debian-web" => {
            let mut cargo = Command::new("rustup");
            cargo
                .args(["run", "debian-web", "cargo"])
                .env_remove("CARGO")
                .env_remove("RUSTC")
                .env("RUSTUP_TOOLCHAIN", "debian-web")
                .env("RUSTC_BOOTSTRAP", "1")
                .env("CARGO_UNSTABLE_BUILD_STD", "std,panic_abort")
                .env("PATH", path_with_linker()?);
            Ok(cargo)
        }
        other => bail!("no such wasm toolchain: {other}"),
    }
}

/// `PATH` with the `rust-lld` of the pinned toolchain, which Debian's lacks.
fn path_with_linker() -> Result<std::ffi::OsString> {
    let rustc = std::env::var_os("RUSTC").unwrap_or_else(|| "rustc".into());
    let output = Command::new(rustc)
        .args(["--print", "target-libdir"])
        .output()
        .context("cannot start rustc")?;
    let libdir = PathBuf::from(String::from_utf8(output.stdout)?.trim());
    let tools = libdir
        .parent()
        .context("rustc names no target-libdir")?
        .join("bin");
    let path = std::env::var_os("PATH").unwrap_or_default();
    Ok(std::env::join_paths(
        std::iter::once(tools).chain(std::env::split_paths(&path)),
    )?)
}

/// wasm-bindgen, as the library of the very version the code is built with.
fn bind(raw: Vec<u8>, mode: Mode) -> Result<Browser> {
    let release = mode == Mode::Release;
    let mut output = Bindgen::new()
        .input_bytes("app", raw)
        .web(true)?
        .typescript(false)
        .omit_default_module_path(true)
        // The parts use its memory, table and stack.
        .keep_lld_exports(true)
        .keep_debug(!release)
        .remove_name_section(release)
        .remove_producers_section(release)
        .generate_output()?;
    let inline = output.snippets().iter().flat_map(|(crate_name, texts)| {
        let named = texts.iter().enumerate();
        named.map(move |(n, text)| {
            (
                format!("./snippets/{crate_name}/inline{n}.js"),
                text.clone(),
            )
        })
    });
    let files = output.local_modules().iter();
    let files = files.map(|(path, text)| (format!("./snippets/{path}"), text.clone()));
    let modules = inline.chain(files).collect();
    Ok(Browser {
        js: output.js().to_owned(),
        loader: String::new(),
        modules,
        chunks: BTreeMap::new(),
        wasm: output.wasm_mut().emit_wasm(),
        parts: BTreeMap::new(),
    })
}

/// Binaryen's optimizer, from npm: the one of Debian 12 is years older.
fn optimize(wasm: &Path, modules: &Path) -> Result<()> {
    let optimized = wasm.with_extension("optimized");
    let status = Command::new("node")
        .arg(modules.join("binaryen/bin/wasm-opt"))
        .arg("-Oz")
        .args(FEATURES)
        .arg(wasm)
        .arg("-o")
        .arg(&optimized)
        .status()
        .context("node is missing: install it (Debian: apt-get install nodejs)")?;
    ensure!(status.success(), "wasm-opt failed");
    fs::rename(&optimized, wasm)?;
    Ok(())
}
