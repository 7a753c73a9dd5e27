//! From a configuration to a server that listens.

use std::net::SocketAddr;
use std::num::NonZeroU64;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, bail};
use rustls::ServerConfig;
use tokio::task::JoinHandle;
use vimana_datastore::{DatastoreDriver, DirDatastore};
use vimana_engine::{Datastores, Engine, EngineConfig, Settings, World};
use vimana_fetch::Reach;
use vimana_model::name::DatastoreName;
use vimana_pki::{Authority, Serial, server_config};
use vimana_repository::{DirRepository, Terms};
use vimana_store::Store;

use crate::config::{Config, ImageSource, open_datastore};
use crate::control::Control;
use crate::data_dir::DataDir;
use crate::secret::PeerSecrets;
use crate::serve::{Bound, Serving};
use crate::state::App;
use crate::{limits, peer, router, tls};

/// A server at work.
pub struct Running {
    app: App,
    serving: Serving,
    agents: Serving,
    engine: JoinHandle<()>,
    admin_password: Option<String>,
    _data_dir: DataDir,
}

/// Opens everything and listens; refuses with a sentence for the operator.
pub async fn start(config: Config) -> anyhow::Result<Running> {
    start_in(config, World::system()).await
}

/// The same with a clock and randomness of the caller's.
pub async fn start_in(config: Config, world: World) -> anyhow::Result<Running> {
    let tls = tls::config(&config.tls).await?;
    refuse_exposed(&config, tls.is_some())?;
    let data_dir = DataDir::open(&config.data_dir)?;
    let secrets = PeerSecrets::open(&data_dir.secrets(), &world)?;
    let agent_tls = agent_tls(&secrets.authority, &world)?;
    let control = Control::bind(&data_dir.control())?;
    let bound = Bound::new(config.listen)?;
    let agents_bound = Bound::new(config.agent_listen)?;
    let authority = Arc::clone(&secrets.authority);
    let engine = open_engine(&config, &data_dir, authority, world).await?;
    import_images(&engine, &config.import_image).await?;
    let app = App::new(engine.clone(), secrets.scheduler, tls.is_some());
    let router = router::router(app.clone(), config.site_dir.as_deref())?;
    let agents_router = peer::agents(app.clone());
    // Last, for it may make a password that is only told once: nothing after
    // it fails.
    let preset = config.admin_password.as_ref();
    let admin_password = engine
        .bootstrap(preset.map(|password| password.0.as_str()))
        .await
        .context("cannot prepare the installation")?;
    let serving = bound.serve(router, tls);
    let agents = agents_bound.serve_agents(agents_router, agent_tls);
    let tools = control.serve(engine.clone(), app.stopping.clone());
    app.tasks.spawn(tools);
    let stopping = app.stopping.clone();
    let engine = tokio::spawn(async move { Box::pin(engine.run(stopping)).await });
    Ok(Running {
        app,
        serving,
        agents,
        engine,
        admin_password,
        _data_dir: data_dir,
    })
}

/// With a new certificate for every start: its key is nowhere but in memory.
fn agent_tls(authority: &Authority, world: &World) -> anyhow::Result<ServerConfig> {
    let serial = Serial::from_random(world.random_bytes());
    let clock = world.clone();
    let certificate = authority.certify_server(serial);
    certificate
        .and_then(|certificate| server_config(authority, certificate, move || clock.now()))
        .context("cannot make the certificate that agents are shown")
}

async fn open_engine(
    config: &Config,
    data_dir: &DataDir,
    authority: Arc<Authority>,
    world: World,
) -> anyhow::Result<Engine> {
    let url = config.database_url.clone();
    let store = Store::open(&url.unwrap_or_else(|| data_dir.database_url()))
        .await
        .context("cannot open the database")?;
    Engine::open(EngineConfig {
        store,
        authority,
        repository: Arc::new(DirRepository::new(data_dir.images(), terms(config))),
        datastores: datastores(config, data_dir)?,
        settings: Settings {
            certificate_life: config.host_certificate_life,
            host_lease: config.host_lease.map(Duration::from_secs),
            ..Settings::default()
        },
        world,
    })
    .await
    .context("cannot start the engine")
}

