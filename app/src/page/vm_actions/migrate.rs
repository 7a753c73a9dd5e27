//! The form that brings a VM to another host, or its disks to another datastore.

use leptos::ev::SubmitEvent;
use leptos::prelude::*;
use leptos::task::spawn_local;
use vimana_model::VmState;
use vimana_model::action::VmAction;
use vimana_model::migration::{MigrateVm, MigrationTarget, StorageTarget};
use vimana_model::vm::VmView;
use vimana_ui::{
    Answers, CheckField, Choice, Icon, IconName, Prose, SelectField, memo, part, text,
};

use super::desk::VmDesk;
use crate::api::{ApiError, VmArgs, migration_targets, storage_targets};
use crate::page::refused::{of_field, otherwise};
use crate::page::sentence;

/// Up to so many hosts that cannot take it are shown with the reason at once.
const FEW: usize = 3;

/// Where it may go.
#[derive(Clone, Default)]
struct Places {
    /// Every other host.
    hosts: Vec<MigrationTarget>,
    /// The datastores of its own that not all of its disks are in.
    datastores: Vec<StorageTarget>,
}

/// What the form knows.
#[derive(Clone, Copy)]
struct Form {
    /// Nothing before the server has answered.
    places: RwSignal<Option<Places>>,
    /// What is chosen: see [`Place`].
    to: RwSignal<String>,
    /// The datastore of that host that its disks are to go into; none where it is empty.
    into: RwSignal<String>,
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
        places: RwSignal::new(None),
        to: RwSignal::new(String::new()),
        into: RwSignal::new(String::new()),
        post_copy: RwSignal::new(false),
        refused: RwSignal::new(None),
    };
    let Form {
        to,
        into,
        post_copy,
        refused,
        ..
    } = form;
    // Another host has other datastores.
    Effect::new(move || {
        to.track();
        into.set(String::new());
    });
    let busy = RwSignal::new(false);
    let asked_for = wanted.clone();
    spawn_local(async move {
        let found = async {
            Ok(Places {
                hosts: migration_targets(id).await?,
                datastores: storage_targets(id).await?,
            })
        };
        match found.await {
            Ok(found) => {
                to.try_set(chosen(&found, asked_for.as_deref()));
                form.places.try_set(Some(found));
            }
            Err(error) => {
                refused.try_set(Some(error));
            }
        }
    });
    let can =
        memo(move || form.has_choices() && to.with(|to| !to.is_empty()) && !form.lacks_datastore());
    let travels =
        memo(move || to.with(|to| matches!(Place::of(to), Place::Host(host) if !host.is_empty())));
    let rest = otherwise(refused, &["host", "datastore"]);
    // Where nothing can be chosen, there is no field to say what is wrong with.
    let error = move || {
        if form.has_choices() {
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
        let form = match Place::of(&to.get_untracked()) {
            Place::Host(host) => MigrateVm {
                host: Some(host.to_owned()),
                datastore: Some(into.get_untracked()).filter(|into| !into.is_empty()),
                post_copy: post_copy.get_untracked(),
                ..MigrateVm::default()
            },
            Place::Datastore(datastore) => MigrateVm {
                datastore: Some(datastore.to_owned()),
                ..MigrateVm::default()
            },
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
            <p>{text(move || form.meaning(state))}</p>
            {part(move || Some(form.shown(wanted.as_deref())))}
            {part(move || form.disks())}
            {part(move || (state == VmState::Running && travels.get()).then(|| view! {
                <CheckField
                    id="migrate-post-copy"
                    label="Run there before all of its memory has come"
                    hint="Post-copy: for a guest that changes its memory fast. Once begun it cannot be undone: \
                          if a host fails meanwhile, what is in its memory is lost."
                    value=post_copy
                />
            }
            .into_any()))}
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

/// What happens to it meanwhile: how it goes, the server decides by its state, and
/// what is copied by where its disks are.
const fn meaning(state: VmState, copies: bool) -> &'static str {
    match (state, copies) {
        (VmState::Running, true) => {
            "It runs on while its disks and its memory are copied, and stands still for a moment at the end. \
             Until then it can be cancelled, and stays where it is."
        }
        (VmState::Running, false) => {
            "It runs on while its memory is copied, and stands still for a moment at the end; its disks stay \
             where both hosts reach them. Until then it can be cancelled, and stays where it is."
        }
        (_, true) => {
            "It is copied by way of the datastore, and stays as it is: it does not run, before or after. \
             Until it has arrived it can be cancelled, and stays where it is."
        }
        (_, false) => {
            "The other host takes it over where it is, for both reach its disks: nothing is copied. \
             It does not run, before or after."
        }
    }
}

/// The same of disks that go to another datastore of its host.
const fn meaning_of_storage(runs: bool) -> &'static str {
    if runs {
        "It stays on its host and runs on while its disks are copied, its own and its volumes, one after the \
         other. It can be cancelled meanwhile: what has arrived stays there, and the rest where it is."
    } else {
        "It stays on its host while its disks are copied, its own and its volumes, one after the other. \
         It can be cancelled meanwhile: what has arrived stays there, and the rest where it is."
    }
}

/// What there is to choose.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Place<'a> {
    Host(&'a str),
    Datastore(&'a str),
}

/// A host's name has no such sign.
const OF_DATASTORE: &str = "datastore:";

impl<'a> Place<'a> {
    fn of(value: &'a str) -> Self {
        match value.strip_prefix(OF_DATASTORE) {
            Some(name) => Self::Datastore(name),
            None => Self::Host(value),
        }
    }
}

/// The host that is wanted, if it can take the VM; where none is, the best,
/// which is the first. A datastore is never chosen for anybody.
fn chosen(found: &Places, wanted: Option<&str>) -> String {
    let mut hosts = found.hosts.iter();
    let target = match wanted {
        Some(name) => hosts.find(|target| target.host.name == name && target.takes_it()),
        None => hosts.find(|target| target.refusal.is_none()),
    };
    target.map_or_else(String::new, |target| target.host.name.clone())
}

impl Form {
    /// Whether there is anything to choose.
    fn has_choices(self) -> bool {
        let has = |found: &Places| !choices(found).is_empty();
        self.places.with(|found| found.as_ref().is_some_and(has))
    }

    /// The host that is chosen, if one is.
    fn target(self) -> Option<MigrationTarget> {
        let to = self.to.get();
        self.places.with(|found| {
            let hosts = &found.as_ref()?.hosts;
            let Place::Host(name) = Place::of(&to) else {
                return None;
            };
            hosts
                .iter()
                .find(|target| target.host.name == name)
                .cloned()
        })
    }

    /// Whether it can go to that host only where it is said into which datastore.
    fn lacks_datastore(self) -> bool {
        let needs = self.target().is_some_and(|target| target.refusal.is_some());
        needs && self.into.with(String::is_empty)
    }

    /// Where its disks are to be on the host that is chosen, where there is a choice.
    fn disks(self) -> Option<AnyView> {
        let target = self.target().filter(|target| !target.into.is_empty())?;
        let usual = match &target.refusal {
            None if target.copied_mib.0 > 0 => "In datastores of the same names",
            None => "Where they are",
            Some(_) => "Choose a datastore",
        };
        let named = target.into.iter().map(|name| Choice {
            value: name.to_string(),
            text: format!("All in {name}"),
        });
        let usual = Choice {
            value: String::new(),
            text: usual.to_owned(),
        };
        let choices = std::iter::once(usual).chain(named).collect::<Vec<_>>();
        let (into, error) = (self.into, of_field(self.refused, "datastore"));
        let hint = target.refusal.as_deref().map(sentence).unwrap_or_default();
        let field = view! {
            <SelectField
                id="migrate-into"
                label="Its disks there"
                hint=hint
                choices=choices
                value=into
                error=error
            />
        };
        Some(field.into_any())
    }

    fn meaning(self, state: VmState) -> &'static str {
        if self
            .to
            .with(|to| matches!(Place::of(to), Place::Datastore(_)))
        {
            return meaning_of_storage(state == VmState::Running);
        }
        let named = self.into.with(|into| !into.is_empty());
        let copies = self.target().is_none_or(|target| target.copied_mib.0 > 0);
        meaning(state, copies || named)
    }

    fn label(self) -> String {
        let known = self.places.with(Option::is_some);
        let to = self.to.get();
        if known && !self.has_choices() {
            return "No host can take it".to_owned();
        }
        match Place::of(&to) {
            Place::Host("") => "Migrate".to_owned(),
            Place::Host(host) => format!("Migrate to {host}"),
            Place::Datastore(name) => format!("Move its disks to {name}"),
        }
    }

    /// Where it can go, to choose from; and why not elsewhere.
    fn shown(self, wanted: Option<&str>) -> AnyView {
        let Form {
            places,
            to,
            into,
            refused,
            ..
        } = self;
        let Some(found) = places.get() else {
            let waits = refused.with(Option::is_none);
            return waits
                .then(|| view! { <p class="faint" role="status">"It is looked which hosts can take it."</p> })
                .into_any();
        };
        let not_there = found
            .hosts
            .iter()
            .find(|target| wanted == Some(&target.host.name) && !target.takes_it())
            .and_then(|target| target.refusal.clone());
        let mut choices = choices(&found);
        if !choices.is_empty() && to.with_untracked(String::is_empty) {
            let text = "Choose where to".to_owned();
            let value = String::new();
            choices.insert(0, Choice { value, text });
        }
        let free = found.hosts.iter().filter(|it| it.takes_it()).count();
        let hint = if free > 1 {
            "The host with most room left comes first."
        } else {
            ""
        };
        let no_host = (free == 0).then(|| {
            let said = if found.hosts.is_empty() {
                "There is no other host."
            } else {
                "No other host can take it now."
            };
            view! { <p role="status">{said}</p> }
        });
        let field = (!choices.is_empty()).then(|| {
            let error = Signal::derive(move || {
                let [host, datastore] = ["host", "datastore"].map(|field| of_field(refused, field));
                // Of the one that is named apart from it, its own field tells.
                let here = into.with(String::is_empty);
                host.get().or_else(|| datastore.get().filter(|_| here))
            });
            view! {
                <SelectField id="migrate-to" label="To" hint=hint choices=choices value=to error=error/>
            }
        });
        let reasons = |refusal: &Option<String>| refusal.clone();
        let hosts = found
            .hosts
            .iter()
            .filter(|target| !target.takes_it())
            .filter_map(|target| reasons(&target.refusal));
        let datastores = found
            .datastores
            .iter()
            .filter_map(|target| reasons(&target.refusal));
        view! {
            {not_there.map(|why| view! {
                <p class="form-error" role="alert">
                    <Icon name=IconName::Warning/> <span><Prose text=sentence(&why)/></span>
                </p>
            })}
            {no_host}
            {field}
            {refusals("host", hosts.collect(), free == 0)}
            {refusals("datastore", datastores.collect(), false)}
        }
        .into_any()
    }
}

fn choices(found: &Places) -> Vec<Choice> {
    let hosts = found.hosts.iter().filter(|target| target.takes_it());
    let host = |target: &MigrationTarget| {
        let (name, left) = (&target.host.name, target.score * 100.0);
        let text = match target.refusal {
            None => format!("{name}: {left:.0} % of its room stays free"),
            Some(_) => format!("{name}: with its disks in another datastore"),
        };
        Choice {
            value: name.clone(),
            text,
        }
    };
    let datastores = found
        .datastores
        .iter()
        .filter(|target| target.refusal.is_none());
    let datastore = |target: &StorageTarget| {
        let (name, copied) = (&target.datastore, target.copied_mib);
        Choice {
            value: format!("{OF_DATASTORE}{name}"),
            text: format!("Datastore {name} of its own host: {copied} of disks"),
        }
    };
    hosts.map(host).chain(datastores.map(datastore)).collect()
}

/// Why not to the others; open where that is what one wants to know.
fn refusals(what: &str, why: Vec<String>, nowhere: bool) -> AnyView {
    let count = why.len();
    let title = match count {
        0 => return ().into_any(),
        _ if nowhere => "Why not".to_owned(),
        1 => format!("1 {what} cannot take it"),
        count => format!("{count} {what}s cannot take it"),
    };
    let why: Vec<_> = why
        .iter()
        .map(|why| view! { <li><Prose text=sentence(why)/></li> }.into_any())
        .collect();
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
    use vimana_model::name::DatastoreName;
    use vimana_model::unit::MiB;
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
            copied_mib: MiB(0),
            into: Vec::new(),
        }
    }

    fn datastore(name: &str, refusal: Option<&str>) -> StorageTarget {
        StorageTarget {
            datastore: DatastoreName::new(name).unwrap(),
            refusal: refusal.map(str::to_owned),
            copied_mib: MiB(3 << 10),
        }
    }

    #[test]
    fn the_host_that_is_wanted_is_chosen_or_none() {
        let mut found = Places {
            hosts: vec![
                target("b", None),
                target("c", None),
                target("d", Some("full")),
            ],
            datastores: vec![datastore("fast", None)],
        };
        assert_eq!(chosen(&found, None), "b");
        assert_eq!(chosen(&found, Some("c")), "c");
        // Not the best instead: that is not where it was to go.
        assert_eq!(chosen(&found, Some("d")), "");
        found.hosts.drain(..2);
        assert_eq!(chosen(&found, None), "");
        // Into another datastore it can, and nobody is sent there unasked.
        found.hosts[0].into.push(DatastoreName::local());
        assert_eq!(chosen(&found, None), "");
        assert_eq!(chosen(&found, Some("d")), "d");
        assert_eq!(Place::of("datastore:fast"), Place::Datastore("fast"));
    }

    #[test]
    fn places_are_offered_with_what_there_is_to_know() {
        let into_local = MigrationTarget {
            into: vec![DatastoreName::local()],
            ..target("c", Some("no such datastore"))
        };
        let found = Places {
            hosts: vec![target("b", None), into_local, target("d", Some("full"))],
            datastores: vec![datastore("fast", None), datastore("slow", Some("full"))],
        };
        let texts: Vec<_> = choices(&found).into_iter().map(|it| it.text).collect();
        let wanted = [
            "b: 87 % of its room stays free",
            "c: with its disks in another datastore",
            "Datastore fast of its own host: 3 GiB of disks",
        ];
        assert_eq!(texts, wanted);
    }
}
