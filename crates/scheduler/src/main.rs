//! `vimana-scheduler`: reads its options and serves one server.

use std::io::IsTerminal as _;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Context as _;
use clap::Parser;
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;
use tracing_subscriber::EnvFilter;
use vimana_protocol::dial::{Retry, Server};

/// Decides where pending virtual machines go.
#[derive(Debug, Parser)]
#[command(version)]
struct Args {
    /// Address of the server: http(s)://HOST[:PORT]
    #[arg(long, value_name = "URL", env = "VIMANA_SERVER")]
    server: String,
    /// File with the schedulers' secret
    #[arg(long, value_name = "PATH", env = "VIMANA_SCHEDULER_SECRET_FILE")]
    secret_file: PathBuf,
    /// Trust a server whose certificate comes from this CA (PEM), and no other
    #[arg(long, value_name = "PATH", env = "VIMANA_CA_FILE")]
    ca_file: Option<PathBuf>,
    /// What this scheduler is called in the server's log
    #[arg(long, default_value = "spread", env = "VIMANA_SCHEDULER_NAME")]
    name: String,
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    let args = Args::parse();
    let filter = EnvFilter::try_from_env("VIMANA_LOG").unwrap_or_else(|_| EnvFilter::new("info"));
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_ansi(std::io::stderr().is_terminal())
        .with_writer(std::io::stderr)
        .init();
    match run(&args).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tracing::error!("vimana-scheduler: {error:#}");
            ExitCode::FAILURE
        }
    }
}

async fn run(args: &Args) -> anyhow::Result<()> {
    // Err: some library was quicker, which is as good.
    let _ = rustls::crypto::ring::default_provider().install_default();

    let server = Server::new(&args.server, &args.secret_file, args.ca_file.as_deref())?;
    if server.is_exposed() {
        tracing::warn!("the secret crosses the network in the clear: use https");
    }
    let shutdown = CancellationToken::new();
    stop_on_signals(shutdown.clone())?;
    vimana_scheduler::run(&server, &args.name, Retry::default(), shutdown).await;
    Ok(())
}

fn stop_on_signals(shutdown: CancellationToken) -> anyhow::Result<()> {
    let mut interrupt = signal(SignalKind::interrupt()).context("cannot listen for SIGINT")?;
    let mut terminate = signal(SignalKind::terminate()).context("cannot listen for SIGTERM")?;
    tokio::spawn(async move {
        tokio::select! {
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
        }
        shutdown.cancel();
    });
    Ok(())
}
