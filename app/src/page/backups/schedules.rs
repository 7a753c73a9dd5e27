//! What is made again and again, and the form that has it made.

use leptos::ev::SubmitEvent;
use leptos::prelude::*;
use leptos::task::spawn_local;
use vimana_model::VmId;
use vimana_model::schedule::{ScheduleKind, ScheduleView, SetSchedule};
use vimana_ui::{
    Answers, Button, ButtonKind, Cell, Choice, Dialog, Each, IconName, Item, SelectField, Table,
    TextField, Time, ToastKind, Toasts, When, memo,
};

use super::Shelf;
use crate::api::{ApiError, Key, once, remove_schedule, set_schedule};
use crate::page::refused::{of_field, otherwise};
use crate::page::sentence;
use crate::session::{Caller, CurrentSession};

/// How often, in seconds, and how people say it.
const EVERY: [(u64, &str); 5] = [
    (3600, "every hour"),
    (6 * 3600, "every 6 hours"),
    (24 * 3600, "every day"),
    (7 * 24 * 3600, "every week"),
    (30 * 24 * 3600, "every 30 days"),
];

#[component]
pub fn Schedules(shelf: Shelf) -> impl IntoView {
    let caller = expect_context::<Caller>();
    let open = RwSignal::new(false);
    let rows = Signal::derive(move || {
        let row = |schedule: ScheduleView| {
            let key = format!(
                "{} {} {} {} {:?}",
                schedule.vm_id, schedule.kind, schedule.next_at, schedule.keep, schedule.trouble
            );
            Item::new(key, move || {
                view! { <Row shelf=shelf schedule=schedule.clone()/> }
            })
        };
        shelf
            .data
            .with(|data| data.schedules.iter().cloned().map(row).collect())
    });
    let some = memo(move || shelf.data.with(|data| !data.schedules.is_empty()));
    let refused = if !caller.may_manage_backups() {
        Some("Your role does not allow this.".to_owned())
    } else if shelf.data.with_untracked(|data| data.vms.is_empty()) {
        Some("There is no VM yet.".to_owned())
    } else {
        None
    };
    let close = Callback::new(move |()| open.set(false));
    view! {
        <section class="panel" aria-labelledby="schedules-title">
            <div class="panel-head">
                <h2 id="schedules-title">"Again and again"</h2>
                <Button
                    id="set-schedule"
                    label="Set a schedule".to_owned()
                    icon=IconName::Plus
                    blocked=Signal::derive(move || refused.clone())
                    on_press=Callback::new(move |()| open.set(true))
                />
            </div>
            <When
                is=some
                otherwise=|| view! {
                    <p class="faint">"Nothing is made by itself. A schedule makes backups or snapshots of a VM, and lets go of the old ones."</p>
                }
            >
                <Table caption="Schedules" columns=&["VM", "What", "Keeps", "Next", "Last", "Actions"]>
                    <Each items=rows/>
                </Table>
            </When>
        </section>
        <Dialog
            id="schedule-dialog"
            open=open
            on_close=close
            title=Signal::derive(|| "A schedule for a VM".to_owned())
            wide=true
        >
            <Form shelf=shelf close=close/>
        </Dialog>
    }
    .into_any()
}

fn often(seconds: u64) -> String {
    let known = EVERY.into_iter().find(|(every, _)| *every == seconds);
    match known {
        Some((_, text)) => text.to_owned(),
        None if seconds.is_multiple_of(3600) => format!("every {} hours", seconds / 3600),
        None => format!("every {} minutes", seconds / 60),
    }
}

#[component]
fn Row(shelf: Shelf, schedule: ScheduleView) -> impl IntoView {
    let caller = expect_context::<Caller>();
    let session = expect_context::<CurrentSession>();
    let toasts = expect_context::<Toasts>();
    let (vm, kind) = (schedule.vm_id, schedule.kind);
    let name = shelf.data.with_untracked(|data| {
        let found = data.vms.iter().find(|found| found.id == vm);
        found.map_or_else(|| vm.to_string(), |found| found.name.to_string())
    });
    let refused =
        (!caller.may_manage_backups()).then(|| "Your role does not allow this.".to_owned());
    let remove = Callback::new(move |()| {
        spawn_local(async move {
            if let Err(error) = once(Key::fresh(), |key| remove_schedule(vm, kind, key)).await {
                session.notice(&error);
                toasts.show(ToastKind::Error, error.sentence());
            }
            shelf.read();
        });
    });
    let (row, end) = (
        format!("{kind} of {name}"),
        format!("End the {kind}s of {name}"),
    );
    let trouble = schedule.trouble.as_deref().map(sentence);
    let last = schedule.last_at;
    let place = schedule.datastore.map(|name| format!("in {name}"));
    view! {
        <tr role="row" data-schedule=row>
            <Cell title="VM"><a href=format!("/vms/{vm}")>{name}</a></Cell>
            <Cell title="What">{format!("a {kind}, {}", often(schedule.every_s))}</Cell>
            <Cell title="Keeps">
                {schedule.keep.to_string()}
                {place.map(|place| view! { <span class="why">{place}</span> }.into_any())}
            </Cell>
            <Cell title="Next"><Time at_ms=schedule.next_at.as_ms()/></Cell>
            <Cell title="Last">
                {last.map(|last| view! { <Time at_ms=last.as_ms()/> }.into_any())}
                {trouble.map(|trouble| view! { <span class="why">{trouble}</span> }.into_any())}
            </Cell>
            <Cell title="Actions">
                <div class="actions">
                    <Button
                        id=format!("end-{kind}-{vm}")
                        label=end
                        icon=IconName::Trash
                        icon_only=true
                        kind=ButtonKind::Danger
                        blocked=Signal::derive(move || refused.clone())
                        on_press=remove
                    />
                </div>
            </Cell>
        </tr>
    }
    .into_any()
}

