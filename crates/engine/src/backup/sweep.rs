//! What datastores hold that no record wants goes.

use vimana_datastore::Item;
use vimana_model::backup::BackupState;
use vimana_model::{BackupId, Error, Result};
use vimana_store::{backup, write_tx};

use crate::Engine;

impl Engine {
    /// Soon, beside whatever asks for it; where that fails, the next sweep does
    /// it.
    pub(crate) fn spawn_sweep_backups(&self) {
        let engine = self.clone();
        self.spawn(async move {
            if let Err(error) = engine.sweep_backups().await {
                tracing::warn!(error = ?error, "deleted backups are not removed yet");
            }
        });
    }

    /// Removes the files of backups that are deleted, or never came to be.
    pub(crate) async fn sweep_backups(&self) -> Result<()> {
        // What is deleted from here on is removed by the next sweep.
        let removing = backup::removing(&self.store().read()).await?;
        for (name, datastore) in self.inner.datastores.all() {
            let look = async { Ok((datastore.holds().await?, datastore.staged().await?)) };
            let look: std::io::Result<_> = look.await;
            let (held, staged) = match look {
                Ok(found) => found,
                Err(error) => {
                    tracing::warn!(datastore = %name, %error, "a datastore cannot be swept");
                    continue;
                }
            };
            for item in held {
                let Item::Backup(id) = item else {
                    continue;
                };
                let record = backup::find(&self.store().read(), id).await?;
                let wanted = record
                    .is_some_and(|record| record.state.has_content() && record.datastore == *name);
                if wanted {
                    continue;
                }
                tracing::info!(backup = %id, datastore = %name, "a backup that nobody wants is removed");
                datastore.discard(item).await.map_err(Error::internal)?;
            }
            for item in staged {
                let Item::Backup(id) = item else {
                    continue;
                };
                let record = backup::find(&self.store().read(), id).await?;
                if record.is_none_or(|record| record.state != BackupState::Making) {
                    let removed = datastore.discard_staged(item).await;
                    removed.map_err(Error::internal)?;
                }
            }
            for gone in removing.iter().filter(|gone| gone.datastore == *name) {
                self.forget_backup(gone.id).await?;
            }
        }
        Ok(())
    }

    /// Nothing is left of it.
    async fn forget_backup(&self, id: BackupId) -> Result<()> {
        write_tx!(self.store(), |tx| {
            let Some(mut record) = backup::lock(tx, id).await? else {
                return Ok(());
            };
            if record.state == BackupState::Removing {
                record.state = BackupState::Removed;
                backup::update(tx, &mut record).await?;
            }
            Ok(())
        })
    }
}
