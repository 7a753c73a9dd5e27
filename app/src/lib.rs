//! The portal: pages, server functions and routes, for the server (`ssr`) and
//! the browser (`hydrate`).
//!
//! What the server needs is in [`ssr`]: [`ssr::router`] makes an axum router of
//! the whole portal out of an engine and the [`SiteAssets`] that
//! `cargo xtask site` wrote.

#![recursion_limit = "256"]

pub mod api;
mod assets;
mod frame;
#[cfg(feature = "hydrate")]
mod glue;
mod live;
mod page;
mod routes;
mod session;
#[cfg(feature = "ssr")]
mod shell;
#[cfg(feature = "ssr")]
pub mod ssr;
mod theme;
mod uploads;

pub use assets::{ManifestError, SiteAssets};
pub use routes::App;
#[cfg(feature = "ssr")]
pub use shell::shell;
