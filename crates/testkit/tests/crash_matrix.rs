//! Every operation and every way back, with everything that can break; see
//! `sim::matrix`. One case alone, to read:
//! `cargo run --profile sim -p vimana-testkit --bin vimana-sim -- --case NAME`.

#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a test may give up loudly"
)]

use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use vimana_testkit::sim::matrix::{Family, cases, try_case};
use vimana_testkit::sim::repeat;

/// Which eighth of the cases to run, from `0` to `7`; all of them where it is
/// not set.
const EIGHTH: &str = "VIMANA_MATRIX_EIGHTH";
/// Only the cases of plans whose names hold this.
const OF: &str = "VIMANA_MATRIX_OF";

/// Runs all cases on all cores.
fn all_hold(family: Family, test: &str) {
    let mut cases = cases(family);
    if let Ok(eighth) = std::env::var(EIGHTH) {
        let eighth: usize = eighth.parse().unwrap();
        assert!(eighth < 8, "{EIGHTH} is from 0 to 7");
        let mut index = 0;
        cases.retain(|_| {
            index += 1;
            index % 8 == eighth
        });
    }
    if let Ok(part) = std::env::var(OF) {
        cases.retain(|(plan, _)| plan.name.contains(&part));
    }
    let (next, wrong) = (AtomicUsize::new(0), Mutex::new(Vec::new()));
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    std::thread::scope(|scope| {
        for _ in 0..cores {
            scope.spawn(|| {
                while let Some((plan, trouble)) = cases.get(next.fetch_add(1, Ordering::Relaxed)) {
                    let verdict = try_case(plan, trouble);
                    if !verdict.struck || !verdict.breaches.is_empty() {
                        wrong.lock().unwrap().push(verdict);
                    }
                }
            });
        }
    });
    let mut wrong = wrong.into_inner().unwrap();
    wrong.sort_by(|a, b| a.title.cmp(&b.title));
    let again = repeat::test("crash_matrix", test);
    repeat::say(&format!(
        "{} cases, {} broke a rule: {again}",
        cases.len(),
        wrong.len()
    ));
    for verdict in &wrong {
        let again = repeat::case(&verdict.title);
        println!("{again}\n  {}", verdict.breaches.join("\n  "));
        if !verdict.struck {
            println!("  nothing went wrong there");
        }
    }
    assert!(wrong.is_empty(), "the first of them:\n{}", wrong[0].text);
}

#[test]
fn undisturbed() {
    all_hold(Family::Undisturbed, "undisturbed");
}

#[test]
fn the_server_dies_at_every_call_of_its_database() {
    all_hold(
        Family::Server,
        "the_server_dies_at_every_call_of_its_database",
    );
}

#[test]
fn every_call_fails_once_in_every_way() {
    all_hold(Family::CallsOnce, "every_call_fails_once_in_every_way");
}

#[test]
fn every_call_fails_for_good() {
    all_hold(Family::CallsForGood, "every_call_fails_for_good");
}

#[test]
fn the_agents_die_at_every_step() {
    all_hold(Family::Agents, "the_agents_die_at_every_step");
}

#[test]
fn every_frame_comes_again_at_every_step() {
    all_hold(Family::Frames, "every_frame_comes_again_at_every_step");
}

#[test]
fn hosts_and_schedulers_die_at_every_step() {
    all_hold(Family::Hosts, "hosts_and_schedulers_die_at_every_step");
}
