//! The watchdog as a process of its own, against processes that stand in for
//! machines.
#![expect(
    clippy::unwrap_used,
    reason = "a test may panic, and so may its helpers"
)]

mod agent;
mod fencing;
mod leases;
mod life;
mod qemu;
mod whole;
mod world;
