//! The commands that are used, each with its types.

use std::net::IpAddr;

use serde::Deserialize;
use serde_json::{Value, json};

use super::{Qmp, QmpError};
use crate::limits::OBJECT_TIMEOUT;

/// Bytes a second, for moves that are not to be slowed down.
const UNLIMITED: u64 = 1 << 50;
/// How long a guest stands still at the end of a move: what QEMU has by itself,
/// and what it takes at most.
const DOWNTIME_MS: u64 = 300;
const MOST_DOWNTIME_MS: u64 = 2_000_000;

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
    /// It has not begun: who is to send it has not come.
    Setup,
    Underway,
    /// The guest stands still, and QEMU waits to be told to go on.
    Waiting,
    /// The guest may run at its target, and the rest of its memory comes meanwhile.
    PostCopy,
    Completed,
    Cancelled,
    Failed {
        reason: String,
    },
}

/// The same, with what there is to count.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Moving {
    pub state: Migration,
    pub memory: MovedMemory,
    /// How long the guest stood still, once that is known.
    pub downtime_ms: u64,
}

/// What was copied of a memory, and what was not.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case", default)]
pub struct MovedMemory {
    /// Bytes.
    pub transferred: u64,
    /// Bytes.
    pub remaining: u64,
    /// Pages a second.
    pub dirty_pages_rate: u64,
    /// Bytes.
    pub page_size: u64,
    /// How often all of it was gone through.
    pub dirty_sync_count: u64,
}

/// Where memory goes to or comes from, and what is said about it.
#[derive(Clone, Copy, Debug)]
pub enum Passage<'a> {
    /// A file.
    File,
    /// To another host, while the guest runs.
    Out {
        /// Bytes a second.
        limit: Option<u64>,
        downtime_ms: u64,
        /// The object that encrypts it, and the name that the other host has to
        /// prove.
        tls: Option<(&'a str, &'a str)>,
        /// It waits for [`Qmp::migrate_continue`] once the guest stands still.
        pauses: bool,
        how: Terms,
    },
    /// From another host.
    In {
        /// The object that encrypts it, and the one that knows who may send.
        tls: Option<(&'a str, &'a str)>,
        how: Terms,
    },
}

/// What both ends of a move have to agree about.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Terms {
    /// Connections that the memory goes by, besides the first; 0 for that one alone.
    pub channels: u8,
    /// The guest may run at its target before all of it is there. QEMU before 10.1
    /// has that with one connection only.
    pub post_copy: bool,
}

/// Where QEMU listens, or finds another one that does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Port {
    pub address: IpAddr,
    pub port: u16,
}

impl Port {
    /// As a disk there is reached.
    #[must_use]
    pub fn server(self) -> Value {
        json!({"type": "inet", "host": self.address.to_string(), "port": self.port.to_string()})
    }

    /// As memory is sent there.
    fn channels(self) -> Value {
        let mut address = self.server();
        if let Some(fields) = address.as_object_mut() {
            fields.insert("transport".to_owned(), json!("socket"));
        }
        json!([{"channel-type": "main", "addr": address}])
    }
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
    /// Of what it has to do, as much as is known by now.
    pub done: u64,
    pub total: u64,
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

    /// As [`Self::blockdev_del`]; fine if there is none.
    pub async fn blockdev_let_go(&self, node: &str) -> Result<(), QmpError> {
        if self.block_nodes().await?.iter().any(|name| name == node) {
            self.blockdev_del(node).await?;
        }
        Ok(())
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
        let all = self.jobs().await?.into_iter();
        Ok(all
            .into_iter()
            .find_map(|(name, job)| (name == id).then_some(job)))
    }

    /// All jobs, by their names.
    pub async fn jobs(&self) -> Result<Vec<(String, Job)>, QmpError> {
        #[derive(Deserialize)]
        #[serde(rename_all = "kebab-case")]
        struct Status {
            id: String,
            status: String,
            error: Option<String>,
            current_progress: u64,
            total_progress: u64,
        }
        let value = self.execute("query-jobs", None).await?;
        let all: Vec<Status> = serde_json::from_value(value).map_err(|_| QmpError::Unexpected)?;
        let all = all.into_iter().map(|job| {
            let stands = Job {
                ready: job.status == "ready",
                over: job.status == "concluded",
                error: job.error,
                done: job.current_progress,
                total: job.total_progress,
            };
            (job.id, stands)
        });
        Ok(all.collect())
    }

