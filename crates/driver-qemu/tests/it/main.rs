//! The driver on real QEMU, with a guest of 512 bytes, translated in software.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    reason = "tests, and what helps them"
)]

mod carried;
mod conformance;
mod host;
mod interrupted;
mod migration;
mod post_copy;
mod shared;
mod survival;
