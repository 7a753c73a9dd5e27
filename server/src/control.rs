//! A socket in the data directory, through which tools on this machine ask the
//! server that runs there. Whoever may open it may read the database as well.

use std::collections::BTreeMap;
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::time::Duration;

use anyhow::Context;
use serde::{Deserialize, Serialize};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{UnixListener, UnixStream};
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use vimana_engine::{Engine, Inventory};
use vimana_model::HostId;

/// How long hosts are waited for.
const HOSTS: Duration = Duration::from_secs(5);
/// How long the server is waited for, by a tool.
const SERVER: Duration = Duration::from_secs(20);
/// Largest answer that a tool takes.
const MAX_ANSWER_BYTES: u64 = 1 << 30;

/// What the server answers.
#[derive(Debug, Serialize, Deserialize)]
pub struct Inventories {
    /// What each connected host holds.
    pub held: BTreeMap<HostId, Inventory>,
}

/// The socket, bound.
pub struct Control {
    listener: UnixListener,
}

impl Control {
    /// The directory is locked by this server: what is there is left over.
    pub fn bind(path: &Path) -> anyhow::Result<Self> {
        let bind = || -> io::Result<UnixListener> {
            match std::fs::remove_file(path) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                Ok(()) | Err(_) => {}
            }
            let listener = UnixListener::bind(path)?;
            std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600))?;
            Ok(listener)
        };
        let listener =
            bind().with_context(|| format!("cannot make the socket {}", path.display()))?;
        Ok(Self { listener })
    }

    /// Answers one after another, until the server stops.
    pub async fn serve(self, engine: Engine, stopping: CancellationToken) {
        loop {
            let accepted = tokio::select! {
                biased;
                () = stopping.cancelled() => return,
                accepted = self.listener.accept() => accepted,
            };
            match accepted {
                Ok((stream, _)) => {
                    if let Err(error) = answer(&engine, stream).await {
                        tracing::debug!(%error, "a tool did not get its answer");
                    }
                }
                Err(error) => {
                    tracing::warn!(%error, "the control socket cannot be used");
                    return;
                }
            }
        }
    }
}

async fn answer(engine: &Engine, mut stream: UnixStream) -> io::Result<()> {
    let held = engine.inventories(HOSTS).await;
    let text = serde_json::to_vec(&Inventories { held })?;
    stream.write_all(&text).await?;
    stream.shutdown().await
}

/// Asks the server of a data directory; `None` where none runs.
pub async fn ask(path: &Path) -> anyhow::Result<Option<Inventories>> {
    let stream = match UnixStream::connect(path).await {
        Ok(stream) => stream,
        Err(error)
            if [io::ErrorKind::NotFound, io::ErrorKind::ConnectionRefused]
                .contains(&error.kind()) =>
        {
            return Ok(None);
        }
        Err(error) => return Err(error).context("cannot ask the server"),
    };
    let mut text = Vec::new();
    let read = async {
        let mut stream = stream.take(MAX_ANSWER_BYTES);
        stream.read_to_end(&mut text).await
    };
    timeout(SERVER, read)
        .await
        .context("the server did not answer in time")?
        .context("cannot ask the server")?;
    let inventories =
        serde_json::from_slice(&text).context("the server gave no sensible answer")?;
    Ok(Some(inventories))
}
