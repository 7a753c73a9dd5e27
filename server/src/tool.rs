//! What the binary does for an operator beside a server that runs.

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context, bail};
use clap::{Args, CommandFactory, Parser};
use vimana_engine::{World, issue_join_token};
use vimana_model::host::{CreateJoinToken, JoinTokenView};
use vimana_model::name::HostName;
use vimana_store::Store;

use crate::data_dir::Layout;
use crate::fsck::{FsckArgs, fsck};
use crate::secret::read_authority;

/// Tools of the manager of a Vimana installation.
#[derive(Debug, Parser)]
#[command(name = "vimana-server", version)]
pub enum Tool {
    /// Let a new host join: prints a token that its agent takes from a file
    JoinToken(JoinTokenArgs),
    /// Recompute the rules that always hold and name every breach. Reads only;
    /// safe beside a server that runs
    Fsck(FsckArgs),
}

#[derive(Args, Debug)]
pub struct JoinTokenArgs {
    #[command(flatten)]
    pub place: Place,
    /// The name the host must have [default: any]
    #[arg(long)]
    pub name: Option<HostName>,
    /// How long the token is good for [default: an hour]
    #[arg(long, value_name = "SECONDS")]
    pub ttl: Option<u64>,
}

/// Which installation is meant.
#[derive(Args, Debug)]
pub struct Place {
    /// Data directory of the server
    #[arg(long, env = "VIMANA_DATA_DIR", value_name = "DIR")]
    pub data_dir: PathBuf,
    /// Database of the server [default: SQLite in the data directory]
    #[arg(
        long,
        env = "VIMANA_DATABASE_URL",
        hide_env_values = true,
        value_name = "URL"
    )]
    pub database_url: Option<String>,
}

impl Tool {
    /// The tool that the command line names, if it names one; without, the
    /// command line is the server's.
    #[must_use]
    pub fn asked() -> Option<Self> {
        let first = std::env::args_os().nth(1)?;
        let command = Self::command();
        let named = command
            .get_subcommands()
            .any(|tool| first == tool.get_name());
        named.then(Self::parse)
    }

    /// # Errors
    /// With a sentence for the operator.
    pub async fn run(self) -> anyhow::Result<ExitCode> {
        match self {
            Self::JoinToken(args) => {
                // The token alone, so that it can go to a file as it is.
                println!("{}", join_token(&args).await?.token);
                Ok(ExitCode::SUCCESS)
            }
            Self::Fsck(args) => fsck(&args).await,
        }
    }
}

/// A permission for one host to join, by the word of who has the server's data.
///
/// # Errors
/// There is no server's data, or the database cannot be written.
pub async fn join_token(args: &JoinTokenArgs) -> anyhow::Result<JoinTokenView> {
    let layout = Layout::of(&args.place.data_dir)?;
    let Some(authority) = read_authority(&layout.secrets())? else {
        bail!(
            "no server has been started on {} yet",
            layout.path().display()
        );
    };
    let url = args.place.database_url.clone();
    let store = Store::open_beside(&url.unwrap_or_else(|| layout.database_url()))
        .await
        .context("cannot open the database")?;
    let form = CreateJoinToken {
        host_name: args.name.clone().map(String::from),
        ttl_seconds: args.ttl,
    };
    let print = authority.fingerprint();
    let token = issue_join_token(&store, &World::system(), print, "the operator", &form).await;
    // What is acknowledged is in the database, however this ends.
    if let Err(error) = store.close().await {
        tracing::debug!(%error, "the database was not closed");
    }
    Ok(token?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_options_are_well_formed() {
        Tool::command().debug_assert();
    }
}
