//! The serial console. The terminal is JavaScript (`app/js/console.js`),
//! fetched when somebody opens it; it asks this side for a fresh ticket each
//! time it connects.

#[cfg(feature = "hydrate")]
mod terminal;

use leptos::html;
use leptos::prelude::*;
use leptos_router::hooks::use_query_map;
use vimana_model::action::VmAction;
use vimana_model::vm::VmView;
use vimana_ui::{Button, IconName, When, memo, text, word};

use crate::session::Caller;

/// How the terminal's connection is.
#[derive(Clone, Debug, PartialEq, Eq)]
#[cfg_attr(
    not(feature = "hydrate"),
    expect(dead_code, reason = "the server has no terminal")
)]
pub enum Wire {
    Closed,
    Connecting,
    Open,
    /// Broke; it tries again by itself.
    Lost,
    /// Nothing to connect to any more.
    Ended(String),
}

impl Wire {
    fn sentence(&self) -> String {
        match self {
            Self::Closed => String::new(),
            Self::Connecting => "Connecting…".to_owned(),
            Self::Open => "Connected".to_owned(),
            Self::Lost => "Connection lost; trying again…".to_owned(),
            Self::Ended(why) => why.clone(),
        }
    }

    const fn slug(&self) -> &'static str {
        match self {
            Self::Closed => "closed",
            Self::Connecting => "connecting",
            Self::Open => "open",
            Self::Lost => "lost",
            Self::Ended(_) => "ended",
        }
    }
}

#[component]
pub fn ConsolePanel(vm: ArcRwSignal<VmView>) -> impl IntoView {
    let caller = expect_context::<Caller>();
    let query = use_query_map();
    let pressed = RwSignal::new(false);
    let wanted =
        memo(move || pressed.get() || query.with(|query| query.get_str("console") == Some("open")));
    let blocked = {
        let vm = vm.clone();
        memo(move || vm.with(|vm| caller.refusal(VmAction::Console, vm)))
    };
    // Once there was a terminal, its last words stay on the screen.
    let opened = Memo::new(move |before: Option<&bool>| {
        before.copied().unwrap_or(false) || wanted.get() && blocked.with(Option::is_none)
    });
    view! {
        <section class="panel console" id="console" aria-labelledby="console-title">
            <h2 id="console-title">"Serial console"</h2>
            <When
                is=opened
                otherwise=move || view! {
                    <div class="console-closed">
                        <Button
                            id="open-console"
                            label="Open the console"
                            icon=IconName::Console
                            on_press=Callback::new(move |()| pressed.set(true))
                            blocked=blocked
                        />
                        <p class="faint">
                            {text(move || blocked.get().unwrap_or_else(|| "The machine's own screen and keyboard, in this page.".to_owned()))}
                        </p>
                    </div>
                }
            >
                <Terminal vm=vm.clone()/>
            </When>
        </section>
    }
    .into_any()
}

#[component]
fn Terminal(vm: ArcRwSignal<VmView>) -> impl IntoView {
    let place = NodeRef::<html::Div>::new();
    let wire = RwSignal::new(Wire::Closed);
    let (again, paste) = start(vm, place, wire);
    let open = move || wire.with(|wire| matches!(wire, Wire::Open));
    let idle = Signal::derive(move || (!open()).then(|| "Not connected.".to_owned()));
    view! {
        <div class="console-bar">
            <p role="status" class="wire" data-wire=word(move || Some(wire.with(Wire::slug)))>{text(move || wire.with(Wire::sentence))}</p>
            <Button id="console-paste" label="Paste" icon=IconName::Paste on_press=paste blocked=idle/>
            <Button id="console-again" label="Reconnect" icon=IconName::Retry on_press=again/>
        </div>
        <div class="console-screen" node_ref=place></div>
        <p class="faint">"Ctrl+Shift+V pastes. Shift+Esc leaves the terminal."</p>
    }
    .into_any()
}

/// Starts the terminal when the page has a place for it. Gives what
/// "Reconnect" and "Paste" do.
fn start(
    vm: ArcRwSignal<VmView>,
    place: NodeRef<html::Div>,
    wire: RwSignal<Wire>,
) -> (Callback<()>, Callback<()>) {
    #[cfg(feature = "hydrate")]
    {
        terminal::start(vm, place, wire)
    }
    #[cfg(not(feature = "hydrate"))]
    {
        let _ = (vm, place, wire);
        (Callback::new(|()| ()), Callback::new(|()| ()))
    }
}
