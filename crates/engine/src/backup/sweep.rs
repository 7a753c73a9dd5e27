//! What datastores hold that no record wants goes.

use vimana_datastore::Item;
use vimana_model::backup::BackupState;
use vimana_model::name::DatastoreName;
use vimana_model::{Error, Result};
use vimana_store::{backup, write_tx};

use crate::Engine;

impl Engine {
    /// Soon, beside whatever asks for it; where that fails, the next sweep does
    /// it.
    pub(super) fn spawn_sweep_backups(&self) {
        let engine = self.clone();
        self.spawn(async move {
            if let Err(error) = engine.sweep_backups().await {
                tracing::warn!(error = ?error, "deleted backups are not removed yet");
            }
        });
    }

    /// Removes the files of backups that are deleted, or never came to be.
    pub(crate) async fn sweep_backups(&self) -> Result<()> {
        let datastores = self.inner.datastores.clone();
        for (name, datastore) in datastores.all() {
            let held = match datastore.holds().await {
                Ok(held) => held,
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
            self.forget_removed(name).await?;
        }
        Ok(())
    }

    /// Nothing of them is left in a datastore that was just swept. What was
    /// deleted meanwhile is removed by the next sweep.
    async fn forget_removed(&self, name: &DatastoreName) -> Result<()> {
        for found in backup::removing(&self.store().read()).await? {
            if found.datastore != *name {
                continue;
            }
            let datastores = &self.inner.datastores;
            let left = match datastores.find(name) {
                Some(datastore) => datastore.holds().await.map_err(Error::internal)?,
                None => continue,
            };
            if left.contains(&Item::Backup(found.id)) {
                continue;
            }
            write_tx!(self.store(), |tx| {
                let Some(mut record) = backup::lock(tx, found.id).await? else {
                    return Ok(());
                };
                if record.state == BackupState::Removing {
                    record.state = BackupState::Removed;
                    backup::update(tx, &mut record).await?;
                }
                Ok(())
            })?;
        }
        Ok(())
    }
}
