//! What can be asked of VMs and their operations.

use std::path::PathBuf;

use clap::{Args, Subcommand};
use vimana_model::migration::MigrationMode;
use vimana_model::unit::MiB;
use vimana_model::vm::ResizeVm;
use vimana_model::{OperationId, VmState};

use super::{Json, Preset, Timeout};
use crate::limits::{DEFAULT_LINGER_SECONDS, MAX_WAIT_SECONDS};

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
    /// Save the memory on the host; vCPUs and memory are given back
    Suspend(Change),
    /// Save memory and disk to the datastore; the host is given back
    Stop(Change),
    /// Let a suspended or stopped VM run on from where it was
    Resume(Change),
    /// Switch the guest off; its disk stays
    #[command(name = "poweroff")]
    PowerOff(PowerOff),
    /// Switch a powered-off VM on
    Start(Change),
    /// Ask the guest to restart
    Reboot(Change),
    /// Restart at once, as by the reset button
    Reset(Change),
    /// Change vCPUs, memory and disk
    Resize(Resize),
    /// Bring it to another host, or its disks to another datastore (for
    /// administrators)
    Migrate(Migrate),
    /// Try again what failed
    Retry(Change),
    /// Ask the guest to switch itself off, then remove the VM and its disk
    Shutdown(Remove),
    /// Stop at once, and remove the VM and its disk
    Delete(Remove),
    /// Have what is under way taken back
    Cancel(CancelVm),
    /// Open the serial console; Ctrl-] leaves it
    Console(Console),
    /// What happened to a VM, and who did it
    Timeline(Shown),
}

#[derive(Args)]
pub struct Create {
    /// Name of the VM and of its guest
    pub name: String,
    #[command(flatten)]
    pub preset: Preset,
    /// File with public SSH keys for the guest, a line each
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
    /// Names or ids; a name means the VM that is not done, else the newest
    /// that is
    #[arg(value_name = "NAME|ID", required = true)]
    pub vms: Vec<String>,
    #[command(flatten)]
    pub wait: Wait,
    #[command(flatten)]
    pub json: Json,
}

#[derive(Args)]
pub struct Remove {
    /// Do not ask; without a terminal nobody is asked
    #[arg(long, short)]
    pub yes: bool,
    #[command(flatten)]
    pub change: Change,
}

#[derive(Args)]
pub struct PowerOff {
    /// At once, as by pulling the plug
    #[arg(long)]
    pub force: bool,
    #[command(flatten)]
    pub change: Change,
}

#[derive(Args)]
pub struct Resize {
    #[command(flatten)]
    pub size: Size,
    #[command(flatten)]
    pub change: Change,
}

#[derive(Args)]
pub struct Migrate {
    /// Name of the host that it is to go to
    #[arg(long, value_name = "HOST", required_unless_present = "datastore")]
    pub to: Option<String>,
    /// Name of the datastore that its disks are to go to: of the host that it is to
    /// go to, or else of its own, where it stays and runs on
    #[arg(long, value_name = "DATASTORE")]
    pub datastore: Option<String>,
    /// live: it runs on meanwhile; cold: it does not run; storage: its disks
    /// alone. Without it, what suits its state
    #[arg(long)]
    pub mode: Option<MigrationMode>,
    /// How long the guest may stand still at the end, in milliseconds
    #[arg(long, value_name = "MS")]
    pub max_downtime: Option<u64>,
    /// How fast it may be copied, in MiB a second
    #[arg(long, value_name = "MIB/S")]
    pub bandwidth: Option<u64>,
    /// Let it run there before all of its memory has come: for one that changes its
    /// memory faster than it is copied. There is no way back from then on, and where
    /// a host fails meanwhile, what was in its memory is lost
    #[arg(long, requires = "to")]
    pub post_copy: bool,
    #[command(flatten)]
    pub change: Change,
}

/// A flavor, or amounts; what is not said stays as it is.
#[derive(Args)]
#[group(required = true, multiple = true)]
pub struct Size {
    /// To the size of this flavor
    #[arg(long, conflicts_with_all = ["vcpus", "memory_mib", "disk_mib"])]
    pub flavor: Option<String>,
    /// Number of virtual processors
    #[arg(long, value_name = "N")]
    pub vcpus: Option<u32>,
    /// Memory in MiB
    #[arg(long, value_name = "N")]
    pub memory_mib: Option<u64>,
    /// Disk in MiB; a disk never shrinks
    #[arg(long, value_name = "N")]
    pub disk_mib: Option<u64>,
}

