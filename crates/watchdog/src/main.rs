//! `vimana-watchdog`: stops a host's machines when nobody vouches for them.

use std::io::{self, Write as _};
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use rustix::fs::Mode;
use rustix::mm::{MlockAllFlags, mlockall};
use rustix::process::{setpriority_process, setsid, umask};
use vimana_watchdog::{Guard, READY, limits};

const USAGE: &str = "usage: vimana-watchdog --data-dir PATH [--linger-ms N]

Stops the machines of a Vimana host when the lease that its agent was granted
is over. The agent starts it; nobody else has to.

  --data-dir PATH  the data directory of the host's agent
  --linger-ms N    end after this time with nothing to guard and no agent
  --version        print the version";

struct Args {
    data_dir: PathBuf,
    linger: Duration,
}

enum Asked {
    Serve(Args),
    Print(String),
}

fn main() -> ExitCode {
    let args = match parse(std::env::args_os().skip(1)) {
        Ok(Asked::Serve(args)) => args,
        Ok(Asked::Print(text)) => {
            println!("{text}");
            return ExitCode::SUCCESS;
        }
        Err(text) => {
            eprintln!("vimana-watchdog: {text}\n{USAGE}");
            return ExitCode::from(2);
        }
    };
    stand_apart();
    let guard = match Guard::open(&args.data_dir, args.linger) {
        Ok(guard) => guard,
        Err(error) => {
            // Whoever starts it reads the line.
            say(&error.to_string());
            return ExitCode::FAILURE;
        }
    };
    hold_fast();
    say(READY);
    guard.run();
    ExitCode::SUCCESS
}

fn parse(mut args: impl Iterator<Item = std::ffi::OsString>) -> Result<Asked, String> {
    let (mut data_dir, mut linger) = (None, limits::LINGER);
    while let Some(arg) = args.next() {
        let arg = arg.to_string_lossy().into_owned();
        let mut value = || args.next().ok_or(format!("{arg} needs a value"));
        match arg.as_str() {
            "--data-dir" => data_dir = Some(PathBuf::from(value()?)),
            "--linger-ms" => {
                let ms = value()?.to_string_lossy().parse();
                linger = Duration::from_millis(ms.map_err(|_| format!("{arg} needs a number"))?);
            }
            "--help" | "-h" => return Ok(Asked::Print(USAGE.to_owned())),
            "--version" | "-V" => {
                let text = concat!("vimana-watchdog ", env!("CARGO_PKG_VERSION"));
                return Ok(Asked::Print(text.to_owned()));
            }
            _ => return Err(format!("unknown option {arg}")),
        }
    }
    let data_dir = data_dir.ok_or("--data-dir is missing")?;
    Ok(Asked::Serve(Args { data_dir, linger }))
}

/// What ends the agent and its group does not end the watchdog, and nobody
/// else looks into its files.
fn stand_apart() {
    // Err: it is the first of a group already.
    let _ = setsid();
    umask(Mode::XUSR | Mode::RWXG | Mode::RWXO);
}

/// A host in trouble must not take its watchdog first. All of it needs rights
/// that an agent may not have; it works without.
fn hold_fast() {
    // What there is by now, and not what comes: beyond a limit on locked
    // memory that would make the next allocation fail.
    let _ = mlockall(MlockAllFlags::CURRENT);
    let _ = setpriority_process(None, -10);
    let _ = std::fs::write("/proc/self/oom_score_adj", "-1000");
}

fn say(line: &str) {
    // Err: nobody listens.
    let _ = writeln!(io::stdout(), "{line}");
}
