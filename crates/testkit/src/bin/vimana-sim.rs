//! Runs the simulator: one seed for a person to read, or thousands.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Instant;

use clap::Parser;
use vimana_testkit::sim::matrix::{case_named, try_case};
use vimana_testkit::sim::{Outcome, repeat, run, scenario};

/// Simulates whole installations, each from a seed, and checks that what must
/// always hold does.
#[derive(Parser)]
struct Args {
    /// Run this seed alone
    #[arg(long)]
    seed: Option<u64>,
    /// Run this case of the crash matrix alone
    #[arg(long, conflicts_with_all = ["seed", "scenario"])]
    case: Option<String>,
    /// Play the golden scenario in this file alone
    #[arg(long, conflicts_with = "seed")]
    scenario: Option<PathBuf>,
    /// Run so many seeds on all cores
    #[arg(long, default_value_t = 100, conflicts_with_all = ["seed", "case", "scenario"])]
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
    let clean = match (&args.case, &args.scenario, args.seed) {
        (Some(title), _, _) => one_case(title),
        (None, Some(file), _) => one_scenario(file),
        (None, None, Some(seed)) => one(seed, args.verbose),
        (None, None, None) => many(&args),
    };
    if clean {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}

fn one_case(title: &str) -> bool {
    let Some((plan, trouble)) = case_named(title) else {
        println!("there is no case `{title}`");
        return false;
    };
    let verdict = try_case(&plan, &trouble);
    println!("{}", verdict.text);
    for breach in &verdict.breaches {
        println!("  {breach}");
    }
    println!("{} breaches", verdict.breaches.len());
    println!("again: {}", repeat::case(title));
    verdict.breaches.is_empty()
}

fn one_scenario(file: &Path) -> bool {
    let played = std::fs::read_to_string(file)
        .map_err(|error| format!("{}: {error}", file.display()))
        .and_then(|text| scenario::play(text.split("---\n").next().unwrap_or_default()));
    let (Ok(told) | Err(told)) = &played;
    println!("{told}");
    println!("again: {}", repeat::scenario(&file.display().to_string()));
    played.is_ok()
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
    println!("again: {}", repeat::seed(seed));
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
    println!("again: {}", repeat::seed(outcome.seed));
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
    println!("again: {}", repeat::seeds(args.from, args.seeds));
    failed == 0
}
