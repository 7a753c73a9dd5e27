//! `vimana`: the command for people and scripts, through the public REST
//! interface alone.

mod args;
mod console;
mod credentials;
mod failure;
mod flavor;
mod host;
mod image;
mod limits;
mod login;
mod output;
mod terminal;
mod text;
mod vm;
mod wait;

use std::io::Write;
use std::process::ExitCode;

use clap::Parser;

use crate::args::{Cli, Command, List};
use crate::failure::{Failure, Outcome};

fn main() -> ExitCode {
    let cli = Cli::parse();
    let outcome = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| Failure::Failed(format!("cannot start: {error}")))
        .and_then(|runtime| runtime.block_on(run(cli.command)));
    let Err(failure) = outcome else {
        return ExitCode::SUCCESS;
    };
    if let Some(message) = failure.message() {
        // A standard error that is gone changes nothing about the failure.
        let _ = writeln!(std::io::stderr(), "vimana: {}", text::shown_lines(&message));
    }
    failure.exit_code()
}

async fn run(command: Command) -> Outcome {
    match command {
        Command::Login(args) => login::login(args).await,
        Command::Logout => login::logout().await,
        Command::Whoami(json) => login::whoami(json).await,
        Command::Vm(command) => vm::run(command).await,
        Command::Host(List::List(json)) => host::list(json).await,
        Command::Image(List::List(json)) => image::list(json).await,
        Command::Flavor(List::List(json)) => flavor::list(json).await,
    }
}
