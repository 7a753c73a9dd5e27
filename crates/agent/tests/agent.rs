//! The agent with the simulated driver, against a server that speaks the
//! protocol over real sockets.
#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a test may panic, and so may its helpers"
)]

#[path = "agent/commands.rs"]
mod commands;
#[path = "agent/consoles.rs"]
mod consoles;
#[path = "agent/images.rs"]
mod images;
#[path = "agent/orders.rs"]
mod orders;
#[path = "agent/qemu.rs"]
mod qemu;
#[path = "agent/resume.rs"]
mod resume;
#[path = "agent/saved.rs"]
mod saved;
#[path = "agent/sessions.rs"]
mod sessions;
#[path = "agent/world.rs"]
mod world;
