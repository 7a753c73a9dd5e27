//! Parts of a page that follow what they are made of.
//!
//! A closure in a view has a type of its own, and the browser loads a copy of
//! all that draws it for each. Behind these few types all closures share one.

use std::sync::{Arc, Mutex};

use leptos::ev::MouseEvent;
use leptos::prelude::*;

/// Something drawn again whenever what it read changes.
pub type Follow<T> = Arc<dyn Fn() -> T + Send + Sync>;

/// A part of the page that is drawn again.
pub type Part = Arc<Mutex<dyn FnMut() -> AnyView + Send>>;

/// A text.
pub fn text<T: Into<String>>(of: impl Fn() -> T + Send + Sync + 'static) -> Follow<String> {
    Arc::new(move || of().into())
}

/// A part of the page, or nothing.
pub fn part<V: IntoAny>(of: impl Fn() -> Option<V> + Send + 'static) -> Part {
    Arc::new(Mutex::new(move || {
        of().map_or_else(|| ().into_any(), IntoAny::into_any)
    }))
}

/// An attribute of one word, or none.
pub fn word(
    of: impl Fn() -> Option<&'static str> + Send + Sync + 'static,
) -> Follow<Option<&'static str>> {
    Arc::new(of)
}

/// An attribute that says "true", or is not there.
pub fn flag(of: impl Fn() -> bool + Send + Sync + 'static) -> Follow<Option<&'static str>> {
    Arc::new(move || of().then_some("true"))
}

/// What is reckoned from other things, again when they change; who reads it is
/// told when it is another than before.
pub fn memo<T>(of: impl Fn() -> T + Send + Sync + 'static) -> Memo<T>
where
    T: PartialEq + Send + Sync + 'static,
{
    fn shared<T: PartialEq + Send + Sync + 'static>(of: Follow<T>) -> Memo<T> {
        Memo::new(move |_| of())
    }
    shared(Arc::new(of))
}

/// What is done at a press.
pub fn press(mut act: impl FnMut() + 'static) -> Box<dyn FnMut(MouseEvent)> {
    Box::new(move |_| act())
}

/// Its children as long as `is` holds, else what `otherwise` says.
#[component]
pub fn When(
    #[prop(into)] is: Signal<bool>,
    #[prop(optional, into)] otherwise: ViewFn,
    children: ChildrenFn,
) -> impl IntoView {
    let is = memo(move || is.get());
    part(move || {
        Some(if is.get() {
            children()
        } else {
            otherwise.run()
        })
    })
}

/// One of many things of the same sort, such as a row.
#[derive(Clone)]
pub struct Item {
    key: String,
    view: Arc<dyn Fn() -> AnyView + Send + Sync>,
}

impl Item {
    /// `key` tells it from the others for as long as it is there; the view is
    /// made when it comes, and not again.
    pub fn new<V: IntoAny>(
        key: impl ToString,
        view: impl Fn() -> V + Send + Sync + 'static,
    ) -> Self {
        Self {
            key: key.to_string(),
            view: Arc::new(move || view().into_any()),
        }
    }
}

/// Many things of the same sort: those that stay keep their place in the page
/// and whatever is open in it.
#[component]
pub fn Each(#[prop(into)] items: Signal<Vec<Item>>) -> impl IntoView {
    view! { <For each=move || items.get() key=|item| item.key.clone() children=|item| (item.view)()/> }
}
