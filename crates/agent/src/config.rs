//! What an agent is told at its start, and what it is made of.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use vimana_driver::HostDriver;
use vimana_model::HostId;
use vimana_model::name::{HostName, ZoneName};
use vimana_model::unit::{MiB, Resources};
use vimana_protocol::agent::HostDatastore;
use vimana_protocol::dial::{Backoff, Dial, Random, Retry, Server};

use crate::enrolment::Enrolled;
use crate::images::ImageCache;
use crate::journal::{FileJournal, Journal};
use crate::limits::{ASK_FOR_IMAGES_EVERY, REFUSED_RETRY};
use crate::saved::ServerDatastore;
use crate::transfer::Transfer;
use crate::{DataDir, Datastore, Enrolment, ImageSource, Lease, Watchdog, capacity};

/// Everything an agent is told.
#[derive(Clone)]
pub struct Config {
    pub name: HostName,
    pub zone: ZoneName,
    /// What the host gives to VMs.
    pub capacity: Resources,
    /// Besides its own directory.
    pub datastores: Vec<HostDatastore>,
    pub timing: Timing,
    pub random: Random,
}

/// How patient an agent is.
#[derive(Clone, Copy, Debug)]
pub struct Timing {
    /// After a lost connection.
    pub retry: Retry,
    /// At least, after the server refused the Hello.
    pub refused: Duration,
    /// Between two times that the server is asked which images are gone.
    pub images: Duration,
}

impl Default for Timing {
    fn default() -> Self {
        Self {
            retry: Retry::default(),
            refused: REFUSED_RETRY,
            images: ASK_FOR_IMAGES_EVERY,
        }
    }
}

/// What an agent is made of. A real host's agent has files and sockets, a
/// simulated one nothing but memory.
pub struct Parts {
    pub host_id: HostId,
    pub config: Config,
    pub driver: Arc<dyn HostDriver>,
    pub dial: Arc<dyn Dial>,
    pub images: Arc<dyn ImageSource>,
    pub datastore: Arc<dyn Datastore>,
    pub journal: Arc<dyn Journal>,
    pub lease: Arc<dyn Lease>,
    /// Where viewers of serial lines are served; None where they are not.
    pub consoles: Option<Server>,
}

/// Why a directory cannot serve as an agent's.
#[derive(Debug, thiserror::Error)]
pub enum PartsError {
    #[error("cannot take over the image cache: {0}")]
    Images(io::Error),
    #[error("cannot clear what was on its way from the datastore: {0}")]
    Saved(io::Error),
    #[error("cannot open the ledger: {0}")]
    Ledger(io::Error),
    #[error("cannot prepare to fetch images: {0}")]
    Http(#[from] reqwest::Error),
}

impl Parts {
    /// Those of a real host: files in `data_dir`, sockets to `server`, and no
    /// watchdog. `image_cache` is how large the image cache may grow, where it
    /// is not a share of the disk.
    ///
    /// # Errors
    /// Where the directory cannot be used or TLS cannot be set up.
    pub fn of_host(
        config: Config,
        server: Server,
        data_dir: impl Into<Arc<DataDir>>,
        driver: Arc<dyn HostDriver>,
        image_cache: Option<MiB>,
    ) -> Result<Self, PartsError> {
        let data_dir = data_dir.into();
        let random = config.random.clone();
        let transfer = Transfer::new(server.clone(), config.timing.retry, random)?;
        let images = data_dir.images();
        let images = image_cache
            .map_or_else(
                || capacity::image_cache(&images),
                |mib| Ok(mib.bytes().unwrap_or(u64::MAX)),
            )
            .and_then(|budget| {
                ImageCache::open(images, budget, transfer.clone(), Arc::clone(&driver))
            });
        let datastore = ServerDatastore::open(data_dir.saved(), transfer);
        // The journal holds on to the directory, and with it to its lock.
        let journal = FileJournal::open(&data_dir).map_err(PartsError::Ledger)?;
        Ok(Self {
            host_id: data_dir.host_id(),
            config,
            driver,
            dial: Arc::new(server.clone()),
            images: Arc::new(images.map_err(PartsError::Images)?),
            datastore: Arc::new(datastore.map_err(PartsError::Saved)?),
            journal: Arc::new(journal),
            lease: Arc::new(Watchdog::none()),
            consoles: Some(server),
        })
    }

    /// The host joins where it has to, and renews its certificate in time.
    /// Inside a runtime.
    pub fn enrol(&mut self, enrolment: Arc<Enrolment>) {
        let backoff = Backoff::with(self.config.timing.retry, self.config.random.clone());
        self.dial = Arc::new(Enrolled::new(enrolment, Arc::clone(&self.journal), backoff));
    }
}
