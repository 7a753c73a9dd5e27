use super::*;

const MIB: u64 = 1 << 20;

fn report(phase: CopyPhase, total: u64, left: u64, rate: u64, dirty: u64) -> Progress {
    Progress {
        done_bytes: total.saturating_sub(left),
        total_bytes: total,
        copy: Some(CopyProgress {
            phase,
            remaining_bytes: left,
            dirty_bytes_per_s: dirty,
            bytes_per_s: rate,
            rounds: 1,
        }),
    }
}

fn fed(reports: impl IntoIterator<Item = Progress>) -> Vec<Outlook> {
    let mut seen: Vec<Outlook> = Vec::new();
    for report in reports {
        seen.extend(Outlook::update(seen.last(), Some(report)));
    }
    seen
}

/// Numbers that jump about, the same every time: from 0 to 99.
fn noise() -> impl Iterator<Item = u64> {
    let next = |state: &u64| {
        let next = state.wrapping_mul(6_364_136_223_846_793_005);
        Some(next.wrapping_add(1_442_695_040_888_963_407))
    };
    std::iter::successors(Some(7), next).map(|state| (state >> 33) % 100)
}

/// A copy of that many MiB, told twice a second; its rate is `rate` MiB a second,
/// give or take half of it.
fn noisy(phase: CopyPhase, total: u64, rate: u64, dirty: u64) -> Vec<Progress> {
    let mut left = total * MIB;
    let mut reports = Vec::new();
    for (fast, wild) in noise().zip(noise().skip(1)) {
        let rate = rate * MIB * (50 + fast) / 100;
        let dirty = dirty * MIB * (50 + wild) / 100;
        reports.push(report(phase, total * MIB, left, rate, dirty));
        left = left.saturating_sub(rate / 2);
        if left == 0 {
            return reports;
        }
    }
    reports
}

#[test]
fn time_that_is_shown_never_grows_by_jitter() {
    for (phase, dirty) in [(CopyPhase::Disks, 0), (CopyPhase::Memory, 30)] {
        let seen = fed(noisy(phase, 4000, 100, dirty));
        let times: Vec<TimeLeft> = seen.iter().filter_map(|seen| seen.time_left).collect();
        assert_eq!(times.len(), seen.len());
        for pair in times.windows(2) {
            let (before, after) = (pair[0], pair[1]);
            assert!(after.most_s <= before.most_s, "{before} → {after}");
            assert!(after.least_s <= before.least_s, "{before} → {after}");
        }
        // It is no constant either, and it says what comes.
        assert!(times[0].most_s >= 40, "{}", times[0]);
        assert!(times[times.len() / 2].most_s >= 10);
        let last = times[times.len() - 1];
        // What the guest changed in this round is to come in the next ones.
        assert!(last.least_s == 0 && last.most_s <= 20, "{last}");
    }
}

#[test]
fn what_is_slower_for_good_is_said() {
    let steady =
        (0..10).map(|n| report(CopyPhase::Disks, 1000 * MIB, (1000 - n) * MIB, 100 * MIB, 0));
    let slow = (10..40).map(|n| report(CopyPhase::Disks, 1000 * MIB, (1000 - n) * MIB, MIB, 0));
    let seen = fed(steady.chain(slow));
    assert_eq!(seen[9].time_left.map(|left| left.most_s), Some(10));
    let last = seen.last().and_then(|seen| seen.time_left).unwrap();
    assert!(last.least_s > 30, "{last}");
}

#[test]
fn bar_never_runs_backwards() {
    let lefts = [512, 300, 120, 0, 90, 10, 60, 5];
    let reports = lefts.map(|left| report(CopyPhase::Memory, 512 * MIB, left * MIB, MIB, 0));
    let seen = fed(reports);
    assert!(seen.windows(2).all(|pair| pair[0].done <= pair[1].done));
    assert!(
        seen.windows(2)
            .all(|pair| pair[0].done_bytes <= pair[1].done_bytes)
    );
    // More than was known turns out to be there.
    let grows = [(100, 10), (400, 300)];
    let seen = fed(grows.map(|(total, left)| report(CopyPhase::Disks, total, left, 1, 0)));
    assert_eq!([seen[0].done, seen[1].done], [900, 900]);
}

#[test]
fn time_left_is_a_range_while_the_guest_writes() {
    let seen = fed([report(
        CopyPhase::Memory,
        400 * MIB,
        200 * MIB,
        100 * MIB,
        60 * MIB,
    )]);
    assert_eq!(
        seen[0].time_left,
        Some(TimeLeft {
            least_s: 2,
            most_s: 5
        })
    );
    assert_eq!(seen[0].time_left.unwrap().to_string(), "2–5 s");
    // What it changed in this round is still to come.
    let first = report(CopyPhase::Memory, 400 * MIB, 200 * MIB, 100 * MIB, 60 * MIB);
    let later = report(CopyPhase::Memory, 400 * MIB, 0, 100 * MIB, 60 * MIB);
    let seen = fed([first, later]);
    assert_eq!(
        seen[1].time_left,
        Some(TimeLeft {
            least_s: 0,
            most_s: 3
        })
    );
}

