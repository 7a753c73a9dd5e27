//! What can be asked, as clap reads it.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};
use vimana_client::BaseUrl;
use vimana_model::VmState;

use crate::limits::{DEFAULT_LINGER_SECONDS, DEFAULT_WAIT_SECONDS, MAX_WAIT_SECONDS};

const ABOUT_ACCESS: &str = "\
Access:
  `vimana login` stores a token in credentials.json under $VIMANA_CONFIG_DIR,
  else $XDG_CONFIG_HOME/vimana, else ~/.config/vimana. Where VIMANA_URL and
  VIMANA_TOKEN are both set, they are used instead (and VIMANA_CA_FILE for
  certificate authorities to trust beside the system's).

Exit status:
  0  what was asked, and waited for, happened
  1  it was refused or failed
  2  it was asked in a way that makes no sense

JSON:
  --json prints what the REST interface answers; a list is printed as its
  array of items.";

/// Runs virtual machines on a Vimana installation.
#[derive(Parser)]
#[command(name = "vimana", version, after_help = ABOUT_ACCESS, arg_required_else_help = true)]
pub struct Cli {
    #[command(subcommand)]
    pub command: Command,
}

#[derive(Subcommand)]
pub enum Command {
    /// Sign in and store a token
    Login(Login),
    /// End the stored token and forget it
    Logout,
    /// Show who is signed in
    Whoami(Json),
    /// Virtual machines
    #[command(subcommand)]
    Vm(Vm),
    /// The machines that run VMs (for staff)
    #[command(subcommand)]
    Host(List),
    /// What a VM can boot from
    #[command(subcommand)]
    Image(List),
    /// Sizes of VMs
    #[command(subcommand)]
    Flavor(List),
}

#[derive(Args)]
pub struct Login {
    /// Address of the server, such as http://127.0.0.1:8700
    #[arg(long, env = "VIMANA_URL")]
    pub url: BaseUrl,
    #[arg(long, value_name = "NAME")]
    pub user: String,
    /// Read the password from standard input instead of asking for it
    #[arg(long)]
    pub password_stdin: bool,
    /// PEM file with certificate authorities to trust beside the system's
    #[arg(long, env = "VIMANA_CA_FILE", value_name = "FILE")]
    pub ca_file: Option<PathBuf>,
}

#[derive(Args, Clone, Copy)]
pub struct Json {
    /// Print JSON
    #[arg(long)]
    pub json: bool,
}

#[derive(Subcommand)]
pub enum List {
    /// List them
    List(Json),
}

#[derive(Subcommand)]
pub enum Vm {
    /// Ask for a VM
    Create(Create),
    /// List the VMs that are not done, newest first
    List(VmList),
    /// Show one VM
    Show(Shown),
    /// Keep a pending VM from being placed
    Hold(Change),
    /// Let a held VM be placed
    Release(Change),
    /// Ask the guest to switch itself off, then give everything back
    Shutdown(Change),
    /// Stop at once and give everything back
    Delete(Change),
    /// Open the serial console; Ctrl-] leaves it
    Console(Console),
    /// What happened to a VM, and who did it
    Timeline(Shown),
}

#[derive(Args)]
pub struct Create {
    pub name: String,
    #[arg(long)]
    pub image: String,
    #[arg(long)]
    pub flavor: String,
    /// File with one public SSH key for the guest
    #[arg(long, value_name = "FILE")]
    pub ssh_key_file: Option<PathBuf>,
    /// File with cloud-init user-data for the guest
    #[arg(long, value_name = "FILE")]
    pub user_data_file: Option<PathBuf>,
    /// Keep it from being placed until it is released
    #[arg(long)]
    pub hold: bool,
    #[command(flatten)]
    pub wait: Wait,
    #[command(flatten)]
    pub json: Json,
}

#[derive(Args)]
pub struct VmList {
    /// Also those that are done
    #[arg(long, conflicts_with = "state")]
    pub all: bool,
    /// Only those in this state; may be repeated
    #[arg(long, value_parser = state)]
    pub state: Vec<VmState>,
    #[command(flatten)]
    pub json: Json,
}

#[derive(Args)]
pub struct Shown {
    #[command(flatten)]
    pub which: Which,
    #[command(flatten)]
    pub json: Json,
}

#[derive(Args)]
pub struct Change {
    #[command(flatten)]
    pub which: Which,
    #[command(flatten)]
    pub wait: Wait,
    #[command(flatten)]
    pub json: Json,
}

#[derive(Args)]
pub struct Console {
    #[command(flatten)]
    pub which: Which,
    /// With piped input: leave when the input has ended and the guest has
    /// been silent for this long
    #[arg(long, value_name = "SECONDS", default_value_t = DEFAULT_LINGER_SECONDS)]
    #[arg(value_parser = clap::value_parser!(u64).range(0..=MAX_WAIT_SECONDS))]
    pub linger: u64,
}

#[derive(Args)]
pub struct Which {
    /// A name means the VM that is not done, else the newest that is
    #[arg(value_name = "NAME|ID")]
    pub vm: String,
}

#[derive(Args, Clone, Copy)]
pub struct Wait {
    /// Return when the VM has reached this state; fails as soon as it no
    /// longer can
    #[arg(long, value_name = "STATE", value_parser = state)]
    pub wait: Option<VmState>,
    /// Longest wait
    #[arg(long, value_name = "SECONDS", requires = "wait", default_value_t = DEFAULT_WAIT_SECONDS)]
    #[arg(value_parser = clap::value_parser!(u64).range(1..=MAX_WAIT_SECONDS))]
    pub timeout: u64,
}

fn state(text: &str) -> Result<VmState, String> {
    VmState::ALL
        .into_iter()
        .find(|state| {
            text.eq_ignore_ascii_case(state.slug()) || text.eq_ignore_ascii_case(state.name())
        })
        .ok_or_else(|| {
            let slugs: Vec<&str> = VmState::ALL.iter().map(|state| state.slug()).collect();
            format!("no such state; the states are {}", slugs.join(", "))
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_well_formed() {
        use clap::CommandFactory;
        Cli::command().debug_assert();
    }

    #[test]
    fn states_are_read_in_either_spelling() {
        assert_eq!(state("running"), Ok(VmState::Running));
        assert_eq!(state("PoweredOff"), Ok(VmState::PoweredOff));
        assert_eq!(state("powered_off"), Ok(VmState::PoweredOff));
        assert!(state("gone").is_err());
    }
}
