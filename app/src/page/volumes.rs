//! `/volumes`: the tenant's disks that outlive VMs.

mod dialogs;
mod row;

use std::sync::Arc;

use leptos::prelude::*;
use leptos_meta::Title;
use vimana_model::VolumeId;
use vimana_model::volume::{VolumeState, VolumeView};
use vimana_ui::{Button, ButtonKind, Each, EmptyState, IconName, Item, Table, When, memo};

use super::lazy::lazy_page;
use super::load::{Asked, Found, Loaded, Wanted};
use crate::live::Live;
use crate::session::Caller;
use dialogs::Dialogs;
use row::VolumeRow;

lazy_page!(
    /// All volumes of the tenant.
    VolumesPage in volumes = page, wants || Wanted::Volumes
);

/// What a dialog is open for.
#[derive(Clone, PartialEq)]
enum Question {
    New,
    Attach(VolumeView),
    Grow(VolumeView),
    Move(VolumeView),
    Copy(VolumeView),
    Clone(VolumeView),
    Delete(VolumeView),
}

/// Where the rows ask.
type Questions = RwSignal<Option<Question>>;

fn page(asked: Asked) -> AnyView {
    let live = expect_context::<Live>();
    let again = live.clone();
    view! {
        <Title text="Volumes"/>
        <Loaded
            asked=asked
            show=Arc::new(move |caller, asked, found| {
                let Found::Volumes(list) = found else {
                    return None;
                };
                live.open_volumes((asked, list));
                Some(view! { <Page caller=caller/> }.into_any())
            })
            again=Arc::new(move |asked, found| {
                if let Found::Volumes(list) = found {
                    again.open_volumes((asked, list));
                }
            })
        />
    }
    .into_any()
}

#[component]
fn Page(caller: Caller) -> impl IntoView {
    let live = expect_context::<Live>();
    let questions: Questions = RwSignal::new(None);
    let may = caller.may_manage_volumes();
    let known = live.clone();
    let ids = memo(move || {
        let mut ids = known.volume_ids();
        ids.retain(|id| {
            let volume = known.volume(*id);
            volume.is_some_and(|volume| volume.with(|v| v.state != VolumeState::Removed))
        });
        ids
    });
    let rows = Signal::derive(move || {
        let row = |id: VolumeId| {
            let live = live.clone();
            Item::new(id, move || {
                let volume = live.volume(id);
                volume.map(|volume| view! { <VolumeRow volume=volume questions=questions/> })
            })
        };
        ids.get().into_iter().map(row).collect()
    });
    view! {
        <div class="page-head">
            <h1>"Volumes"</h1>
            {may.then(|| view! {
                <Button
                    id="new-volume"
                    label="New volume".to_owned()
                    icon=IconName::Plus
                    kind=ButtonKind::Primary
                    on_press=Callback::new(move |()| questions.set(Some(Question::New)))
                />
            })}
        </div>
        <When
            is=Signal::derive(move || !ids.with(Vec::is_empty))
            otherwise=move || view! {
                <EmptyState
                    title="No volumes yet"
                    text="A volume is a disk that outlives the VM it is attached to."
                />
            }
        >
            <Table caption="Volumes" columns=&["Name", "State", "Size", "VM", "Host", "Made", "Actions"]>
                <Each items=rows/>
            </Table>
        </When>
        <Dialogs questions=questions/>
    }
    .into_any()
}
