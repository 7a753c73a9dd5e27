//! What one server carries: the real `vimana-server` on SQLite and the real
//! `vimana-scheduler`, each a process of its own; thousands of hosts, which
//! are real agents with a simulated hypervisor, each with a certificate of its
//! own that it joined for with a token; and people who create and read over
//! HTTPS with an API token. Hosts and people are all in this one process.
//!
//! Prints one JSON object per figure: `name`, `value`, `unit`, `goal`. A
//! benchmark: it fails only when something does not work.

mod figure;
mod fleet;
mod people;
mod process;
mod server;

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use clap::Parser;
use tempfile::TempDir;

use figure::{Figure, per_second, quantile};
use fleet::Fleet;
use people::People;
use process::Cpu;
use server::{Installation, Server};

/// Measures a server under load.
#[derive(Parser)]
struct Args {
    /// Directory with `vimana-server` and `vimana-scheduler`
    #[arg(long, value_name = "DIR")]
    bin: PathBuf,
    /// Hosts
    #[arg(long, default_value_t = 2500)]
    hosts: u32,
    /// VMs
    #[arg(long, default_value_t = 20_000)]
    vms: u32,
    /// People who create VMs, each one after the other
    #[arg(long, default_value_t = 64)]
    callers: usize,
}

#[tokio::main]
async fn main() -> Result<()> {
    let args = Args::parse();
    // Fails only when one is installed already.
    let _ = rustls::crypto::ring::default_provider().install_default();
    process::raise_file_limit()?;
    let dir = TempDir::with_prefix("vimana-load-")?;
    let measured = measure(&args, dir.path()).await;
    if measured.is_err() {
        let dir = dir.keep();
        eprintln!("what the server wrote is in {}", dir.display());
    }
    measured
}

async fn measure(args: &Args, dir: &Path) -> Result<()> {
    let installation = Installation::new(&args.bin, dir)?;
    let mut server = installation.start_server().await?;
    let people = People::sign_in(&server.url, &installation.ca()).await?;
    let scheduler = installation.start_scheduler(&server.url)?;

    let begun = Instant::now();
    let fleet = Fleet::join(&people, &server.agent_url, args.hosts).await?;
    people
        .until_hosts(|hosts| hosts.iter().all(|host| host.connected), args.hosts)
        .await?;
    Figure::new("hosts joined and connected", seconds(begun), "s").print();

    create(args, &people, &server, scheduler.id()).await?;
    Figure::new(
        "server memory, all VMs running",
        server.process().resident_mib()?,
        "MiB",
    )
    .goal("< 300")
    .print();
    Figure::new(
        "server memory, most until then",
        server.process().peak_mib()?,
        "MiB",
    )
    .print();

    restart(args, &installation, &mut server, &people, &fleet).await?;
    Figure::new(
        "server memory, most since the restart",
        server.process().peak_mib()?,
        "MiB",
    )
    .print();
    let begun = Instant::now();
    installation.check()?;
    Figure::new("fsck beside it finds nothing", seconds(begun), "s").print();
    Ok(())
}

/// Everybody creates as fast as they are answered, until all VMs run.
async fn create(args: &Args, people: &People, server: &Server, scheduler: u32) -> Result<()> {
    let (count, callers) = (args.vms, args.callers);
    let before = Cpu::of(server.process().id(), scheduler)?;
    let reading = people.read();
    let begun = Instant::now();
    people.create(count, callers).await?;
    let accepted = begun.elapsed();
    people.until_all_run().await?;
    let driven = begun.elapsed();
    let used = Cpu::of(server.process().id(), scheduler)?.since(&before, driven);
    let reads = reading.end().await?;
    let answered = reads.len();

    Figure::new("VM creates accepted", per_second(count, accepted), "1/s")
        .goal(">= 100")
        .print();
    Figure::new(
        "VM creates driven to Running",
        per_second(count, driven),
        "1/s",
    )
    .goal(">= 100")
    .print();
    let answered = u32::try_from(answered).unwrap_or(u32::MAX);
    Figure::new("API reads beside them", per_second(answered, driven), "1/s")
        .goal(">= 100")
        .print();
    Figure::new("API reads beside them, p50", quantile(&reads, 0.5), "ms").print();
    Figure::new("API reads beside them, p99", quantile(&reads, 0.99), "ms")
        .goal("< 100")
        .print();
    Figure::new("processors used meanwhile: server", used.server, "").print();
    Figure::new("processors used meanwhile: scheduler", used.scheduler, "").print();
    Figure::new("processors used meanwhile: hosts, people", used.load, "").print();
    Ok(())
}

/// The server dies and is started again. Meanwhile one machine on every host
/// ends, so that there is something to find out everywhere.
async fn restart(
    args: &Args,
    installation: &Installation,
    server: &mut Server,
    people: &People,
    fleet: &Fleet,
) -> Result<()> {
    let before = people.hosts().await?;
    let vcpus = people.vcpus_of_a_vm().await?;
    server.kill()?;
    let ended = fleet.end_one_machine_each();
    let begun = Instant::now();
    installation.start_again(server)?;
    people.until_answered().await?;
    Figure::new(
        "server killed, then started, until ready",
        seconds(begun),
        "s",
    )
    .goal("< 3")
    .print();
    // A machine that ended gives its vCPUs back.
    let settled = |hosts: &[vimana_model::host::HostView]| {
        hosts.iter().zip(&before).all(|(now, then)| {
            let ended = if ended.contains(&now.id) { vcpus } else { 0 };
            now.connected && now.id == then.id && now.used.vcpus + ended == then.used.vcpus
        })
    };
    people.until_hosts(settled, args.hosts).await?;
    Figure::new(
        "all hosts back and converged, from start",
        seconds(begun),
        "s",
    )
    .goal("< 60")
    .print();
    ensure!(!ended.is_empty(), "no machine ended");
    Ok(())
}

fn seconds(since: Instant) -> f64 {
    since.elapsed().as_secs_f64()
}

/// For what must happen at some time.
const PATIENCE: Duration = Duration::from_secs(900);

async fn in_time<T>(what: &str, wait: impl Future<Output = Result<T>>) -> Result<T> {
    let waited = tokio::time::timeout(PATIENCE, wait).await;
    waited.with_context(|| format!("waited for {what}"))?
}
