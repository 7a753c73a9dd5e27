//! `/vms/new`: asks for a VM. The same checks run here, as one types, and on
//! the server.

use leptos::ev::SubmitEvent;
use leptos::prelude::*;
use leptos::task::spawn_local;
use leptos_meta::Title;
use leptos_router::components::A;
use leptos_router::hooks::use_navigate;
use vimana_model::vm::CreateVm;
use vimana_ui::{
    CheckField, Choice, EmptyState, Icon, IconName, Prose, SelectField, TextAreaField, TextField,
};

use super::problem::ProblemView;
use crate::api::{ApiError, Catalogue, catalogue, create_vm};
use crate::live::Live;
use crate::session::{CurrentSession, NOT_ALLOWED};

#[component]
pub fn NewVmPage() -> impl IntoView {
    let choices = Resource::new(|| (), |()| catalogue());
    let session = expect_context::<CurrentSession>();
    view! {
        <Title text="New VM"/>
        <div class="page-head">
            <h1>"New VM"</h1>
        </div>
        <Transition fallback=|| view! { <p class="loading">"Loading…"</p> }>
            {move || Suspend::new(async move {
                match session.and(choices).await {
                    Ok((caller, _)) if !caller.may_create() => view! { <EmptyState title="Not allowed" text=NOT_ALLOWED/> }.into_any(),
                    Ok((_, choices)) if choices.images.is_empty() || choices.flavors.is_empty() => view! {
                        <EmptyState
                            title="No image or no flavor yet"
                            text="A VM needs an image to start from and a flavor for its size; the administrator adds them."
                        />
                    }
                    .into_any(),
                    Ok((_, choices)) => view! { <NewVmForm choices=choices/> }.into_any(),
                    Err(error) => view! { <ProblemView error=error/> }.into_any(),
                }
            })}
        </Transition>
    }
    .into_any()
}

/// What is in the form, and which of it the user has been to.
#[derive(Clone, Copy)]
struct Draft {
    name: RwSignal<String>,
    image: RwSignal<String>,
    flavor: RwSignal<String>,
    ssh_key: RwSignal<String>,
    user_data: RwSignal<String>,
    hold: RwSignal<bool>,
    touched: RwSignal<Vec<&'static str>>,
    /// What the server said, and about which form.
    refused: RwSignal<Option<(CreateVm, ApiError)>>,
}

impl Draft {
    /// Begins with the smallest flavor and the first image.
    fn new(choices: &Catalogue) -> Self {
        let flavor = choices
            .flavors
            .iter()
            .min_by_key(|flavor| flavor.resources.memory_mib);
        let first = |name: Option<String>| RwSignal::new(name.unwrap_or_default());
        Self {
            name: RwSignal::new(String::new()),
            image: first(choices.images.first().map(|image| image.name.to_string())),
            flavor: first(flavor.map(|flavor| flavor.name.to_string())),
            ssh_key: RwSignal::new(String::new()),
            user_data: RwSignal::new(String::new()),
            hold: RwSignal::new(false),
            touched: RwSignal::new(Vec::new()),
            refused: RwSignal::new(None),
        }
    }

    fn form(self) -> CreateVm {
        let filled = |text: String| (!text.trim().is_empty()).then_some(text);
        CreateVm {
            name: self.name.get(),
            image: self.image.get(),
            flavor: self.flavor.get(),
            ssh_key: filled(self.ssh_key.get()),
            user_data: filled(self.user_data.get()),
            hold: self.hold.get(),
        }
    }

    fn touch(self, field: &'static str) -> Callback<()> {
        Callback::new(move |()| {
            self.touched.update(|touched| {
                if !touched.contains(&field) {
                    touched.push(field);
                }
            });
        })
    }

    /// What is wrong with a field: shown once the user has been there. The
    /// server's word holds as long as the form is the one it spoke about.
    fn error(self, form: Memo<CreateVm>, field: &'static str) -> Signal<Option<String>> {
        Signal::derive(move || {
            let form = form.get();
            let own = self
                .touched
                .with(|touched| touched.contains(&field))
                .then(|| {
                    form.check()
                        .err()
                        .and_then(|error| ApiError::from(error).field(field))
                })
                .flatten();
            let theirs = || {
                self.refused.with(|refused| {
                    refused
                        .as_ref()
                        .filter(|(sent, _)| *sent == form)
                        .and_then(|(_, error)| error.field(field))
                })
            };
            own.or_else(theirs).map(|text| super::sentence(&text))
        })
    }
}