/// The server's own, and those that its operator names.
fn datastores(config: &Config, data_dir: &DataDir) -> anyhow::Result<Datastores> {
    let reserve = config.datastore_reserve_gib.saturating_mul(1 << 30);
    let saved = data_dir.saved();
    std::fs::create_dir_all(&saved).context("cannot make the datastore's directory")?;
    let mut others: Vec<(DatastoreName, Arc<dyn DatastoreDriver>)> = Vec::new();
    for source in &config.datastore {
        let datastore = open_datastore(source)?.with_reserve(reserve);
        others.push((source.name.clone(), Arc::new(datastore)));
    }
    let main = DirDatastore::new(saved).with_reserve(reserve);
    Datastores::new(Arc::new(main), others).map_err(|error| anyhow::anyhow!("{}", error.public))
}

/// On which terms images are taken in.
fn terms(config: &Config) -> Terms {
    let beside = std::env::current_exe().ok();
    let converter = beside.and_then(|path| Some(path.parent()?.join("vimana-convert")));
    Terms {
        reach: Reach::new(config.import_allow.clone()),
        paths: config.import_path.clone(),
        converter: converter.filter(|path| path.is_file()),
        max_bytes: config.import_max_gib.saturating_mul(1 << 30),
        bytes_per_second: config.import_rate_mib.map(|rate| rate.saturating_mul(MIB)),
        ..Terms::default()
    }
}

const MIB: NonZeroU64 = NonZeroU64::new(1 << 20).unwrap();

async fn import_images(engine: &Engine, sources: &[ImageSource]) -> anyhow::Result<()> {
    for ImageSource { name, path } in sources {
        engine
            .import_image_file(name, path)
            .await
            .with_context(|| format!("cannot import image {name} from {}", path.display()))?;
    }
    Ok(())
}

fn refuse_exposed(config: &Config, tls: bool) -> anyhow::Result<()> {
    if tls || config.allow_plain_http || config.listen.ip().is_loopback() {
        return Ok(());
    }
    bail!(
        "plain HTTP on {} would carry passwords unprotected through the network: give \
         --tls-cert and --tls-key, listen on 127.0.0.1, or say --allow-plain-http",
        config.listen
    )
}

impl Running {
    /// The generated password of user `admin`, on the first start alone.
    #[must_use]
    pub fn admin_password(&self) -> Option<&str> {
        self.admin_password.as_deref()
    }

    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.serving.address
    }

    #[must_use]
    pub fn url(&self) -> String {
        let scheme = if self.app.tls { "https" } else { "http" };
        format!("{scheme}://{}", self.serving.address)
    }

    /// Where agents connect to.
    #[must_use]
    pub fn agent_url(&self) -> String {
        format!("https://{}", self.agents.address)
    }

    /// Returns only when the server has stopped without being asked.
    pub async fn failed(&self) {
        tokio::select! {
            () = self.serving.ended.cancelled() => {}
            () = self.agents.ended.cancelled() => {}
        }
    }

    /// Closes streams and sockets, lets changes in flight finish, and stops.
    pub async fn stop(self) -> anyhow::Result<()> {
        let Self {
            app,
            serving,
            agents,
            engine,
            ..
        } = self;
        app.stopping.cancel();
        app.tasks.close();
        serving.stop();
        agents.stop();
        let stop = async {
            let served = serving.task.await.and(agents.task.await);
            app.tasks.wait().await;
            let _ended = engine.await;
            served
        };
        let outcome = tokio::time::timeout(limits::STOP_WITHIN, stop).await;
        // Even so nothing is lost: what is acknowledged is in the database.
        let closed = tokio::time::timeout(limits::CLOSE_WITHIN, app.engine.store().close()).await;
        if !matches!(closed, Ok(Ok(()))) {
            tracing::warn!("the database was not closed in time");
        }
        match outcome {
            Ok(served) => served
                .context("the server broke off")?
                .context("the server failed"),
            Err(_) => {
                tracing::warn!("some connections did not end in time");
                Ok(())
            }
        }
    }
}
