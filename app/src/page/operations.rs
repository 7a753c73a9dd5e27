//! What is being done with something, step by step, and what was done. An event
//! patches what it changes; the button under one's finger stays.

pub mod migration;

use leptos::prelude::*;
use leptos::task::spawn_local;
use vimana_model::operation::{
    OperationKind, OperationState, OperationView, Progress as Bytes, StepState, StepView,
};
use vimana_model::{OperationId, TenantId};
use vimana_ui::{
    Badge, Button, Each, Elapsed, IconName, Item, Progress, Prose, Time, ToastKind, Toasts, Tone,
    Until, When, flag, memo, part, press, text, thousandths, word,
};

use crate::api::{Key, cancel_operation, once};
use crate::live::{Live, Operations as Known};
use crate::page::{amount, sentence};
use crate::session::{Caller, CurrentSession};

/// Past operations that are shown at first.
const RECENT: usize = 5;

/// What is shown of an operation in place of its steps, where there is more to say.
pub type Line = fn(Memo<Option<OperationView>>) -> Option<AnyView>;

#[component]
pub fn Operations(
    operations: Known,
    /// Whose the thing is; of what is for all tenants nobody's.
    tenant: Option<TenantId>,
    /// Only pages that have such operations bring the code for them.
    #[prop(optional)]
    line: Option<Line>,
) -> impl IntoView {
    let (in_flight, past) = (of(&operations, false), of(&operations, true));
    let list = move |ids: Memo<Vec<OperationId>>| {
        let operations = operations.clone();
        let items = Signal::derive(move || {
            let item = |id: OperationId| {
                let operations = operations.clone();
                Item::new(
                    id,
                    move || view! { <Operation id=id operations=operations.clone() tenant=tenant line=line/> },
                )
            };
            ids.get().into_iter().map(item).collect()
        });
        view! { <Each items=items/> }
    };
    let count = move || past.with(Vec::len);
    let all = RwSignal::new(false);
    let shown = memo(move || {
        let most = if all.get() { usize::MAX } else { RECENT };
        past.with(|past| past.iter().take(most).copied().collect::<Vec<_>>())
    });
    let hides = move || !all.get() && count() > RECENT;
    view! {
        <section class="panel" aria-labelledby="operations-title">
            <h2 id="operations-title">"Operations"</h2>
            <When is=Signal::derive(move || in_flight.with(Vec::is_empty))>
                <p class="faint">"Nothing is in flight."</p>
            </When>
            {list.clone()(in_flight)}
            <details class="past" open=true hidden=flag(move || count() == 0)>
                <summary>{text(move || format!("Past operations ({})", count()))}</summary>
                {list(shown)}
                <When is=Signal::derive(hides)>
                    <button r#type="button" class="button" data-kind="plain" on:click=press(move || all.set(true))>
                        {text(move || format!("Show all {}", count()))}
                    </button>
                </When>
            </details>
        </section>
    }
    .into_any()
}

/// The operations in flight, or those that are over; newest first.
fn of(operations: &Known, over: bool) -> Memo<Vec<OperationId>> {
    let operations = operations.clone();
    memo(move || {
        operations.with(|operations| {
            operations
                .iter()
                .filter(|operation| operation.state.is_over() == over)
                .map(|operation| operation.id)
                .collect()
        })
    })
}