    /// Asks for a job's end before its time.
    pub async fn job_cancel(&self, id: &str) -> Result<(), QmpError> {
        let arguments = json!({"id": id});
        self.execute("job-cancel", Some(arguments)).await.map(drop)
    }

    /// Has a mirror that is in step end, once it has all of its source: both stay
    /// where they are.
    pub async fn mirror_end(&self, id: &str) -> Result<(), QmpError> {
        let arguments = json!({"device": id});
        self.execute("block-job-cancel", Some(arguments))
            .await
            .map(drop)
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

    /// Makes the moves of memory send `MIGRATION` events, and go where they are
    /// to. All is said that an earlier move may have left otherwise.
    pub async fn prepare_migration(&self, passage: Passage<'_>) -> Result<(), QmpError> {
        let (out, comes, pauses) = match passage {
            Passage::File => (false, false, false),
            Passage::Out { pauses, .. } => (true, false, pauses),
            Passage::In { .. } => (false, true, false),
        };
        let how = match passage {
            Passage::File => Terms::default(),
            Passage::Out { how, .. } | Passage::In { how, .. } => how,
        };
        let capabilities = [
            ("events", true),
            // A sender knows that everything was understood.
            ("return-path", out || comes),
            // Its disks are ended in between.
            ("pause-before-switchover", pauses),
            // By post-copy nobody waits for the guest.
            ("auto-converge", out && !how.post_copy),
            ("multifd", how.channels > 0),
            ("postcopy-ram", how.post_copy),
            // Its disks are not its own before its guest runs.
            ("late-block-activate", comes),
        ];
        let capabilities =
            capabilities.map(|(name, state)| json!({"capability": name, "state": state}));
        let capabilities = json!({"capabilities": capabilities});
        self.execute("migrate-set-capabilities", Some(capabilities))
            .await?;
        let (limit, downtime_ms) = match passage {
            Passage::Out {
                limit, downtime_ms, ..
            } => (limit, downtime_ms),
            Passage::File | Passage::In { .. } => (None, DOWNTIME_MS),
        };
        let (credentials, name, peer) = match passage {
            Passage::Out {
                tls: Some((credentials, name)),
                ..
            } => (credentials, name, ""),
            Passage::In {
                tls: Some((credentials, peer)),
                ..
            } => (credentials, "", peer),
            Passage::File | Passage::Out { tls: None, .. } | Passage::In { tls: None, .. } => {
                ("", "", "")
            }
        };
        let parameters = json!({
            "max-bandwidth": limit.unwrap_or(UNLIMITED).min(UNLIMITED),
            "downtime-limit": downtime_ms.min(MOST_DOWNTIME_MS),
            "tls-creds": credentials, "tls-hostname": name, "tls-authz": peer,
            "multifd-channels": how.channels.max(1),
            // None where it is 0.
            "max-postcopy-bandwidth": limit.unwrap_or_default(),
        });
        self.execute("migrate-set-parameters", Some(parameters))
            .await
            .map(drop)
    }

    /// How long the guest may stand still, of a memory that is on its way.
    pub async fn allow_downtime(&self, downtime_ms: u64) -> Result<(), QmpError> {
        let parameters = json!({"downtime-limit": downtime_ms.min(MOST_DOWNTIME_MS)});
        self.execute("migrate-set-parameters", Some(parameters))
            .await
            .map(drop)
    }

    /// Begins to send the memory to another host.
    pub async fn migrate_to(&self, port: Port) -> Result<(), QmpError> {
        let arguments = json!({"channels": port.channels()});
        self.execute("migrate", Some(arguments)).await.map(drop)
    }

    /// Waits for a memory from another host. Should it not come whole, the
    /// process stays.
    pub async fn migrate_incoming_at(&self, port: Port) -> Result<(), QmpError> {
        let arguments = json!({"channels": port.channels(), "exit-on-error": false});
        self.execute("migrate-incoming", Some(arguments))
            .await
            .map(drop)
    }

    /// Goes on with a move that waits for that.
    pub async fn migrate_continue(&self) -> Result<(), QmpError> {
        let arguments = json!({"state": "pre-switchover"});
        self.execute("migrate-continue", Some(arguments))
            .await
            .map(drop)
    }

    /// Has the rest of a memory go while the guest runs at its target. QEMU stops the
    /// guest, and waits for [`Self::migrate_continue`] before anything of it goes.
    pub async fn migrate_start_postcopy(&self) -> Result<(), QmpError> {
        let started = self.execute("migrate-start-postcopy", None);
        started.await.map(drop)
    }

    /// Serves disks. `tls` are the object that encrypts it, and the one that knows
    /// who may write.
    pub async fn nbd_server_start(
        &self,
        port: Port,
        tls: Option<(&str, &str)>,
    ) -> Result<(), QmpError> {
        let address = json!({"host": port.address.to_string(), "port": port.port.to_string()});
        let mut arguments = json!({"addr": {"type": "inet", "data": address}});
        if let (Some((credentials, peer)), Some(fields)) = (tls, arguments.as_object_mut()) {
            fields.insert("tls-creds".to_owned(), json!(credentials));
            fields.insert("tls-authz".to_owned(), json!(peer));
        }
        self.execute("nbd-server-start", Some(arguments))
            .await
            .map(drop)
    }

    /// Lets whoever knows the name write a disk.
    pub async fn nbd_export(&self, node: &str, name: &str) -> Result<(), QmpError> {
        let arguments = json!({"type": "nbd", "id": name, "node-name": node, "name": name,
                               "writable": true});
        self.execute("block-export-add", Some(arguments))
            .await
            .map(drop)
    }

    /// Serves no disks any more; fine if it does not. Nobody writes them then.
    pub async fn nbd_server_stop(&self) -> Result<(), QmpError> {
        match self.execute("nbd-server-stop", None).await {
            // It has no other reason to refuse.
            Ok(_) | Err(QmpError::Refused { .. }) => Ok(()),
            Err(error) => Err(error),
        }
    }

    pub async fn object_add(&self, object: Value) -> Result<(), QmpError> {
        let added = self.execute_within(OBJECT_TIMEOUT, "object-add", Some(object));
        added.await.map(drop)
    }

    /// Fine if there is none.
    pub async fn object_del(&self, id: &str) -> Result<(), QmpError> {
        let path = json!({"path": "/objects"});
        let all = names(self.execute("qom-list", Some(path)).await?, "name")?;
        if !all.iter().any(|name| name == id) {
            return Ok(());
        }
        let arguments = json!({"id": id});
        self.execute("object-del", Some(arguments)).await.map(drop)
    }

    /// Begins to write the memory into a file, named as from QEMU's directory.
    pub async fn migrate(&self, file: &str) -> Result<(), QmpError> {
        let arguments = uri(file);
        self.execute("migrate", Some(arguments)).await.map(drop)
    }

    /// Begins to read the memory from a file, named as from QEMU's directory.
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
        self.query_moving().await.map(|moving| moving.state)
    }

