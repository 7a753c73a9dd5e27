//! Follows what happens on a server.

use std::time::Duration;

use futures::StreamExt;
use futures::stream::BoxStream;
use tokio::time::timeout;
use vimana_client::{Client, Notice};
use vimana_model::event::{EventKind, StreamItem};
use vimana_model::vm::VmView;
use vimana_model::{HostId, Result, VmId, VmState};

use crate::world::World;

pub const PATIENCE: Duration = Duration::from_secs(60);

/// What happens from now on.
pub struct Watch {
    pub client: Client,
    notices: BoxStream<'static, Result<Notice>>,
}

impl Watch {
    pub async fn new(world: &World) -> Self {
        let client = Client::new(world.running.url().parse().unwrap(), None).unwrap();
        let client = client.with_token(&world.token().await);
        let watched = client.clone();
        let mut notices = async_stream(watched);
        assert_eq!(notices.next().await.unwrap().unwrap(), Notice::Connected);
        Self { client, notices }
    }

    /// Waits for what is wanted; what happened before it is passed over.
    pub async fn until(&mut self, wanted: impl Fn(&EventKind) -> bool) -> StreamItem {
        let found = async {
            loop {
                if let Notice::Item(item) = self.notices.next().await.unwrap().unwrap()
                    && wanted(&item.event.event)
                {
                    return *item;
                }
            }
        };
        timeout(PATIENCE, found).await.unwrap()
    }

    /// Waits until the VM is in this state.
    pub async fn until_vm(&mut self, id: VmId, state: VmState) -> VmView {
        let found = async {
            loop {
                if let Notice::Item(item) = self.notices.next().await.unwrap().unwrap()
                    && let Some(vm) = item.vm
                    && vm.id == id
                    && vm.state == state
                {
                    return vm;
                }
            }
        };
        timeout(PATIENCE, found).await.unwrap()
    }

    pub async fn until_connected(&mut self) -> HostId {
        let item = self.until(|event| *event == EventKind::HostConnected).await;
        item.event.host_id.unwrap()
    }
}

/// A stream that owns its client.
fn async_stream(client: Client) -> BoxStream<'static, Result<Notice>> {
    let (sender, receiver) = tokio::sync::mpsc::channel(64);
    tokio::spawn(async move {
        let mut notices = client.events(None).boxed();
        while let Some(notice) = notices.next().await {
            if sender.send(notice).await.is_err() {
                return;
            }
        }
    });
    futures::stream::unfold(receiver, async |mut receiver| {
        Some((receiver.recv().await?, receiver))
    })
    .boxed()
}