#[component]
fn Operation(
    id: OperationId,
    operations: Known,
    tenant: Option<TenantId>,
    line: Option<Line>,
) -> impl IntoView {
    let operation = memo(move || {
        operations.with(|operations| {
            let found = operations.iter().find(|operation| operation.id == id);
            found.cloned()
        })
    });
    let first = operation.get_untracked()?;
    let steps = first.steps.len();
    let state =
        memo(move || operation.with(|now| now.as_ref().map_or(first.state, |now| now.state)));
    let ended = memo(move || {
        operation.with(|now| {
            now.as_ref()
                .and_then(|now| now.ended_at)
                .map(|at| at.as_ms())
        })
    });
    let error = memo(move || operation.with(|now| now.as_ref().and_then(|now| now.error.clone())));
    let cancelled_by =
        memo(move || operation.with(|now| now.as_ref().and_then(|now| now.cancelled_by.clone())));
    let own = line.and_then(|line| line(operation));
    let going_back = move || state.get() == OperationState::Undoing;
    Some(
        view! {
            <article class="operation" aria-label=title(first.kind)>
                <header>
                    <h3>{title(first.kind)}</h3>
                    {first.piece.map(|piece| view! { <span>{piece.to_string()}</span> }.into_any())}
                    {first.migration.as_ref().map(|it| view! { <span>{migration::way(it)}</span> }.into_any())}
                    <Badge
                        tone=Signal::derive(move || shown(state.get()).0)
                        text=Signal::derive(move || shown(state.get()).1.to_owned())
                    />
                    <span class="faint">
                        {first.requested_by} " · " <Time at_ms=first.created_at.as_ms()/> " · "
                        <Elapsed from_ms=first.created_at.as_ms() to_ms=ended/>
                    </span>
                    <When is=Signal::derive(move || !state.get().is_over())>
                        <Cancel id=id operation=operation tenant=tenant/>
                    </When>
                </header>
                {own.unwrap_or_else(|| view! {
                    <ol class="steps" data-back=flag(going_back)>
                        {(0..steps).map(|n| view! { <Step n=n operation=operation/> }).map(IntoAny::into_any).collect::<Vec<_>>()}
                    </ol>
                }.into_any())}
                {part(move || error.get().map(|error| view! { <p class="operation-error"><Prose text=sentence(&error)/></p> }))}
                {part(move || cancelled_by.get().map(|who| view! { <p class="faint">"Cancelled by " {who} "."</p> }))}
            </article>
        }
        .into_any(),
    )
}

#[component]
fn Cancel(
    id: OperationId,
    operation: Memo<Option<OperationView>>,
    tenant: Option<TenantId>,
) -> impl IntoView {
    let caller = expect_context::<Caller>();
    let live = expect_context::<Live>();
    let session = expect_context::<CurrentSession>();
    let toasts = expect_context::<Toasts>();
    let busy = RwSignal::new(false);
    let blocked = memo(move || {
        let now = operation.get()?;
        caller.cancel_refusal(&now, tenant)
    });
    let press = Callback::new(move |()| {
        busy.set(true);
        let live = live.clone();
        spawn_local(async move {
            let answer = live
                .ask(once(Key::fresh(), |key| cancel_operation(id, key)))
                .await;
            busy.try_set(false);
            match answer {
                // What comes of it, the events tell.
                Ok((_, now)) => {
                    let done = if now.state.is_over() {
                        "cancelled"
                    } else {
                        "being taken back"
                    };
                    let text = format!("The {} is {done}.", now.kind);
                    toasts.show(ToastKind::Info, text);
                }
                Err(error) => {
                    session.notice(&error);
                    toasts.show(ToastKind::Error, error.sentence());
                }
            }
        });
    });
    view! {
        <span class="operation-cancel">
            <Button id=format!("cancel-{id}") label="Cancel" icon=IconName::Undo on_press=press blocked=blocked busy=busy/>
        </span>
    }
}

#[component]
fn Step(n: usize, operation: Memo<Option<OperationView>>) -> impl IntoView {
    let step =
        memo(move || operation.with(|now| now.as_ref().and_then(|now| now.steps.get(n).cloned())));
    let title = step.with_untracked(|step| step.as_ref().map(|step| step.kind.title()));
    let state =
        memo(move || step.with(|step| step.as_ref().map_or(StepState::Waiting, |step| step.state)));
    let under_way = move || matches!(state.get(), StepState::Running | StepState::Undoing);
    let progress = memo(move || {
        let bytes = operation.with(|now| now.as_ref().and_then(|now| now.progress));
        bytes.filter(|_| under_way())
    });
    let waits_for = memo(move || waits_for(operation).filter(|_| under_way()));
    let slug = move || Some(said(state.get()).0);
    view! {
        <li data-step=word(slug) aria-current=word(move || under_way().then_some("step"))>
            <span class="step-title">{title}</span>
            <span class="faint">{part(move || step.get().map(|step| view! { <StepLine step=step/> }))}</span>
            {part(move || waits_for.get().map(waiting))}
            <When is=Signal::derive(move || progress.get().is_some() && waits_for.get().is_none())>
                <Moved label=title.unwrap_or_default() progress=progress/>
            </When>
        </li>
    }
    .into_any()
}

/// What is away that the operation needs now.
fn waits_for(operation: Memo<Option<OperationView>>) -> Option<String> {
    operation.with(|now| now.as_ref().and_then(|now| now.waits_for.clone()))
}

