//! What volumes hold of their hosts: of a host's disk, or of one of its further
//! datastores.

use vimana_model::name::DatastoreName;
use vimana_model::unit::MiB;
use vimana_model::vm::HostRef;
use vimana_model::{Error, HostId};
use vimana_store::claim::{self, Taken};
use vimana_store::volume::VolumeRecord;
use vimana_store::{StoreError, TxError, WriteTx, host_datastore};

/// Changes what one volume holds of a datastore, from one size to another.
///
/// # Errors
/// `Conflict` where what grows has no room, or there is no such datastore.
pub async fn change(
    tx: &WriteTx,
    host: &HostRef,
    datastore: &DatastoreName,
    from: MiB,
    to: MiB,
) -> Result<(), TxError> {
    match held(tx, host.id, datastore, from, to).await? {
        Taken::Ok => Ok(()),
        Taken::NoRoom => {
            let known = host_datastore::for_host(tx, host.id).await?;
            let mut present = known.iter().filter(|known| known.present);
            let name = &host.name;
            let there = datastore.is_local() || present.any(|known| known.name == *datastore);
            let message = match there {
                true => no_room(name, datastore, to),
                false => format!("host `{name}` has no datastore `{datastore}`"),
            };
            Err(Error::conflict(message).into())
        }
    }
}

/// That a datastore of the host of that name has not so much left.
pub fn no_room(host: &str, datastore: &DatastoreName, size: MiB) -> String {
    if datastore.is_local() {
        return format!("host `{host}` has no room for {size}");
    }
    format!("datastore `{datastore}` of host `{host}` has no room for {size}")
}

/// Gives back what one volume held of a datastore.
pub async fn release(
    tx: &WriteTx,
    host: HostId,
    datastore: &DatastoreName,
    size: MiB,
) -> Result<(), StoreError> {
    // What shrinks always fits.
    let _given_back = held(tx, host, datastore, size, MiB(0)).await?;
    Ok(())
}

/// The volume is gone from its host, wherever it was there.
pub async fn give_back(
    tx: &WriteTx,
    host: HostId,
    record: &VolumeRecord,
) -> Result<(), StoreError> {
    for datastore in record.places() {
        release(tx, host, datastore, record.size).await?;
    }
    Ok(())
}

async fn held(
    tx: &WriteTx,
    host: HostId,
    datastore: &DatastoreName,
    from: MiB,
    to: MiB,
) -> Result<Taken, StoreError> {
    if datastore.is_local() {
        claim::change_disk(tx, host, from, to).await
    } else {
        host_datastore::change(tx, host, datastore, from, to).await
    }
}
