//! What can be asked about requests of the manual life-cycle.

use std::path::PathBuf;

use clap::{Args, Subcommand};
use vimana_model::request::RequestState;

use super::{Json, Preset, Timeout};

#[derive(Subcommand)]
pub enum Request {
    /// Ask for a VM that a manager decides about
    Create(CreateRequest),
    /// List requests, newest first
    List(RequestList),
    /// Show one request and what was said about it
    Show(RequestShown),
    /// What happened to a request, and who did it
    Events(RequestShown),
    /// Let the VM be made, perhaps with changes
    Approve(Approve),
    /// Say no, with a reason
    Reject(Reject),
    /// Ask the requester something
    AskBack(AskBack),
    /// Answer a manager's question, perhaps with changes
    Answer(Answer),
    /// Take an undecided request back
    Withdraw(Decided),
    /// Say that the VM is no longer needed
    Release(Decided),
    /// Give the VM and everything it holds back
    ConfirmRelease(Decided),
    /// Let a VM whose release was asked for run on
    Keep(Decided),
}

#[derive(Args)]
pub struct CreateRequest {
    /// Name of the VM and of its guest
    pub name: String,
    #[command(flatten)]
    pub preset: Preset,
    /// What it is for
    #[arg(long, value_name = "TEXT")]
    pub purpose: String,
    /// File with public SSH keys for the guest, a line each
    #[arg(long, value_name = "FILE")]
    pub ssh_key_file: Option<PathBuf>,
    /// File with cloud-init user-data for the guest
    #[arg(long, value_name = "FILE")]
    pub user_data_file: Option<PathBuf>,
    #[command(flatten)]
    pub wait: RequestWait,
    #[command(flatten)]
    pub json: Json,
}

#[derive(Args)]
pub struct RequestList {
    /// Only those in this state; may be repeated
    #[arg(long)]
    pub state: Vec<RequestState>,
    /// Only one's own
    #[arg(long)]
    pub mine: bool,
    #[command(flatten)]
    pub json: Json,
}

#[derive(Args)]
pub struct RequestShown {
    /// A name means the request that is not over, else the newest that is
    #[arg(value_name = "NAME|ID")]
    pub request: String,
    #[command(flatten)]
    pub json: Json,
}

/// What comes with every decision.
#[derive(Args)]
pub struct Decision {
    /// A name means the request that is not over, else the newest that is
    #[arg(value_name = "NAME|ID")]
    pub request: String,
    #[command(flatten)]
    pub wait: RequestWait,
    #[command(flatten)]
    pub json: Json,
}

#[derive(Args)]
pub struct Decided {
    #[command(flatten)]
    pub decision: Decision,
    /// Said with it; everyone who sees the request reads it
    #[arg(long, value_name = "TEXT")]
    pub remark: Option<String>,
}

#[derive(Args)]
pub struct Approve {
    #[command(flatten)]
    pub decision: Decision,
    #[command(flatten)]
    pub terms: Terms,
    /// Said with it; everyone who sees the request reads it
    #[arg(long, value_name = "TEXT")]
    pub remark: Option<String>,
}

#[derive(Args)]
pub struct Reject {
    #[command(flatten)]
    pub decision: Decision,
    /// Why not
    #[arg(long, value_name = "TEXT")]
    pub reason: String,
}

#[derive(Args)]
pub struct AskBack {
    #[command(flatten)]
    pub decision: Decision,
    /// What is to be known
    #[arg(long, value_name = "TEXT")]
    pub question: String,
}

#[derive(Args)]
pub struct Answer {
    #[command(flatten)]
    pub decision: Decision,
    #[command(flatten)]
    pub terms: Terms,
    /// The answer
    #[arg(long, value_name = "TEXT")]
    pub text: String,
}

/// Other terms than those asked for.
#[derive(Args, Default)]
pub struct Terms {
    /// Another name for the VM
    #[arg(long, value_name = "NAME")]
    pub vm_name: Option<String>,
    /// Another image
    #[arg(long, value_name = "IMAGE")]
    pub image: Option<String>,
    /// Another flavor
    #[arg(long, value_name = "FLAVOR")]
    pub flavor: Option<String>,
}

impl Terms {
    /// Whether anything is to be different.
    pub const fn any(&self) -> bool {
        self.vm_name.is_some() || self.image.is_some() || self.flavor.is_some()
    }
}

#[derive(Args, Clone, Copy)]
pub struct RequestWait {
    /// Return when the request has reached this state; fails as soon as it no
    /// longer can
    #[arg(long, value_name = "STATE")]
    pub wait: Option<RequestState>,
    #[command(flatten)]
    pub timeout: Timeout,
}
