//! The form that brings a VM to another host.

use leptos::ev::SubmitEvent;
use leptos::prelude::*;
use leptos::task::spawn_local;
use vimana_model::VmState;
use vimana_model::action::VmAction;
use vimana_model::migration::{MigrateVm, MigrationTarget};
use vimana_model::vm::VmView;
use vimana_ui::{Answers, CheckField, Choice, Icon, IconName, Prose, SelectField, memo, part};

use super::desk::VmDesk;
use crate::api::{ApiError, VmArgs, migration_targets};
use crate::page::refused::{of_field, otherwise};
use crate::page::sentence;

/// Up to so many hosts that cannot take it are shown with the reason at once.
const FEW: usize = 3;

/// What the form knows.
#[derive(Clone, Copy)]
struct Form {
    /// Every other host; nothing before the server has answered.
    targets: RwSignal<Option<Vec<MigrationTarget>>>,
    /// Name of the host that is chosen.
    host: RwSignal<String>,
    post_copy: RwSignal<bool>,
    refused: RwSignal<Option<ApiError>>,
}

#[component]
pub fn MigrateForm(
    vm: ArcRwSignal<VmView>,
    /// Name of the host that it was dropped on.
    wanted: Option<String>,
    close: Callback<()>,
) -> impl IntoView {
    let desk = expect_context::<VmDesk>();
    let (id, state) = vm.with_untracked(|vm| (vm.id, vm.state));
    let form = Form {
        targets: RwSignal::new(None),
        host: RwSignal::new(String::new()),
        post_copy: RwSignal::new(false),
        refused: RwSignal::new(None),
    };
    let Form {
        host,
        post_copy,
        refused,
        ..
    } = form;
    let busy = RwSignal::new(false);
    let asked_for = wanted.clone();
    spawn_local(async move {
        match migration_targets(id).await {
            Ok(found) => {
                host.try_set(chosen(&found, asked_for.as_deref()));
                form.targets.try_set(Some(found));
            }
            Err(error) => {
                refused.try_set(Some(error));
            }
        }
    });
    let can = memo(move || form.can());
    let rest = otherwise(refused, &["host"]);
    // Where no host can be chosen, there is no field to say what is wrong with.
    let error = move || {
        if can.get() {
            rest.get()
        } else {
            refused.get().map(|error| error.sentence())
        }
    };
    let submit = move |event: SubmitEvent| {
        event.prevent_default();
        if busy.get_untracked() || !can.get_untracked() {
            return;
        }
        let form = MigrateVm {
            host: Some(host.get_untracked()),
            post_copy: post_copy.get_untracked(),
            ..MigrateVm::default()
        };
        if let Err(error) = form.check() {
            refused.set(Some(error.into()));
            return;
        }
        busy.set(true);
        let (desk, vm) = (desk.clone(), vm.clone());
        spawn_local(async move {
            match desk.act(VmAction::Migrate, vm, VmArgs::Migrate(form)).await {
                Ok(()) => close.run(()),
                Err(error) => {
                    busy.try_set(false);
                    refused.try_set(Some(error));
                }
            }
        });
    };
    view! {
        <form class="dialog-form" method="post" novalidate on:submit=submit>
            <p>{meaning(state)}</p>
            {part(move || Some(form.shown(wanted.as_deref())))}
            {(state == VmState::Running).then(|| view! {
                <CheckField
                    id="migrate-post-copy"
                    label="Run there before all of its memory has come"
                    hint="Post-copy: for a guest that changes its memory fast. Once begun it cannot be undone: \
                          if a host fails meanwhile, what is in its memory is lost."
                    value=post_copy
                />
            })}
            <Answers
                error=Signal::derive(error)
                on_cancel=close
                label=Signal::derive(move || form.label())
                busy=busy
                idle=Signal::derive(move || !can.get())
            />
        </form>
    }
    .into_any()
}

/// What happens to it meanwhile: how it goes, the server decides by its state.
fn meaning(state: VmState) -> &'static str {
    if state == VmState::Running {
        "It runs on while its disk and memory are copied, and stands still for a moment at the end. \
         Until then it can be cancelled, and stays where it is."
    } else {
        "It is copied by way of the datastore, and stays as it is: it does not run, before or after. \
         Until it has arrived it can be cancelled, and stays where it is."
    }
}

/// The host that is wanted, if it can take the VM; where none is, the best,
/// which is the first.
fn chosen(found: &[MigrationTarget], wanted: Option<&str>) -> String {
    let mut free = found.iter().filter(|target| target.refusal.is_none());
    let target = match wanted {
        Some(name) => free.find(|target| target.host.name == name),
        None => free.next(),
    };
    target.map_or_else(String::new, |target| target.host.name.clone())
}

