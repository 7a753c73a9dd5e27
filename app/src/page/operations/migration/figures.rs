//! How a copy goes: what is done and left, what the guest changes meanwhile, how
//! long it takes; and what one can do where it has no end.

use leptos::prelude::*;
use vimana_model::migration::CopyPhase;
use vimana_model::operation::{OperationState, OperationView};
use vimana_ui::{Icon, IconName, Meter, Progress, memo, part, text, thousandths};

use super::outlook::Outlook;
use crate::page::amount;

/// Nothing while nothing is copied.
pub fn figures(operation: Memo<Option<OperationView>>) -> AnyView {
    // A copy that is tried again begins at its beginning.
    let attempt = memo(move || {
        operation.with(|now| {
            let now = now.as_ref()?;
            let running = now.state == OperationState::Running;
            let copies = now.progress.is_some_and(|progress| progress.copy.is_some());
            let step = now.current_step()?;
            (running && copies).then_some(step.attempts)
        })
    });
    part(move || {
        attempt
            .get()
            .map(|_| view! { <Copying operation=operation/> })
    })
    .into_any()
}

#[component]
fn Copying(operation: Memo<Option<OperationView>>) -> impl IntoView {
    let progress = memo(move || operation.with(|now| now.as_ref().and_then(|now| now.progress)));
    let outlook = Memo::new(move |before: Option<&Option<Outlook>>| {
        // What was shown stays where nothing is told any more.
        Outlook::update(before.and_then(Option::as_ref), progress.get())
            .or_else(|| before.cloned().flatten())
    });
    let told = move |of: fn(&Outlook) -> String| {
        text(move || outlook.with(|now| now.as_ref().map(of).unwrap_or_default()))
    };
    let bar = move |title: &'static str, phase: CopyPhase| {
        let done = move || outlook.with(|now| now.as_ref().map(|now| done(now, phase)));
        let numbers = move || outlook.with(|now| now.as_ref().map(|now| numbers(now, phase)));
        view! {
            <div>
                <dt>{title}</dt>
                <dd>
                    <Progress
                        label=title
                        done=Signal::derive(done)
                        text=Signal::derive(move || numbers().unwrap_or_default())
                    />
                </dd>
            </div>
        }
        .into_any()
    };
    let changed = move || {
        outlook.with(|now| {
            let now = now.as_ref()?;
            Some(thousandths(now.dirty, now.rate?))
        })
    };
    let stuck = memo(move || outlook.with(|now| now.as_ref().is_some_and(|now| now.is_stuck)));
    view! {
        <dl class="facts copying">
            {bar("Disk", CopyPhase::Disks)}
            {bar("Memory", CopyPhase::Memory)}
            <div><dt>"Copied"</dt><dd>{told(speed)}</dd></div>
            <div>
                <dt>"Guest changes"</dt>
                <dd>
                    <Meter
                        label="What the guest changes, of what is copied"
                        used=Signal::derive(move || changed().unwrap_or_default())
                        text=Signal::derive(move || outlook.with(|now| now.as_ref().map(changes).unwrap_or_default()))
                    />
                </dd>
            </div>
            <div><dt>"Time left"</dt><dd>{told(time_left)}</dd></div>
        </dl>
        <div role="status">{part(move || stuck.get().then(|| view! { <Advice/> }))}</div>
    }
    .into_any()
}

/// What a person can do where the guest outruns its copy.
#[component]
fn Advice() -> impl IntoView {
    view! {
        <div class="advice">
            <p>
                <Icon name=IconName::Warning/>
                " The guest changes its memory as fast as it is copied: as it is, there is no end in sight."
            </p>
            <ul>
                <li>"Wait: it is slowed down by itself, more and more, until the copy gets through."</li>
                <li>"Or cancel, and migrate it at a quieter time; it runs on where it is."</li>
                <li>"Or cancel, power it off, and migrate it cold."</li>
            </ul>
        </div>
    }
    .into_any()
}