const FIELDS: [&str; 5] = ["name", "image", "flavor", "ssh_key", "user_data"];

#[component]
fn NewVmForm(choices: Catalogue) -> impl IntoView {
    let live = expect_context::<Live>();
    let session = expect_context::<CurrentSession>();
    let navigate = use_navigate();
    let draft = Draft::new(&choices);
    let form = Memo::new(move |_| draft.form());
    let busy = RwSignal::new(false);
    let submit = move |event: SubmitEvent| {
        event.prevent_default();
        draft.touched.set(FIELDS.to_vec());
        let form = form.get_untracked();
        if busy.get_untracked() || form.check().is_err() {
            return;
        }
        busy.set(true);
        let (live, navigate) = (live.clone(), navigate.clone());
        spawn_local(async move {
            match live.ask(create_vm(form.clone())).await {
                Ok((asked, accepted)) => {
                    let id = accepted.vm.id;
                    live.adopt(asked, accepted.vm);
                    navigate(&format!("/vms/{id}"), Default::default());
                }
                Err(error) => {
                    session.notice(&error);
                    busy.try_set(false);
                    draft.refused.try_set(Some((form, error)));
                }
            }
        });
    };
    // What is wrong with no field in particular.
    let general = move || {
        draft.refused.with(|refused| {
            refused
                .as_ref()
                .filter(|(_, error)| error.0.errors.is_empty())
                .map(|(_, error)| error.sentence())
        })
    };
    view! {
        <form class="form" method="post" novalidate on:submit=submit>
            <Fields draft=draft form=form choices=choices/>
            <p class="form-error" role="alert">
                {move || general().map(|text| view! { <Icon name=IconName::Warning/> <span><Prose text=text/></span> })}
            </p>
            <div class="form-answers">
                <button r#type="submit" class="button" data-kind="primary" aria-busy=move || busy.get().then_some("true")>
                    {move || if busy.get() { "Asking…" } else { "Create VM" }}
                </button>
                <A href="/vms" attr:class="button" attr:data-kind="bare">"Cancel"</A>
            </div>
        </form>
    }
    .into_any()
}

#[component]
fn Fields(draft: Draft, form: Memo<CreateVm>, choices: Catalogue) -> impl IntoView {
    let images = choices
        .images
        .iter()
        .map(|image| Choice {
            value: image.name.to_string(),
            text: format!(
                "{} · {} disk, {}",
                image.name,
                image.virtual_mib,
                image.format.name()
            ),
        })
        .collect::<Vec<_>>();
    let flavors = choices
        .flavors
        .iter()
        .map(|flavor| {
            let size = flavor.resources;
            let cpus = if size.vcpus == 1 { "vCPU" } else { "vCPUs" };
            Choice {
                value: flavor.name.to_string(),
                text: format!(
                    "{} · {} {cpus}, {} memory, {} disk",
                    flavor.name, size.vcpus, size.memory_mib, size.disk_mib
                ),
            }
        })
        .collect::<Vec<_>>();
    view! {
        <TextField
            id="name"
            label="Name"
            hint="Letters, digits, “-”, “_” and “.”; it becomes the host name in the machine."
            placeholder="web-1"
            autofocus=true
            value=draft.name
            error=draft.error(form, "name")
            on_leave=draft.touch("name")
        />
        <SelectField id="image" label="Image" choices=images value=draft.image error=draft.error(form, "image")/>
        <SelectField id="flavor" label="Flavor" choices=flavors value=draft.flavor error=draft.error(form, "flavor")/>
        <TextAreaField
            id="ssh_key"
            label="SSH key"
            hint="The public key that may log in."
            placeholder="ssh-ed25519 AAAA… you@laptop"
            value=draft.ssh_key
            error=draft.error(form, "ssh_key")
            on_leave=draft.touch("ssh_key")
        />
        <TextAreaField
            id="user_data"
            label="User-data"
            hint="For cloud-init, handed to the machine as it is."
            placeholder="#cloud-config"
            rows="5"
            value=draft.user_data
            error=draft.error(form, "user_data")
            on_leave=draft.touch("user_data")
        />
        <CheckField
            id="hold"
            label="Hold it"
            hint="Keep it from being placed until somebody releases it."
            value=draft.hold
        />
    }
    .into_any()
}