impl Form {
    /// Whether there is a host to choose.
    fn can(self) -> bool {
        let can = |found: &Vec<MigrationTarget>| found.iter().any(|it| it.refusal.is_none());
        self.targets.with(|found| found.as_ref().is_some_and(can))
    }

    fn label(self) -> String {
        let known = self.targets.with(Option::is_some);
        let host = self.host.get();
        if known && !self.can() {
            "No host can take it".to_owned()
        } else if host.is_empty() {
            "Migrate".to_owned()
        } else {
            format!("Migrate to {host}")
        }
    }

    /// Those that it can go to, to choose from; and why not to the others.
    fn shown(self, wanted: Option<&str>) -> AnyView {
        let Form {
            targets,
            host,
            refused,
            ..
        } = self;
        let Some(found) = targets.get() else {
            let waits = refused.with(Option::is_none);
            return waits
                .then(|| view! { <p class="faint" role="status">"It is looked which hosts can take it."</p> })
                .into_any();
        };
        let not_there = found
            .iter()
            .find(|target| wanted == Some(&target.host.name))
            .and_then(|target| target.refusal.clone());
        let choices = choices(&found);
        let nowhere = choices.is_empty();
        let hint = if choices.len() > 1 {
            "The one with most room left comes first."
        } else {
            ""
        };
        let hosts = if found.is_empty() {
            view! { <p role="status">"There is no other host."</p> }.into_any()
        } else if nowhere {
            view! { <p role="status">"No other host can take it now."</p> }.into_any()
        } else {
            view! {
                <SelectField
                    id="migrate-to"
                    label="Host"
                    hint=hint
                    choices=choices
                    value=host
                    error=of_field(refused, "host")
                />
            }
            .into_any()
        };
        view! {
            {not_there.map(|why| view! {
                <p class="form-error" role="alert">
                    <Icon name=IconName::Warning/> <span><Prose text=sentence(&why)/></span>
                </p>
            })}
            {hosts}
            {refusals(&found, nowhere)}
        }
        .into_any()
    }
}

fn choices(found: &[MigrationTarget]) -> Vec<Choice> {
    let free = found.iter().filter(|target| target.refusal.is_none());
    let choice = |target: &MigrationTarget| {
        let (name, left) = (&target.host.name, target.score * 100.0);
        Choice {
            value: name.clone(),
            text: format!("{name}: {left:.0} % of its room stays free"),
        }
    };
    free.map(choice).collect()
}

/// Why not to the others; open where that is what one wants to know.
fn refusals(found: &[MigrationTarget], nowhere: bool) -> AnyView {
    let why: Vec<_> = found
        .iter()
        .filter_map(|target| target.refusal.as_deref())
        .map(|why| view! { <li><Prose text=sentence(why)/></li> }.into_any())
        .collect();
    let count = why.len();
    let title = match count {
        0 => return ().into_any(),
        _ if nowhere => "Why not".to_owned(),
        1 => "1 host cannot take it".to_owned(),
        count => format!("{count} hosts cannot take it"),
    };
    view! {
        <details class="past" open=nowhere || count <= FEW>
            <summary>{title}</summary>
            <ul class="refusals">{why}</ul>
        </details>
    }
    .into_any()
}

#[cfg(test)]
mod tests {
    use vimana_model::HostId;
    use vimana_model::vm::HostRef;

    use super::*;

    fn target(name: &str, refusal: Option<&str>) -> MigrationTarget {
        MigrationTarget {
            host: HostRef {
                id: HostId::from_parts(0, [0; 10]),
                name: name.to_owned(),
                zone: "default".to_owned(),
            },
            score: 0.874,
            refusal: refusal.map(str::to_owned),
        }
    }

    #[test]
    fn the_host_that_is_wanted_is_chosen_or_none() {
        let found = [
            target("b", None),
            target("c", None),
            target("d", Some("full")),
        ];
        assert_eq!(chosen(&found, None), "b");
        assert_eq!(chosen(&found, Some("c")), "c");
        // Not the best instead: that is not where it was to go.
        assert_eq!(chosen(&found, Some("d")), "");
        assert_eq!(chosen(&found[2..], None), "");
    }

    #[test]
    fn hosts_are_offered_with_the_room_they_have_left() {
        let found = [target("b", None), target("d", Some("full"))];
        let choices = choices(&found);
        assert_eq!(choices.len(), 1);
        assert_eq!(choices[0].text, "b: 87 % of its room stays free");
    }
}