/// Of one kind of bytes, in thousandths.
fn done(now: &Outlook, of: CopyPhase) -> u32 {
    if now.phase == of {
        now.done
    } else if now.phase > of {
        1000
    } else {
        0
    }
}

fn numbers(now: &Outlook, of: CopyPhase) -> String {
    if now.phase > of {
        let rest = now.phase == CopyPhase::Switchover && of == CopyPhase::Memory;
        return if rest {
            "all but the last of it"
        } else {
            "copied"
        }
        .to_owned();
    }
    if now.phase < of {
        return "comes after the disk".to_owned();
    }
    let (done, total) = (amount(now.done_bytes), amount(now.total_bytes));
    let left = amount(now.left_bytes);
    let numbers = format!("{done} of {total}, {left} left");
    if now.round > 1 {
        // What was copied and changed since is copied again.
        return format!("{numbers} in round {}", now.round);
    }
    numbers
}

fn speed(now: &Outlook) -> String {
    now.rate.map_or_else(
        || "not known yet".to_owned(),
        |rate| format!("{} a second", amount(rate)),
    )
}

fn changes(now: &Outlook) -> String {
    match now.phase {
        CopyPhase::Disks => "counted once its memory is copied".to_owned(),
        CopyPhase::Memory => format!("{} a second", amount(now.dirty)),
        CopyPhase::Switchover => "nothing: it stands still".to_owned(),
    }
}

fn time_left(now: &Outlook) -> String {
    match (now.phase, now.time_left) {
        (CopyPhase::Switchover, _) => "a moment".to_owned(),
        (CopyPhase::Disks | CopyPhase::Memory, _) if now.is_stuck => "no end in sight".to_owned(),
        (CopyPhase::Disks, Some(left)) => format!("{left} for the disk, then the memory"),
        (CopyPhase::Memory, Some(left)) => left.to_string(),
        (CopyPhase::Disks | CopyPhase::Memory, None) => "not known yet".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use vimana_model::migration::CopyProgress;
    use vimana_model::operation::Progress;

    use super::*;

    fn at(phase: CopyPhase, dirty: u64, rounds: u64) -> Outlook {
        let report = Progress {
            done_bytes: 412 << 20,
            total_bytes: 512 << 20,
            copy: Some(CopyProgress {
                phase,
                remaining_bytes: 100 << 20,
                dirty_bytes_per_s: dirty,
                bytes_per_s: 50 << 20,
                rounds,
            }),
        };
        Outlook::update(None, Some(report)).unwrap()
    }

    #[test]
    fn disk_and_memory_have_a_bar_each() {
        let bars = |phase| {
            let now = at(phase, 0, 1);
            [CopyPhase::Disks, CopyPhase::Memory].map(|of| (done(&now, of), numbers(&now, of)))
        };
        let numbers = "412 MiB of 512 MiB, 100 MiB left".to_owned();
        let waits = (0, "comes after the disk".to_owned());
        let copied = (1000, "copied".to_owned());
        assert_eq!(bars(CopyPhase::Disks), [(804, numbers.clone()), waits]);
        assert_eq!(bars(CopyPhase::Memory), [copied.clone(), (804, numbers)]);
        let last = (1000, "all but the last of it".to_owned());
        assert_eq!(bars(CopyPhase::Switchover), [copied, last]);
    }

    #[test]
    fn what_is_shown_of_a_phase_reads_well() {
        let memory = at(CopyPhase::Memory, 10 << 20, 3);
        assert_eq!(
            [speed(&memory), changes(&memory), time_left(&memory)],
            ["50 MiB a second", "10 MiB a second", "2–3 s"]
        );
        assert!(numbers(&memory, CopyPhase::Memory).ends_with("100 MiB left in round 3"));
        let disks = at(CopyPhase::Disks, 0, 1);
        assert_eq!(time_left(&disks), "about 2 s for the disk, then the memory");
        let mut stuck = at(CopyPhase::Memory, 60 << 20, 3);
        stuck.is_stuck = true;
        assert_eq!(time_left(&stuck), "no end in sight");
    }
}
