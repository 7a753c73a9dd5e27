//! Runs the simulator: one seed for a person to read, or thousands.

use std::collections::BTreeMap;
use std::process::ExitCode;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Instant;

use clap::Parser;
use vimana_testkit::sim::{Outcome, run};

/// Simulates whole installations, each from a seed, and checks that what must
/// always hold does.
#[derive(Parser)]
struct Args {
    /// Run this seed alone
    #[arg(long)]
    seed: Option<u64>,
    /// Run so many seeds on all cores
    #[arg(long, default_value_t = 100, conflicts_with = "seed")]
    seeds: u64,
    /// The first of them
    #[arg(long, default_value_t = 0)]
    from: u64,
    /// Go on after a breach
    #[arg(long)]
    keep_going: bool,
    /// Print what happens
    #[arg(long)]
    verbose: bool,
}

fn main() -> ExitCode {
    let args = Args::parse();
    let clean = match args.seed {
        Some(seed) => one(seed, args.verbose),
        None => many(&args),
    };
    if clean {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}

fn one(seed: u64, verbose: bool) -> bool {
    let outcome = run(seed);
    if verbose {
        println!("{}", outcome.text);
    }
    report(&outcome);
    println!(
        "seed {seed}: {} breaches, fingerprint {:016x}, {:?}",
        outcome.breaches.len(),
        outcome.fingerprint,
        outcome.counts
    );
    outcome.breaches.is_empty()
}

fn report(outcome: &Outcome) {
    if outcome.breaches.is_empty() {
        return;
    }
    println!("seed {} breaks rules:", outcome.seed);
    for breach in &outcome.breaches {
        println!("  {breach}");
    }
    println!(
        "replay: cargo run -q -p vimana-testkit --bin vimana-sim -- --seed {} --verbose",
        outcome.seed
    );
}

fn many(args: &Args) -> bool {
    let started = Instant::now();
    let next = AtomicU64::new(args.from);
    let (end, stop) = (args.from.saturating_add(args.seeds), AtomicBool::new(false));
    let sums: Mutex<(u64, u64, BTreeMap<&str, u64>)> = Mutex::default();
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    std::thread::scope(|scope| {
        for _ in 0..cores {
            scope.spawn(|| {
                loop {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if seed >= end || stop.load(Ordering::Relaxed) {
                        return;
                    }
                    let outcome = run(seed);
                    report(&outcome);
                    let failed = !outcome.breaches.is_empty();
                    if failed && !args.keep_going {
                        stop.store(true, Ordering::Relaxed);
                    }
                    let Ok(mut sums) = sums.lock() else { return };
                    sums.0 += 1;
                    sums.1 += u64::from(failed);
                    for (what, n) in outcome.counts {
                        *sums.2.entry(what).or_default() += n;
                    }
                }
            });
        }
    });
    let (runs, failed, counts) = sums.into_inner().unwrap_or_default();
    let millis = u64::try_from(started.elapsed().as_millis()).unwrap_or(u64::MAX);
    let per_second = runs.saturating_mul(1000) / millis.max(1);
    println!(
        "{runs} seeds in {}.{:03} s ({per_second}/s)",
        millis / 1000,
        millis % 1000
    );
    for (what, n) in counts {
        println!("  {n:>9} {what}");
    }
    println!("{failed} seeds broke a rule");
    failed == 0
}
