//! The design system: components that know roles, labels and keys, and
//! nothing of virtual machines. Their looks are in `style/`.

pub mod badge;
pub mod button;
pub mod diagram;
pub mod dialog;
pub mod empty;
pub mod field;
pub mod file;
pub mod follow;
pub mod icon;
pub mod menu;
pub mod meter;
pub mod prose;
pub mod stepper;
pub mod table;
pub mod time;
pub mod toast;

pub use badge::{Badge, Tone};
pub use button::{Button, ButtonKind};
pub use diagram::{Diagram, Drawing, Node};
pub use dialog::{Confirm, Dialog};
pub use empty::EmptyState;
pub use field::{
    Answers, CheckField, Choice, FormError, SelectField, Submit, TextAreaField, TextField,
};
pub use file::{FileField, Picked};
pub use follow::{Each, Follow, Item, Part, When, flag, memo, part, press, text, word};
pub use icon::{Icon, IconName};
pub use menu::{Menu, MenuItem};
pub use meter::{Meter, Progress, thousandths};
pub use prose::Prose;
pub use stepper::{Mark, Stepper};
pub use table::{Cell, Table};
pub use time::{Clock, Elapsed, Time, Until};
pub use toast::{Offer, ToastKind, ToastRegion, Toasts};
