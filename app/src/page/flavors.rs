//! `/admin/flavors`: the sizes on offer, for those who keep them.

use std::sync::Arc;

use leptos::ev::SubmitEvent;
use leptos::prelude::*;
use leptos::task::spawn_local;
use leptos_meta::Title;
use vimana_model::flavor::{ChangeFlavor, CreateFlavor, FlavorView};
use vimana_model::unit::MiB;
use vimana_ui::{
    Answers, Cell, Confirm, Dialog, EmptyState, Icon, IconName, Table, TextField, ToastKind,
    Toasts, part, press,
};

use super::lazy::lazy_page;
use super::load::{Asked, Found, Loaded, Wanted};
use super::refused::{of_field, otherwise};
use crate::api::{ApiError, ApiResult, Key, change_flavor, create_flavor, once, retire_flavor};
use crate::session::{CurrentSession, NOT_ALLOWED};

lazy_page!(
    /// The list of flavors.
    FlavorsPage in flavors = page, wants || Wanted::Flavors
);

type List = ArcRwSignal<Vec<FlavorView>>;

fn page(asked: Asked) -> AnyView {
    let list = List::default();
    let again = list.clone();
    view! {
        <Title text="Flavors"/>
        <Loaded
            asked=asked
            show=Arc::new(move |caller, _, found| {
                let Found::Flavors(found) = found else {
                    return None;
                };
                if !caller.may_keep_flavors() {
                    return Some(view! { <EmptyState title="Not allowed" text=NOT_ALLOWED/> }.into_any());
                }
                list.set(found);
                Some(view! { <Page list=list.clone()/> }.into_any())
            })
            again=Arc::new(move |_, found| {
                if let Found::Flavors(found) = found {
                    again.set(found);
                }
            })
        />
    }
    .into_any()
}

/// What is about to be done, and with which flavor: none yet, where one is made.
#[derive(Clone, Copy)]
struct Desk {
    about: RwSignal<Option<FlavorView>>,
    form: RwSignal<bool>,
    sure: RwSignal<bool>,
}

impl Desk {
    fn edit(self, flavor: Option<FlavorView>) {
        self.about.set(flavor);
        self.form.set(true);
    }

    fn ask(self, flavor: FlavorView) {
        self.about.set(Some(flavor));
        self.sure.set(true);
    }

    fn name(self) -> String {
        let named = |about: &Option<FlavorView>| {
            let name = about.as_ref().map(|about| about.name.to_string());
            name.unwrap_or_default()
        };
        self.about.with(named)
    }
}

#[component]
fn Page(list: List) -> impl IntoView {
    let desk = Desk {
        about: RwSignal::new(None),
        form: RwSignal::new(false),
        sure: RwSignal::new(false),
    };
    let rows = {
        let list = list.clone();
        part(move || {
            let rows = list.get().into_iter().map(|flavor| row(flavor, desk));
            Some(rows.collect::<Vec<_>>())
        })
    };
    let title = Signal::derive(move || match desk.name() {
        name if name.is_empty() => "New flavor".to_owned(),
        name => format!("Change {name}"),
    });
    let close = Callback::new(move |()| desk.form.set(false));
    let kept = list.clone();
    view! {
        <div class="page-head">
            <h1>"Flavors"</h1>
            <button r#type="button" class="button" data-kind="primary" on:click=press(move || desk.edit(None))>
                <Icon name=IconName::Plus/>
                <span>"New flavor"</span>
            </button>
        </div>
        <Table caption="Flavors" columns=&["Name", "vCPUs", "Memory", "Disk", "Actions"]>
            {rows}
        </Table>
        <Dialog id="flavor-form" open=desk.form on_close=close title=title wide=true>
            <FlavorForm list=list.clone() about=desk.about.get_untracked() close=close/>
        </Dialog>
        <Question list=kept desk=desk/>
    }
    .into_any()
}

fn row(flavor: FlavorView, desk: Desk) -> AnyView {
    let name = flavor.name.to_string();
    let (change, retire) = (format!("Change {name}"), format!("Retire {name}"));
    let (row_name, size) = (name.clone(), flavor.resources);
    let kept = flavor.clone();
    view! {
        <tr role="row" data-flavor=row_name>
            <Cell title="Name"><strong>{name}</strong></Cell>
            <Cell title="vCPUs">{size.vcpus.to_string()}</Cell>
            <Cell title="Memory">{size.memory_mib.to_string()}</Cell>
            <Cell title="Disk">{size.disk_mib.to_string()}</Cell>
            <Cell title="Actions">
                <button
                    r#type="button"
                    class="button"
                    data-kind="plain"
                    aria-label=change
                    on:click=press(move || desk.edit(Some(kept.clone())))
                >
                    <Icon name=IconName::Resize/>
                    <span>"Change"</span>
                </button>
                " "
                <button
                    r#type="button"
                    class="button"
                    data-kind="plain"
                    aria-label=retire
                    on:click=press(move || desk.ask(flavor.clone()))
                >
                    <Icon name=IconName::Trash/>
                    <span>"Retire"</span>
                </button>
            </Cell>
        </tr>
    }
    .into_any()
}

