//! What is being done with the VM, step by step, and what was done.

use leptos::prelude::*;
use vimana_model::OperationId;
use vimana_model::operation::{OperationKind, OperationState, OperationView, StepState, StepView};
use vimana_ui::{Badge, Elapsed, Prose, Time, Tone};

use crate::page::sentence;

#[component]
pub fn Operations(operations: ArcRwSignal<Vec<OperationView>>) -> impl IntoView {
    let (running, past) = (of(&operations, true), of(&operations, false));
    let list = move |ids: Memo<Vec<OperationId>>| {
        let operations = operations.clone();
        view! {
            <For
                each=move || ids.get()
                key=|id| *id
                children=move |id| view! { <Operation id=id operations=operations.clone()/> }
            />
        }
    };
    let count = move || past.with(Vec::len);
    view! {
        <section class="panel" aria-labelledby="operations-title">
            <h2 id="operations-title">"Operations"</h2>
            <Show when=move || running.with(Vec::is_empty)>
                <p class="faint">"Nothing is in flight."</p>
            </Show>
            {list.clone()(running)}
            <details class="past" open=true hidden=move || count() == 0>
                <summary>{move || format!("Past operations ({})", count())}</summary>
                {list(past)}
            </details>
        </section>
    }
    .into_any()
}

/// The operations that run, or those that ended; newest first.
fn of(operations: &ArcRwSignal<Vec<OperationView>>, running: bool) -> Memo<Vec<OperationId>> {
    let operations = operations.clone();
    Memo::new(move |_| {
        operations.with(|operations| {
            operations
                .iter()
                .filter(|operation| (operation.state == OperationState::Running) == running)
                .map(|operation| operation.id)
                .collect()
        })
    })
}

#[component]
fn Operation(id: OperationId, operations: ArcRwSignal<Vec<OperationView>>) -> impl IntoView {
    let operation = Memo::new(move |_| {
        operations.with(|operations| {
            operations
                .iter()
                .find(|operation| operation.id == id)
                .cloned()
        })
    });
    move || {
        operation.get().map(|operation| {
            let (tone, state) = shown(operation.state);
            view! {
                <article class="operation" aria-label=title(operation.kind)>
                    <header>
                        <h3>{title(operation.kind)}</h3>
                        <Badge tone=tone text=state.to_owned()/>
                        <span class="faint">
                            {operation.requested_by} " · " <Time at_ms=operation.created_at.as_ms()/> " · "
                            <Elapsed
                                from_ms=operation.created_at.as_ms()
                                to_ms=operation.ended_at.map(|at| at.as_ms())
                            />
                        </span>
                    </header>
                    <ol class="steps">
                        {operation.steps.into_iter().map(|step| view! { <Step step=step/> }).collect_view()}
                    </ol>
                    {operation.error.map(|error| view! { <p class="operation-error"><Prose text=sentence(&error)/></p> })}
                </article>
            }
        })
    }
}

#[component]
fn Step(step: StepView) -> impl IntoView {
    let (slug, word) = match step.state {
        StepState::Waiting => ("waiting", "waits"),
        StepState::Running => ("running", "in progress"),
        StepState::Done => ("done", "done"),
        StepState::Failed => ("failed", "failed"),
        StepState::Skipped => ("skipped", "skipped"),
    };
    view! {
        <li data-step=slug aria-current=(step.state == StepState::Running).then_some("step")>
            <span class="step-title">{step.kind.title()}</span>
            <span class="faint">
                {word}
                {step.started_at.map(|from| view! {
                    ", " <Elapsed from_ms=from.as_ms() to_ms=step.ended_at.map(|at| at.as_ms())/>
                })}
            </span>
        </li>
    }
}

const fn title(kind: OperationKind) -> &'static str {
    match kind {
        OperationKind::Create => "Create",
        OperationKind::Shutdown => "Shut down",
        OperationKind::Delete => "Delete",
    }
}

const fn shown(state: OperationState) -> (Tone, &'static str) {
    match state {
        OperationState::Running => (Tone::Moving, "running"),
        OperationState::Succeeded => (Tone::Good, "succeeded"),
        OperationState::Failed => (Tone::Bad, "failed"),
        OperationState::Cancelled => (Tone::Over, "cancelled"),
    }
}
