//! `vimana-convert`: confines itself, then becomes `qemu-img convert`.

use std::fs::File;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

use anyhow::{Context as _, Result, bail};
use clap::{Parser, ValueEnum};
use serde_json::{Value, json};
use vimana_convert::{Bounds, confine};

/// Turns an image into a qcow2 one, without access to anything but the two files.
#[derive(Parser)]
#[command(version)]
struct Args {
    /// What the input is
    #[arg(long)]
    format: Format,
    /// The image; its header must have been checked. Of qcow2 files each lies
    /// over the next one, whatever their headers say
    #[arg(required = true)]
    input: Vec<PathBuf>,
    /// Where the qcow2 image goes; a new file
    #[arg(long)]
    output: PathBuf,
    /// Largest output in bytes
    #[arg(long)]
    max_bytes: u64,
    /// Most processor time in seconds
    #[arg(long, default_value_t = 3600)]
    max_cpu_seconds: u64,
}

#[derive(Clone, Copy, ValueEnum)]
enum Format {
    Vmdk,
    Vdi,
    Vhdx,
    Qcow2,
}

/// The tool maps files and starts threads: most of it is never touched.
const MAX_MEMORY_BYTES: u64 = 2 << 30;

fn main() -> ExitCode {
    let Err(error) = become_tool(&Args::parse());
    eprintln!("vimana-convert: {error:#}");
    ExitCode::from(2)
}

fn become_tool(args: &Args) -> Result<std::convert::Infallible> {
    let format = match args.format {
        Format::Vmdk => "vmdk",
        Format::Vdi => "vdi",
        Format::Vhdx => "vhdx",
        Format::Qcow2 => "qcow2",
    };
    File::create_new(&args.output).context("the output cannot be made")?;
    let input = args.input.iter().map(|input| input.canonicalize());
    let input: Vec<PathBuf> = input
        .collect::<Result<_, _>>()
        .context("the input is not there")?;
    let node = match args.format {
        Format::Qcow2 => chain(&input)?,
        Format::Vmdk | Format::Vdi | Format::Vhdx => alone(&input, format)?,
    };
    let output = args
        .output
        .canonicalize()
        .context("the output is not there")?;
    confine(&Bounds {
        input: &input,
        output: &output,
        max_output_bytes: args.max_bytes,
        max_memory_bytes: MAX_MEMORY_BYTES,
        max_cpu_seconds: args.max_cpu_seconds,
    })?;
    // As JSON, which no text can be taken for. A canonical path begins with a
    // slash: it is no option and names no protocol.
    let error = Command::new("/usr/bin/qemu-img")
        .env_clear()
        .args(["convert", "-O", "qcow2", "--"])
        .arg(format!("json:{node}"))
        .arg(&output)
        .exec();
    Err(error).context("qemu-img cannot be started")
}

/// One file, which lies over nothing.
fn alone(input: &[PathBuf], format: &str) -> Result<Value> {
    let [file] = input else {
        bail!("only qcow2 files lie over others");
    };
    Ok(json!({"driver": format, "file": file_node(file)?}))
}

fn chain(input: &[PathBuf]) -> Result<Value> {
    let mut node = Value::Null;
    for file in input.iter().rev() {
        node = json!({"driver": "qcow2", "file": file_node(file)?, "backing": node});
    }
    Ok(node)
}

fn file_node(file: &Path) -> Result<Value> {
    let name = file.to_str().context("the input's name is no text")?;
    Ok(json!({"driver": "file", "filename": name}))
}
