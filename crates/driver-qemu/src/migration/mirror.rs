//! The copies of a machine's disks that keep both hosts in step.

use serde_json::{Value, json};
use tokio::time::{Instant, timeout};
use vimana_driver::DiskPlan;
use vimana_model::VmId;

use super::tls;
use crate::argv::Plug;
use crate::job::Job;
use crate::limits::{JOB_POLL, MOVE_END_TIMEOUT, SEND_TIMEOUT};
use crate::machine;
use crate::qmp::{Port, Qmp, QmpError};

/// What the jobs here are called, and the disks of the other host.
const JOB: &str = "leave";
const TARGET: &str = "leaving";
const COMMAND: &str = "blockdev-mirror";

/// One disk's.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mirror {
    /// The disk, as QEMU calls it on this host.
    pub node: String,
    /// The name under which the other host serves its own: a machine that took over
    /// the ports of another is not written by whoever sends that one.
    pub export: String,
    job: String,
    target: String,
}

impl Mirror {
    fn of(node: &str, export: String, device: Option<&str>) -> Self {
        let named = |what: &str| match device {
            Some(device) => format!("{what}-{device}"),
            None => what.to_owned(),
        };
        Self {
            node: node.to_owned(),
            export,
            job: named(JOB),
            target: named(TARGET),
        }
    }

    const fn job(&self) -> Job<'_> {
        Job {
            id: self.job.as_str(),
            command: COMMAND,
            within: SEND_TIMEOUT,
        }
    }
}

/// Those of all disks that are copied; `root` is the node of the machine's own, and
/// `volumes` are what it has.
pub fn mirrors(vm: VmId, root: &str, volumes: &[Plug], disks: &DiskPlan) -> Vec<Mirror> {
    let root = (!disks.shares_root).then(|| Mirror::of(root, vm.to_string(), None));
    let copied = volumes.iter().filter(|plug| {
        let plan = disks.volume(plug.volume);
        plan.is_some_and(|plan| !plan.shared)
    });
    let copied = copied.map(|plug| {
        let device = plug.device_name();
        Mirror::of(&plug.node_name(), plug.volume.to_string(), Some(&device))
    });
    root.into_iter().chain(copied).collect()
}

/// How far they are, all together.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Stand {
    pub done: u64,
    pub total: u64,
    /// All are in step, or have ended so.
    pub in_step: bool,
    /// Why one of them does not go on.
    pub broken: Option<String>,
}

pub async fn stand(qmp: &Qmp, mirrors: &[Mirror]) -> Result<Stand, QmpError> {
    let jobs = qmp.jobs().await?;
    let mut stand = Stand {
        in_step: true,
        ..Stand::default()
    };
    for mirror in mirrors {
        let Some((_, job)) = jobs.iter().find(|(id, _)| *id == mirror.job) else {
            stand.in_step = false;
            continue;
        };
        stand.done = stand.done.saturating_add(job.done);
        stand.total = stand.total.saturating_add(job.total);
        stand.in_step &= job.error.is_none() && (job.ready || job.over);
        stand.broken = stand.broken.or_else(|| job.error.clone());
    }
    Ok(stand)
}

/// Has QEMU copy the disks; returns when all are in step. `peer` is whose the other
/// end is to be, where it proves that; `speed` is what all may have together, in bytes a
/// second.
pub async fn begin(
    qmp: &Qmp,
    mirrors: &[Mirror],
    to: Port,
    peer: Option<&str>,
    speed: Option<u64>,
) -> Result<(), QmpError> {
    let speed = speed.map(|speed| share(speed, mirrors.len()));
    for mirror in mirrors {
        let mut node = json!({
            "driver": "nbd", "node-name": mirror.target, "server": to.server(),
            "export": mirror.export, "discard": "unmap",
        });
        if let (Some(peer), Some(fields)) = (peer, node.as_object_mut()) {
            fields.insert("tls-creds".to_owned(), json!(tls::CREDENTIALS));
            fields.insert("tls-hostname".to_owned(), json!(peer));
        }
        qmp.blockdev_add(node).await?;
        mirror.job().begin(qmp, mirror.arguments(speed)).await?;
    }
    for mirror in mirrors {
        mirror.job().ready(qmp).await?;
    }
    Ok(())
}

/// What each of so many has, where none has nothing: that would be no limit.
fn share(speed: u64, count: usize) -> u64 {
    let count = u64::try_from(count).unwrap_or(u64::MAX);
    speed.checked_div(count).unwrap_or(speed).max(1)
}

impl Mirror {
    fn arguments(&self, speed: Option<u64>) -> Value {
        let mut arguments = json!({
            "device": self.node, "target": self.target, "sync": "top",
            "copy-mode": "write-blocking", "auto-dismiss": false,
        });
        if let (Some(speed), Some(fields)) = (speed, arguments.as_object_mut()) {
            let speed = speed.min(i64::MAX.unsigned_abs());
            fields.insert("speed".to_owned(), json!(speed));
        }
        arguments
    }
}

