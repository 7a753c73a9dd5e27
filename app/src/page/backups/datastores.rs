//! Where images, stopped VMs and backups are kept, and how much that takes.

use leptos::prelude::*;
use vimana_model::datastore::{DatastoreState, DatastoreView, StorageUse};
use vimana_ui::{Badge, Cell, Each, Item, Meter, Table, Tone, thousandths};

use super::Shelf;
use crate::page::amount;

#[component]
pub fn Datastores(shelf: Shelf) -> impl IntoView {
    let rows = Signal::derive(move || {
        let row = |datastore: DatastoreView| {
            let free = datastore.room.as_ref().map(|room| room.free_bytes);
            let key = format!("{} {:?} {:?}", datastore.name, datastore.used, free);
            Item::new(key, move || {
                view! { <Row datastore=datastore.clone()/> }
            })
        };
        shelf
            .data
            .with(|data| data.datastores.iter().cloned().map(row).collect())
    });
    view! {
        <section class="panel" aria-labelledby="datastores-title">
            <div class="panel-head">
                <h2 id="datastores-title">"Datastores"</h2>
            </div>
            <Table caption="Datastores, and what they hold of yours" columns=&["Datastore", "State", "Images", "Stopped VMs", "Backups", "Room"]>
                <Each items=rows/>
            </Table>
        </section>
    }
    .into_any()
}

#[component]
fn Row(datastore: DatastoreView) -> impl IntoView {
    let DatastoreView {
        name,
        state,
        takes_backups,
        used,
        room,
    } = datastore;
    let tone = match state {
        DatastoreState::Fine => Tone::Good,
        DatastoreState::Low => Tone::Moving,
        DatastoreState::Full | DatastoreState::Away => Tone::Bad,
    };
    let why = (state != DatastoreState::Fine).then(|| state.meaning());
    let taken = room.map(|room| {
        let label = format!("Taken of {name}");
        let gone = room.capacity_bytes.saturating_sub(room.free_bytes);
        let part = thousandths(gone, room.capacity_bytes);
        let text = format!("{} of {}", amount(gone), amount(room.capacity_bytes));
        let others = room.tenants.into_iter().map(|tenant| {
            let who = match tenant.tenant {
                Some(name) => name.to_string(),
                None => "for all".to_owned(),
            };
            let all = amount(StorageUse::total_bytes(tenant.used));
            view! { <li><span class="actor">{who}</span> " " {all}</li> }.into_any()
        });
        let others = others.collect::<Vec<_>>();
        view! {
            <Meter
                label=label
                used=Signal::derive(move || part)
                text=Signal::derive(move || text.clone())
            />
            <ul class="shares why" aria-label="Of each tenant">{others}</ul>
        }
        .into_any()
    });
    let backups = if takes_backups || used.backup_bytes > 0 {
        amount(used.backup_bytes)
    } else {
        "takes none".to_owned()
    };
    let (row, shown) = (name.to_string(), name.to_string());
    view! {
        <tr role="row" data-datastore=row>
            <Cell title="Datastore">{shown}</Cell>
            <Cell title="State">
                <Badge tone=tone text=state.name().to_lowercase()/>
                {why.map(|why| view! { <span class="why">{why}</span> }.into_any())}
            </Cell>
            <Cell title="Images">{amount(used.image_bytes)}</Cell>
            <Cell title="Stopped VMs">{amount(used.saved_bytes)}</Cell>
            <Cell title="Backups">{backups}</Cell>
            <Cell title="Room">{taken}</Cell>
        </tr>
    }
    .into_any()
}
