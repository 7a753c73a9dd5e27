//! Server functions: extract the caller, one engine call, map the error.
//!
//! JSON both ways under `/portal/api`. They serve the portal alone; the public
//! interface is REST.

mod catalogue;
mod codec;
mod error;
mod host;
mod session;
mod vm;

pub use catalogue::{Catalogue, catalogue};
pub use error::ApiError;
pub use host::hosts;
pub use session::{Password, SessionView, current_session, sign_in, sign_out};
pub use vm::{
    Show, console_ticket, create_vm, delete_vm, hold_vm, release_vm, shutdown_vm, vm,
    vm_operations, vm_timeline, vms,
};

pub type ApiResult<T> = Result<T, ApiError>;

/// Longest list a page shows.
#[cfg(feature = "ssr")]
pub(crate) const MAX_LISTED_VMS: u32 = 1000;
