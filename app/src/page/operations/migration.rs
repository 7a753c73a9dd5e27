//! A VM on its way to another host, or its volumes to another datastore: its phases, how the copy goes, what it took.

mod figures;
mod outlook;

use std::time::Duration;

use leptos::prelude::*;
use leptos::task::spawn_local;
use vimana_model::migration::{Course, MigrationMode, MigrationResult, MigrationView, Phase};
use vimana_model::operation::{OperationView, StepState};
use vimana_ui::{Mark, Stepper, When, memo, part};

use super::{Moved, StepLine, waiting, waits_for};
use crate::page::amount;
use crate::page::lazy::Missing;

/// What is said of a migration where other operations show their steps.
pub fn line(operation: Memo<Option<OperationView>>) -> Option<AnyView> {
    let over = operation.with_untracked(|now| {
        let now = now.as_ref().filter(|now| Course::of(now).is_some())?;
        Some(now.state.is_over())
    })?;
    let phases = move || {
        operation.with(|now| {
            let phases = phases(now.as_ref()?)?;
            Some(view! { <Stepper label="Phases of the migration" phases=phases compact=over/> })
        })
    };
    let took = move || {
        operation.with(|now| {
            let result = now.as_ref()?.migration.as_ref()?.result;
            result.map(|result| view! { <Took result=result/> })
        })
    };
    let line = view! {
        {part(phases)}
        {(!over).then(|| view! { <UnderWay operation=operation/> }.into_any())}
        {part(took)}
    };
    Some(line.into_any())
}

/// "from host-a to host-b".
pub fn way(migration: &MigrationView) -> String {
    let MigrationView {
        mode,
        from,
        to,
        datastore,
        ..
    } = migration;
    let into = datastore.as_ref().map(|name| format!("datastore {name}"));
    let (to, into) = match (mode, into) {
        (MigrationMode::Storage, Some(into)) => return format!("to {into}"),
        (_, Some(into)) => (&to.name, format!(", into {into}")),
        (_, None) => (&to.name, String::new()),
    };
    match from {
        Some(from) => format!("from {} to {to}{into}", from.name),
        None => format!("from the datastore to {to}{into}"),
    }
}

fn phases(operation: &OperationView) -> Option<Vec<(&'static str, Mark)>> {
    let course = Course::of(operation)?;
    let failed = operation.error.is_some();
    let phases = course.phases.iter();
    let marked = phases.map(|(phase, state)| (phase.name(), mark(&course, *phase, *state, failed)));
    Some(marked.collect())
}

fn mark(course: &Course, phase: Phase, state: StepState, failed: bool) -> Mark {
    if course.broke_in == Some(phase) && state != StepState::Undoing {
        return if failed {
            Mark::Failed
        } else {
            Mark::Cancelled
        };
    }
    match state {
        StepState::Waiting => Mark::Waiting,
        StepState::Running => Mark::UnderWay,
        StepState::Done => Mark::Done,
        StepState::Failed => Mark::Failed,
        StepState::Skipped => Mark::Skipped,
        StepState::Undoing => Mark::GoingBack,
        StepState::Undone => Mark::Undone,
    }
}

/// What is shown of a copy, whose code comes when one is first looked at.
type Figures = fn(Memo<Option<OperationView>>) -> AnyView;

#[leptos::wasm_split::wasm_split(
    migration,
    wasm_split_path = leptos::wasm_split,
    fallible
)]
fn split_figures() -> Result<Figures, Missing> {
    Ok(figures::figures)
}

/// What the host does right now, and how far it is with it.
#[component]
fn UnderWay(operation: Memo<Option<OperationView>>) -> impl IntoView {
    let step = memo(move || {
        operation.with(|now| now.as_ref().and_then(|now| now.current_step().cloned()))
    });
    // For those who do not see it: said when it is another.
    let phase = memo(move || {
        let phase = operation.with(|now| Course::of(now.as_ref()?)?.current());
        phase.map(|phase| phase.name().to_owned())
    });
    // Of what is no copy from host to host.
    let moved = memo(move || {
        let progress = operation.with(|now| now.as_ref().and_then(|now| now.progress));
        progress.filter(|progress| progress.copy.is_none())
    });
    let waits_for = memo(move || waits_for(operation));
    let figures = RwSignal::new(None::<Figures>);
    // The server writes none: they begin with the page's life.
    Effect::new(move |_| {
        spawn_local(async move {
            // Without them, the phases are still told.
            if let Ok(shown) = split_figures().await {
                figures.try_set(Some(shown));
            }
        });
    });
    view! {
        <p class="unseen" role="status">{part(move || phase.get())}</p>
        {part(move || step.get().map(|step| view! {
            <p class="faint">{step.kind.title()} ": " <StepLine step=step/></p>
        }))}
        {part(move || waits_for.get().map(waiting))}
        <When is=Signal::derive(move || moved.with(Option::is_some))>
            <Moved label="The step under way" progress=moved/>
        </When>
        {part(move || figures.get().map(|figures| figures(operation)))}
    }
    .into_any()
}

#[component]
fn Took(result: MigrationResult) -> impl IntoView {
    let MigrationResult {
        total_ms,
        transferred_bytes,
        downtime_ms,
        blackout_ms,
    } = result;
    let figure = |title: &'static str, value: String| {
        view! { <div><dt>{title}</dt> <dd>{value}</dd></div> }.into_any()
    };
    view! {
        <dl class="figures">
            {figure("Total time", time(total_ms))}
            {figure("Transferred", amount(transferred_bytes))}
            {blackout_ms.map(|measured| figure("Blackout", blackout(measured, downtime_ms)))}
        </dl>
    }
    .into_any()
}

/// As the server and the hosts measured it; and as the hypervisor says.
fn blackout(measured_ms: u64, said_ms: Option<u64>) -> String {
    let measured = time(measured_ms);
    match said_ms {
        Some(said) => format!("{measured} ({} by the hypervisor's count)", time(said)),
        None => measured,
    }
}

/// "31 ms", "1.2 s".
fn time(ms: u64) -> String {
    match ms {
        ..1000 => format!("{ms} ms"),
        1000.. => format!("{:.1} s", Duration::from_millis(ms).as_secs_f64()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use StepState::{Done, Skipped, Undoing, Undone, Waiting};

    fn course(states: [StepState; 7], broke_in: Option<Phase>) -> Course {
        Course {
            phases: Phase::ALL.into_iter().zip(states).collect(),
            broke_in,
        }
    }

    #[test]
    fn where_it_broke_off_is_marked() {
        let over = course(
            [Done, Undone, Undone, Undone, Skipped, Skipped, Skipped],
            Some(Phase::Copy),
        );
        for (failed, mark) in [(true, Mark::Failed), (false, Mark::Cancelled)] {
            let marks = |n: usize| super::mark(&over, over.phases[n].0, over.phases[n].1, failed);
            assert_eq!([0, 1, 3].map(marks), [Mark::Done, Mark::Undone, mark]);
        }
    }

    #[test]
    fn what_is_being_taken_back_says_so() {
        let back = course(
            [Done, Done, Done, Undoing, Skipped, Waiting, Waiting],
            Some(Phase::Copy),
        );
        assert_eq!(mark(&back, Phase::Copy, Undoing, true), Mark::GoingBack);
    }

    #[test]
    fn what_it_took_has_units_that_fit() {
        let both = "31 ms (20 ms by the hypervisor's count)";
        assert_eq!(blackout(31, Some(20)), both);
        assert_eq!(blackout(31, None), "31 ms");
        assert_eq!(time(12_340), "12.3 s");
    }
}
