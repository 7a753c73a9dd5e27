//! The frames between the server and its peers: agents and schedulers.
//!
//! Both peers dial out to the server and speak JSON text frames over one
//! WebSocket. Both ends refuse frames above [`limits::MAX_FRAME_BYTES`].

pub mod agent;
#[cfg(feature = "dial")]
pub mod dial;
pub mod enrolment;
pub mod frame;
pub mod limits;
pub mod scheduler;
