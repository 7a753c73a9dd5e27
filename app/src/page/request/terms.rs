use leptos::prelude::*;
use vimana_model::request::RequestView;
use vimana_model::vm::CreateVm;
use vimana_ui::{Badge, Icon, IconName, Time, memo, part, text};

use crate::page::tone;

/// What is asked for, or what was approved of it.
#[component]
pub fn Terms(request: ArcRwSignal<RequestView>) -> impl IntoView {
    let fixed = request.get_untracked();
    let term = |get: fn(&CreateVm) -> String| {
        let request = request.clone();
        let shown = memo(move || request.with(|request| get(&request.terms)));
        text(move || shown.get()).into_any()
    };
    let row = |title: &'static str, value: AnyView| {
        view! {
            <div>
                <dt>{title}</dt>
                <dd>{value}</dd>
            </div>
        }
    };
    let long = |get: fn(&CreateVm) -> &Option<String>| {
        let request = request.clone();
        let shown = memo(move || request.with(|request| get(&request.terms).clone()));
        part(move || {
            Some(match shown.get() {
                Some(text) => view! { <code class="long">{text}</code> }.into_any(),
                None => "none".into_any(),
            })
        })
        .into_any()
    };
    let inputs = fixed.terms.inputs.iter();
    let inputs = inputs
        .map(|(name, value)| row("Input", format!("{name}: {}", value.shown()).into_any()))
        .map(IntoAny::into_any)
        .collect::<Vec<_>>();
    view! {
        <section class="panel" aria-labelledby="terms-title">
            <h2 id="terms-title">"Terms"</h2>
            <dl class="facts">
                {row("Name", term(|terms| terms.name.clone()))}
                {fixed.terms.template.as_ref().map(|name| row("Template", name.clone().into_any()))}
                {inputs}
                {row("Image", term(|terms| terms.image.clone()))}
                {row("Flavor", term(|terms| terms.flavor.clone()))}
                {row("SSH keys", long(|terms| &terms.ssh_key))}
                {row("User-data", long(|terms| &terms.user_data))}
                {row("Held at first", term(|terms| if terms.hold { "yes" } else { "no" }.to_owned()))}
                {row("Requester", fixed.requester.to_string().into_any())}
                {row("Asked", view! { <Time at_ms=fixed.created_at.as_ms()/> }.into_any())}
                {row("Id", view! { <code class="long">{fixed.id.to_string()}</code> }.into_any())}
            </dl>
        </section>
    }
    .into_any()
}

/// The VM it led to, with its state as it is now.
#[component]
pub fn Machine(request: ArcRwSignal<RequestView>) -> impl IntoView {
    let vm = {
        let request = request.clone();
        memo(move || request.with(|request| request.vm.clone()))
    };
    let id = memo(move || vm.with(|vm| vm.as_ref().map(|vm| vm.id)));
    let state = move || vm.with(|vm| vm.as_ref().map(|vm| vm.state));
    part(move || {
        let name = request.with_untracked(|request| request.terms.name.clone());
        id.get().map(|id| {
            view! {
                <section class="panel machine" aria-labelledby="machine-title">
                    <h2 id="machine-title"><Icon name=IconName::Machine/> "The machine"</h2>
                    <p>
                        <a href=format!("/vms/{id}") class="name">{name}</a>
                        {part(move || state().map(|state| view! {
                            <Badge tone=tone(state) text=state.name().to_owned()/>
                            <span class="faint">{state.meaning()}</span>
                        }))}
                    </p>
                </section>
            }
        })
    })
}
