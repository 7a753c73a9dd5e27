//! The agent as a simulation has it: nothing but memory, on virtual time. It
//! is killed by dropping it, wherever it is.
#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a test may panic, and so may its helpers"
)]

#[path = "simulated/disorder.rs"]
mod disorder;
#[path = "simulated/kills.rs"]
mod kills;
#[path = "simulated/ledger.rs"]
mod ledger;
#[path = "agent/orders.rs"]
mod orders;
#[path = "simulated/sending.rs"]
mod sending;
#[path = "simulated/sessions.rs"]
mod sessions;
#[path = "simulated/shelf.rs"]
mod shelf;
#[path = "simulated/versions.rs"]
mod versions;
#[path = "simulated/works.rs"]
mod works;
#[path = "simulated/world.rs"]
mod world;
