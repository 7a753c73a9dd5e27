//! The one dialog in which something is said and done: reason, question,
//! answer, and other terms where they belong.

use leptos::ev::SubmitEvent;
use leptos::prelude::*;
use leptos::task::spawn_local;
use vimana_model::request::{RequestAction, RequestDecision, RequestView, check_remark};
use vimana_model::vm::CreateVm;
use vimana_ui::{
    Answers, Dialog, Icon, IconName, TextAreaField, ToastKind, Toasts, When, memo, part, press,
    text, word,
};

use super::actions::meaning;
use crate::api::{ApiError, ApiResult, Catalogue, Key, act_on_request, catalogue, once};
use crate::live::Live;
use crate::page::sentence;
use crate::page::terms::{Change, TermsDraft, TermsFields, changes};
use crate::session::CurrentSession;

/// What is about to be done with the request of this page.
#[derive(Clone)]
pub struct DecisionDesk {
    request: ArcRwSignal<RequestView>,
    action: RwSignal<RequestAction>,
    open: RwSignal<bool>,
}

impl DecisionDesk {
    #[must_use]
    pub fn new(request: ArcRwSignal<RequestView>) -> Self {
        Self {
            request,
            action: RwSignal::new(RequestAction::Approve),
            open: RwSignal::new(false),
        }
    }

    /// Opens the dialog: everything that is done can be explained.
    pub fn ask(&self, action: RequestAction) {
        self.action.set(action);
        self.open.set(true);
    }
}

/// Whether other terms may come with it.
const fn takes_terms(action: RequestAction) -> bool {
    match action {
        RequestAction::Approve | RequestAction::Answer => true,
        RequestAction::Reject
        | RequestAction::AskBack
        | RequestAction::Withdraw
        | RequestAction::AskRelease
        | RequestAction::ConfirmRelease
        | RequestAction::Keep => false,
    }
}

/// What the text is called.
const fn remark_label(action: RequestAction) -> &'static str {
    match action {
        RequestAction::Reject => "Reason",
        RequestAction::AskBack => "Question",
        RequestAction::Answer => "Answer",
        RequestAction::Approve
        | RequestAction::Withdraw
        | RequestAction::AskRelease
        | RequestAction::ConfirmRelease
        | RequestAction::Keep => "Remark",
    }
}

const fn done(action: RequestAction) -> &'static str {
    match action {
        RequestAction::Approve => "is approved; the machine is being made.",
        RequestAction::Reject => "is rejected.",
        RequestAction::AskBack => "waits for an answer.",
        RequestAction::Answer => "waits for a decision again.",
        RequestAction::Withdraw => "is withdrawn.",
        RequestAction::AskRelease => "waits for its release to be confirmed.",
        RequestAction::ConfirmRelease => "is being given back.",
        RequestAction::Keep => "runs on.",
    }
}

#[component]
pub fn DecisionDialog() -> impl IntoView {
    let desk = expect_context::<DecisionDesk>();
    let DecisionDesk {
        request,
        action,
        open,
    } = desk;
    let close = Callback::new(move |()| open.set(false));
    let title = {
        let request = request.clone();
        Signal::derive(move || {
            let name = request.with(|request| request.terms.name.clone());
            format!("{}: {name}", action.get().title())
        })
    };
    view! {
        <Dialog id="decision" open=open on_close=close title=title wide=true>
            <DecisionForm request=request.clone() action=action.get_untracked() close=close/>
        </Dialog>
    }
}

/// What is being filled in.
#[derive(Clone, Copy)]
struct Draft {
    remark: RwSignal<String>,
    /// Whether the reader has been to the remark.
    said: RwSignal<bool>,
    terms: TermsDraft,
    /// Whether other terms are wanted at all.
    changing: RwSignal<bool>,
    busy: RwSignal<bool>,
    refused: RwSignal<Option<ApiError>>,
}

impl Draft {
    fn new(asked: &CreateVm) -> Self {
        Self {
            remark: RwSignal::new(String::new()),
            said: RwSignal::new(false),
            terms: TermsDraft::of(asked),
            changing: RwSignal::new(false),
            busy: RwSignal::new(false),
            refused: RwSignal::new(None),
        }
    }

    /// What is sent, if it is whole.
    fn decision(self, action: RequestAction, seen: &RequestView) -> Option<RequestDecision> {
        let text = self.remark.get();
        let next = self.changing.get().then(|| self.terms.terms());
        let next = next.filter(|next| !changes(&seen.terms, next).is_empty());
        let whole = next.as_ref().is_none_or(|next| next.check().is_ok());
        (whole && wrong_remark(action, &text).is_none()).then(|| RequestDecision {
            remark: (!text.trim().is_empty()).then_some(text),
            terms: next,
            // Decided about is what one saw when one began.
            generation: Some(seen.generation),
        })
    }

    fn remark_error(self, action: RequestAction) -> Option<String> {
        let theirs = || self.refused.get().and_then(|error| error.field("remark"));
        let wrong = self
            .said
            .get()
            .then(|| wrong_remark(action, &self.remark.get()));
        wrong.flatten().or_else(theirs).map(|text| sentence(&text))
    }
}

/// What is wrong with the text that comes with `action`.
fn wrong_remark(action: RequestAction, text: &str) -> Option<String> {
    if !action.needs_remark() && text.trim().is_empty() {
        return None;
    }
    check_remark("remark", text)
        .err()
        .map(|error| error.message)
}

