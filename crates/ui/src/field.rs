//! Form fields: a label, a hint, and what is wrong, tied together.

use leptos::html;
use leptos::prelude::*;

use crate::follow::{Follow, Part, flag, part, press, text};
use crate::icon::{Icon, IconName};
use crate::prose::Prose;

/// What a control is called in its form: unique in the page.
pub type Id = Oco<'static, str>;

/// Label, hint and error around a control.
#[component]
pub(crate) fn Field(
    id: Id,
    #[prop(into)] label: String,
    #[prop(into)] hint: String,
    optional: bool,
    error: Signal<Option<String>>,
    children: Children,
) -> impl IntoView {
    let no_hint = hint.is_empty();
    view! {
        <div class="field" data-invalid=flag(move || error.with(Option::is_some))>
            <label for=id.clone()>
                {label} " " {optional.then(|| view! { <span class="field-optional">"optional"</span> }.into_any())}
            </label>
            {children()}
            <p class="field-hint" id=format!("{id}-hint") hidden=no_hint>{hint}</p>
            <p class="field-error" id=format!("{id}-error") role="alert">{warning(error)}</p>
        </div>
    }
    .into_any()
}

fn warning(error: Signal<Option<String>>) -> Part {
    part(move || {
        error
            .get()
            .map(|text| view! { <Icon name=IconName::Warning/> <span><Prose text=text/></span> })
    })
}

/// What is wrong with a form, and with no field of it in particular.
#[component]
pub fn FormError(#[prop(into)] error: Signal<Option<String>>) -> impl IntoView {
    view! { <p class="form-error" role="alert">{warning(error)}</p> }
}

/// The button that sends a form.
#[component]
pub fn Submit(
    #[prop(into)] label: Signal<String>,
    #[prop(into)] busy: Signal<bool>,
    /// Nothing is sent now; the label says why.
    #[prop(into, optional)]
    idle: Signal<bool>,
    #[prop(optional)] danger: bool,
) -> impl IntoView {
    view! {
        <button
            r#type="submit"
            class="button"
            data-kind=if danger { "danger" } else { "primary" }
            aria-busy=flag(move || busy.get())
            aria-disabled=flag(move || idle.get())
        >
            {label}
        </button>
    }
}

/// The end of a form in a dialog: what is wrong with all of it, the way out and
/// the button that sends it.
#[component]
pub fn Answers(
    #[prop(into)] error: Signal<Option<String>>,
    on_cancel: Callback<()>,
    #[prop(into)] label: Signal<String>,
    #[prop(into)] busy: Signal<bool>,
    /// As of [`Submit`].
    #[prop(into, optional)]
    idle: Signal<bool>,
    #[prop(optional)] danger: bool,
) -> impl IntoView {
    view! {
        <FormError error=error/>
        <div class="dialog-answers">
            <button r#type="button" class="button" data-kind="plain" on:click=press(move || on_cancel.run(()))>
                "Cancel"
            </button>
            <Submit label=label busy=busy idle=idle danger=danger/>
        </div>
    }
}

/// The ids that describe a control: always its hint, and its error while there
/// is one.
pub(crate) fn described_by(id: Id, error: Signal<Option<String>>) -> Follow<String> {
    text(move || {
        if error.with(Option::is_some) {
            format!("{id}-error {id}-hint")
        } else {
            format!("{id}-hint")
        }
    })
}

pub(crate) fn invalid(error: Signal<Option<String>>) -> Follow<Option<&'static str>> {
    flag(move || error.with(Option::is_some))
}

/// Takes over what was typed, or filled in by the browser, before the page was
/// alive.
fn keep_typed(value: RwSignal<String>, typed: Option<String>) {
    if let Some(typed) = typed.filter(|typed| !typed.is_empty())
        && value.with_untracked(String::is_empty)
    {
        value.set(typed);
    }
}

