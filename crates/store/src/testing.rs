//! What only tests may do.

use sea_orm::ConnectionTrait as _;

use crate::store::Raw as _;
use crate::{Result, Store};

impl Store {
    /// Runs a statement as it is, to plant what the store itself would refuse.
    ///
    /// # Errors
    /// The database's.
    pub async fn plant(&self, statement: &str) -> Result<()> {
        let tx = self.begin().await?;
        tx.raw().execute_unprepared(statement).await?;
        tx.commit().await
    }
}
