//! Machines the host holds that are not recorded there.

use leptos::prelude::*;
use leptos::task::spawn_local;
use vimana_model::event::{EventKind, EventView};
use vimana_model::host::OrphanView;
use vimana_model::{HostId, VmId};
use vimana_ui::{
    Button, ButtonKind, Cell, Confirm, Each, IconName, Item, Table, Time, ToastKind, Toasts, When,
    memo,
};

use crate::api::{Key, discard_orphan, host_orphans, once};
use crate::live::Timeline;
use crate::session::{Caller, CurrentSession};

/// What a button says to staff who may only look.
const NOT_ALLOWED: &str = "Only an administrator may have it removed.";

#[component]
pub fn Orphans(id: HostId, first: Vec<OrphanView>, events: Timeline) -> impl IntoView {
    let list = RwSignal::new(first);
    // The stream tells that some came or went, not how they are.
    let told = memo(move || events.with(|events| newest_about_orphans(events)));
    Effect::new(move |before: Option<Option<u64>>| {
        let now = told.get();
        if before.is_some_and(|before| before != now) {
            spawn_local(async move {
                // What cannot be read now is read at the next event.
                if let Ok(orphans) = host_orphans(id).await {
                    list.try_set(orphans);
                }
            });
        }
        now
    });
    let asked = RwSignal::new(None::<VmId>);
    let rows = Signal::derive(move || {
        let row = |orphan: OrphanView| {
            // Another row as soon as anything about it is another.
            let key = format!("{} {} {}", orphan.vm_id, orphan.power, orphan.discarding);
            Item::new(
                key,
                move || view! { <Row orphan=orphan.clone() asked=asked/> },
            )
        };
        list.get().into_iter().map(row).collect()
    });
    view! {
        <section class="panel" aria-labelledby="orphans-title">
            <h2 id="orphans-title">"Machines that are not recorded"</h2>
            <When
                is=Signal::derive(move || !list.with(Vec::is_empty))
                otherwise=|| view! { <p class="faint">"It holds none: every machine on it is recorded."</p> }
            >
                <p class="faint">
                    "They are left alone until somebody has them removed: one may belong to a database that was restored from a backup."
                </p>
                <Table caption="Machines that are not recorded" columns=&["Machine", "Power", "First seen", "Action"]>
                    <Each items=rows/>
                </Table>
            </When>
        </section>
        <DiscardDialog host=id list=list asked=asked/>
    }
    .into_any()
}

fn newest_about_orphans(events: &[EventView]) -> Option<u64> {
    let about = |event: &&EventView| {
        matches!(
            event.event,
            EventKind::OrphanFound { .. }
                | EventKind::OrphanGone { .. }
                | EventKind::OrphanDiscarded { .. }
        )
    };
    events.iter().rev().find(about).map(|event| event.seq)
}

#[component]
fn Row(orphan: OrphanView, asked: RwSignal<Option<VmId>>) -> impl IntoView {
    let caller = expect_context::<Caller>();
    let OrphanView {
        host_id: _,
        vm_id,
        run_epoch,
        power,
        first_seen_at,
        discarding,
    } = orphan;
    let blocked = if discarding {
        Some("It is being removed.".to_owned())
    } else {
        (!caller.may_manage_hosts()).then(|| NOT_ALLOWED.to_owned())
    };
    view! {
        <tr role="row" data-orphan=vm_id.to_string()>
            <Cell title="Machine">
                <code class="id">{vm_id.to_string()}</code>
                <span class="why">{format!("run {run_epoch}")}</span>
            </Cell>
            <Cell title="Power">{power}</Cell>
            <Cell title="First seen"><Time at_ms=first_seen_at.as_ms()/></Cell>
            <Cell title="Action">
                <Button
                    id=format!("discard-{vm_id}")
                    label=if discarding { "Being removed…" } else { "Remove" }.to_owned()
                    icon=IconName::Trash
                    kind=ButtonKind::Danger
                    blocked=Signal::derive(move || blocked.clone())
                    on_press=Callback::new(move |()| asked.set(Some(vm_id)))
                />
            </Cell>
        </tr>
    }
    .into_any()
}

#[component]
fn DiscardDialog(
    host: HostId,
    list: RwSignal<Vec<OrphanView>>,
    asked: RwSignal<Option<VmId>>,
) -> impl IntoView {
    let session = expect_context::<CurrentSession>();
    let toasts = expect_context::<Toasts>();
    // The name stays while the dialog closes.
    let named = Memo::new(move |before: Option<&Option<VmId>>| {
        asked.get().or_else(|| before.copied().flatten())
    });
    let discard = Callback::new(move |()| {
        let Some(machine) = named.get_untracked() else {
            return;
        };
        spawn_local(async move {
            match once(Key::fresh(), |key| discard_orphan(host, machine, key)).await {
                Ok(now) => {
                    list.try_update(|list| {
                        for orphan in list.iter_mut().filter(|orphan| orphan.vm_id == machine) {
                            *orphan = now.clone();
                        }
                    });
                    toasts.show(
                        ToastKind::Info,
                        "The host is asked to remove it.".to_owned(),
                    );
                }
                Err(error) => {
                    session.notice(&error);
                    toasts.show(ToastKind::Error, error.sentence());
                }
            }
        });
    });
    view! {
        <Confirm
            id="discard"
            open=Signal::derive(move || asked.with(Option::is_some))
            on_close=Callback::new(move |()| asked.set(None))
            title="Remove this machine?".to_owned()
            text=Signal::derive(move || {
                let name = named.get().map(|id| id.to_string()).unwrap_or_default();
                format!("`{name}` is stopped at once and its disk is deleted with all that is on it. Nobody can bring it back.")
            })
            yes="Remove it".to_owned()
            no="Leave it alone"
            on_yes=discard
        />
    }
}
