//! What the reader can do with a request: what makes sense now as buttons, and
//! everything of their side in a menu.

use leptos::prelude::*;
use vimana_model::request::{RequestAction, RequestView};
use vimana_ui::{Button, ButtonKind, Each, IconName, Item, Menu, MenuItem, memo};

use super::decision::{DecisionDesk, gives_up};
use crate::page::sentence;
use crate::session::Caller;

/// Everything, in the order of the menu: what gives something up, last.
const ORDER: [RequestAction; 8] = [
    RequestAction::Approve,
    RequestAction::AskBack,
    RequestAction::Answer,
    RequestAction::Withdraw,
    RequestAction::AskRelease,
    RequestAction::Keep,
    RequestAction::Reject,
    RequestAction::ConfirmRelease,
];

const fn icon(action: RequestAction) -> IconName {
    match action {
        RequestAction::Approve => IconName::Check,
        RequestAction::Reject | RequestAction::Withdraw => IconName::Cross,
        RequestAction::AskBack => IconName::Question,
        RequestAction::Answer => IconName::Speech,
        RequestAction::AskRelease => IconName::Undo,
        RequestAction::ConfirmRelease => IconName::Check,
        RequestAction::Keep => IconName::Keep,
    }
}

const fn kind(action: RequestAction) -> ButtonKind {
    match action {
        RequestAction::Approve | RequestAction::Answer => ButtonKind::Primary,
        RequestAction::Reject | RequestAction::ConfirmRelease => ButtonKind::Danger,
        RequestAction::AskBack
        | RequestAction::Withdraw
        | RequestAction::AskRelease
        | RequestAction::Keep => ButtonKind::Plain,
    }
}

/// What it does, for who has not used it yet.
pub const fn meaning(action: RequestAction) -> &'static str {
    match action {
        RequestAction::Approve => "let it be made, perhaps with changes",
        RequestAction::Reject => "say no, with a reason",
        RequestAction::AskBack => "ask the requester for more",
        RequestAction::Answer => "answer the manager's question, perhaps with changed terms",
        RequestAction::Withdraw => "take it back: it is no longer wanted",
        RequestAction::AskRelease => "say that the machine is no longer needed",
        RequestAction::ConfirmRelease => "switch the machine off and give everything back",
        RequestAction::Keep => "let the machine run on",
    }
}

#[component]
pub fn RequestActions(request: ArcRwSignal<RequestView>) -> impl IntoView {
    let caller = expect_context::<Caller>();
    let theirs: Vec<RequestAction> = ORDER
        .into_iter()
        .filter(|action| request.with_untracked(|request| caller.takes_part(*action, request)))
        .collect();
    let now = {
        let (request, theirs) = (request.clone(), theirs.clone());
        memo(move || {
            request.with(|request| {
                let mut now = theirs.clone();
                now.retain(|action| caller.request_refusal(*action, request).is_none());
                now
            })
        })
    };
    let any = !theirs.is_empty();
    let items = move || {
        theirs
            .iter()
            .enumerate()
            .map(|(n, action)| {
                view! { <Entry request=request.clone() action=*action first=n == 0/> }
            })
            .map(IntoAny::into_any)
            .collect::<Vec<_>>()
    };
    let buttons = Signal::derive(move || {
        let button = |action| Item::new(action, move || view! { <Now action=action/> });
        now.get().into_iter().map(button).collect()
    });
    any.then(|| {
        view! {
            <div class="actions" role="group" aria-label="Actions">
                <Each items=buttons/>
                <Menu id="request-menu" label="All actions" icon=IconName::More>
                    {items.clone()()}
                </Menu>
            </div>
        }
    })
}

fn press(action: RequestAction) -> Callback<()> {
    let desk = expect_context::<DecisionDesk>();
    Callback::new(move |()| desk.ask(action))
}

#[component]
fn Now(action: RequestAction) -> impl IntoView {
    view! {
        <Button
            id=format!("do-{}", action.name())
            label=action.title()
            icon=icon(action)
            kind=kind(action)
            on_press=press(action)
        />
    }
}

#[component]
fn Entry(request: ArcRwSignal<RequestView>, action: RequestAction, first: bool) -> impl IntoView {
    let caller = expect_context::<Caller>();
    let blocked = memo(move || request.with(|request| caller.request_refusal(action, request)));
    view! {
        <MenuItem
            id=format!("menu-{}", action.name())
            menu="request-menu"
            label=action.title()
            icon=icon(action)
            note=sentence(meaning(action))
            blocked=blocked
            danger=gives_up(action)
            first=first
            on_press=press(action)
        />
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_menu_knows_every_action_once() {
        let mut order = ORDER;
        order.sort_unstable();
        let mut all = RequestAction::ALL;
        all.sort_unstable();
        assert_eq!(order, all);
    }
}
