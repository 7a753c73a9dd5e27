//! A small mark that says how a thing is: colour, dot and word, never colour
//! alone.

use leptos::prelude::*;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tone {
    Good,
    Moving,
    Resting,
    Bad,
    Over,
}

impl Tone {
    #[must_use]
    pub const fn slug(self) -> &'static str {
        match self {
            Self::Good => "good",
            Self::Moving => "moving",
            Self::Resting => "resting",
            Self::Bad => "bad",
            Self::Over => "over",
        }
    }
}

#[component]
pub fn Badge(
    #[prop(into)] tone: Signal<Tone>,
    #[prop(into)] text: Signal<String>,
) -> impl IntoView {
    view! {
        <span class="badge" data-tone=crate::word(move || Some(tone.get().slug()))>
            {text}
        </span>
    }
}
