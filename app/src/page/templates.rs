//! `/templates`: presets to start from, for those who start and for those who
//! keep them.

mod form;
mod inputs;

use std::sync::Arc;

use leptos::prelude::*;
use leptos::task::spawn_local;
use leptos_meta::Title;
use vimana_model::template::TemplateView;
use vimana_ui::{
    Cell, Confirm, EmptyState, Icon, IconName, Table, ToastKind, Toasts, When, part, press,
};

use super::images::row::for_whom;
use super::lazy::lazy_page;
use super::load::{Asked, Found, Loaded, Wanted};
use crate::api::{Key, delete_template, once};
use crate::session::{Caller, CurrentSession};
pub use form::{NewTemplatePage, TemplatePage};

lazy_page!(
    /// The list of templates.
    TemplatesPage in templates = page, wants || Wanted::Templates
);

/// The template that is to go, and whether that is being asked.
#[derive(Clone, Copy)]
struct Desk {
    asked: RwSignal<Option<TemplateView>>,
    open: RwSignal<bool>,
}

impl Desk {
    fn ask(self, template: TemplateView) {
        self.asked.set(Some(template));
        self.open.set(true);
    }
}

type List = ArcRwSignal<Vec<TemplateView>>;

fn page(asked: Asked) -> AnyView {
    let list = List::default();
    let again = list.clone();
    view! {
        <Title text="Templates"/>
        <Loaded
            asked=asked
            show=Arc::new(move |_, _, found| {
                let Found::Templates(found) = found else {
                    return None;
                };
                list.set(found);
                Some(view! { <Page list=list.clone()/> }.into_any())
            })
            again=Arc::new(move |_, found| {
                if let Found::Templates(found) = found {
                    again.set(found);
                }
            })
        />
    }
    .into_any()
}

#[component]
fn Page(list: List) -> impl IntoView {
    let any = {
        let list = list.clone();
        Signal::derive(move || !list.with(Vec::is_empty))
    };
    let desk = Desk {
        asked: RwSignal::new(None),
        open: RwSignal::new(false),
    };
    let kept = list.clone();
    view! {
        <div class="page-head">
            <h1>"Templates"</h1>
            <NewButton/>
        </div>
        <When
            is=any
            otherwise=|| view! {
                <EmptyState
                    title="No templates yet"
                    text="A template is a preset to start a VM from: an image, a size, and user-data with inputs. A manager of your tenant makes them."
                />
            }
        >
            <Rows list=kept.clone() desk=desk/>
        </When>
        <Question list=list desk=desk/>
    }
    .into_any()
}

#[component]
fn Rows(list: List, desk: Desk) -> impl IntoView {
    let rows = part(move || {
        let rows = list.get().into_iter().map(|template| row(template, desk));
        Some(rows.collect::<Vec<_>>())
    });
    view! {
        <Table caption="Templates" columns=&["Name", "Image", "Flavor", "Inputs", "For", "Actions"]>
            {rows}
        </Table>
    }
}

/// The way to the form, for those who may send it.
#[component]
fn NewButton() -> impl IntoView {
    let caller = expect_context::<Caller>();
    (caller.may_keep_templates(false) || caller.may_keep_templates(true)).then(|| {
        view! {
            <a href="/templates/new" class="button" data-kind="primary">
                <Icon name=IconName::Plus/>
                <span>"New template"</span>
            </a>
        }
    })
}

fn row(template: TemplateView, desk: Desk) -> AnyView {
    let caller = expect_context::<Caller>();
    let name = template.name.to_string();
    let open = |name: Option<String>| name.unwrap_or_else(|| "open".to_owned());
    let image = open(template.image.as_ref().map(ToString::to_string));
    let flavor = open(template.flavor.as_ref().map(ToString::to_string));
    let labels = template.inputs.iter().map(|input| input.label.as_str());
    let labels = labels.collect::<Vec<_>>().join(", ");
    let keeps = caller.may_keep_templates(template.tenant_id.is_none());
    let label = format!("Delete {name}");
    let (row_name, address) = (name.clone(), format!("/templates/{}", template.id));
    let (about, public) = (template.description.clone(), template.tenant_id.is_none());
    let kept = template.clone();
    view! {
        <tr role="row" data-template=row_name>
            <Cell title="Name">
                <a href=address class="name">{name}</a>
                <span class="why">{about}</span>
            </Cell>
            <Cell title="Image">{image}</Cell>
            <Cell title="Flavor">{flavor}</Cell>
            <Cell title="Inputs">{if labels.is_empty() { "none".to_owned() } else { labels }}</Cell>
            <Cell title="For">{for_whom(public)}</Cell>
            <Cell title="Actions">
                {keeps.then(|| view! {
                    <button r#type="button" class="button" data-kind="plain" aria-label=label on:click=press(move || desk.ask(kept.clone()))>
                        <Icon name=IconName::Trash/>
                        <span>"Delete"</span>
                    </button>
                })}
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
    let Desk { asked, open } = desk;
    let name = Signal::derive(move || {
        let named = |asked: &Option<TemplateView>| {
            let name = asked.as_ref().map(|asked| asked.name.to_string());
            name.unwrap_or_default()
        };
        asked.with(named)
    });
    let delete = move || {
        let Some(template) = asked.get_untracked() else {
            return;
        };
        let list = list.clone();
        spawn_local(async move {
            match once(Key::fresh(), |key| delete_template(template.id, key)).await {
                Ok(gone) => {
                    list.update(|list| list.retain(|other| other.id != gone.id));
                    toasts.show(ToastKind::Info, format!("{} is deleted.", gone.name));
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
            id="sure-template"
            open=open
            on_close=Callback::new(move |()| open.set(false))
            title=Signal::derive(move || format!("Delete {}?", name.get()))
            text="Nobody can start from it any more. VMs made from it go on."
            yes=Signal::derive(move || format!("Delete {}", name.get()))
            no="Keep it"
            on_yes=Callback::new(move |()| delete())
        />
    }
}
