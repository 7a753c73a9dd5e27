//! `/vms/new?image=NAME`: asks for a VM; under the manual life-cycle for the
//! permission to have one. The same checks run here, as one types, and on the
//! server.

use std::sync::Arc;

use leptos::ev::SubmitEvent;
use leptos::prelude::*;
use leptos::task::spawn_local;
use leptos_meta::Title;
use leptos_router::hooks::{use_navigate, use_query_map};
use vimana_model::request::CreateRequest;
use vimana_ui::{EmptyState, FormError, Submit, TextAreaField, memo};

use super::lazy::lazy_page;
use super::load::{Asked, Found, Loaded, Wanted};
use super::sentence;
use super::terms::{TermsDraft, TermsFields};
use crate::api::{ApiError, ApiResult, Catalogue, Key, create_request, create_vm, once};
use crate::live::Live;
use crate::session::{Caller, CurrentSession, NOT_ALLOWED};

lazy_page!(
    /// The form that asks for a VM.
    NewVmPage in new_vm = page, wants || Wanted::Choices
);

fn page(asked: Asked) -> AnyView {
    view! {
        <Loaded
            asked=asked
            show=Arc::new(|caller, _, found| {
                let Found::Choices(choices) = found else {
                    return None;
                };
                Some(view! { <Page caller=caller choices=choices/> }.into_any())
            })
            // The form is what somebody is typing into: it stays.
            again=Arc::new(|_, _| ())
        />
    }
    .into_any()
}

#[component]
fn Page(caller: Caller, choices: Catalogue) -> impl IntoView {
    let (title, asks_first) = (caller.new_title(), caller.asks_first());
    let body = if !caller.may_create() {
        view! { <EmptyState title="Not allowed" text=NOT_ALLOWED/> }.into_any()
    } else if choices.images.is_empty() || choices.flavors.is_empty() {
        view! {
            <EmptyState
                title="No image or no flavor yet"
                text="A VM needs an image to start from and a flavor for its size; the administrator adds them."
            />
        }
        .into_any()
    } else {
        view! { <NewVmForm asks_first=asks_first choices=choices/> }.into_any()
    };
    view! {
        <Title text=title/>
        <div class="page-head">
            <div>
                <h1>{title}</h1>
                {asks_first.then(|| view! {
                    <p class="lead">"A manager of your tenant decides about it; once it is approved, the machine is made right away."</p>
                }.into_any())}
            </div>
        </div>
        {body}
    }
    .into_any()
}

/// What was last sent, and under which key: the same form again is the same
/// request.
#[derive(Clone, Copy)]
struct Sent(StoredValue<Option<(CreateRequest, Key)>>);

impl Sent {
    fn key(self, form: &CreateRequest) -> Key {
        let known = self.0.get_value().filter(|(sent, _)| sent == form);
        let key = known.map_or_else(Key::fresh, |(_, key)| key);
        self.0.set_value(Some((form.clone(), key.clone())));
        key
    }
}

/// Asks for it; answers where it is to be seen.
async fn send(live: Live, asks_first: bool, form: CreateRequest, key: Key) -> ApiResult<String> {
    if asks_first {
        let answer = once(key, |key| create_request(form.clone(), key));
        let (asked, request) = live.ask(answer).await?;
        let url = format!("/requests/{}", request.id);
        live.adopt_request(asked, request);
        Ok(url)
    } else {
        let answer = once(key, |key| create_vm(form.terms.clone(), key));
        let (asked, accepted) = live.ask(answer).await?;
        let url = format!("/vms/{}", accepted.vm.id);
        live.adopt(asked, accepted.vm);
        Ok(url)
    }
}

#[component]
fn NewVmForm(asks_first: bool, choices: Catalogue) -> impl IntoView {
    let live = expect_context::<Live>();
    let session = expect_context::<CurrentSession>();
    let navigate = use_navigate();
    let image = use_query_map().with_untracked(|query| query.get("image"));
    let draft = TermsDraft::new(&choices, image.as_deref());
    let purpose = RwSignal::new(String::new());
    let purpose_left = RwSignal::new(false);
    let form = memo(move || CreateRequest {
        terms: draft.terms(),
        purpose: purpose.get(),
    });
    let is_whole = move |form: &CreateRequest| {
        untrack(|| draft.is_whole()) && (!asks_first || form.check().is_ok())
    };
    let busy = RwSignal::new(false);
    let refused = RwSignal::new(None::<ApiError>);
    let sent = Sent(StoredValue::new(None));
    let submit = move |event: SubmitEvent| {
        event.prevent_default();
        draft.touch_all();
        purpose_left.set(true);
        let form = form.get_untracked();
        if busy.get_untracked() || !is_whole(&form) {
            return;
        }
        busy.set(true);
        refused.set(None);
        let (live, navigate) = (live.clone(), navigate.clone());
        spawn_local(async move {
            match send(live, asks_first, form.clone(), sent.key(&form)).await {
                Ok(url) => navigate(&url, Default::default()),
                Err(error) => {
                    session.notice(&error);
                    busy.try_set(false);
                    draft.refuse(form.terms, error.clone());
                    refused.try_set(Some(error));
                }
            }
        });
    };
    let purpose_error = Signal::derive(move || {
        let error = form.with(|form| form.check().err().map(ApiError::from));
        let error = error.and_then(|error| error.field("purpose"));
        error
            .filter(|_| purpose_left.get())
            .map(|text| sentence(&text))
    });
    // What is wrong with no field in particular.
    let general = Signal::derive(move || {
        let refused = refused.get().filter(|error| error.0.errors.is_empty());
        refused.map(|error| error.sentence())
    });
    let label = Signal::derive(move || {
        match (busy.get(), asks_first) {
            (true, _) => "Asking…",
            (false, true) => "Send the request",
            (false, false) => "Create VM",
        }
        .to_owned()
    });
    view! {
        <form class="form" method="post" novalidate on:submit=submit>
            <TermsFields draft=draft choices=choices first=true/>
            {asks_first.then(|| view! {
                <TextAreaField
                    id="purpose"
                    label="Purpose"
                    hint="What it is for and for how long: what a manager needs to know to decide."
                    placeholder="The shop's new front end, for the test phase until March"
                    required=true
                    prose=true
                    value=purpose
                    error=purpose_error
                    on_leave=Callback::new(move |()| purpose_left.set(true))
                />
            })}
            <FormError error=general/>
            <div class="form-answers">
                <Submit label=label busy=busy/>
                <a href=if asks_first { "/requests" } else { "/vms" } class="button" data-kind="bare">"Cancel"</a>
            </div>
        </form>
    }
    .into_any()
}
