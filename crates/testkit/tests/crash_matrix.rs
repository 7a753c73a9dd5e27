//! Every operation and every way back, with everything that can break.

#![expect(clippy::print_stdout, reason = "says how many cases ran")]
#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a test may give up loudly"
)]

use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use vimana_driver::{Fault, FaultKind};
use vimana_driver_sim::Mishap;
use vimana_store::simulation::DiskCall;
use vimana_testkit::sim::matrix::{FAULTS, Plan, Trouble, disk_calls, plans, try_case};

/// Runs all cases on all cores.
fn all_hold(cases: &[(Plan, Trouble)]) {
    let (next, wrong) = (AtomicUsize::new(0), Mutex::new(Vec::new()));
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    std::thread::scope(|scope| {
        for _ in 0..cores {
            scope.spawn(|| {
                while let Some((plan, trouble)) = cases.get(next.fetch_add(1, Ordering::Relaxed)) {
                    if let Some(what) = try_case(plan, trouble) {
                        wrong.lock().unwrap().push(what);
                    }
                }
            });
        }
    });
    let mut wrong = wrong.into_inner().unwrap();
    wrong.sort();
    println!("{} cases, {} broke a rule", cases.len(), wrong.len());
    let titles: Vec<&str> = wrong
        .iter()
        .filter_map(|what| what.lines().next())
        .collect();
    assert!(wrong.is_empty(), "{titles:#?}\n{}", wrong[0]);
}

#[test]
fn undisturbed_and_with_every_frame_twice() {
    let mut cases = Vec::new();
    for plan in plans() {
        cases.push((plan, Trouble::Nothing));
        cases.push((plan, Trouble::FramesComeAgain));
    }
    all_hold(&cases);
}

#[test]
fn the_server_dies_at_every_transaction() {
    let mut cases = Vec::new();
    for plan in plans() {
        for call in [
            DiskCall::Begin,
            DiskCall::Write,
            DiskCall::Commit,
            DiskCall::Committed,
        ] {
            // Of the statements inside, some; of all else, every one.
            let every = if call == DiskCall::Write { 5 } else { 1 };
            for after in (0..disk_calls(&plan, call)).step_by(every) {
                cases.push((plan, Trouble::ServerDies(call, after)));
            }
        }
    }
    all_hold(&cases);
}

#[test]
fn every_call_fails_once_in_every_way() {
    let mut cases = Vec::new();
    for plan in plans() {
        for call in plan.calls {
            let fault = |kind| Fault::new(kind, "it did not work");
            for kind in FAULTS {
                cases.push((plan, Trouble::Mishap(*call, Mishap::Fail(fault(kind)))));
            }
            let after = Mishap::FailAfter(fault(FaultKind::Host));
            for mishap in [after, Mishap::Panic, Mishap::PanicAfter] {
                cases.push((plan, Trouble::Mishap(*call, mishap)));
            }
        }
    }
    all_hold(&cases);
}

#[test]
fn every_call_fails_for_good() {
    let mut cases = Vec::new();
    for plan in plans() {
        for call in plan.calls {
            for kind in [FaultKind::Host, FaultKind::Hypervisor] {
                cases.push((plan, Trouble::AlwaysFails(*call, kind)));
            }
        }
    }
    all_hold(&cases);
}

#[test]
fn the_agent_dies_at_every_call() {
    let mut cases = Vec::new();
    for plan in plans() {
        for call in plan.calls {
            cases.push((plan, Trouble::AgentDiesBefore(*call)));
            cases.push((plan, Trouble::AgentDiesAfter(*call)));
            cases.push((plan, Trouble::LedgerLost(*call)));
        }
    }
    all_hold(&cases);
}
