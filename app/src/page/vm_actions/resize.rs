//! Another size: a flavor's, or amounts of its own; what it has stands beside
//! what it gets.

use leptos::ev::SubmitEvent;
use leptos::prelude::*;
use leptos::task::spawn_local;
use vimana_model::action::VmAction;
use vimana_model::flavor::FlavorView;
use vimana_model::unit::{MiB, Resources};
use vimana_model::vm::{ResizeVm, VmView};
use vimana_model::{Error, FieldError, VmState};
use vimana_ui::{
    Answers, Choice, SelectField, TextField, When, flag, memo, part, press, text, word,
};

use super::desk::VmDesk;
use crate::api::{ApiError, VmArgs, catalogue};
use crate::page::sentence;
use crate::page::terms::size;

/// What is in the form.
#[derive(Clone, Copy)]
struct Draft {
    own: RwSignal<bool>,
    flavor: RwSignal<String>,
    vcpus: RwSignal<String>,
    memory_mib: RwSignal<String>,
    disk_mib: RwSignal<String>,
}

impl Draft {
    fn new(now: Resources) -> Self {
        let amount = |amount: MiB| RwSignal::new(amount.0.to_string());
        Self {
            own: RwSignal::new(false),
            flavor: RwSignal::new(String::new()),
            vcpus: RwSignal::new(now.vcpus.to_string()),
            memory_mib: amount(now.memory_mib),
            disk_mib: amount(now.disk_mib),
        }
    }

    /// The form, if it is well-formed and changes anything.
    fn form(self, now: Resources) -> Result<ResizeVm, Error> {
        if !self.own.get() {
            let flavor = Some(self.flavor.get());
            return Ok(ResizeVm {
                flavor,
                ..ResizeVm::default()
            });
        }
        let vcpus = number::<u32>("vcpus", &self.vcpus.get());
        let memory = number::<u64>("memory_mib", &self.memory_mib.get()).map(MiB);
        let disk = number::<u64>("disk_mib", &self.disk_mib.get()).map(MiB);
        let disk = disk.and_then(|disk| {
            let smaller = format!("a disk never shrinks; it has {} MiB", now.disk_mib.0);
            (disk >= now.disk_mib)
                .then_some(disk)
                .ok_or_else(|| FieldError::new("disk_mib", smaller))
        });
        match (vcpus, memory, disk) {
            (Ok(vcpus), Ok(memory), Ok(disk)) => {
                let form = ResizeVm {
                    flavor: None,
                    vcpus: (vcpus != now.vcpus).then_some(vcpus),
                    memory_mib: (memory != now.memory_mib).then_some(memory),
                    disk_mib: (disk != now.disk_mib).then_some(disk),
                };
                if form != ResizeVm::default() {
                    form.check()?;
                }
                Ok(form)
            }
            (vcpus, memory, disk) => Err(Error::invalid(
                [vcpus.err(), memory.err(), disk.err()]
                    .into_iter()
                    .flatten()
                    .collect(),
            )),
        }
    }
}

fn number<T: std::str::FromStr>(field: &str, text: &str) -> Result<T, FieldError> {
    text.trim()
        .parse()
        .map_err(|_| FieldError::new(field, "a whole number"))
}

#[component]
pub fn ResizeForm(vm: ArcRwSignal<VmView>, close: Callback<()>) -> impl IntoView {
    let flavors = RwSignal::new(None::<Vec<FlavorView>>);
    let refused = RwSignal::new(None::<ApiError>);
    spawn_local(async move {
        match catalogue().await {
            Ok(choices) => flavors.try_set(Some(choices.flavors)).is_none(),
            Err(error) => refused.try_set(Some(error)).is_none(),
        };
    });
    view! {
        <When
            is=Signal::derive(move || flavors.with(Option::is_some))
            otherwise=move || view! {
                <p role="status">
                    {text(move || refused.get().map_or_else(|| "Loading the flavors…".to_owned(), |error| error.sentence()))}
                </p>
            }
        >
            <Sizes vm=vm.clone() flavors=flavors.get_untracked().unwrap_or_default() close=close/>
        </When>
    }
}

