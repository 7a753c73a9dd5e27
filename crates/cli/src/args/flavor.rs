//! What can be asked about sizes.

use clap::{Args, Subcommand};
use vimana_model::name::FlavorName;

use super::Json;

#[derive(Subcommand)]
pub enum Flavor {
    /// List them
    List(Json),
    /// Make a flavor (for administrators)
    Create(CreateFlavor),
    /// Give a flavor another size; VMs keep theirs (for administrators)
    Change(ChangeFlavor),
    /// Retire a flavor; VMs keep its name and their size (for administrators)
    Delete(DeleteFlavor),
}

#[derive(Args)]
pub struct CreateFlavor {
    /// Name of the flavor
    pub name: String,
    /// Virtual CPUs
    #[arg(long)]
    pub vcpus: u32,
    /// Memory in MiB
    #[arg(long, value_name = "MIB")]
    pub memory: u64,
    /// Disk in MiB
    #[arg(long, value_name = "MIB")]
    pub disk: u64,
    #[command(flatten)]
    pub json: Json,
}

#[derive(Args)]
#[group(id = "size", required = true, multiple = true, args = ["vcpus", "memory", "disk"])]
pub struct ChangeFlavor {
    /// Name of the flavor
    pub name: FlavorName,
    /// Virtual CPUs
    #[arg(long)]
    pub vcpus: Option<u32>,
    /// Memory in MiB
    #[arg(long, value_name = "MIB")]
    pub memory: Option<u64>,
    /// Disk in MiB
    #[arg(long, value_name = "MIB")]
    pub disk: Option<u64>,
    #[command(flatten)]
    pub json: Json,
}

#[derive(Args)]
pub struct DeleteFlavor {
    /// Name of the flavor
    pub name: FlavorName,
    #[command(flatten)]
    pub json: Json,
}