    pub async fn query_moving(&self) -> Result<Moving, QmpError> {
        #[derive(Deserialize)]
        #[serde(rename_all = "kebab-case")]
        struct Status {
            status: Option<String>,
            error_desc: Option<String>,
            #[serde(default)]
            ram: MovedMemory,
            #[serde(default)]
            downtime: i64,
        }
        let value = self.execute("query-migrate", None).await?;
        let said: Status = serde_json::from_value(value).map_err(|_| QmpError::Unexpected)?;
        let state = match said.status.as_deref() {
            Some("completed") => Migration::Completed,
            Some("cancelled") => Migration::Cancelled,
            Some("failed") => Migration::Failed {
                reason: said.error_desc.unwrap_or_else(|| "it failed".to_owned()),
            },
            Some("setup") => Migration::Setup,
            Some("pre-switchover") => Migration::Waiting,
            Some("postcopy-active") => Migration::PostCopy,
            Some("postcopy-paused") => Migration::Failed {
                reason: "the connection broke before all of the memory had gone".to_owned(),
            },
            None | Some("none") => Migration::None,
            Some(_) => Migration::Underway,
        };
        Ok(Moving {
            state,
            memory: said.ram,
            downtime_ms: u64::try_from(said.downtime).unwrap_or_default(),
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
