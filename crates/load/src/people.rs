//! Those who use the REST interface.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use futures::{StreamExt as _, TryStreamExt as _, stream};
use tokio::task::{JoinHandle, JoinSet};
use tokio::time::{MissedTickBehavior, interval, sleep};
use tokio_util::sync::CancellationToken;
use vimana_client::{BaseUrl, CaFile, Client, VmFilter};
use vimana_model::host::{CreateJoinToken, HostView};
use vimana_model::session::SignIn;
use vimana_model::vm::CreateVm;
use vimana_model::{VmId, VmState};

use crate::in_time;
use crate::server::PASSWORD;

const FLAVOR: &str = "tiny";
/// Between two reads, and so 125 of them in a second.
const READ_EVERY: Duration = Duration::from_millis(8);
/// VMs on one page of a list.
const PAGE: u32 = 50;
/// Between two looks at what must happen at some time: rare, for they cost the
/// server something.
const LOOK_EVERY: Duration = Duration::from_millis(500);
/// Between two tries to reach a server that starts.
const TRY_EVERY: Duration = Duration::from_millis(5);

pub struct People {
    client: Client,
}

/// Reads that go on.
pub struct Reading {
    end: CancellationToken,
    task: JoinHandle<Result<Vec<Duration>>>,
}

impl People {
    pub async fn sign_in(url: &str, ca: &CaFile) -> Result<Self> {
        let base: BaseUrl = url.parse()?;
        let client = Client::new(base, Some(ca))?;
        let form = SignIn {
            user_name: "admin".to_owned(),
            password: PASSWORD.to_owned(),
        };
        let token = client.sign_in(&form).await?.token;
        Ok(Self {
            client: client.with_token(&token),
        })
    }

    pub async fn join_token(&self, host: &str) -> Result<String> {
        let form = CreateJoinToken {
            host_name: Some(host.to_owned()),
            ttl_seconds: None,
        };
        Ok(self.client.create_join_token(&form).await?.token)
    }

    pub async fn hosts(&self) -> Result<Vec<HostView>> {
        Ok(self.client.hosts().await?)
    }

    pub async fn vcpus_of_a_vm(&self) -> Result<u32> {
        let flavors = self.client.flavors().await?;
        let flavor = flavors.iter().find(|flavor| flavor.name.as_str() == FLAVOR);
        Ok(flavor.context("the flavor is missing")?.resources.vcpus)
    }

    /// Creates VMs, `callers` at once; each is answered before the next.
    pub async fn create(&self, count: u32, callers: usize) -> Result<()> {
        let created = stream::iter(0..count).map(async |number| {
            let form = CreateVm {
                name: format!("load-{number}"),
                image: "demo".to_owned(),
                flavor: FLAVOR.to_owned(),
                ..CreateVm::default()
            };
            self.client.create_vm(&form).await?;
            anyhow::Ok(())
        });
        created.buffer_unordered(callers).try_collect().await
    }

    /// Waits until every VM runs.
    pub async fn until_all_run(&self) -> Result<()> {
        let others = VmState::ALL.into_iter();
        let others = VmFilter {
            states: others.filter(|state| *state != VmState::Running).collect(),
            limit: Some(1),
            ..VmFilter::default()
        };
        in_time("the VMs", async {
            while let Some(vm) = self.client.vms(&others).await?.first() {
                ensure!(vm.state != VmState::Failed, "a VM failed: {:?}", vm.failure);
                sleep(LOOK_EVERY).await;
            }
            Ok(())
        })
        .await
    }

    /// Waits until there are `count` hosts, all of which look as wanted.
    pub async fn until_hosts(
        &self,
        wanted: impl Fn(&[HostView]) -> bool,
        count: u32,
    ) -> Result<()> {
        in_time("the hosts", async {
            loop {
                let hosts = self.hosts().await?;
                if u32::try_from(hosts.len()).is_ok_and(|n| n == count) && wanted(&hosts) {
                    return Ok(());
                }
                sleep(LOOK_EVERY).await;
            }
        })
        .await
    }

    /// Waits until the server, which is starting, gives its VMs.
    pub async fn until_answered(&self) -> Result<()> {
        let one = VmFilter {
            limit: Some(1),
            ..VmFilter::default()
        };
        in_time("the server", async {
            loop {
                if let Ok(vms) = self.client.vms(&one).await {
                    ensure!(!vms.is_empty(), "the VMs are gone");
                    return Ok(());
                }
                sleep(TRY_EVERY).await;
            }
        })
        .await
    }

    /// Reads as the portal does, at a pace that no slow answer holds up.
    pub fn read(&self) -> Reading {
        let end = CancellationToken::new();
        let task = tokio::spawn(read(self.client.clone(), end.clone()));
        Reading { end, task }
    }
}

impl Reading {
    /// How long each read took, sorted.
    pub async fn end(self) -> Result<Vec<Duration>> {
        self.end.cancel();
        let mut took = self.task.await??;
        took.sort_unstable();
        Ok(took)
    }
}

async fn read(client: Client, end: CancellationToken) -> Result<Vec<Duration>> {
    let mut ticks = interval(READ_EVERY);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Burst);
    let newest = Arc::new(Mutex::new(None));
    let mut reads = JoinSet::new();
    let mut kinds = [Read::List, Read::Vm, Read::Timeline].into_iter().cycle();
    while let Some(due) = end.run_until_cancelled(ticks.tick()).await {
        let kind = kinds.next().unwrap_or(Read::List);
        let (client, newest) = (client.clone(), Arc::clone(&newest));
        reads.spawn(async move {
            kind.once(&client, &newest).await?;
            // Timed from when it was due: what waits is waited for.
            anyhow::Ok(due.elapsed())
        });
    }
    let mut took = Vec::new();
    while let Some(read) = reads.join_next().await {
        took.push(read??);
    }
    Ok(took)
}

/// What people look at, in turns.
#[derive(Clone, Copy)]
enum Read {
    List,
    Vm,
    Timeline,
}

impl Read {
    async fn once(self, client: &Client, newest: &Mutex<Option<VmId>>) -> Result<()> {
        let known = *newest.lock().unwrap_or_else(PoisonError::into_inner);
        match (self, known) {
            (Self::List, _) | (_, None) => {
                let page = VmFilter {
                    limit: Some(PAGE),
                    ..VmFilter::default()
                };
                let first = client.vms(&page).await?.first().map(|vm| vm.id);
                *newest.lock().unwrap_or_else(PoisonError::into_inner) = first;
            }
            (Self::Vm, Some(id)) => drop(client.vm(id).await?),
            (Self::Timeline, Some(id)) => drop(client.vm_timeline(id).await?),
        }
        Ok(())
    }
}
