//! The commands that are used, each with its types.

use serde::Deserialize;
use serde_json::{Value, json};

use super::{Qmp, QmpError};

/// What QEMU says about the machine (`RunState` in its schema).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum RunState {
    /// Waits for its first `cont`, or was reset while it stood still.
    Prelaunch,
    /// Waits for its memory.
    Inmigrate,
    Running,
    /// Stopped on request, or its memory has arrived.
    Paused,
    /// Its memory is all but written out: it cannot be continued now.
    FinishMigrate,
    /// Its memory was written out.
    Postmigrate,
    /// The guest switched itself off.
    Shutdown,
    /// Stopped because the disk could not be written.
    IoError,
    /// The accelerator gave up.
    InternalError,
    #[serde(other)]
    Other,
}

/// How far memory is on its way, in or out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Migration {
    None,
    Underway,
    Completed,
    Cancelled,
    Failed { reason: String },
}

/// Marks what has changed of a disk.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct Bitmap {
    pub name: String,
    recording: bool,
    busy: bool,
    #[serde(default)]
    inconsistent: bool,
}

impl Bitmap {
    /// Whether it has seen every change. One of a process that died has not.
    #[must_use]
    pub const fn is_usable(&self) -> bool {
        self.recording && !self.busy && !self.inconsistent
    }
}

/// A piece of work that QEMU does beside others.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Job {
    /// A mirror is in step with its source.
    pub ready: bool,
    pub over: bool,
    pub error: Option<String>,
}

impl Qmp {
    /// Lets the guest run.
    pub async fn cont(&self) -> Result<(), QmpError> {
        self.execute("cont", None).await.map(drop)
    }

    /// Stops the guest where it is.
    pub async fn stop(&self) -> Result<(), QmpError> {
        self.execute("stop", None).await.map(drop)
    }

    /// Ends QEMU. An answer that is cut off by the end is an answer.
    pub async fn quit(&self) -> Result<(), QmpError> {
        match self.execute("quit", None).await {
            Ok(_) | Err(QmpError::Closed) => Ok(()),
            Err(error) => Err(error),
        }
    }

    /// Whether the guest listens at its end of a port.
    pub async fn is_port_open(&self, chardev: &str) -> Result<bool, QmpError> {
        #[derive(Deserialize)]
        #[serde(rename_all = "kebab-case")]
        struct Port {
            label: String,
            frontend_open: bool,
        }
        let value = self.execute("query-chardev", None).await?;
        let all: Vec<Port> = serde_json::from_value(value).map_err(|_| QmpError::Unexpected)?;
        Ok(all
            .iter()
            .any(|port| port.label == chardev && port.frontend_open))
    }

    /// Presses the power button.
    pub async fn system_powerdown(&self) -> Result<(), QmpError> {
        self.execute("system_powerdown", None).await.map(drop)
    }

    /// Presses the reset button. A machine that stands still stays so.
    pub async fn system_reset(&self) -> Result<(), QmpError> {
        self.execute("system_reset", None).await.map(drop)
    }

    pub async fn query_status(&self) -> Result<RunState, QmpError> {
        #[derive(Deserialize)]
        struct Status {
            status: RunState,
        }
        let value = self.execute("query-status", None).await?;
        let status: Status = serde_json::from_value(value).map_err(|_| QmpError::Unexpected)?;
        Ok(status.status)
    }

    /// Makes a disk larger.
    pub async fn block_resize(&self, node: &str, bytes: u64) -> Result<(), QmpError> {
        let arguments = json!({"node-name": node, "size": bytes});
        self.execute("block_resize", Some(arguments))
            .await
            .map(drop)
    }

    pub async fn blockdev_add(&self, node: Value) -> Result<(), QmpError> {
        self.execute("blockdev-add", Some(node)).await.map(drop)
    }

    pub async fn blockdev_del(&self, node: &str) -> Result<(), QmpError> {
        let arguments = json!({"node-name": node});
        self.execute("blockdev-del", Some(arguments))
            .await
            .map(drop)
    }

    /// Plugs a device in.
    pub async fn device_add(&self, device: Value) -> Result<(), QmpError> {
        self.execute("device_add", Some(device)).await.map(drop)
    }

    /// Asks for a device; a `DEVICE_DELETED` event says that it is out.
    pub async fn device_del(&self, id: &str) -> Result<(), QmpError> {
        let arguments = json!({"id": id});
        self.execute("device_del", Some(arguments)).await.map(drop)
    }

    /// The ids of what is plugged in.
    pub async fn devices(&self) -> Result<Vec<String>, QmpError> {
        let arguments = json!({"path": "/machine/peripheral"});
        let value = self.execute("qom-list", Some(arguments)).await?;
        names(value, "name")
    }

    /// The names of all block nodes.
    pub async fn block_nodes(&self) -> Result<Vec<String>, QmpError> {
        let flat = Some(json!({"flat": true}));
        let value = self.execute("query-named-block-nodes", flat).await?;
        names(value, "node-name")
    }

    /// Marks a point in time in all those disks at once.
    pub async fn snapshot_disks(&self, nodes: &[String], tag: &str) -> Result<(), QmpError> {
        let actions = nodes.iter().map(|node| {
            json!({"type": "blockdev-snapshot-internal-sync",
                   "data": {"device": node, "name": tag}})
        });
        self.transaction(actions.collect()).await
    }

    /// Begins a job.
    pub async fn job_begin(&self, command: &'static str, arguments: Value) -> Result<(), QmpError> {
        self.execute(command, Some(arguments)).await.map(drop)
    }