#[component]
fn Sizes(vm: ArcRwSignal<VmView>, flavors: Vec<FlavorView>, close: Callback<()>) -> impl IntoView {
    let desk = expect_context::<VmDesk>();
    let (now, flavor, running) = vm.with_untracked(|vm| {
        let running = vm.state == VmState::Running;
        (vm.resources, vm.flavor.to_string(), running)
    });
    let draft = Draft::new(now);
    let other = flavors
        .iter()
        .find(|other| other.name.as_str() != flavor && other.resources != now)
        .or(flavors.first());
    draft.flavor.set(
        other
            .map(|flavor| flavor.name.to_string())
            .unwrap_or_default(),
    );
    let form = memo(move || draft.form(now).map_err(ApiError::from));
    let refused = RwSignal::new(None::<ApiError>);
    let busy = RwSignal::new(false);
    let after = {
        let flavors = flavors.clone();
        memo(move || {
            form.get()
                .ok()
                .and_then(|form| becomes(now, &form, &flavors))
        })
    };
    let submit = move |event: SubmitEvent| {
        event.prevent_default();
        let (Ok(form), false) = (form.get_untracked(), busy.get_untracked()) else {
            return;
        };
        if after.get_untracked() == Some(now) {
            return;
        }
        busy.set(true);
        let (desk, vm) = (desk.clone(), vm.clone());
        spawn_local(async move {
            match desk.act(VmAction::Resize, vm, VmArgs::Resize(form)).await {
                Ok(()) => close.run(()),
                Err(error) => {
                    busy.try_set(false);
                    refused.try_set(Some(error));
                }
            }
        });
    };
    let nothing = move || after.get() == Some(now);
    let label = Signal::derive(move || {
        if nothing() {
            "Nothing changes"
        } else {
            "Resize"
        }
        .to_owned()
    });
    view! {
        <form class="dialog-form" method="post" novalidate on:submit=submit>
            <Kinds own=draft.own/>
            <Amounts draft=draft form=form flavors=flavors/>
            <Comparison before=now after=after/>
            {running.then(|| view! {
                <p class="faint">"It runs: it changes at once where its host can do that, or else once it is powered off."</p>
            }.into_any())}
            <Answers error=Signal::derive(move || refused.get().map(|error| error.sentence())) on_cancel=close label=label busy=busy idle=Signal::derive(nothing)/>
        </form>
    }
    .into_any()
}

/// A flavor's size, or one of its own.
#[component]
fn Kinds(own: RwSignal<bool>) -> impl IntoView {
    let kind = |value: bool, title: &'static str| {
        view! {
            <button
                r#type="button"
                class="segment"
                aria-pressed=word(move || Some(if own.get() == value { "true" } else { "false" }))
                on:click=press(move || own.set(value))
            >
                {title}
            </button>
        }
    };
    view! {
        <div class="segments" role="group" aria-label="Which size">
            {kind(false, "A flavor's size")}
            {kind(true, "Amounts of its own")}
        </div>
    }
}

#[component]
fn Amounts(
    draft: Draft,
    form: Memo<Result<ResizeVm, ApiError>>,
    flavors: Vec<FlavorView>,
) -> impl IntoView {
    let error = move |field: &'static str| {
        Signal::derive(move || {
            let error = form.with(|form| form.as_ref().err().and_then(|error| error.field(field)));
            error.map(|text| sentence(&text))
        })
    };
    let choices = flavors
        .iter()
        .map(|flavor| Choice {
            value: flavor.name.to_string(),
            text: format!("{} · {}", flavor.name, size(flavor.resources)),
        })
        .collect::<Vec<_>>();
    part(move || {
        Some(if draft.own.get() {
            view! {
                <div class="amounts">
                    <TextField id="vcpus" label="vCPUs" numeric=true value=draft.vcpus error=error("vcpus")/>
                    <TextField id="memory_mib" label="Memory in MiB" numeric=true value=draft.memory_mib error=error("memory_mib")/>
                    <TextField id="disk_mib" label="Disk in MiB" numeric=true value=draft.disk_mib error=error("disk_mib")/>
                </div>
            }
            .into_any()
        } else {
            let choices = choices.clone();
            view! { <SelectField id="new_flavor" label="Flavor" choices=choices value=draft.flavor/> }.into_any()
        })
    })
}

#[component]
fn Comparison(before: Resources, after: Memo<Option<Resources>>) -> impl IntoView {
    let row = |title: &'static str, before: String, get: fn(Resources) -> String| {
        let was = before.clone();
        let becomes = move || after.get().map(get);
        let changed = move || becomes().is_some_and(|now| now != was);
        view! {
            <div data-changed=flag(changed)>
                <dt>{title}</dt>
                <dd>
                    <span>{before}</span>
                    <span class="faint">" → "</span>
                    <strong>{text(move || becomes().unwrap_or_else(|| "–".to_owned()))}</strong>
                </dd>
            </div>
        }
    };
    view! {
        <dl class="facts comparison" aria-label="What it has and what it gets">
            {row("vCPUs", before.vcpus.to_string(), |size| size.vcpus.to_string())}
            {row("Memory", before.memory_mib.to_string(), |size| size.memory_mib.to_string())}
            {row("Disk", before.disk_mib.to_string(), |size| size.disk_mib.to_string())}
        </dl>
    }
}

/// The size after the form; none for a flavor that is not there.
fn becomes(now: Resources, form: &ResizeVm, flavors: &[FlavorView]) -> Option<Resources> {
    if let Some(name) = &form.flavor {
        let flavor = flavors.iter().find(|flavor| flavor.name.as_str() == name)?;
        // A disk never shrinks.
        return Some(Resources {
            disk_mib: flavor.resources.disk_mib.max(now.disk_mib),
            ..flavor.resources
        });
    }
    Some(Resources {
        vcpus: form.vcpus.unwrap_or(now.vcpus),
        memory_mib: form.memory_mib.unwrap_or(now.memory_mib),
        disk_mib: form.disk_mib.unwrap_or(now.disk_mib),
    })
}