#[test]
fn nothing_is_reckoned_before_the_rate_is_known() {
    let seen = fed([report(CopyPhase::Disks, 100, 100, 0, 0)]);
    assert_eq!((seen[0].rate, seen[0].time_left), (None, None));
    assert!(!seen[0].is_stuck);
}

#[test]
fn guest_that_outruns_its_copy_is_told_of_after_a_while() {
    let fast = |_| {
        report(
            CopyPhase::Memory,
            512 * MIB,
            200 * MIB,
            100 * MIB,
            150 * MIB,
        )
    };
    let seen = fed((0..5).map(fast));
    let stuck: Vec<bool> = seen.iter().map(|seen| seen.is_stuck).collect();
    assert_eq!(stuck, [false, false, true, true, true]);
    assert_eq!(seen[4].time_left, None);
    // It was slowed down.
    let calm = |_| report(CopyPhase::Memory, 512 * MIB, 100 * MIB, 100 * MIB, 0);
    let seen = fed((0..5).map(fast).chain((0..12).map(calm)));
    let last = seen.last().unwrap();
    assert!(!last.is_stuck && last.time_left.is_some());
    // One wild moment is no reason to worry anybody.
    let calm = |_| report(CopyPhase::Memory, 512 * MIB, 100 * MIB, 100 * MIB, 10 * MIB);
    let seen = fed((0..3).map(calm).chain([fast(0)]).chain((0..3).map(calm)));
    assert!(
        seen.iter()
            .all(|seen| !seen.is_stuck && seen.time_left.is_some())
    );
}

#[test]
fn jitter_around_a_rate_that_suffices_worries_nobody() {
    let seen = fed(noisy(CopyPhase::Memory, 4000, 100, 50));
    assert!(seen.iter().all(|seen| !seen.is_stuck));
}

#[test]
fn another_phase_begins_anew() {
    let seen = fed([
        report(CopyPhase::Disks, 100, 0, 10, 0),
        report(CopyPhase::Memory, 100, 100, 10, 0),
    ]);
    assert_eq!([seen[0].done, seen[1].done], [1000, 0]);
    assert_eq!(seen[1].phase, CopyPhase::Memory);
}

#[test]
fn report_without_a_copy_shows_nothing() {
    let plain = Progress {
        done_bytes: 1,
        total_bytes: 2,
        copy: None,
    };
    assert_eq!(Outlook::update(None, Some(plain)), None);
    assert_eq!(Outlook::update(None, None), None);
}

#[test]
fn times_read_well() {
    let shown = [
        (0, 0),
        (0, 1),
        (0, 9),
        (4, 4),
        (2, 5),
        (70, 110),
        (90, 200),
        (130, 290),
        (7000, 9000),
    ]
    .map(|(least_s, most_s)| TimeLeft { least_s, most_s }.to_string());
    let expected = [
        "about a second",
        "about a second",
        "up to 9 s",
        "about 4 s",
        "2–5 s",
        "70–110 s",
        "90 s to 4 min",
        "2–5 min",
        "116 min to 3 h",
    ];
    assert_eq!(shown, expected);
}

#[test]
fn rounds_that_do_not_get_smaller_have_no_end() {
    // What a hypervisor says of a guest that changes the same 24 MiB for ever: its
    // rate of change is just below that of the copy.
    let round = |number: u64, size: u64| {
        (0..5).map(move |step: u64| {
            let left = size * MIB * (5 - step) / 5;
            let mut report = report(CopyPhase::Memory, 122 * MIB, left, 10 * MIB, 9 * MIB);
            report.copy.as_mut().unwrap().rounds = number;
            report
        })
    };
    let sizes = [122, 30, 24, 24, 24, 24];
    let rounds = (1..)
        .zip(sizes)
        .flat_map(|(number, size)| round(number, size));
    let seen = fed(rounds);
    assert!(!seen[14].is_stuck, "each was smaller so far");
    let last = seen.last().unwrap();
    assert!(last.is_stuck && last.time_left.is_none(), "{last:?}");
    // Slowed down, it comes to an end after all.
    let slowed = (7..)
        .zip([12, 5, 2])
        .flat_map(|(number, size)| round(number, size));
    let mut after = last.clone();
    for mut report in slowed {
        report.copy.as_mut().unwrap().dirty_bytes_per_s = MIB;
        after = Outlook::update(Some(&after), Some(report)).unwrap();
    }
    assert!(!after.is_stuck && after.time_left.is_some(), "{after:?}");
}
