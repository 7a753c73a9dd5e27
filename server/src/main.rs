//! The binary around the library.

use std::io::{self, IsTerminal, Write};
use std::process::ExitCode;
use std::time::Duration;

use anyhow::Context;
use clap::Parser;
use rustix::fs::Mode;
use rustix::process::umask;
use tokio::signal::unix::{SignalKind, signal};
use tracing_subscriber::EnvFilter;
use vimana_server::config::AdminPassword;
use vimana_server::{Config, Running, Tool, open_files};

fn main() -> ExitCode {
    let outcome = match Tool::asked() {
        Some(tool) => {
            log_to_stderr("warn");
            on_runtime(tool.run())
        }
        None => {
            let mut config = Config::parse();
            config.admin_password = AdminPassword::from_environment();
            log_to_stderr("info,sqlx=warn,sea_orm=warn,tower_sessions=off");
            // What is made is nobody else's, wherever it is.
            umask(Mode::RWXG | Mode::RWXO);
            if let Err(error) = open_files::raise_limit() {
                tracing::warn!(%error, "the limit of open files cannot be raised");
            }
            on_runtime(async { serve_until_signal(config).await.map(|()| ExitCode::SUCCESS) })
        }
    };
    match outcome {
        Ok(code) => code,
        Err(error) => {
            eprintln!("vimana-server: {error:#}");
            // Not 1: that is what a tool answers that has looked.
            ExitCode::from(2)
        }
    }
}

fn on_runtime(work: impl Future<Output = anyhow::Result<ExitCode>>) -> anyhow::Result<ExitCode> {
    // Fails only when one is installed already.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .context("cannot start the runtime")?;
    let outcome = runtime.block_on(work);
    // A password hash in flight must not hold up the end.
    runtime.shutdown_timeout(Duration::from_millis(100));
    outcome
}

async fn serve_until_signal(config: Config) -> anyhow::Result<()> {
    let mut terminate = signal(SignalKind::terminate()).context("cannot catch signals")?;
    let mut interrupt = signal(SignalKind::interrupt()).context("cannot catch signals")?;
    let running = vimana_server::start(config).await?;
    announce(&running).context("cannot write to standard output")?;
    tokio::select! {
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
        () = running.failed() => {}
    }
    running.stop().await
}

fn announce(running: &Running) -> io::Result<()> {
    let mut out = io::stdout().lock();
    if let Some(password) = running.admin_password() {
        writeln!(out, "Administrator password for user admin: {password}")?;
    }
    writeln!(out, "Vimana listens on {}", running.url())?;
    writeln!(out, "Agents connect to {}", running.agent_url())?;
    out.flush()
}

fn log_to_stderr(usual: &str) {
    let filter = EnvFilter::try_from_env("VIMANA_LOG").unwrap_or_else(|_| EnvFilter::new(usual));
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(io::stderr)
        .with_ansi(io::stderr().is_terminal())
        .init();
}
