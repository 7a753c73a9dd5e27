//! `/templates/new`, and `/templates/ID`: the form that makes a template, or
//! changes one; what it says, for those who may not.

use std::sync::Arc;

use leptos::ev::SubmitEvent;
use leptos::prelude::*;
use leptos::task::spawn_local;
use leptos_meta::Title;
use leptos_router::hooks::use_navigate;
use vimana_model::template::{ChangeTemplate, CreateTemplate, TemplateView};
use vimana_model::user_data::UserData;
use vimana_ui::{
    CheckField, Choice, EmptyState, FormError, SelectField, Submit, TextAreaField, TextField,
};

use super::super::lazy::lazy_page;
use super::super::load::{Asked, Found, FoundTemplate, Loaded, Wanted, id_in_address};
use super::super::sentence;
use super::inputs::{InputDrafts, InputsEditor};
use crate::api::{ApiError, ApiResult, Catalogue, Key, change_template, create_template, once};
use crate::session::{Caller, CurrentSession, NOT_ALLOWED};

lazy_page!(
    /// The form that makes a template.
    NewTemplatePage in templates = page, wants || Wanted::Choices
);

lazy_page!(
    /// One template, to change or to read.
    TemplatePage in templates = page, wants {
        let id = id_in_address();
        move || Wanted::Template(id.get())
    }
);

fn page(asked: Asked) -> AnyView {
    view! {
        <Loaded
            asked=asked
            show=Arc::new(|caller, _, found| match found {
                Found::Choices(choices) => {
                    Some(view! { <Page caller=caller choices=choices/> }.into_any())
                }
                Found::Template(found) => {
                    let FoundTemplate { template, choices } = *found;
                    Some(view! { <Page caller=caller choices=choices template=template/> }.into_any())
                }
                Found::Vms(_)
                | Found::Vm(_)
                | Found::Requests(_)
                | Found::Request(_)
                | Found::Hosts(_)
                | Found::Host(_)
                | Found::Images(_)
                | Found::Image(_)
                | Found::Backups(_)
                | Found::Templates(_)
                | Found::Volumes(_)
                | Found::Flavors(_)
                | Found::Quota(_)
                | Found::Tenants(_)
                | Found::Tenant(_) => None,
            })
            // The form is what somebody is typing into: it stays.
            again=Arc::new(|_, _| ())
        />
    }
    .into_any()
}

#[component]
fn Page(
    caller: Caller,
    choices: Catalogue,
    #[prop(optional, into)] template: Option<TemplateView>,
) -> impl IntoView {
    let title = template
        .as_ref()
        .map_or_else(|| "New template".to_owned(), |it| it.name.to_string());
    let keeps = |public| caller.may_keep_templates(public);
    let may = match &template {
        Some(template) => keeps(template.tenant_id.is_none()),
        None => keeps(false) || keeps(true),
    };
    let body = match (template, may) {
        (template, true) => {
            let public = keeps(true);
            view! { <TemplateForm template=template choices=choices public=public/> }.into_any()
        }
        (Some(template), false) => view! { <Reading template=template/> }.into_any(),
        (None, false) => view! { <EmptyState title="Not allowed" text=NOT_ALLOWED/> }.into_any(),
    };
    view! {
        <Title text=title.clone()/>
        <div class="page-head">
            <h1>{title}</h1>
        </div>
        {body}
    }
    .into_any()
}

