//! What administrators can ask of one host, in its row and on its page: what
//! would change something, as buttons.

mod desk;
mod evacuate;

use leptos::prelude::*;
use vimana_model::host::{DesiredState, HostView};
use vimana_ui::{Button, ButtonKind, Each, IconName, Item, memo};

use crate::session::Caller;
pub use desk::HostDesk;
pub use evacuate::EvacuateDialog;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HostAction {
    Cordon,
    Evacuate,
    Enable,
}

/// What would change something; the way on first.
const fn offered(desired: DesiredState) -> &'static [HostAction] {
    match desired {
        DesiredState::Enabled => &[HostAction::Cordon, HostAction::Evacuate],
        DesiredState::Cordoned => &[HostAction::Enable, HostAction::Evacuate],
        DesiredState::Draining | DesiredState::Maintenance => {
            &[HostAction::Enable, HostAction::Cordon]
        }
    }
}

impl HostAction {
    const fn name(self) -> &'static str {
        match self {
            Self::Cordon => "cordon",
            Self::Evacuate => "evacuate",
            Self::Enable => "enable",
        }
    }

    const fn title(self) -> &'static str {
        match self {
            Self::Cordon => "Cordon",
            Self::Evacuate => "Evacuate…",
            Self::Enable => "Enable",
        }
    }

    /// What it is called where its host has to be named.
    fn of(self, host: &str) -> String {
        match self {
            Self::Cordon => format!("Cordon {host}"),
            Self::Evacuate => format!("Evacuate {host}…"),
            Self::Enable => format!("Enable {host}"),
        }
    }

    const fn icon(self) -> IconName {
        match self {
            Self::Cordon => IconName::Hold,
            Self::Evacuate => IconName::SignOut,
            Self::Enable => IconName::Release,
        }
    }

    const fn kind(self, compact: bool) -> ButtonKind {
        match self {
            Self::Enable if !compact => ButtonKind::Primary,
            Self::Enable | Self::Cordon | Self::Evacuate => ButtonKind::Plain,
        }
    }
}

/// Nothing for those who may only look.
#[component]
pub fn HostActions(
    host: ArcRwSignal<HostView>,
    /// Icons alone.
    #[prop(optional)]
    compact: bool,
) -> impl IntoView {
    let may = expect_context::<Caller>().may_manage_hosts();
    let desired = {
        let host = host.clone();
        memo(move || host.with(|host| host.desired))
    };
    let buttons = Signal::derive(move || {
        let button = |action: &HostAction| {
            let (host, action) = (host.clone(), *action);
            Item::new(
                action.name(),
                move || view! { <ActionButton host=host.clone() action=action compact=compact/> },
            )
        };
        offered(desired.get()).iter().map(button).collect()
    });
    may.then(|| {
        view! {
            <div class="actions" role="group" aria-label="Actions">
                <Each items=buttons/>
            </div>
        }
    })
    .into_any()
}

#[component]
fn ActionButton(host: ArcRwSignal<HostView>, action: HostAction, compact: bool) -> impl IntoView {
    let desk = expect_context::<HostDesk>();
    let busy = RwSignal::new(false);
    let (id, name) = host.with_untracked(|host| (host.id, host.name.to_string()));
    let label = if compact {
        action.of(&name)
    } else {
        action.title().to_owned()
    };
    view! {
        <Button
            id=format!("{}-{id}", action.name())
            label=label
            on_press=Callback::new(move |()| desk.press(action, &host, busy))
            kind=action.kind(compact)
            icon=action.icon()
            icon_only=compact
            busy=busy
        />
    }
}
