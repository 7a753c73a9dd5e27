//! What can be asked, as clap reads it.

mod backup;
mod flavor;
mod host;
mod image;
mod quota;
mod request;
mod template;
mod tenant;
mod vm;
mod volume;

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};
use vimana_client::BaseUrl;

use crate::limits::{DEFAULT_WAIT_SECONDS, MAX_WAIT_SECONDS};

pub use backup::{
    Backup, BackupList, BackupShown, Datastore, DeleteBackup, RemoveSchedule, RestoreBackup,
    Schedule, ScheduleList, SetSchedule, TakeBackup,
};
pub use flavor::{ChangeFlavor, CreateFlavor, DeleteFlavor, Flavor};
pub use host::{Discard, Evacuate, Host, HostShown, JoinToken};
pub use image::{
    DownloadImage, Image, ImageChange, ImageShown, ImageTerms, ImportImage, Purge, RefreshImage,
    RetryImage, UploadImage, WaitImport,
};
pub use quota::{LimitChange, Quota, SetQuota, ShowQuota, Whose};
pub use request::{
    Answer, Approve, AskBack, CreateRequest, Decided, Decision, Reject, Request, RequestList,
    RequestShown, RequestWait, Terms,
};
pub use template::{ChangeTemplate, CreateTemplate, Preset, Template, TemplateShown};
pub use tenant::{CreateTenant, CreateUser, SetKind, Tenant, User};
pub use vm::{
    Cancel, CancelVm, Change, Console, Create, Migrate, Operation, OperationShown, PowerOff,
    Remove, Resize, Shown, Vm, VmList, Wait,
};
pub use volume::{
    AttachVolume, ChangeVolume, CloneVolume, CreateVolume, DeleteSnapshot, DeleteVolume,
    DetachVolume, DownloadVolume, GrowVolume, MoveVolume, Revert, Snapshot, SnapshotList,
    TakeSnapshot, UploadVolume, Volume, VolumeShown, WaitThrough, WhichSnapshot,
};

const AFTER_HELP: &str = "\
First steps:
  vimana login --url http://127.0.0.1:8700 --user admin
  vimana image list
  vimana flavor list
  vimana vm create web-1 --image demo --flavor tiny --wait running
  vimana vm console web-1
  vimana vm --help

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
  --json prints what the REST interface answers; a list, or what is answered
  about several VMs, is printed as an array of items.";

/// Runs virtual machines on a Vimana installation.
#[derive(Parser)]
#[command(name = "vimana", version, after_help = AFTER_HELP, arg_required_else_help = true)]
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
    /// What is being done with VMs
    #[command(subcommand)]
    Operation(Operation),
    /// Asking for VMs where a manager decides
    #[command(subcommand)]
    Request(Request),
    /// The machines that run VMs (for staff)
    #[command(subcommand)]
    Host(Host),
    /// What VMs are made from
    #[command(subcommand)]
    Image(Image),
    /// Disks that outlive the VMs they are attached to
    #[command(subcommand)]
    Volume(Volume),
    /// Points in time of VMs
    #[command(subcommand)]
    Snapshot(Snapshot),
    /// Copies of VMs' disks in a datastore
    #[command(subcommand)]
    Backup(Backup),
    /// Snapshots and backups that are made again and again
    #[command(subcommand)]
    Schedule(Schedule),
    /// Places where images, stopped VMs and backups are kept
    #[command(subcommand)]
    Datastore(Datastore),
    /// Sizes of VMs
    #[command(subcommand)]
    Flavor(Flavor),
    /// Presets to start a VM from
    #[command(subcommand)]
    Template(Template),
    /// Boundaries of isolation (for administrators)
    #[command(subcommand)]
    Tenant(Tenant),
    /// Members of tenants (for administrators)
    #[command(subcommand)]
    User(User),
    /// How much a tenant or a user may have
    #[command(subcommand)]
    Quota(Quota),
}

#[derive(Args)]
pub struct Login {
    /// Address of the server, such as http://127.0.0.1:8700
    #[arg(long, env = "VIMANA_URL")]
    pub url: BaseUrl,
    /// Name of the user
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

/// How long `--wait` lasts at most.
#[derive(Args, Clone, Copy)]
pub struct Timeout {
    /// Longest wait
    #[arg(long, value_name = "SECONDS", requires = "wait", default_value_t = DEFAULT_WAIT_SECONDS)]
    #[arg(value_parser = clap::value_parser!(u64).range(1..=MAX_WAIT_SECONDS))]
    pub timeout: u64,
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_command_line_is_well_formed() {
        Cli::command().debug_assert();
    }

    #[test]
    fn every_word_and_argument_says_what_it_is() {
        let mut mute = Vec::new();
        look_for_mute("vimana", &Cli::command(), &mut mute);
        assert_eq!(mute, Vec::<String>::new());
    }

    fn look_for_mute(path: &str, command: &clap::Command, mute: &mut Vec<String>) {
        if command.get_about().is_none() {
            mute.push(path.to_owned());
        }
        for argument in command.get_arguments() {
            if argument.get_help().is_none() && argument.get_long_help().is_none() {
                mute.push(format!("{path} {}", argument.get_id()));
            }
        }
        for below in command.get_subcommands() {
            look_for_mute(&format!("{path} {}", below.get_name()), below, mute);
        }
    }
}
