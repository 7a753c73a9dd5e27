//! What the manager does.
//!
//! One file per resource; [`progress`] moves operations from step to step;
//! [`reconcile`] holds the loops that deal with what already happened. Every
//! public function takes the caller's [`OpContext`] first, decides inside one
//! transaction, and answers in words of `vimana_model`.
//!
//! The way of a request: [`Engine::create_vm`] records VM and operation in one
//! transaction; the event hub tells the scheduler; its proposal is checked and
//! the room claimed in one transaction (`placement.rs`); the agent receives
//! one command per step and answers it (`report.rs`); each answer is one
//! transaction that ends a step and begins the next, or begins to take back
//! what was done (`saga.rs`). A command is sent again whenever its host
//! connects, so a restart of any part needs nothing but the database.

mod action;
mod agent;
mod authorize;
mod backup;
mod bootstrap;
mod change;
pub mod check;
mod clock;
mod console;
mod context;
mod datastore;
mod deadline;
mod dispatch;
mod enrolment;
mod evacuation;
mod event;
mod flavor;
mod host;
mod idempotency;
mod image;
mod join_token;
mod limits;
mod migration;
mod name;
mod operation;
mod orphan;
mod persist;
mod placement;
mod progress;
mod quota;
mod rate_limit;
mod reconcile;
mod report;
mod request;
mod saga;
mod schedule;
mod secret;
mod session;
mod snapshot;
mod template;
mod tenant;
mod vm;
mod volume;

use std::sync::Arc;
use std::time::Duration;

use tokio_util::sync::CancellationToken;
use vimana_model::Result;
use vimana_pki::Authority;
use vimana_repository::Repository;
use vimana_store::Store;

pub use action::{Acted, ActionArgs};
pub use agent::{AgentHandle, AgentSession, Inventory};
pub use clock::{Clock, SystemClock};
pub use console::{ConsoleEnd, ConsoleGrant};
pub use context::{OpContext, World};
pub use datastore::{Begun, Datastores, Transfer, datastore_error};
pub use enrolment::HostProof;
pub use event::WatchItem;
pub use idempotency::IdempotencyKey;
pub use image::{ImageDownload, UploadPart, UploadReach};
pub use join_token::issue_join_token;
pub use limits::SESSION_LIFE;
pub use placement::{SchedulerHandle, SchedulerSession};
pub use request::RequestQuery;
pub use vm::VmQuery;

/// What an operator may set.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Silence after which a host counts as Unknown.
    pub silence_grace: Duration,
    /// How long a guest has to switch itself off.
    pub shutdown_grace: Duration,
    /// How long a host may run its machines without hearing from the server;
    /// for ever where absent.
    pub host_lease: Option<Duration>,
    /// Life of an API token.
    pub token_life: Duration,
    /// Life of a host's certificate.
    pub certificate_life: Duration,
    /// How long a deleted image can be restored.
    pub trash_life: Duration,
    /// How long a VM of a host that is drained rests after it was sent away in vain,
    /// before it is again; after the second time twice as long.
    pub evacuation_pause: Duration,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            silence_grace: Duration::from_secs(15),
            shutdown_grace: Duration::from_secs(60),
            host_lease: None,
            token_life: Duration::from_secs(30 * 24 * 3600),
            certificate_life: enrolment::CERTIFICATE_LIFE,
            trash_life: Duration::from_secs(7 * 24 * 3600),
            evacuation_pause: Duration::from_secs(10),
        }
    }
}

/// What an engine is made of.
pub struct EngineConfig {
    pub store: Store,
    /// Certifies hosts.
    pub authority: Arc<Authority>,
    /// Where images are kept.
    pub repository: Arc<dyn Repository>,
    /// Where the memory and disk of stopped VMs are kept, and backups.
    pub datastores: Datastores,
    pub settings: Settings,
    pub world: World,
}

/// The manager. Clones share everything.
#[derive(Clone)]
pub struct Engine {
    inner: Arc<Inner>,
}

struct Inner {
    store: Store,
    repository: Arc<dyn Repository>,
    imports: image::Imports,
    datastores: Datastores,
    progress: progress::ProgressBoard,
    sightings: report::Sightings,
    deadlines: deadline::Deadlines,
    absences: deadline::Absences,
    settings: Settings,
    world: World,
    /// Ends what goes on beside, when [`Engine::run`] does.
    ended: CancellationToken,
    hub: event::Hub,
    agents: agent::Agents,
    schedulers: placement::Schedulers,
    consoles: console::Consoles,
    sign_ins: session::SignIns,
    enrolment: enrolment::Enrolment,
    drains: evacuation::Drains,
}

impl Engine {
    /// Takes over `config.store`. Until agents connect again, every host
    /// counts as not connected.
    ///
    /// # Errors
    /// The database cannot be read or written.
    pub async fn open(config: EngineConfig) -> Result<Self> {
        let EngineConfig {
            store,
            authority,
            repository,
            datastores,
            settings,
            world,
        } = config;
        let last_seq = vimana_store::event::last_seq(&store.read()).await?;
        let engine = Self {
            inner: Arc::new(Inner {
                store,
                repository,
                imports: image::Imports::default(),
                datastores,
                progress: progress::ProgressBoard::default(),
                sightings: report::Sightings::default(),
                deadlines: deadline::Deadlines::default(),
                absences: deadline::Absences::default(),
                settings,
                world,
                ended: CancellationToken::new(),
                hub: event::Hub::new(last_seq),
                agents: agent::Agents::default(),
                schedulers: placement::Schedulers::default(),
                consoles: console::Consoles::default(),
                sign_ins: session::SignIns::new()?,
                enrolment: enrolment::Enrolment::new(authority),
                drains: evacuation::Drains::default(),
            }),
        };
        engine.forget_connections().await?;
        Ok(engine)
    }

    /// Answers when the database does.
    ///
    /// # Errors
    /// The database does not answer.
    pub async fn ready(&self) -> Result<()> {
        vimana_store::event::last_seq(&self.store().read()).await?;
        Ok(())
    }

    /// Recomputes the rules that always hold, from the database, what the
    /// connected hosts say, the datastore and the repository; see [`check`].
    ///
    /// # Errors
    /// The database, the datastore or the repository cannot be read.
    pub async fn check(&self) -> Result<Vec<check::Breach>> {
        let inventories = self.inventories(limits::INVENTORY_PATIENCE).await;
        let mut in_datastore = None;
        let mut backups = std::collections::BTreeMap::new();
        for (name, datastore) in self.inner.datastores.all() {
            let held = datastore.contents().await.map_err(datastore_error)?;
            in_datastore.get_or_insert(held.saved);
            backups.insert(name.clone(), held.backups);
        }
        let held = self.inner.repository.contents().await;
        let in_repository = Some(held.map_err(vimana_model::Error::internal)?);
        let outside = check::Outside {
            in_datastore,
            backups,
            in_repository,
            ..inventories.into_iter().collect()
        };
        check::check(&self.store().read(), &outside).await
    }

    /// The store, for what is kept beside the engine: sessions of browsers.
    #[must_use]
    pub fn store(&self) -> &Store {
        &self.inner.store
    }

    /// Its clock and its randomness.
    #[must_use]
    pub fn world(&self) -> &World {
        &self.inner.world
    }
}