/// Ends them while the guest stands still: the other host has all that was ever
/// written, and alone writes its disks from now on. How much that was. That they
/// ended well is kept by QEMU for whoever asks after us.
pub async fn end(qmp: &Qmp, mirrors: &[Mirror]) -> Result<u64, QmpError> {
    let mut events = qmp.events().ok_or(QmpError::Closed)?;
    let deadline = Instant::now() + MOVE_END_TIMEOUT;
    for mirror in mirrors {
        // One that has ended already refuses; how it ended is seen below.
        let _ = qmp.mirror_end(&mirror.job).await;
    }
    let mut bytes = 0_u64;
    for mirror in mirrors {
        loop {
            let job = qmp.job(&mirror.job).await?.ok_or(QmpError::Unexpected)?;
            if job.over {
                if let Some(description) = job.error {
                    let command = COMMAND;
                    return Err(QmpError::Refused {
                        command,
                        description,
                    });
                }
                bytes = bytes.saturating_add(job.done);
                break;
            }
            if Instant::now() > deadline {
                return Err(QmpError::Timeout {
                    command: COMMAND,
                    within: MOVE_END_TIMEOUT,
                });
            }
            let heard = machine::heard(&mut events, "JOB_STATUS_CHANGE");
            let _ = timeout(JOB_POLL, heard).await;
        }
    }
    Ok(bytes)
}

/// How much all that there are, of whichever sending, have copied.
pub async fn copied(qmp: &Qmp) -> Result<u64, QmpError> {
    let jobs = qmp.jobs().await?.into_iter();
    let ours = jobs.filter(|(id, _)| is_ours(id, JOB));
    Ok(ours.fold(0, |sum: u64, (_, job)| sum.saturating_add(job.done)))
}

/// Asks all that there are, of whichever sending, to end before their time: a guest
/// that writes waits for the other host until then.
pub async fn cancel(qmp: &Qmp) -> Result<(), QmpError> {
    for id in ours(qmp).await? {
        let _ = qmp.job_cancel(&id).await;
    }
    Ok(())
}

/// The same, waits for that, and lets go of the other host's disks.
pub async fn give_up(qmp: &Qmp) -> Result<(), QmpError> {
    for id in ours(qmp).await? {
        let job = Job {
            id: &id,
            command: COMMAND,
            // A kill waits for it.
            within: MOVE_END_TIMEOUT,
        };
        job.cancel(qmp).await?;
    }
    for node in qmp.block_nodes().await? {
        if is_ours(&node, TARGET) {
            qmp.blockdev_del(&node).await?;
        }
    }
    Ok(())
}

async fn ours(qmp: &Qmp) -> Result<Vec<String>, QmpError> {
    let jobs = qmp.jobs().await?.into_iter();
    let ours = jobs.filter(|(id, _)| is_ours(id, JOB));
    Ok(ours.map(|(id, _)| id).collect())
}

fn is_ours(name: &str, what: &str) -> bool {
    let rest = name.strip_prefix(what);
    rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('-'))
}

#[cfg(test)]
mod tests {
    use vimana_driver::VolumePlan;
    use vimana_model::VolumeId;
    use vimana_model::image::ImageFormat;
    use vimana_model::name::DatastoreName;
    use vimana_model::unit::MiB;

    use super::*;

    #[test]
    fn what_both_hosts_reach_is_not_copied() {
        let vm = VmId::from_parts(1, [1; 10]);
        let id = |n| VolumeId::from_parts(1, [n; 10]);
        let plug = |n| Plug {
            volume: id(n),
            format: ImageFormat::Qcow2,
            place: n,
            moves: 2,
            file: String::new(),
        };
        let plan = |n, shared| VolumePlan {
            volume_id: id(n),
            size_mib: MiB(1),
            datastore: DatastoreName::local(),
            place: n,
            shared,
        };
        let mut disks = DiskPlan {
            shares_root: true,
            volumes: vec![plan(3, false), plan(4, true)],
            snapshots: Vec::new(),
        };
        let found = mirrors(vm, "disk", &[plug(3), plug(4)], &disks);
        let wanted = Mirror {
            node: "volume3.2".to_owned(),
            export: id(3).to_string(),
            job: "leave-volume3".to_owned(),
            target: "leaving-volume3".to_owned(),
        };
        assert_eq!(found, [wanted]);
        disks.shares_root = false;
        let found = mirrors(vm, "disk.2", &[], &disks);
        assert_eq!(found.len(), 1);
        assert_eq!(
            [&found[0].node, &found[0].job, &found[0].target],
            ["disk.2", JOB, TARGET]
        );
        assert_eq!([share(9, 2), share(1, 2), share(5, 1)], [4, 1, 5]);
        assert!(is_ours("leave", JOB) && is_ours("leave-volume3", JOB));
        assert!(!is_ours("leaver", JOB) && !is_ours("backup-disk", JOB));
    }
}
