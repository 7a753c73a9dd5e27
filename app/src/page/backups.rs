//! `/backups`: copies of VMs' disks, what is made again and again, and where it
//! is all kept.

mod datastores;
mod restore;
mod row;
mod schedules;

use std::sync::Arc;

use leptos::prelude::*;
use leptos::task::spawn_local;
use leptos_meta::Title;
use vimana_model::backup::BackupView;
use vimana_ui::{Confirm, Dialog, Each, EmptyState, Item, Table, ToastKind, Toasts, When, memo};

use super::lazy::lazy_page;
use super::load::{Asked, Found, Loaded, Wanted};
use crate::api::{BackupsData, Key, backups, delete_backup, once};
use crate::live::Live;
use crate::session::CurrentSession;
use datastores::Datastores;
use restore::RestoreForm;
use row::Row;
use schedules::Schedules;

lazy_page!(
    /// Backups, schedules and datastores.
    BackupsPage in backups = page, wants || Wanted::Backups
);

/// What a dialog is open for.
#[derive(Clone, PartialEq)]
enum Question {
    Restore(BackupView),
    Delete(BackupView),
}

/// What the parts of the page share.
#[derive(Clone, Copy)]
struct Shelf {
    data: RwSignal<BackupsData>,
    question: RwSignal<Option<Question>>,
}

impl Shelf {
    fn read(self) {
        spawn_local(async move {
            // What cannot be read now is read at the next event.
            if let Ok(found) = backups().await {
                self.data.try_set(found);
            }
        });
    }
}

fn page(asked: Asked) -> AnyView {
    view! {
        <Title text="Backups"/>
        <Loaded
            asked=asked
            show=Arc::new(move |_, _, found| {
                let Found::Backups(data) = found else {
                    return None;
                };
                Some(view! { <Page data=*data/> }.into_any())
            })
            // The page reads everything anew by itself.
            again=Arc::new(|_, _| ())
        />
    }
    .into_any()
}

#[component]
fn Page(data: BackupsData) -> impl IntoView {
    let live = expect_context::<Live>();
    let shelf = Shelf {
        data: RwSignal::new(data),
        question: RwSignal::new(None),
    };
    live.on_kept(move || shelf.read());
    let rows = Signal::derive(move || {
        let row = |backup: BackupView| {
            let key = format!("{} {} {}", backup.id, backup.state, backup.stored_bytes);
            Item::new(
                key,
                move || view! { <Row shelf=shelf backup=backup.clone()/> },
            )
        };
        shelf
            .data
            .with(|data| data.backups.iter().cloned().map(row).collect())
    });
    let some = memo(move || shelf.data.with(|data| !data.backups.is_empty()));
    view! {
        <div class="page-head">
            <h1>"Backups"</h1>
        </div>
        <div class="sections">
            <When
                is=some
                otherwise=|| view! {
                    <EmptyState
                        title="No backups yet"
                        text="A backup is a copy of a VM's disks in a datastore: it outlives the VM and its host. Back a VM up from its menu, or have it done again and again, below."
                    />
                }
            >
                <Table caption="Backups" columns=&["Backup", "VM", "State", "Holds", "Stored", "Made", "Actions"]>
                    <Each items=rows/>
                </Table>
            </When>
            <Schedules shelf=shelf/>
            <Datastores shelf=shelf/>
        </div>
        <Dialogs shelf=shelf/>
    }
    .into_any()
}

#[component]
fn Dialogs(shelf: Shelf) -> impl IntoView {
    let question = shelf.question;
    // What is asked about stays while a dialog closes.
    let named = Memo::new(move |before: Option<&Option<Question>>| {
        question.get().or_else(|| before.cloned().flatten())
    });
    let close = Callback::new(move |()| question.set(None));
    let open = move |is: fn(&Question) -> bool| {
        Signal::derive(move || question.with(|question| question.as_ref().is_some_and(is)))
    };
    let name = move || match named.get() {
        Some(Question::Restore(backup) | Question::Delete(backup)) => backup.name.to_string(),
        None => String::new(),
    };
    let restored = move || match named.get() {
        Some(Question::Restore(backup)) => {
            Some(view! { <RestoreForm shelf=shelf backup=backup close=close/> }.into_any())
        }
        Some(Question::Delete(_)) | None => None,
    };
    view! {
        <Dialog
            id="restore-backup"
            open=open(|question| matches!(question, Question::Restore(_)))
            on_close=close
            title=Signal::derive(|| "A new VM from this backup".to_owned())
            wide=true
        >
            {restored()}
        </Dialog>
        <Confirm
            id="delete-backup"
            open=open(|question| matches!(question, Question::Delete(_)))
            on_close=close
            title=Signal::derive(move || format!("Delete {}?", name()))
            text=Signal::derive(|| "Nobody can make a VM from it any more.".to_owned())
            yes=Signal::derive(move || format!("Delete {}", name()))
            no="Keep it"
            on_yes=deletion(shelf, named)
        />
    }
}

fn deletion(shelf: Shelf, named: Memo<Option<Question>>) -> Callback<()> {
    let session = expect_context::<CurrentSession>();
    let toasts = expect_context::<Toasts>();
    Callback::new(move |()| {
        let Some(Question::Delete(backup)) = named.get_untracked() else {
            return;
        };
        spawn_local(async move {
            match once(Key::fresh(), |key| delete_backup(backup.id, key)).await {
                Ok(_) => toasts.show(ToastKind::Info, format!("{} is deleted.", backup.name)),
                Err(error) => {
                    session.notice(&error);
                    toasts.show(ToastKind::Error, error.sentence());
                }
            }
            shelf.read();
        });
    })
}
