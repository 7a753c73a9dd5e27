//! One writer for each file on its way in: whoever comes later takes over.

use std::collections::HashMap;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::OwnedMutexGuard;
use tokio_util::sync::CancellationToken;

use crate::{Item, ItemFile};

/// Who is at which file.
#[derive(Debug, Default)]
pub struct Turns(Mutex<HashMap<ItemFile, Place>>);

#[derive(Debug, Default)]
struct Place {
    /// Ends the turn of the latest that came.
    over: CancellationToken,
    held: Arc<tokio::sync::Mutex<()>>,
}

/// A file of one's own, until a later one takes over; nobody else touches it
/// before this is dropped.
#[derive(Debug)]
pub struct Turn {
    over: CancellationToken,
    _held: OwnedMutexGuard<()>,
}

impl Turns {
    /// Ends the turn of whoever is there, and waits until it has let go.
    ///
    /// # Errors
    /// `ResourceBusy` where a later one came meanwhile.
    pub async fn take(&self, file: ItemFile) -> io::Result<Turn> {
        let over = CancellationToken::new();
        let held = {
            let mut places = self.places();
            places.retain(|_, place| Arc::strong_count(&place.held) > 1);
            let place = places.entry(file).or_default();
            std::mem::replace(&mut place.over, over.clone()).cancel();
            Arc::clone(&place.held)
        };
        let turn = Turn {
            over,
            _held: held.lock_owned().await,
        };
        turn.still().map(|()| turn)
    }

    /// Ends the turns at an item's files.
    pub fn end(&self, item: Item) {
        for (file, place) in &*self.places() {
            if file.item() == item {
                place.over.cancel();
            }
        }
    }

    fn places(&self) -> MutexGuard<'_, HashMap<ItemFile, Place>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Turn {
    /// # Errors
    /// `ResourceBusy` where it is over.
    pub fn still(&self) -> io::Result<()> {
        if self.over.is_cancelled() {
            return Err(io::ErrorKind::ResourceBusy.into());
        }
        Ok(())
    }

    pub fn over(&self) -> &CancellationToken {
        &self.over
    }
}
