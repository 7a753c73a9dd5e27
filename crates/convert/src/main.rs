//! `vimana-convert`: confines itself, then becomes `qemu-img convert`.

use std::fs::File;
use std::os::unix::process::CommandExt as _;
use std::path::PathBuf;
use std::process::{Command, ExitCode};

use anyhow::{Context as _, Result};
use clap::{Parser, ValueEnum};
use vimana_convert::{Bounds, confine};

/// Turns an image into a qcow2 one, without access to anything but the two files.
#[derive(Parser)]
#[command(version)]
struct Args {
    /// What the input is
    #[arg(long)]
    format: Format,
    /// The image; its header must have been checked
    input: PathBuf,
    /// Where the qcow2 image goes; a new file
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
    };
    File::create_new(&args.output).context("the output cannot be made")?;
    let input = args
        .input
        .canonicalize()
        .context("the input is not there")?;
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
    // Canonical paths begin with a slash: none is an option or names a protocol.
    let error = Command::new("/usr/bin/qemu-img")
        .env_clear()
        .args(["convert", "-f", format, "-O", "qcow2", "--"])
        .arg(&input)
        .arg(&output)
        .exec();
    Err(error).context("qemu-img cannot be started")
}