    /// How a job stands: `None` where there is none of that name.
    pub async fn job(&self, id: &str) -> Result<Option<Job>, QmpError> {
        #[derive(Deserialize)]
        struct Status {
            id: String,
            status: String,
            error: Option<String>,
        }
        let value = self.execute("query-jobs", None).await?;
        let all: Vec<Status> = serde_json::from_value(value).map_err(|_| QmpError::Unexpected)?;
        let ours = all.into_iter().find(|job| job.id == id);
        Ok(ours.map(|job| Job {
            ready: job.status == "ready",
            over: job.status == "concluded",
            error: job.error,
        }))
    }

    /// Asks for a job's end before its time.
    pub async fn job_cancel(&self, id: &str) -> Result<(), QmpError> {
        let arguments = json!({"id": id});
        self.execute("job-cancel", Some(arguments)).await.map(drop)
    }

    /// Has a mirror that is in step take the place of its source.
    pub async fn job_complete(&self, id: &str) -> Result<(), QmpError> {
        let arguments = json!({"id": id});
        self.execute("job-complete", Some(arguments))
            .await
            .map(drop)
    }

    /// The name of the node that a device works on.
    pub async fn node_of(&self, device: &str) -> Result<String, QmpError> {
        let path = format!("/machine/peripheral/{device}");
        let arguments = json!({"path": path, "property": "drive"});
        let value = self.execute("qom-get", Some(arguments)).await?;
        serde_json::from_value(value).map_err(|_| QmpError::Unexpected)
    }

    /// Begins all of it at one instant, or nothing.
    pub async fn transaction(&self, actions: Vec<Value>) -> Result<(), QmpError> {
        let actions = json!({"actions": actions});
        self.execute("transaction", Some(actions)).await.map(drop)
    }

    /// The bitmaps of all nodes that have a name.
    pub async fn bitmaps(&self) -> Result<Vec<(String, Bitmap)>, QmpError> {
        #[derive(Deserialize)]
        #[serde(rename_all = "kebab-case")]
        struct Node {
            node_name: Option<String>,
            #[serde(default)]
            dirty_bitmaps: Vec<Value>,
        }
        let flat = Some(json!({"flat": true}));
        let value = self.execute("query-named-block-nodes", flat).await?;
        let nodes: Vec<Node> = serde_json::from_value(value).map_err(|_| QmpError::Unexpected)?;
        let named = nodes.into_iter().flat_map(|node| {
            // One without a name is an internal one of QEMU's.
            let ours = node.dirty_bitmaps.into_iter();
            let ours = ours.filter_map(|bitmap| serde_json::from_value::<Bitmap>(bitmap).ok());
            let name = node.node_name.unwrap_or_default();
            ours.map(move |bitmap| (name.clone(), bitmap))
        });
        Ok(named.collect())
    }

    pub async fn remove_bitmap(&self, node: &str, name: &str) -> Result<(), QmpError> {
        let arguments = json!({"node": node, "name": name});
        self.execute("block-dirty-bitmap-remove", Some(arguments))
            .await
            .map(drop)
    }

    /// Forgets a job that is over.
    pub async fn job_dismiss(&self, id: &str) -> Result<(), QmpError> {
        let arguments = json!({"id": id});
        self.execute("job-dismiss", Some(arguments)).await.map(drop)
    }

    /// Makes the moves of memory send `MIGRATION` events, and as fast as the
    /// disk takes it.
    pub async fn prepare_migration(&self) -> Result<(), QmpError> {
        let events = json!({"capabilities": [{"capability": "events", "state": true}]});
        self.execute("migrate-set-capabilities", Some(events))
            .await?;
        let unlimited = json!({"max-bandwidth": 1_u64 << 50});
        self.execute("migrate-set-parameters", Some(unlimited))
            .await
            .map(drop)
    }

    /// Begins to write the memory into a file of QEMU's directory.
    pub async fn migrate(&self, file: &str) -> Result<(), QmpError> {
        let arguments = uri(file);
        self.execute("migrate", Some(arguments)).await.map(drop)
    }

    /// Begins to read the memory from a file of QEMU's directory.
    pub async fn migrate_incoming(&self, file: &str) -> Result<(), QmpError> {
        let arguments = uri(file);
        self.execute("migrate-incoming", Some(arguments))
            .await
            .map(drop)
    }

    pub async fn migrate_cancel(&self) -> Result<(), QmpError> {
        self.execute("migrate_cancel", None).await.map(drop)
    }

    pub async fn query_migrate(&self) -> Result<Migration, QmpError> {
        #[derive(Deserialize)]
        #[serde(rename_all = "kebab-case")]
        struct Status {
            status: Option<String>,
            error_desc: Option<String>,
        }
        let value = self.execute("query-migrate", None).await?;
        let said: Status = serde_json::from_value(value).map_err(|_| QmpError::Unexpected)?;
        Ok(match said.status.as_deref() {
            Some("completed") => Migration::Completed,
            Some("cancelled") => Migration::Cancelled,
            Some("failed") => Migration::Failed {
                reason: said.error_desc.unwrap_or_else(|| "it failed".to_owned()),
            },
            None | Some("none") => Migration::None,
            Some(_) => Migration::Underway,
        })
    }
}

fn names(list: Value, field: &str) -> Result<Vec<String>, QmpError> {
    let list = list.as_array().ok_or(QmpError::Unexpected)?;
    let names = list.iter().filter_map(|entry| entry.get(field)?.as_str());
    Ok(names.map(str::to_owned).collect())
}

fn uri(file: &str) -> Value {
    json!({"uri": format!("file:{file}")})
}
