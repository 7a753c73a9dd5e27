//! This side of `app/js/console.js`.

use std::sync::Arc;

use js_sys::{Function, Object, Promise, Reflect};
use leptos::html;
use leptos::prelude::*;
use leptos::task::spawn_local;
use send_wrapper::SendWrapper;
use vimana_model::action::VmAction;
use vimana_model::vm::VmView;
use vimana_model::{ErrorKind, VmState};
use vimana_ui::memo;
use wasm_bindgen::JsValue;
use wasm_bindgen::closure::Closure;
use wasm_bindgen_futures::future_to_promise;

use super::Wire;
use crate::api::console_ticket;
use crate::glue;
use crate::session::CurrentSession;

type Handle = StoredValue<Option<Open>, LocalStorage>;

/// A terminal on the page, with the callbacks it may call as long as it lives.
struct Open {
    terminal: JsValue,
    _ticket: Closure<dyn FnMut() -> Promise>,
    _report: Closure<dyn FnMut(String)>,
}

impl Open {
    fn call(&self, method: &str) {
        if let Ok(method) = glue::get::<Function>(&self.terminal, method) {
            // A terminal that cannot do it says so on its own screen.
            let _ = method.call0(&self.terminal);
        }
    }
}

pub fn start(
    vm: ArcRwSignal<VmView>,
    place: NodeRef<html::Div>,
    wire: RwSignal<Wire>,
) -> (Callback<()>, Callback<()>) {
    let session = expect_context::<CurrentSession>();
    let handle: Handle = StoredValue::new_local(None);
    let press = move |method: &'static str| {
        handle.try_with_value(|open| {
            if let Some(open) = open {
                open.call(method);
            }
        });
    };
    // A machine that went away, and is there again, is connected again.
    let reachable = {
        let vm = vm.clone();
        memo(move || vm.with(|vm| VmAction::Console.judge(vm.state).is_ok()))
    };
    Effect::new(move |before: Option<bool>| {
        let now = reachable.get();
        if now && before == Some(false) {
            press("reconnect");
        }
        now
    });
    Effect::new(move |_| {
        let Some(place) = place.get() else { return };
        let vm = vm.clone();
        wire.set(Wire::Connecting);
        spawn_local(async move {
            match open(vm, &place, wire, session).await {
                // The page may be gone by now.
                Ok(open) => match handle.try_with_value(Option::is_none) {
                    Some(_) => handle.set_value(Some(open)),
                    None => open.call("close"),
                },
                Err(_) => {
                    wire.try_set(Wire::Ended(
                        "The terminal could not be loaded; reload the page.".to_owned(),
                    ));
                }
            }
        });
    });
    on_cleanup(move || {
        handle.try_update_value(|open| {
            if let Some(open) = open.take() {
                open.call("close");
            }
        });
    });
    let pressed = move |method: &'static str| Callback::new(move |()| press(method));
    (pressed("ask"), pressed("paste"))
}

async fn open(
    vm: ArcRwSignal<VmView>,
    place: &JsValue,
    wire: RwSignal<Wire>,
    session: CurrentSession,
) -> Result<Open, JsValue> {
    let module = glue::module("console").await?;
    let name = vm.with_untracked(|vm| vm.name.to_string());
    let why = Arc::new(SendWrapper::new(std::cell::RefCell::new(None::<String>)));
    let ticket = {
        let why = why.clone();
        Closure::<dyn FnMut() -> Promise>::new(move || {
            let (vm, why) = (vm.clone(), why.clone());
            future_to_promise(async move { ticket(&vm, session, &why).await })
        })
    };
    let report = Closure::<dyn FnMut(String)>::new(move |state: String| {
        let state = match state.as_str() {
            "open" => Wire::Open,
            "lost" => Wire::Lost,
            "ended" => Wire::Ended(why.borrow().clone().unwrap_or_default()),
            _ => Wire::Connecting,
        };
        wire.try_set(state);
    });
    let options = Object::new();
    for (key, value) in [
        ("label", &JsValue::from(format!("Serial console of {name}"))),
        (
            "nonce",
            &Reflect::get(&glue::page()?.into(), &"nonce".into())?,
        ),
        ("ticket", ticket.as_ref()),
        ("report", report.as_ref()),
    ] {
        Reflect::set(&options, &key.into(), value)?;
    }
    let terminal = glue::get::<Function>(&module, "open")?.call2(&module, place, &options)?;
    Ok(Open {
        terminal,
        _ticket: ticket,
        _report: report,
    })
}

/// A fresh ticket; null when there is nothing to connect to any more, which
/// ends the terminal's tries. Whatever may pass is an error, and tried again.
async fn ticket(
    vm: &ArcRwSignal<VmView>,
    session: CurrentSession,
    why: &SendWrapper<std::cell::RefCell<Option<String>>>,
) -> Result<JsValue, JsValue> {
    let (id, name, state) = vm.with_untracked(|vm| (vm.id, vm.name.clone(), vm.state));
    if let Err(refusal) = VmAction::Console.judge(state) {
        let refusal = format!("{name} {refusal}.");
        if passes(state) {
            return Err(refusal.into());
        }
        why.replace(Some(refusal));
        return Ok(JsValue::NULL);
    }
    match console_ticket(id).await {
        Ok(view) => {
            let grant = Object::new();
            Reflect::set(&grant, &"path".into(), &view.path.into())?;
            Reflect::set(&grant, &"ticket".into(), &view.ticket.into())?;
            Ok(grant.into())
        }
        Err(error) if is_final(error.kind()) => {
            session.notice(&error);
            why.replace(Some(error.sentence()));
            Ok(JsValue::NULL)
        }
        Err(error) => Err(error.sentence().into()),
    }
}

/// Whether the machine may well run, only out of reach for now.
fn passes(state: VmState) -> bool {
    matches!(state, VmState::Unknown | VmState::Migrate)
}

/// Whether asking again would be answered the same.
fn is_final(kind: ErrorKind) -> bool {
    matches!(
        kind,
        ErrorKind::Unauthenticated | ErrorKind::Forbidden | ErrorKind::NotFound
    )
}
