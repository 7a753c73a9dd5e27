//! Repository tasks: `cargo xtask site`, `cargo xtask check`.

mod check;
mod site;

use anyhow::{Result, bail};

const USAGE: &str = "\
usage: cargo xtask site [--release | --dev] [--out DIR]
       cargo xtask check

site   builds what the browser loads, into $VIMANA_CACHE/site
check  holds the crates to the directions of dependency";

fn main() -> Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match arguments.split_first() {
        Some((task, rest)) if task == "site" => site::build(&site::Options::parse(rest)?),
        Some((task, [])) if task == "check" => check::run(),
        _ => bail!("{USAGE}"),
    }
}