#[component]
fn Form(shelf: Shelf, close: Callback<()>) -> impl IntoView {
    let data = shelf.data.get_untracked();
    let vm = RwSignal::new(
        data.vms
            .first()
            .map(|vm| vm.id.to_string())
            .unwrap_or_default(),
    );
    let kind = RwSignal::new(ScheduleKind::Backup.name().to_owned());
    let every = RwSignal::new((24 * 3600).to_string());
    let keep = RwSignal::new("7".to_owned());
    let full_every = RwSignal::new("7".to_owned());
    let places = data.datastores.iter().filter(|place| place.takes_backups);
    let places = Vec::from_iter(places.map(|place| Choice {
        value: place.name.to_string(),
        text: place.name.to_string(),
    }));
    let datastore = RwSignal::new(
        places
            .first()
            .map(|place| place.value.clone())
            .unwrap_or_default(),
    );
    let is_backup = memo(move || kind.with(|kind| kind == ScheduleKind::Backup.name()));
    let places = StoredValue::new(places);
    let refused = RwSignal::new(None::<ApiError>);
    let busy = RwSignal::new(false);
    let submit = move |event: SubmitEvent| {
        event.prevent_default();
        let (Ok(vm), Ok(kind)) = (
            vm.get_untracked().parse::<VmId>(),
            kind.get_untracked().parse::<ScheduleKind>(),
        ) else {
            return;
        };
        if busy.get_untracked() {
            return;
        }
        let is_backup = kind == ScheduleKind::Backup;
        let form = SetSchedule {
            every_s: every.get_untracked().parse().unwrap_or(0),
            keep: keep.get_untracked().trim().parse().unwrap_or(0),
            full_every: is_backup.then(|| full_every.get_untracked().trim().parse().unwrap_or(0)),
            datastore: is_backup
                .then(|| datastore.get_untracked())
                .filter(|name| !name.is_empty()),
        };
        if let Err(error) = form.check(kind) {
            refused.set(Some(error.into()));
            return;
        }
        busy.set(true);
        spawn_local(async move {
            let set = once(Key::fresh(), |key| {
                set_schedule(vm, kind, form.clone(), key)
            })
            .await;
            busy.try_set(false);
            match set {
                Ok(_) => {
                    refused.try_set(None);
                    close.run(());
                    shelf.read();
                }
                Err(error) => {
                    refused.try_set(Some(error));
                }
            }
        });
    };
    let vms = data.vms.into_iter().map(|vm| Choice {
        value: vm.id.to_string(),
        text: vm.name.to_string(),
    });
    let vms: Vec<Choice> = vms.collect();
    let kinds = Vec::from(ScheduleKind::ALL.map(|kind| Choice {
        value: kind.name().to_owned(),
        text: match kind {
            ScheduleKind::Snapshot => "Snapshots, on its host".to_owned(),
            ScheduleKind::Backup => "Backups, in a datastore".to_owned(),
        },
    }));
    let often = Vec::from(EVERY.map(|(seconds, text)| Choice {
        value: seconds.to_string(),
        text: text.to_owned(),
    }));
    view! {
        <form class="dialog-form" method="post" novalidate on:submit=submit>
            <SelectField id="schedule-vm" label="VM" choices=vms value=vm/>
            <SelectField id="schedule-kind" label="What is made" choices=kinds value=kind/>
            <SelectField id="schedule-every" label="How often" choices=often value=every error=of_field(refused, "every_s")/>
            <TextField
                id="schedule-keep"
                label="How many are kept"
                hint="Older ones go, except those that a newer backup still needs."
                numeric=true
                value=keep
                error=of_field(refused, "keep")
            />
            <When is=is_backup>
                <TextField
                    id="schedule-full"
                    label="Every so many is a full one"
                    hint="The others hold what has changed since the one before."
                    numeric=true
                    value=full_every
                    error=of_field(refused, "full_every")
                />
                <SelectField
                    id="schedule-datastore"
                    label="Datastore"
                    choices=places.get_value()
                    value=datastore
                    error=of_field(refused, "datastore")
                />
            </When>
            <Answers error=otherwise(refused, &["every_s", "keep", "full_every", "datastore"]) on_cancel=close label="Set it; the first is made now".to_owned() busy=busy/>
        </form>
    }
    .into_any()
}
