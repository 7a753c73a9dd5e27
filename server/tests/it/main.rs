//! The server as its callers meet it: the real thing on a loopback port, with
//! a database and a data directory of its own.

#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "helpers of tests fail like the tests themselves"
)]

mod agent;
mod authorization;
mod body;
mod clock;
mod console;
mod enrolment;
mod evacuation;
mod event;
mod fleet;
mod fsck;
mod idempotency;
mod image;
mod machine;
mod origin;
mod page;
mod peer;
mod people;
mod real_agent;
mod refresh;
mod request;
mod route;
mod saved;
mod session;
#[path = "../../../crates/fetch/tests/it/peer.rs"]
#[expect(
    dead_code,
    reason = "the other kinds of servers are fetch's own to try"
)]
mod share;
mod start;
mod strange;
mod template;
mod tenant;
mod torn;
mod upload;
mod version;
mod vm;
mod volume;
mod volume_content;
mod watch;
mod world;
