//! What can be asked about hosts.

use clap::{Args, Subcommand};
use vimana_model::VmId;

use super::Json;

#[derive(Subcommand)]
pub enum Host {
    /// List them
    List(Json),
    /// Show one host
    Show(HostShown),
    /// What happened to a host, and who did it
    Events(HostShown),
    /// The machines a host holds that are not recorded there
    Orphans(HostShown),
    /// Have such a machine removed, with everything it holds there
    Discard(Discard),
}

#[derive(Args)]
pub struct HostShown {
    #[arg(value_name = "NAME|ID")]
    pub host: String,
    #[command(flatten)]
    pub json: Json,
}

#[derive(Args)]
pub struct Discard {
    #[arg(value_name = "NAME|ID")]
    pub host: String,
    #[arg(value_name = "VM_ID")]
    pub machine: VmId,
    #[command(flatten)]
    pub json: Json,
}
