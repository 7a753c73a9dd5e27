//! Every breach that can be planted is found, by the check that is for it and
//! by no other; an installation that is as it must be has none.

#![expect(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test may give up loudly"
)]

mod installation;
mod looks;
mod plant;
mod records;
mod reports;
mod rows;