/// Whether it is to go.
#[component]
fn Question(list: List, desk: Desk) -> impl IntoView {
    let session = expect_context::<CurrentSession>();
    let toasts = expect_context::<Toasts>();
    let retire = move || {
        let Some(flavor) = desk.about.get_untracked() else {
            return;
        };
        let list = list.clone();
        spawn_local(async move {
            match once(Key::fresh(), |key| retire_flavor(flavor.name.clone(), key)).await {
                Ok(gone) => {
                    list.update(|list| list.retain(|other| other.id != gone.id));
                    toasts.show(ToastKind::Info, format!("{} is retired.", gone.name));
                }
                Err(error) => {
                    session.notice(&error);
                    toasts.show(ToastKind::Error, error.sentence());
                }
            }
        });
    };
    view! {
        <Confirm
            id="sure-flavor"
            open=desk.sure
            on_close=Callback::new(move |()| desk.sure.set(false))
            title=Signal::derive(move || format!("Retire {}?", desk.name()))
            text="No VM can be made with it any more. VMs that have it keep its name and their size."
            yes=Signal::derive(move || format!("Retire {}", desk.name()))
            no="Keep it"
            on_yes=Callback::new(move |()| retire())
        />
    }
}

const FIELDS: &[&str] = &["name", "vcpus", "memory_mib", "disk_mib"];

/// What is in the form, as text.
#[derive(Clone, Copy)]
struct Draft {
    name: RwSignal<String>,
    vcpus: RwSignal<String>,
    memory: RwSignal<String>,
    disk: RwSignal<String>,
}

impl Draft {
    fn of(flavor: Option<&FlavorView>) -> Self {
        let text = |text: Option<String>| RwSignal::new(text.unwrap_or_default());
        let size = flavor.map(|flavor| flavor.resources);
        Self {
            name: text(flavor.map(|flavor| flavor.name.to_string())),
            vcpus: text(size.map(|size| size.vcpus.to_string())),
            memory: text(size.map(|size| size.memory_mib.0.to_string())),
            disk: text(size.map(|size| size.disk_mib.0.to_string())),
        }
    }

    /// What is no number is none, and refused as that.
    fn form(self) -> CreateFlavor {
        fn number<T: std::str::FromStr + Default>(text: RwSignal<String>) -> T {
            let number = text.with_untracked(|text| text.trim().parse());
            number.unwrap_or_default()
        }
        CreateFlavor {
            name: self.name.get_untracked(),
            vcpus: number(self.vcpus),
            memory_mib: MiB(number(self.memory)),
            disk_mib: MiB(number(self.disk)),
        }
    }
}

async fn send(about: Option<FlavorView>, form: CreateFlavor) -> ApiResult<FlavorView> {
    let Some(flavor) = about else {
        return once(Key::fresh(), |key| create_flavor(form.clone(), key)).await;
    };
    let change = ChangeFlavor {
        vcpus: Some(form.vcpus),
        memory_mib: Some(form.memory_mib),
        disk_mib: Some(form.disk_mib),
    };
    once(Key::fresh(), |key| {
        change_flavor(flavor.name.clone(), change, key)
    })
    .await
}

#[component]
fn FlavorForm(list: List, about: Option<FlavorView>, close: Callback<()>) -> impl IntoView {
    let session = expect_context::<CurrentSession>();
    let toasts = expect_context::<Toasts>();
    let draft = Draft::of(about.as_ref());
    let is_new = about.is_none();
    let busy = RwSignal::new(false);
    let refused = RwSignal::new(None::<ApiError>);
    let submit = move |event: SubmitEvent| {
        event.prevent_default();
        let form = draft.form();
        if busy.get_untracked() {
            return;
        }
        if let Err(error) = form.check() {
            refused.set(Some(error.into()));
            return;
        }
        busy.set(true);
        refused.set(None);
        let (list, about) = (list.clone(), about.clone());
        spawn_local(async move {
            match send(about, form).await {
                Ok(now) => {
                    toasts.show(ToastKind::Info, format!("{} is on offer.", now.name));
                    list.update(|list| take(list, now));
                    close.run(());
                }
                Err(error) => {
                    session.notice(&error);
                    busy.try_set(false);
                    refused.try_set(Some(error));
                }
            }
        });
    };
    let wrong = move |field| of_field(refused, field);
    view! {
        <form class="dialog-form" method="post" novalidate on:submit=submit>
            {is_new.then(|| view! {
                <TextField id="name" label="Name" placeholder="medium" value=draft.name error=wrong("name")/>
            })}
            <TextField id="vcpus" label="vCPUs" numeric=true value=draft.vcpus error=wrong("vcpus")/>
            <TextField id="memory_mib" label="Memory in MiB" numeric=true value=draft.memory error=wrong("memory_mib")/>
            <TextField
                id="disk_mib"
                label="Disk in MiB"
                hint=if is_new { "" } else { "VMs that have it keep their size." }
                numeric=true
                value=draft.disk
                error=wrong("disk_mib")
            />
            <Answers error=otherwise(refused, FIELDS) on_cancel=close label=Signal::derive(move || if is_new { "Make it" } else { "Save" }.to_owned()) busy=busy/>
        </form>
    }
    .into_any()
}

/// The list with a flavor as it is now: the smallest first.
fn take(list: &mut Vec<FlavorView>, now: FlavorView) {
    list.retain(|other| other.id != now.id);
    list.push(now);
    list.sort_by(|a, b| {
        let size = |flavor: &FlavorView| (flavor.resources.memory_mib, flavor.resources.vcpus);
        size(a).cmp(&size(b)).then_with(|| a.name.cmp(&b.name))
    });
}