/// What a template says.
#[component]
fn Reading(template: TemplateView) -> impl IntoView {
    let row = |title: &'static str, value: String| {
        view! {
            <div>
                <dt>{title}</dt>
                <dd>{value}</dd>
            </div>
        }
        .into_any()
    };
    let open = |name: Option<String>| name.unwrap_or_else(|| "left open".to_owned());
    let inputs = template.inputs.iter();
    let inputs = inputs
        .map(|input| row("Input", format!("{} ({})", input.label, input.kind)))
        .collect::<Vec<_>>();
    let data = template.user_data.as_ref().map(UserData::as_str);
    let data = data.map(|data| view! { <code class="long">{data.to_owned()}</code> });
    view! {
        <section class="panel">
            <dl class="facts">
                {row("Description", template.description)}
                {row("Image", open(template.image.map(|name| name.to_string())))}
                {row("Flavor", open(template.flavor.map(|name| name.to_string())))}
                {inputs}
                <div>
                    <dt>"User-data"</dt>
                    <dd>{data}</dd>
                </div>
            </dl>
        </section>
    }
    .into_any()
}

/// What is in the form.
#[derive(Clone, Copy)]
pub struct Draft {
    name: RwSignal<String>,
    description: RwSignal<String>,
    image: RwSignal<String>,
    flavor: RwSignal<String>,
    user_data: RwSignal<String>,
    pub inputs: InputDrafts,
    public: RwSignal<bool>,
    /// Whether it was to be sent: then what is wrong is shown.
    tried: RwSignal<bool>,
    refused: RwSignal<Option<(CreateTemplate, ApiError)>>,
}

impl Draft {
    fn of(template: Option<&TemplateView>) -> Self {
        let form = template.map(|template| ChangeTemplate::default().over(template));
        let form = form.unwrap_or_default();
        let text = |text: Option<String>| RwSignal::new(text.unwrap_or_default());
        Self {
            name: RwSignal::new(form.name),
            description: RwSignal::new(form.description),
            image: text(form.image),
            flavor: text(form.flavor),
            user_data: text(form.user_data),
            inputs: InputDrafts::of(form.inputs),
            public: RwSignal::new(form.public),
            tried: RwSignal::new(false),
            refused: RwSignal::new(None),
        }
    }

    /// The form as it is now.
    fn form(self) -> CreateTemplate {
        CreateTemplate {
            name: self.name.get(),
            description: self.description.get(),
            image: Some(self.image.get()),
            flavor: Some(self.flavor.get()),
            user_data: Some(self.user_data.get()),
            inputs: self.inputs.read(),
            public: self.public.get(),
        }
    }

    /// What is wrong with a field, by the reader's own look or the server's.
    fn told(self, field: &str) -> Option<String> {
        let form = self.form();
        let own = || {
            let unread = self.inputs.unread();
            let unread = unread.filter(|(unread, _)| unread == field);
            let unread = unread.map(|(_, sentence)| sentence.to_owned());
            let error = form.check().err().map(ApiError::from);
            unread.or_else(|| error?.field(field))
        };
        let theirs = || {
            self.refused.with(|refused| {
                let refused = refused.as_ref().filter(|(sent, _)| *sent == form);
                refused.and_then(|(_, error)| error.field(field))
            })
        };
        let own = self.tried.get().then(own).flatten();
        own.or_else(theirs).map(|text| sentence(&text))
    }

    pub fn error(self, field: &'static str) -> Signal<Option<String>> {
        Signal::derive(move || self.told(field))
    }

    /// The same for a field of the input that stands there now.
    pub fn input_error(
        self,
        place: impl Fn() -> Option<usize> + Send + Sync + 'static,
        field: &'static str,
    ) -> Signal<Option<String>> {
        Signal::derive(move || self.told(&format!("inputs.{}.{field}", place()?)))
    }
}

/// Sends it; answers what the template is then.
async fn send(
    template: Option<&TemplateView>,
    form: CreateTemplate,
    key: Key,
) -> ApiResult<TemplateView> {
    let Some(template) = template else {
        return once(key, |key| create_template(form.clone(), key)).await;
    };
    let change = ChangeTemplate {
        name: Some(form.name),
        description: Some(form.description),
        image: form.image,
        flavor: form.flavor,
        user_data: form.user_data,
        inputs: Some(form.inputs),
        // Changed is what one saw when one began.
        generation: Some(template.generation),
    };
    let id = template.id;
    once(key, |key| change_template(id, change.clone(), key)).await
}