/// One line of text.
#[component]
pub fn TextField(
    #[prop(into)] id: Id,
    #[prop(into)] label: String,
    #[prop(into, optional)] hint: String,
    #[prop(optional)] secret: bool,
    #[prop(default = "off")] autocomplete: &'static str,
    #[prop(into, optional)] placeholder: Signal<String>,
    #[prop(optional)] autofocus: bool,
    /// Digits alone: brings up their keyboard.
    #[prop(optional)]
    numeric: bool,
    #[prop(optional)] optional: bool,
    value: RwSignal<String>,
    #[prop(into, optional)] error: Signal<Option<String>>,
    #[prop(into, optional)] on_leave: Option<Callback<()>>,
) -> impl IntoView {
    let node = NodeRef::<html::Input>::new();
    Effect::new(move |_| keep_typed(value, node.get().map(|input| input.value())));
    view! {
        <Field id=id.clone() label=label hint=hint optional=optional error=error>
            <input
                id=id.clone()
                name=id.clone()
                class="input"
                r#type=if secret { "password" } else { "text" }
                autocomplete=autocomplete
                autocapitalize="none"
                spellcheck="false"
                placeholder=text(move || placeholder.get())
                autofocus=autofocus
                inputmode=numeric.then_some("numeric")
                required=!optional
                value=value.get_untracked()
                aria-invalid=invalid(error)
                aria-describedby=described_by(id, error)
                node_ref=node
                on:input=move |event| value.set(event_target_value(&event))
                on:blur=move |_| {
                    if let Some(leave) = on_leave {
                        leave.run(());
                    }
                }
            />
        </Field>
    }
}

/// Several lines of text; optional unless it says otherwise.
#[component]
pub fn TextAreaField(
    #[prop(into)] id: Id,
    #[prop(into)] label: String,
    #[prop(into, optional)] hint: String,
    #[prop(optional)] required: bool,
    /// A text for people rather than one for machines.
    #[prop(optional)]
    prose: bool,
    #[prop(default = "3")] rows: &'static str,
    #[prop(optional)] placeholder: &'static str,
    value: RwSignal<String>,
    #[prop(into, optional)] error: Signal<Option<String>>,
    #[prop(into, optional)] on_leave: Option<Callback<()>>,
) -> impl IntoView {
    let node = NodeRef::<html::Textarea>::new();
    Effect::new(move |_| keep_typed(value, node.get().map(|input| input.value())));
    view! {
        <Field id=id.clone() label=label hint=hint optional=!required error=error>
            <textarea
                id=id.clone()
                name=id.clone()
                class="input"
                class:prose=prose
                rows=rows
                autocomplete="off"
                autocapitalize=if prose { "sentences" } else { "none" }
                spellcheck=if prose { "true" } else { "false" }
                required=required
                placeholder=placeholder
                aria-invalid=invalid(error)
                aria-describedby=described_by(id, error)
                node_ref=node
                on:input=move |event| value.set(event_target_value(&event))
                on:blur=move |_| {
                    if let Some(leave) = on_leave {
                        leave.run(());
                    }
                }
            >{value.get_untracked()}</textarea>
        </Field>
    }
}

/// One entry of a list to choose from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Choice {
    pub value: String,
    pub text: String,
}

/// One of a short list.
#[component]
pub fn SelectField(
    #[prop(into)] id: Id,
    #[prop(into)] label: String,
    #[prop(into, optional)] hint: String,
    choices: Vec<Choice>,
    value: RwSignal<String>,
    #[prop(into, optional)] error: Signal<Option<String>>,
    /// What else happens when one is chosen.
    #[prop(into, optional)]
    on_choose: Option<Callback<String>>,
) -> impl IntoView {
    let options = choices
        .into_iter()
        .map(|Choice { value: own, text }| {
            let selected = value.with_untracked(|value| *value == own);
            view! { <option value=own selected=selected>{text}</option> }
        })
        .map(IntoAny::into_any)
        .collect::<Vec<_>>();
    view! {
        <Field id=id.clone() label=label hint=hint optional=false error=error>
            <select
                id=id.clone()
                name=id.clone()
                class="input"
                required=true
                aria-invalid=invalid(error)
                aria-describedby=described_by(id, error)
                prop:value=text(move || value.get())
                on:change=move |event| {
                    let chosen = event_target_value(&event);
                    value.set(chosen.clone());
                    if let Some(choose) = on_choose {
                        choose.run(chosen);
                    }
                }
            >
                {options}
            </select>
        </Field>
    }
}

/// Yes or no.
#[component]
pub fn CheckField(
    #[prop(into)] id: Id,
    #[prop(into)] label: String,
    #[prop(into)] hint: String,
    value: RwSignal<bool>,
) -> impl IntoView {
    view! {
        <div class="check">
            <input
                id=id.clone()
                name=id.clone()
                r#type="checkbox"
                aria-describedby=format!("{id}-hint")
                prop:checked=value
                on:change=move |event| value.set(event_target_checked(&event))
            />
            <label for=id.clone()>{label}</label>
            <p class="field-hint" id=format!("{id}-hint")>{hint}</p>
        </div>
    }
}
