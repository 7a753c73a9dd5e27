//! The browser's half: compiled, bound to JavaScript, made small.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail, ensure};
use serde::Deserialize;
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

pub struct Browser {
    pub js: String,
    /// Modules that crates bring along: what `js` imports each as, and its text.
    pub modules: BTreeMap<String, String>,
    pub wasm: Vec<u8>,
}

pub fn build(options: &Options, modules: &Path) -> Result<Browser> {
    let compiled = compile(options)?;
    let raw = fs::read(&compiled).with_context(|| format!("cannot read {}", compiled.display()))?;
    // Binding and optimizing take seconds; the same input gives the same output.
    let work = options.cache.join("site-work").join(digest(&raw));
    let (js, brought, wasm) = (
        work.join("app.js"),
        work.join("modules.json"),
        work.join("app.wasm"),
    );
    if !wasm.exists() {
        fs::create_dir_all(&work)?;
        let bound = bind(raw, options.mode)?;
        write(&js, bound.js.as_bytes())?;
        write(&brought, &serde_json::to_vec(&bound.modules)?)?;
        match options.mode {
            Mode::Release => optimize(&bound.wasm, &work, &wasm, modules)?,
            Mode::Dev => write(&wasm, &bound.wasm)?,
        }
    }
    Ok(Browser {
        js: super::read_text(&js)?,
        modules: serde_json::from_slice(&fs::read(&brought)?)?,
        wasm: fs::read(&wasm)?,
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
        .args(["build", "--locked", "--package", "vimana-frontend", "--lib"])
        .args(["--target", TARGET, "--profile", profile])
        .arg("--message-format=json-render-diagnostics")
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
        modules,
        wasm: output.wasm_mut().emit_wasm(),
    })
}

/// Binaryen's optimizer, from npm: the one of Debian 12 is years older.
fn optimize(wasm: &[u8], work: &Path, out: &Path, modules: &Path) -> Result<()> {
    let input = work.join("bound.wasm");
    let part = work.join("optimized.wasm");
    write(&input, wasm)?;
    let status = Command::new("node")
        .arg(modules.join("binaryen/bin/wasm-opt"))
        .arg("-Oz")
        .args(FEATURES)
        .arg(&input)
        .arg("-o")
        .arg(&part)
        .status()
        .context("node is missing: install it (Debian: apt-get install nodejs)")?;
    ensure!(status.success(), "wasm-opt failed");
    fs::remove_file(&input)?;
    fs::rename(&part, out)?;
    Ok(())
}
