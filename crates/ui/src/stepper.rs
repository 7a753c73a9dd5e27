//! The phases of a piece of work, in their order: which is under way, which are
//! done, and where it broke off. Each has a sign and a word; colour comes on top.

use leptos::prelude::*;

use crate::icon::{Icon, IconName};

/// How one phase is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mark {
    Waiting,
    UnderWay,
    Done,
    /// It broke off here.
    Failed,
    /// Somebody broke it off here.
    Cancelled,
    GoingBack,
    Undone,
    Skipped,
}

impl Mark {
    const fn slug(self) -> &'static str {
        match self {
            Self::Waiting => "waiting",
            Self::UnderWay => "under-way",
            Self::Done => "done",
            Self::Failed => "failed",
            Self::Cancelled => "cancelled",
            Self::GoingBack => "going-back",
            Self::Undone => "undone",
            Self::Skipped => "skipped",
        }
    }

    const fn said(self) -> &'static str {
        match self {
            Self::Waiting => "waits",
            Self::UnderWay => "under way",
            Self::Done => "done",
            Self::Failed => "failed here",
            Self::Cancelled => "cancelled here",
            Self::GoingBack => "being taken back",
            Self::Undone => "taken back",
            Self::Skipped => "skipped",
        }
    }

    /// Where there is none, the ring itself says it: empty, dotted or filled.
    const fn icon(self) -> Option<IconName> {
        match self {
            Self::Done => Some(IconName::Check),
            Self::Failed => Some(IconName::Warning),
            Self::Cancelled => Some(IconName::Cross),
            Self::GoingBack | Self::Undone => Some(IconName::Undo),
            Self::Waiting | Self::UnderWay | Self::Skipped => None,
        }
    }

    const fn is_current(self) -> bool {
        matches!(self, Self::UnderWay | Self::GoingBack)
    }

    /// Whether those who see the sign need the word as well.
    const fn stands_out(self) -> bool {
        matches!(self, Self::Failed | Self::Cancelled | Self::GoingBack)
    }
}

/// Follows nothing by itself: drawn again, it changes what is another.
#[component]
pub fn Stepper(
    /// Whose phases they are: "Phases of the migration".
    label: &'static str,
    /// Their names, and how they are.
    phases: Vec<(&'static str, Mark)>,
    /// A line among others rather than what the page is about.
    #[prop(optional)]
    compact: bool,
) -> impl IntoView {
    let phases: Vec<_> = phases.into_iter().map(phase).collect();
    view! {
        <ol class="stepper" aria-label=label data-compact=compact.then_some("true")>{phases}</ol>
    }
    .into_any()
}

fn phase((title, mark): (&'static str, Mark)) -> AnyView {
    view! {
        <li data-mark=mark.slug() aria-current=mark.is_current().then_some("step")>
            <span class="stepper-mark">{mark.icon().map(|name| view! { <Icon name=name/> })}</span>
            <span class="stepper-title">{title}</span>
            " "
            <span class=if mark.stands_out() { "faint" } else { "unseen" }>{mark.said()}</span>
        </li>
    }
    .into_any()
}

#[cfg(test)]
mod tests {
    use super::*;

    const ALL: [Mark; 8] = [
        Mark::Waiting,
        Mark::UnderWay,
        Mark::Done,
        Mark::Failed,
        Mark::Cancelled,
        Mark::GoingBack,
        Mark::Undone,
        Mark::Skipped,
    ];

    #[test]
    fn every_mark_has_a_word_of_its_own() {
        for (n, mark) in ALL.into_iter().enumerate() {
            for other in ALL.into_iter().skip(n + 1) {
                assert_ne!(mark.said(), other.said());
                assert_ne!(mark.slug(), other.slug());
            }
        }
    }

    #[test]
    fn one_that_is_current_looks_like_no_other() {
        for mark in ALL.into_iter().filter(|mark| mark.is_current()) {
            assert!(mark.icon().is_none() || mark.stands_out());
        }
    }
}
