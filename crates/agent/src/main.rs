//! `vimana-agent`: reads its options, opens the driver and serves one server.

mod args;
mod hypervisor;

use std::io::IsTerminal as _;
use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::Context as _;
use clap::Parser as _;
use rustix::fs::Mode;
use rustix::process::umask;
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;
use tracing_subscriber::EnvFilter;
use vimana_agent::limits::LOCK_TIMEOUT;
use vimana_agent::{
    Agent, Config, DataDir, Enrolment, Parts, Timing, Watchdog, datastore, watchdog,
};
use vimana_protocol::dial::Random;

use args::{Args, Command, Driver, ServeArgs, StopArgs};

#[tokio::main]
async fn main() -> ExitCode {
    let args = Args::parse();
    // What is made is nobody else's, wherever it is.
    umask(Mode::RWXG | Mode::RWXO);
    let filter = EnvFilter::try_from_env("VIMANA_LOG").unwrap_or_else(|_| EnvFilter::new("info"));
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_ansi(std::io::stderr().is_terminal())
        .with_writer(std::io::stderr)
        .init();
    match run(&args).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tracing::error!("vimana-agent: {error:#}");
            ExitCode::FAILURE
        }
    }
}

async fn run(args: &Args) -> anyhow::Result<()> {
    let shutdown = CancellationToken::new();
    stop_on_signals(shutdown.clone())?;
    match &args.command {
        None => serve(&args.serve, shutdown).await,
        Some(Command::StopMachines(args)) => {
            let stopped = shutdown.run_until_cancelled(stop_machines(args)).await;
            stopped.context("interrupted")?
        }
    }
}

async fn serve(args: &ServeArgs, shutdown: CancellationToken) -> anyhow::Result<()> {
    // Err: some library was quicker, which is as good.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let Some(agent) = shutdown.run_until_cancelled(start(args)).await else {
        // An orderly end, too: what an earlier agent left armed is disarmed,
        // unless the directory is another's.
        if let Ok(data_dir) = DataDir::open(args.data_dir()?) {
            let disarmed = watchdog::disarm(data_dir.path()).await;
            disarmed.context("the watchdog cannot be disarmed")?;
        }
        return Ok(());
    };
    agent?.run(shutdown).await?;
    Ok(())
}

async fn stop_machines(args: &StopArgs) -> anyhow::Result<()> {
    let data_dir = DataDir::open(&args.data_dir)?;
    let driver = hypervisor::open_to_stop(data_dir.path(), args.qemu.as_deref()).await?;
    let grace = Duration::from_secs(args.grace);
    let stopped = vimana_agent::stop_machines(&driver, grace).await?;
    // After the machines: until then it may still be needed.
    let ended = watchdog::end_watchdog(data_dir.path()).await;
    ended.context("the watchdog does not end")?;
    println!("{stopped} machines stopped in {}", args.data_dir.display());
    Ok(())
}

/// Everything up to the first word with the server.
async fn start(args: &ServeArgs) -> anyhow::Result<Agent> {
    let terms = args.join_terms()?;
    let name = terms.name.clone();
    let data_dir = DataDir::open_after_another(args.data_dir()?, LOCK_TIMEOUT)?;
    let enrolment = Enrolment::open(&data_dir, terms)?;
    let capacity = args.capacity(data_dir.path())?;
    let datastores = datastore::open(&args.datastore)?;
    let driver = hypervisor::open(args, data_dir.host_id(), data_dir.path(), &enrolment).await?;
    let watchdog = guard(args, data_dir.path()).await;
    let can = driver.capabilities();
    tracing::info!(
        %name,
        zone = %args.zone,
        hypervisor = can.hypervisor,
        accelerator = %can.accelerator,
        note = can.accelerator_note,
        vcpus = capacity.vcpus,
        memory = %capacity.memory_mib,
        disk = %capacity.disk_mib,
        "this host"
    );
    let config = Config {
        name,
        zone: args.zone.clone(),
        capacity,
        datastores,
        timing: Timing::default(),
        random: Random::from_system(),
    };
    let image_cache = args.image_cache();
    let mut parts = Parts::of_host(config, enrolment.server(), data_dir, driver, image_cache)?;
    parts.enrol(enrolment);
    Ok(Agent::new(parts).guarded_by(watchdog))
}

/// Somebody who stops the machines when a lease is over. Without it the host
/// serves as well, but cannot be fenced.
async fn guard(args: &ServeArgs, data_dir: &Path) -> Watchdog {
    match args.driver {
        Driver::Qemu => {}
        // Its machines end with the agent.
        Driver::Sim => return Watchdog::none(),
    }
    if let Some(fenced) = watchdog::fenced(data_dir) {
        let (at, vms) = (fenced.at_ms, fenced.vms.join(" "));
        tracing::warn!(%at, vms, "a lease was over: the watchdog stopped machines");
    }
    match Watchdog::start(data_dir, args.watchdog.as_deref()).await {
        Ok(watchdog) => watchdog,
        Err(error) => {
            tracing::warn!(%error, "there is no watchdog: this host takes no lease and is not fenced");
            Watchdog::none()
        }
    }
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
