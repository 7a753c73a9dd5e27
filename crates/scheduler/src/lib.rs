//! The scheduler: decides where pending VMs go and never acts.
//!
//! [`State`] holds what the server told and decides, without a clock or a
//! network of its own; [`run`] keeps a session with the server around it. The
//! server checks every proposal and may refuse it, so a scheduler that is
//! slow, wrong or dead loses nothing.

mod booking;
pub mod limits;
mod session;
mod state;

pub use session::run;
pub use state::State;