impl From<Size> for ResizeVm {
    fn from(size: Size) -> Self {
        let Size {
            flavor,
            vcpus,
            memory_mib,
            disk_mib,
        } = size;
        Self {
            flavor,
            vcpus,
            memory_mib: memory_mib.map(MiB),
            disk_mib: disk_mib.map(MiB),
        }
    }
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
    /// Return when what was asked is through or, with a state, when the VM has
    /// reached it; fails as soon as that can no longer be. The states: pending,
    /// hold, prolog, boot, running, migrate, suspended, stopped, powered_off,
    /// shutdown, epilog, done, unknown, failed
    #[arg(long, value_name = "STATE", num_args = 0..=1, value_parser = wanted)]
    pub wait: Option<Option<VmState>>,
    #[command(flatten)]
    pub timeout: Timeout,
}

#[derive(Subcommand)]
pub enum Operation {
    /// List the operations of a VM, newest first
    List(Shown),
    /// Show one operation
    Show(OperationShown),
    /// Have what it did taken back
    Cancel(CancelOperation),
}

#[derive(Args)]
pub struct OperationShown {
    /// As `vimana operation list` shows it
    pub id: OperationId,
    #[command(flatten)]
    pub json: Json,
}

#[derive(Args)]
pub struct CancelOperation {
    /// As `vimana operation list` shows it
    pub id: OperationId,
    #[command(flatten)]
    pub cancel: Cancel,
}

#[derive(Args)]
pub struct CancelVm {
    #[command(flatten)]
    pub which: Which,
    #[command(flatten)]
    pub cancel: Cancel,
}

/// What comes with every cancelling.
#[derive(Args, Clone, Copy)]
pub struct Cancel {
    /// Return when all is taken back
    #[arg(long)]
    pub wait: bool,
    #[command(flatten)]
    pub timeout: Timeout,
    #[command(flatten)]
    pub json: Json,
}

/// As people write it: `powered_off`, `powered-off`, `PoweredOff`, `powered off`.
fn state(text: &str) -> Result<VmState, String> {
    let plain = |text: &str| text.replace(['-', '_', ' '], "").to_ascii_lowercase();
    let wanted = plain(text);
    VmState::ALL
        .into_iter()
        .find(|state| plain(state.slug()) == wanted)
        .ok_or_else(|| {
            let slugs: Vec<&str> = VmState::ALL.iter().map(|state| state.slug()).collect();
            format!("no such state; the states are {}", slugs.join(", "))
        })
}

/// What stands behind `--wait` is taken for a state.
fn wanted(text: &str) -> Result<VmState, String> {
    state(text).map_err(|error| format!("{error}; names stand before --wait"))
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::super::{Cli, Command};
    use super::*;

    fn read(line: &str) -> Result<Vm, String> {
        match Cli::try_parse_from(line.split(' ')) {
            Ok(Cli {
                command: Command::Vm(vm),
            }) => Ok(vm),
            Ok(_) => panic!("not about VMs"),
            Err(error) => Err(error.to_string()),
        }
    }

    #[test]
    fn states_are_read_in_either_spelling() {
        assert_eq!(state("running"), Ok(VmState::Running));
        assert_eq!(state("PoweredOff"), Ok(VmState::PoweredOff));
        assert_eq!(state("powered_off"), Ok(VmState::PoweredOff));
        assert!(state("gone").is_err());
    }

    #[test]
    fn the_help_names_every_state() {
        use clap::CommandFactory;
        let mut cli = Cli::command();
        let vm = cli.find_subcommand_mut("vm").unwrap();
        let suspend = vm.find_subcommand_mut("suspend").unwrap();
        let help = suspend.render_long_help().to_string();
        let words: Vec<&str> = help.split([' ', ',', '.', '\n']).collect();
        for state in VmState::ALL {
            assert!(words.contains(&state.slug()), "{state}");
        }
    }

    #[test]
    fn waiting_is_for_the_end_or_for_a_state() {
        let wait = |line: &str| match read(line) {
            Ok(Vm::Suspend(change)) => (change.vms, change.wait.wait),
            Ok(_) => panic!("not suspend"),
            Err(error) => panic!("{error}"),
        };
        let names = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect();
        assert_eq!(wait("vimana vm suspend a"), (names(&["a"]), None));
        assert_eq!(
            wait("vimana vm suspend a b --wait"),
            (names(&["a", "b"]), Some(None))
        );
        assert_eq!(
            wait("vimana vm suspend a --wait suspended"),
            (names(&["a"]), Some(Some(VmState::Suspended)))
        );
        let Err(error) = read("vimana vm suspend --wait a") else {
            panic!("accepted");
        };
        assert!(error.contains("names stand before --wait"), "{error}");
    }

    #[test]
    fn a_size_is_a_flavor_or_amounts_and_never_nothing() {
        assert!(read("vimana vm resize a --flavor small").is_ok());
        assert!(read("vimana vm resize a --vcpus 2 --memory-mib 512").is_ok());
        assert!(read("vimana vm resize a").is_err());
        assert!(read("vimana vm resize a --flavor small --vcpus 2").is_err());
        assert!(read("vimana vm resize --flavor small").is_err());
    }
}
