//! Waiting for a host to be empty.

use vimana_client::{Client, Notice};
use vimana_model::HostId;
use vimana_model::evacuation::EvacuationView;

use super::{Notices, tell};
use crate::args::Timeout;
use crate::failure::{Failure, Outcome};
use crate::host::progress;

pub struct EvacuationWatch(Notices);

impl EvacuationWatch {
    /// Opens the stream where waiting is asked for.
    pub async fn open(client: &Client, wait: bool, timeout: Timeout) -> Outcome<Option<Self>> {
        if !wait {
            return Ok(None);
        }
        Ok(Some(Self(Notices::open(client, timeout).await?)))
    }

    /// Follows the evacuation until it is over, or nothing more can be moved.
    pub async fn until_rest(mut self, id: HostId) -> Outcome<EvacuationView> {
        let mut view = self.look(id).await?;
        let mut told = String::new();
        loop {
            let now = progress(&view);
            if told != now {
                tell(view.host.as_str(), &now);
                told = now;
            }
            if view.over || view.is_stuck() {
                return Ok(view);
            }
            loop {
                match self.0.next().await? {
                    None => {
                        return Err(Failure::Failed(format!(
                            "host `{}` is not empty after {} s: {}",
                            view.host, self.0.seconds, told
                        )));
                    }
                    Some(Notice::Item(item)) if item.event.host_id != Some(id) => {}
                    Some(Notice::Progress(_)) => {}
                    Some(Notice::Connected | Notice::Reset { .. } | Notice::Item(_)) => break,
                }
            }
            view = self.look(id).await?;
        }
    }

    async fn look(&self, id: HostId) -> Outcome<EvacuationView> {
        let ask = async |client: &Client| client.host_evacuation(id).await;
        self.0.look(ask).await
    }
}