#[component]
fn TemplateForm(
    template: Option<TemplateView>,
    choices: Catalogue,
    /// Whether it may be for all tenants.
    public: bool,
) -> impl IntoView {
    let session = expect_context::<CurrentSession>();
    let navigate = use_navigate();
    let draft = Draft::of(template.as_ref());
    let busy = RwSignal::new(false);
    let chooses = public && template.is_none();
    let verb = if template.is_some() {
        "Save"
    } else {
        "Make it"
    };
    let submit = move |event: SubmitEvent| {
        event.prevent_default();
        draft.tried.set(true);
        let (form, unread) = untrack(|| (draft.form(), draft.inputs.unread()));
        if busy.get_untracked() || unread.is_some() || form.check().is_err() {
            return;
        }
        busy.set(true);
        draft.refused.set(None);
        let (template, navigate) = (template.clone(), navigate.clone());
        spawn_local(async move {
            match send(template.as_ref(), form.clone(), Key::fresh()).await {
                Ok(_) => navigate("/templates", Default::default()),
                Err(error) => {
                    session.notice(&error);
                    busy.try_set(false);
                    draft.refused.try_set(Some((form, error)));
                }
            }
        });
    };
    let general = Signal::derive(move || {
        let refused = draft.refused.get();
        let refused = refused.filter(|(_, error)| error.0.errors.is_empty());
        refused.map(|(_, error)| error.sentence())
    });
    view! {
        <form class="form" method="post" novalidate on:submit=submit>
            <Fields draft=draft choices=choices/>
            {chooses.then(|| view! {
                <CheckField
                    id="public"
                    label="For all tenants"
                    hint="Otherwise for yours alone."
                    value=draft.public
                />
            })}
            <FormError error=general/>
            <div class="form-answers">
                <Submit label=Signal::derive(move || verb.to_owned()) busy=busy/>
                <a href="/templates" class="button" data-kind="bare">"Cancel"</a>
            </div>
        </form>
    }
    .into_any()
}

/// Those that are on offer, and none; what is chosen is among them.
fn offer(names: Vec<String>, chosen: RwSignal<String>) -> Vec<Choice> {
    let mut choices = vec![Choice {
        value: String::new(),
        text: "Left open".to_owned(),
    }];
    let value = chosen.get_untracked();
    let absent = (!value.is_empty() && !names.contains(&value)).then_some(value);
    let names = names.into_iter().chain(absent);
    choices.extend(names.map(|name| Choice {
        value: name.clone(),
        text: name,
    }));
    choices
}

#[component]
fn Fields(draft: Draft, choices: Catalogue) -> impl IntoView {
    let images = choices.images.iter().map(|image| image.name.to_string());
    let images = offer(images.collect(), draft.image);
    let flavors = choices.flavors.iter().map(|flavor| flavor.name.to_string());
    let flavors = offer(flavors.collect(), draft.flavor);
    view! {
        <TextField
            id="name"
            label="Name"
            hint="Letters, digits, “-”, “_” and “.”."
            autofocus=true
            value=draft.name
            error=draft.error("name")
        />
        <TextAreaField
            id="description"
            label="Description"
            hint="What it is good for; its first line stands beside its name."
            prose=true
            value=draft.description
            error=draft.error("description")
        />
        <SelectField id="image" label="Image" choices=images value=draft.image error=draft.error("image")/>
        <SelectField id="flavor" label="Flavor" choices=flavors value=draft.flavor error=draft.error("flavor")/>
        <TextAreaField
            id="user_data"
            label="User-data"
            hint="A cloud-config; {input: NAME} stands for the value of an input."
            placeholder="#cloud-config"
            rows="10"
            value=draft.user_data
            error=draft.error("user_data")
        />
        <InputsEditor draft=draft/>
    }
    .into_any()
}
