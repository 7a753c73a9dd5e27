//! The design system: components that know roles, labels and keys, and
//! nothing of virtual machines. Their looks are in `style/`.

pub mod badge;
pub mod button;
pub mod dialog;
pub mod empty;
pub mod field;
pub mod icon;
pub mod meter;
pub mod prose;
pub mod table;
pub mod time;
pub mod toast;

pub use badge::{Badge, Tone};
pub use button::{Button, ButtonKind};
pub use dialog::Confirm;
pub use empty::EmptyState;
pub use field::{CheckField, Choice, SelectField, TextAreaField, TextField};
pub use icon::{Icon, IconName};
pub use meter::Meter;
pub use prose::Prose;
pub use table::{Cell, Table};
pub use time::{Clock, Elapsed, Time};
pub use toast::{ToastKind, ToastRegion, Toasts};
