//! The form that makes a new VM from a backup.

use leptos::ev::SubmitEvent;
use leptos::prelude::*;
use leptos::task::spawn_local;
use vimana_model::backup::{BackupView, RestoreBackup};
use vimana_ui::{Answers, CheckField, Choice, SelectField, TextField, ToastKind, Toasts};

use super::Shelf;
use crate::api::{ApiError, Key, once, restore_backup};
use crate::page::refused::{of_field, otherwise};

#[component]
pub fn RestoreForm(shelf: Shelf, backup: BackupView, close: Callback<()>) -> impl IntoView {
    let toasts = expect_context::<Toasts>();
    let name = RwSignal::new(String::new());
    let flavors = shelf.data.with_untracked(|data| data.flavors.clone());
    let then = backup.flavor.to_string();
    let first = flavors.iter().find(|flavor| **flavor == then);
    let first = first.or(flavors.first()).cloned().unwrap_or_default();
    let flavor = RwSignal::new(first);
    let with_volumes = RwSignal::new(true);
    let refused = RwSignal::new(None::<ApiError>);
    let busy = RwSignal::new(false);
    let id = backup.id;
    let volumes = backup.disks.iter().filter_map(|disk| disk.volume.as_ref());
    let volumes: Vec<String> = volumes.map(ToString::to_string).collect();
    let volumes = (!volumes.is_empty()).then(|| volumes.join(", "));
    let submit = move |event: SubmitEvent| {
        event.prevent_default();
        if busy.get_untracked() {
            return;
        }
        busy.set(true);
        let form = RestoreBackup {
            name: name.get_untracked().trim().to_owned(),
            flavor: Some(flavor.get_untracked()),
            ssh_key: None,
            root_only: !with_volumes.get_untracked(),
        };
        spawn_local(async move {
            match once(Key::fresh(), |key| restore_backup(id, form.clone(), key)).await {
                Ok(accepted) => {
                    let name = &form.name;
                    let text = match accepted.volumes.len() {
                        0 => format!("{name} is being made; it appears among the VMs."),
                        1 => format!("{name} and a volume are being made; attach it on Volumes."),
                        n => format!(
                            "{name} and {n} volumes are being made; attach them on Volumes."
                        ),
                    };
                    toasts.show(ToastKind::Info, text);
                    close.run(());
                }
                Err(error) => {
                    busy.try_set(false);
                    refused.try_set(Some(error));
                }
            }
        });
    };
    let choices = flavors.into_iter().map(|flavor| Choice {
        value: flavor.clone(),
        text: flavor,
    });
    let choices: Vec<Choice> = choices.collect();
    let (vm, label) = (backup.vm_name.to_string(), backup.name.to_string());
    view! {
        <form class="dialog-form" method="post" novalidate on:submit=submit>
            <p class="faint">
                {format!("It begins with the disk of {vm} as backup {label} has it, and is a machine of its own: with a new name, and new keys.")}
            </p>
            <TextField id="restore-name" label="Name" autofocus=true value=name error=of_field(refused, "name")/>
            <SelectField
                id="restore-flavor"
                label="Size"
                choices=choices
                value=flavor
                error=of_field(refused, "flavor")
            />
            {volumes.map(|names| view! {
                <CheckField
                    id="restore-volumes"
                    label="Its volumes, too"
                    hint=format!("New ones, of what is in the backup of {names}; they can be attached once they are read.")
                    value=with_volumes
                />
            })}
            <Answers error=otherwise(refused, &["name", "flavor"]) on_cancel=close label="Make the VM".to_owned() busy=busy/>
        </form>
    }
    .into_any()
}