#[component]
fn DecisionForm(
    request: ArcRwSignal<RequestView>,
    action: RequestAction,
    close: Callback<()>,
) -> impl IntoView {
    let live = expect_context::<Live>();
    let session = expect_context::<CurrentSession>();
    let toasts = expect_context::<Toasts>();
    let seen = request.get_untracked();
    let draft = Draft::new(&seen.terms);
    let Draft { busy, refused, .. } = draft;
    let generation = seen.generation;
    let moved = memo(move || request.with(|request| request.generation != generation));
    let asked = seen.terms.clone();
    let submit = move |event: SubmitEvent| {
        event.prevent_default();
        draft.said.set(true);
        draft.terms.touch_all();
        let decision = untrack(|| draft.decision(action, &seen));
        let (Some(decision), false) = (decision, busy.get_untracked()) else {
            return;
        };
        busy.set(true);
        refused.set(None);
        let (live, id, name) = (live.clone(), seen.id, seen.terms.name.clone());
        spawn_local(async move {
            let answer = once(Key::fresh(), |key| {
                act_on_request(id, action, decision.clone(), key)
            });
            match live.ask(answer).await {
                Ok((asked, request)) => {
                    live.adopt_request(asked, request);
                    toasts.show(ToastKind::Info, format!("{name} {}", done(action)));
                    close.run(());
                }
                Err(error) => {
                    session.notice(&error);
                    busy.try_set(false);
                    if let Some(terms) = decision.terms {
                        draft.terms.refuse(terms, error.clone());
                    }
                    refused.try_set(Some(error));
                }
            }
        });
    };
    let general = Signal::derive(move || {
        let refused = refused
            .get()
            .filter(|error| error.field("remark").is_none());
        let old = moved.get() && !busy.get();
        let refused = refused.map(|error| error.sentence());
        refused.or_else(|| old.then(|| OLD.to_owned()))
    });
    let label = Signal::derive(move || {
        let changed = draft.changing.get();
        if changed {
            with_changes(action)
        } else {
            action.title()
        }
        .to_owned()
    });
    view! {
        <form class="dialog-form" method="post" novalidate on:submit=submit>
            <p>{sentence(meaning(action))}</p>
            <TextAreaField
                id="remark"
                label=remark_label(action)
                hint="Both sides read it."
                required=action.needs_remark()
                prose=true
                value=draft.remark
                error=Signal::derive(move || draft.remark_error(action))
                on_leave=Callback::new(move |()| draft.said.set(true))
            />
            {takes_terms(action).then(|| view! { <OtherTerms asked=asked draft=draft/> })}
            <Answers error=general on_cancel=close label=label busy=busy danger=gives_up(action)/>
        </form>
    }
    .into_any()
}

const OLD: &str = "The request has changed since you opened this; close it and look again.";

const fn with_changes(action: RequestAction) -> &'static str {
    match action {
        RequestAction::Approve => "Approve with these terms",
        RequestAction::Answer => "Answer with these terms",
        RequestAction::Reject
        | RequestAction::AskBack
        | RequestAction::Withdraw
        | RequestAction::AskRelease
        | RequestAction::ConfirmRelease
        | RequestAction::Keep => action.title(),
    }
}

/// Whether nothing is left to decide, or to use, afterwards.
pub const fn gives_up(action: RequestAction) -> bool {
    match action {
        RequestAction::Reject | RequestAction::ConfirmRelease => true,
        RequestAction::Approve
        | RequestAction::AskBack
        | RequestAction::Answer
        | RequestAction::Withdraw
        | RequestAction::AskRelease
        | RequestAction::Keep => false,
    }
}

/// The terms to change, and what changes.
#[component]
fn OtherTerms(asked: CreateVm, draft: Draft) -> impl IntoView {
    let choices = RwSignal::new(None::<ApiResult<Catalogue>>);
    let changing = draft.changing;
    let turn = move || {
        changing.update(|changing| *changing = !*changing);
        if choices.with_untracked(Option::is_none) {
            spawn_local(async move {
                choices.try_set(Some(catalogue().await));
            });
        }
    };
    let found = memo(move || changes(&asked, &draft.terms.terms()));
    view! {
        <p>
            <button
                r#type="button"
                class="button"
                data-kind="plain"
                aria-expanded=word(move || Some(if changing.get() { "true" } else { "false" }))
                on:click=press(turn)
            >
                <Icon name=IconName::Resize/>
                <span>{text(move || if changing.get() { "Leave the terms as they are" } else { "Change the terms" })}</span>
            </button>
        </p>
        <When is=changing>
            <Difference found=found/>
            <fieldset class="terms">
                <legend>"Terms"</legend>
                {part(move || Some(match choices.get() {
                    None => view! { <p role="status">"Loading…"</p> }.into_any(),
                    Some(Err(error)) => view! { <p role="alert">{error.sentence()}</p> }.into_any(),
                    Some(Ok(choices)) => view! { <TermsFields draft=draft.terms choices=choices/> }.into_any(),
                }))}
            </fieldset>
        </When>
    }
    .into_any()
}

#[component]
fn Difference(found: Memo<Vec<Change>>) -> impl IntoView {
    let any = Signal::derive(move || !found.with(Vec::is_empty));
    let rows = part(move || {
        let rows = found
            .get()
            .into_iter()
            .map(|change| {
                view! {
                    <div data-changed="true">
                        <dt>{change.title}</dt>
                        <dd>
                            <span>{change.from}</span>
                            <span class="faint">" → "</span>
                            <strong>{change.to}</strong>
                        </dd>
                    </div>
                }
            })
            .map(IntoAny::into_any)
            .collect::<Vec<_>>();
        Some(rows)
    });
    view! {
        <section class="difference" aria-live="polite">
            <h3>"What changes"</h3>
            <When is=any otherwise=|| view! { <p class="faint">"Nothing yet."</p> }>
                <dl class="facts comparison">{rows.clone()}</dl>
            </When>
        </section>
    }
}
