//! What is recorded: the only crate that names `sea_orm`. Everything speaks
//! the words of `vimana_model`; the entities are private.

pub mod backup;
pub mod claim;
mod column;
pub mod enrolment;
mod entity;
pub mod error;
pub mod event;
pub mod flavor;
mod group;
pub mod host;
pub mod host_datastore;
pub mod idempotency;
pub mod image;
pub mod join_token;
pub mod limits;
mod line;
mod link;
mod lock;
mod migrate;
pub mod migration;
pub mod operation;
pub mod orphan;
mod pool;
mod query;
pub mod quota;
pub mod request;
pub mod schedule;
pub mod session;
#[cfg(feature = "simulation")]
pub mod simulation;
pub mod snapshot;
pub mod store;
pub mod survey;
pub mod template;
pub mod tenant;
#[cfg(feature = "testing")]
pub mod testing;
pub mod token;
pub mod tx;
pub mod user;
pub mod vm;
pub mod volume;

pub use error::{Result, StoreError};
pub use store::{Conn, Reader, Snapshot, Store, WriteTx};
pub use tx::TxError;
