//! Where a VM that is dragged by its name can be dropped: the hosts. A drop opens
//! the dialog that *Migrate* in the row's menu opens, with that host chosen, and
//! does nothing by itself.

use leptos::prelude::*;
use leptos::task::spawn_local;
use vimana_model::migration::MigrationTarget;
use vimana_model::vm::VmView;
use vimana_ui::{Prose, flag, part};

use crate::api::migration_targets;
use crate::page::{VmDesk, sentence};

/// Hosts that are drawn: nobody aims at more, and the dialog has them all.
const MOST: usize = 24;

/// The VM that is being dragged.
#[derive(Clone, Copy)]
pub struct Drag(RwSignal<Option<Dragged>>);

#[derive(Clone)]
struct Dragged {
    vm: ArcRwSignal<VmView>,
    /// Nothing before the server has answered.
    targets: Option<Vec<MigrationTarget>>,
}

impl Drag {
    pub fn provide() -> Self {
        let drag = Self(RwSignal::new(None));
        provide_context(drag);
        drag
    }

    pub fn begin(self, vm: &ArcRwSignal<VmView>) {
        let id = vm.with_untracked(|vm| vm.id);
        self.0.set(Some(Dragged {
            vm: vm.clone(),
            targets: None,
        }));
        spawn_local(async move {
            // Where they cannot be had there is nothing to drop it on; the dialog
            // says why.
            let Ok(found) = migration_targets(id).await else {
                return;
            };
            self.0.try_update(|dragged| {
                let same = |dragged: &&mut Dragged| dragged.vm.with_untracked(|vm| vm.id == id);
                if let Some(dragged) = dragged.as_mut().filter(same) {
                    dragged.targets = Some(found);
                }
            });
        });
    }

    pub fn end(self) {
        self.0.try_set(None);
    }
}

/// Shown while one is dragged.
#[component]
pub fn Dock(drag: Drag) -> impl IntoView {
    part(move || {
        let Dragged { vm, targets } = drag.0.get()?;
        let targets = targets?;
        let name = vm.with_untracked(|vm| vm.name.to_string());
        let hosts: Vec<_> = targets
            .into_iter()
            .take(MOST)
            .map(|target| view! { <Host drag=drag vm=vm.clone() target=target/> }.into_any())
            .collect();
        let text = if hosts.is_empty() {
            format!("There is no other host for {name}.")
        } else {
            format!("Drop {name} on a host to migrate it there. You are asked first.")
        };
        Some(view! {
            <section class="dock" aria-label="Hosts">
                <p>{text}</p>
                <ul>{hosts}</ul>
            </section>
        })
    })
}

#[component]
fn Host(drag: Drag, vm: ArcRwSignal<VmView>, target: MigrationTarget) -> impl IntoView {
    let desk = expect_context::<VmDesk>();
    let can = target.takes_it();
    let MigrationTarget {
        host,
        score,
        refusal,
        ..
    } = target;
    let name = host.name.clone();
    let over = RwSignal::new(false);
    let said = match refusal {
        None => format!("{:.0} % of its room stays free", score * 100.0),
        Some(_) if can => "With its disks in another datastore".to_owned(),
        Some(why) => sentence(&why),
    };
    view! {
        <li
            data-can=can.then_some("true")
            data-over=flag(move || over.get())
            on:dragover=move |event| {
                if can {
                    // Only so it may be dropped here.
                    event.prevent_default();
                    over.set(true);
                }
            }
            on:dragleave=move |_| over.set(false)
            on:drop=move |event| {
                event.prevent_default();
                desk.press_migrate_to(&vm, host.name.clone());
                drag.end();
            }
        >
            <strong>{name}</strong>
            <span class="why"><Prose text=said/></span>
        </li>
    }
    .into_any()
}
