//! `vimana`: the command for people and scripts, through the public REST
//! interface alone.

mod args;
mod backup;
mod console;
mod credentials;
mod failure;
mod flavor;
mod host;
mod image;
mod input;
mod limits;
mod login;
mod operation;
mod output;
mod quota;
mod request;
mod schedule;
mod snapshot;
mod template;
mod tenant;
mod terminal;
mod text;
mod user;
mod vm;
mod volume;
mod wait;

use std::process::ExitCode;

use clap::Parser;

use crate::args::{Cli, Command};
use crate::failure::{Failure, Outcome};

fn main() -> ExitCode {
    let Cli { command } = Cli::parse();
    let signs_in = matches!(command, Command::Login(_));
    let outcome = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| Failure::Failed(format!("cannot start: {error}")))
        .and_then(|runtime| runtime.block_on(run(command)));
    let failure = match outcome {
        Ok(()) => return ExitCode::SUCCESS,
        Err(failure) if signs_in => failure,
        Err(failure) => credentials::explained(failure),
    };
    failure.tell();
    failure.exit_code()
}

async fn run(command: Command) -> Outcome {
    match command {
        Command::Login(args) => login::login(args).await,
        Command::Logout => login::logout().await,
        Command::Whoami(json) => login::whoami(json).await,
        Command::Vm(command) => vm::run(command).await,
        Command::Operation(command) => operation::run(command).await,
        Command::Request(command) => request::run(command).await,
        Command::Host(command) => host::run(command).await,
        Command::Image(command) => image::run(command).await,
        Command::Volume(command) => volume::run(command).await,
        Command::Snapshot(command) => snapshot::run(command).await,
        Command::Backup(command) => backup::run(command).await,
        Command::Schedule(command) => schedule::run(command).await,
        Command::Datastore(command) => schedule::datastores(command).await,
        Command::Flavor(command) => flavor::run(command).await,
        Command::Template(command) => template::run(command).await,
        Command::Tenant(command) => tenant::run(command).await,
        Command::User(command) => user::run(command).await,
        Command::Quota(command) => quota::run(command).await,
    }
}
