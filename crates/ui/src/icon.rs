//! The few icons, drawn on a 16 × 16 grid with one stroke.

use leptos::prelude::*;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum IconName {
    Archive,
    Camera,
    Check,
    Chevron,
    Clock,
    Console,
    Cross,
    Download,
    Hold,
    Host,
    Keep,
    Machine,
    More,
    Move,
    Paste,
    Plus,
    Power,
    Question,
    Reboot,
    Release,
    Reset,
    Resize,
    Retry,
    Search,
    SignOut,
    Speech,
    Stop,
    Suspend,
    Trash,
    Undo,
    User,
    Warning,
}

impl IconName {
    const fn path(self) -> &'static str {
        match self {
            Self::Archive => "M2 3h12v3H2zM3 6v7h10V6M6.5 9h3",
            Self::Camera => {
                "M2 5h3l1-1.8h4L11 5h3v8H2zM8 6.8a2.2 2.2 0 1 0 0 4.4 2.2 2.2 0 0 0 0-4.4"
            }
            Self::Check => "M3 8.5 6.5 12 13 4.5",
            Self::Chevron => "M4 6l4 4 4-4",
            Self::Clock => "M8 2a6 6 0 1 0 0 12A6 6 0 0 0 8 2Zm0 3v3l2 1.5",
            Self::Console => "M2 3h12v10H2zM4.5 6 6.5 8l-2 2M8.5 10h3",
            Self::Cross => "M4 4l8 8M12 4l-8 8",
            Self::Download => "M8 2v8M4.5 6.5 8 10l3.5-3.5M3 13.5h10",
            Self::Hold => "M5.5 3.5v9M10.5 3.5v9",
            Self::Host => "M2 3h12v4H2zM2 9h12v4H2zM4.5 5h.01M4.5 11h.01",
            Self::Keep => "M13.5 8A5.5 5.5 0 1 1 8 2.5M8 5v3l2 1.5M10 2.5h3.5V6",
            Self::More => {
                "M3 8a.6.6 0 1 0 1.2 0A.6.6 0 1 0 3 8M7.4 8a.6.6 0 1 0 1.2 0 .6.6 0 1 0-1.2 0M11.8 8a.6.6 0 1 0 1.2 0 .6.6 0 1 0-1.2 0"
            }
            Self::Machine => "M2 3h12v8H2zM8 11v2.5M5 13.5h6",
            Self::Paste => "M4 3.5H3v10.5h10V3.5h-1M6 2h4v3H6z",
            Self::Plus => "M8 3v10M3 8h10",
            Self::Power => "M8 2v5M4.6 4.4a5 5 0 1 0 6.8 0",
            Self::Question => "M5.5 6a2.5 2.5 0 1 1 3.6 2.2c-.7.4-1.1.8-1.1 1.8M8 12.6h.01",
            Self::Reboot => {
                "M3 8a5 5 0 0 1 8.5-3.6L13 6M13 2.5V6H9.5M13 8a5 5 0 0 1-8.5 3.6L3 10M3 13.5V10h3.5"
            }
            Self::Move => "M2 5.5h10M9.5 3 12 5.5 9.5 8M14 10.5H4M6.5 8 4 10.5 6.5 13",
            Self::Release => "M5 3.5v9l7-4.5z",
            Self::Reset => "M8.8 1.8 3.5 9H8l-.8 5.2L12.5 7H8z",
            Self::Resize => "M9.5 2.5h4v4M13.5 2.5 9 7M6.5 13.5h-4v-4M2.5 13.5 7 9",
            Self::Retry => "M13 8a5 5 0 1 1-1.5-3.6M13 2.5v3h-3",
            Self::Search => "M7 2.5a4.5 4.5 0 1 0 0 9 4.5 4.5 0 0 0 0-9ZM10.5 10.5 14 14",
            Self::SignOut => "M6 2.5H3v11h3M10 5l3 3-3 3M13 8H6.5",
            Self::Speech => "M2.5 3h11v7.5H8L5 13v-2.5H2.5z",
            Self::Stop => "M2.5 6.5 8 12l5.5-5.5M8 12V2.5M2.5 14h11",
            Self::Suspend => "M13 9.5A5.5 5.5 0 1 1 6.5 3 4.5 4.5 0 0 0 13 9.5Z",
            Self::Trash => "M2.5 4.5h11M6 4V2.5h4V4M4 4.5l.6 9h6.8l.6-9M6.7 7v4M9.3 7v4",
            Self::Undo => "M6 3.5 2.5 7 6 10.5M3 7h6.5a3.5 3.5 0 0 1 0 7H7",
            Self::User => {
                "M8 2.5a2.5 2.5 0 1 0 0 5 2.5 2.5 0 0 0 0-5ZM3 14c0-2.8 2.2-4.5 5-4.5s5 1.7 5 4.5"
            }
            Self::Warning => "M8 2.5 14.5 13.5h-13zM8 6.5v3.2M8 11.6h.01",
        }
    }
}

/// Decoration: what it means is said in words beside it.
#[component]
pub fn Icon(name: IconName) -> impl IntoView {
    view! {
        <svg
            class="icon"
            viewBox="0 0 16 16"
            width="16"
            height="16"
            fill="none"
            stroke="currentColor"
            stroke-width="1.5"
            stroke-linecap="round"
            stroke-linejoin="round"
            aria-hidden="true"
        >
            <path d=name.path()></path>
        </svg>
    }
}