fn waiting(what: String) -> impl IntoView {
    let text = format!("It waits for {what}.");
    view! { <p class="faint" role="status"><Prose text=text/></p> }
}

/// How the step is: its state, how often it was tried, when it is again.
#[component]
fn StepLine(step: StepView) -> impl IntoView {
    let StepView {
        kind: _,
        state,
        attempts,
        retry_at,
        started_at,
        ended_at,
    } = step;
    let waits = retry_at.is_some();
    view! {
        {if waits { "failed, tried again" } else { said(state).1 }}
        {retry_at.map(|at| view! { " " <Until at_ms=at.as_ms()/> })}
        {started_at.filter(|_| !waits).map(|from| view! {
            ", " <Elapsed from_ms=from.as_ms() to_ms=ended_at.map(|at| at.as_ms())/>
        }.into_any())}
        {(attempts > 1).then(|| format!(", try {attempts}"))}
    }
}

/// How far the step under way is.
#[component]
pub fn Moved(#[prop(into)] label: String, progress: Memo<Option<Bytes>>) -> impl IntoView {
    // How much is to come, nobody may know yet.
    let done = move || {
        let bytes = progress.get().filter(|bytes| bytes.total_bytes > 0);
        bytes.map(|bytes| thousandths(bytes.done_bytes, bytes.total_bytes))
    };
    view! {
        <Progress
            label=label
            done=Signal::derive(done)
            text=Signal::derive(move || progress.get().map(amounts).unwrap_or_default())
        />
    }
}

/// "512 MiB of 2 GiB".
fn amounts(bytes: Bytes) -> String {
    let (done, total) = (bytes.done_bytes, bytes.total_bytes.max(bytes.done_bytes));
    if bytes.total_bytes == 0 {
        return format!("{} so far", amount(done));
    }
    format!("{} of {}", amount(done), amount(total))
}

const fn said(state: StepState) -> (&'static str, &'static str) {
    match state {
        StepState::Waiting => ("waiting", "waits"),
        StepState::Running => ("running", "in progress"),
        StepState::Done => ("done", "done"),
        StepState::Failed => ("failed", "failed"),
        StepState::Skipped => ("skipped", "skipped"),
        StepState::Undoing => ("undoing", "being taken back"),
        StepState::Undone => ("undone", "taken back"),
    }
}

const fn title(kind: OperationKind) -> &'static str {
    match kind {
        OperationKind::Create => "Create",
        OperationKind::Start => "Start",
        OperationKind::Suspend => "Suspend",
        OperationKind::Stop => "Stop",
        OperationKind::Resume => "Resume",
        OperationKind::PowerOff => "Power off",
        OperationKind::Reboot => "Reboot",
        OperationKind::Reset => "Reset",
        OperationKind::Resize => "Resize",
        OperationKind::Shutdown => "Shut down",
        OperationKind::Delete => "Delete",
        OperationKind::Snapshot => "Snapshot",
        OperationKind::Revert => "Go back",
        OperationKind::RemoveSnapshot => "Delete snapshot",
        OperationKind::Backup => "Back up",
        OperationKind::Attach => "Attach",
        OperationKind::Detach => "Detach",
        OperationKind::Grow => "Make larger",
        OperationKind::Move => "Move disks",
        OperationKind::Migrate => "Migrate",
        OperationKind::Import => "Import",
        OperationKind::Refresh => "Refresh",
    }
}

const fn shown(state: OperationState) -> (Tone, &'static str) {
    match state {
        OperationState::Running => (Tone::Moving, "running"),
        OperationState::Undoing => (Tone::Moving, "going back"),
        OperationState::Succeeded => (Tone::Good, "succeeded"),
        OperationState::Failed => (Tone::Bad, "failed"),
        OperationState::Cancelled => (Tone::Over, "cancelled"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn amounts_never_show_more_done_than_there_is() {
        let bytes = Bytes {
            done_bytes: 3 << 30,
            total_bytes: 2 << 30,
            copy: None,
        };
        assert_eq!(amounts(bytes), "3 GiB of 3 GiB");
    }

    #[test]
    fn of_what_nobody_knows_the_size_only_what_is_done_is_said() {
        let bytes = Bytes {
            done_bytes: 3 << 30,
            total_bytes: 0,
            copy: None,
        };
        assert_eq!(amounts(bytes), "3 GiB so far");
    }
}
