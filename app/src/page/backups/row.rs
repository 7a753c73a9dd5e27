//! One backup.

use leptos::prelude::*;
use vimana_model::backup::{BackupState, BackupView, DiskId};
use vimana_ui::{Badge, Button, ButtonKind, Cell, IconName, Time, Tone};

use super::{Question, Shelf};
use crate::page::{amount, sentence};
use crate::session::Caller;

const FORBIDDEN: &str = "Your role does not allow this.";

#[component]
pub fn Row(shelf: Shelf, backup: BackupView) -> impl IntoView {
    let caller = expect_context::<Caller>();
    let question = shelf.question;
    let (id, name, state) = (backup.id, backup.name.to_string(), backup.state);
    let tone = match state {
        BackupState::Making => Tone::Moving,
        BackupState::Ready => Tone::Good,
        BackupState::Failed => Tone::Bad,
        BackupState::Removing | BackupState::Removed => Tone::Over,
    };
    let refused = |judged: Result<(), vimana_model::action::Refusal>, may: bool| {
        let why = if may {
            let refusal = judged.err();
            refusal.map(|refusal| sentence(&format!("it {refusal}")))
        } else {
            Some(FORBIDDEN.to_owned())
        };
        Signal::derive(move || why.clone())
    };
    let restore = refused(
        state.judge_restore(),
        caller.may_create() && !caller.asks_first(),
    );
    let delete = refused(state.judge_delete(), caller.may_manage_backups());
    let (asks, deletes) = (backup.clone(), backup.clone());
    let by = if backup.scheduled {
        "by its schedule".to_owned()
    } else {
        format!("by {}", backup.owner)
    };
    let volumes = backup.disks.iter().filter(|disk| disk.disk != DiskId::Root);
    let holds = match (backup.since.is_some(), volumes.count()) {
        (true, _) => "what changed".to_owned(),
        (false, 0) => "the whole disk".to_owned(),
        (false, 1) => "the whole disk and a volume".to_owned(),
        (false, count) => format!("the whole disk and {count} volumes"),
    };
    let rest = backup
        .frozen
        .then(|| view! { <span class="why">"its file systems at rest"</span> }.into_any());
    let failure = backup.failure.as_deref().map(sentence);
    let (row, shown) = (name.clone(), name.clone());
    view! {
        <tr role="row" data-backup=row>
            <Cell title="Backup">{shown}</Cell>
            <Cell title="VM"><a href=format!("/vms/{}", backup.vm_id)>{backup.vm_name.to_string()}</a></Cell>
            <Cell title="State">
                <Badge tone=tone text=state.name().to_lowercase()/>
                {failure.map(|failure| view! { <span class="why">{failure}</span> }.into_any())}
            </Cell>
            <Cell title="Holds">{holds}{rest}</Cell>
            <Cell title="Stored">
                {amount(backup.stored_bytes)}
                <span class="why">{format!("in {}", backup.datastore)}</span>
            </Cell>
            <Cell title="Made"><Time at_ms=backup.created_at.as_ms()/><span class="why">{by}</span></Cell>
            <Cell title="Actions">
                <div class="actions">
                    <Button
                        id=format!("restore-{id}")
                        label=format!("Make a VM from {name}")
                        icon=IconName::Undo
                        icon_only=true
                        blocked=restore
                        on_press=Callback::new(move |()| question.set(Some(Question::Restore(asks.clone()))))
                    />
                    <Button
                        id=format!("delete-{id}")
                        label=format!("Delete {name}")
                        icon=IconName::Trash
                        icon_only=true
                        kind=ButtonKind::Danger
                        blocked=delete
                        on_press=Callback::new(move |()| question.set(Some(Question::Delete(deletes.clone()))))
                    />
                </div>
            </Cell>
        </tr>
    }
    .into_any()
}
