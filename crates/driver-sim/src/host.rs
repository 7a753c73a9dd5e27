//! What a simulated host holds, and how to make it misbehave.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::broadcast;
use vimana_driver::{Fault, FaultKind, Observed, Power, SerialHub};
use vimana_model::host::Hardware;
use vimana_model::name::DatastoreName;
use vimana_model::unit::Resources;
use vimana_model::{SnapshotId, VmId, VolumeId};

use crate::backup::Marks;
use crate::files::{Contents, Files};
use crate::mishap::{Call, Course, Director, Mishap, Plans, Rest};
use crate::run_log::{Moment, RunEntry, RunLog};
use crate::snapshot::Snapshot;
use crate::volume::{SimDatastore, Volume};

/// Changes a slow subscriber may lag behind.
const CHANGES: usize = 128;

/// How often each effect really happened to one VM; a repeated call that
/// changes nothing does not count.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Effects {
    pub prepared: u32,
    pub booted: u32,
    /// Switched off by the guest, asked or not.
    pub guest_off: u32,
    /// Stopped by kill, or by a shutdown whose grace ran out.
    pub stopped: u32,
    pub crashed: u32,
    pub saved: u32,
    pub loaded: u32,
    /// Found running by a load, which gave it a higher epoch.
    pub renumbered: u32,
    pub exported: u32,
    pub imported: u32,
    pub rebooted: u32,
    pub reset: u32,
    pub resized: u32,
    pub cleaned: u32,
    pub attached: u32,
    pub detached: u32,
    pub moved: u32,
    pub snapshots: u32,
    pub reverted: u32,
    pub backed_up: u32,
    pub received: u32,
    pub sent: u32,
    pub called_off: u32,
    /// Begun to run here after it was received.
    pub arrived: u32,
}

/// The part of a simulated host that survives its agent.
pub struct SimHost {
    name: Arc<str>,
    log: Arc<RunLog>,
    state: Mutex<State>,
    changes: broadcast::Sender<Observed>,
}

pub(crate) struct State {
    pub vms: BTreeMap<VmId, Vm>,
    pub files: Files,
    pub volumes: BTreeMap<VolumeId, Volume>,
    /// Besides the one that every host has.
    pub datastores: BTreeMap<DatastoreName, SimDatastore>,
    plans: Plans,
    hot_resize: bool,
    hardware: Hardware,
}

/// Outlives its machine: epochs and counters are not forgotten.
#[derive(Default)]
pub(crate) struct Vm {
    highest_epoch: u64,
    /// Grows with every overtaking call.
    turn: u64,
    pub deaf: bool,
    pub effects: Effects,
    pub machine: Option<Machine>,
    pub snapshots: BTreeMap<SnapshotId, Snapshot>,
    pub marks: Marks,
}

pub(crate) struct Machine {
    pub run_epoch: u64,
    /// The last run of its disk, here or elsewhere; 0 before the first.
    pub ran_epoch: u64,
    pub power: Power,
    /// Ended by a kill: this run does not start again.
    pub killed: bool,
    pub resources: Resources,
    /// The one that its own disk is in.
    pub datastore: DatastoreName,
    pub contents: Contents,
    pub serial: Option<Arc<SerialHub>>,
    /// What it was made from.
    pub image: PathBuf,
}

impl SimHost {
    /// A host that no other has to do with.
    #[must_use]
    pub fn new() -> Arc<Self> {
        Self::logged("host", RunLog::new())
    }

    /// A host of a simulation whose hosts share `log`, where it is called `name`.
    #[must_use]
    pub fn logged(name: &str, log: Arc<RunLog>) -> Arc<Self> {
        Arc::new(Self {
            name: Arc::from(name),
            log,
            state: Mutex::new(State {
                vms: BTreeMap::new(),
                files: Files::default(),
                volumes: BTreeMap::new(),
                datastores: BTreeMap::new(),
                plans: Plans::default(),
                hot_resize: true,
                hardware: Hardware {
                    machine_type: "simulated-1".to_owned(),
                    cpu_model: "simulated".to_owned(),
                    live_migration: true,
                },
            }),
            changes: broadcast::Sender::new(CHANGES),
        })
    }

    /// When its machines ran.
    #[must_use]
    pub fn log(&self) -> &Arc<RunLog> {
        &self.log
    }

    /// The next `call` fails so, before it has any effect. Several queue up.
    pub fn fail_next(&self, call: Call, fault: Fault) {
        self.mishap(call, Mishap::Fail(fault));
    }

    /// What befalls the next `call`. Several queue up.
    pub fn mishap(&self, call: Call, mishap: Mishap) {
        let mut state = self.state();
        let queue = state.plans.queued.entry(call).or_default();
        queue.push_back(mishap);
    }

    /// Every `call` from now on takes this long before it has an effect.
    pub fn delay(&self, call: Call, by: Duration) {
        self.state().plans.delays.insert(call, by);
    }

    /// Lets `director` decide how every call goes from now on. Delays and
    /// queued mishaps come on top.
    pub fn direct(&self, director: Director) {
        self.state().plans.director = Some(director);
    }

    /// Makes the files of saved machines real ones below `dir`.
    pub fn keep_files_in(&self, dir: impl Into<PathBuf>) {
        self.state().files.dir = Some(dir.into());
    }

    /// The content of a file that [`export`] named, or that was written.
    ///
    /// # Errors
    /// There is none.
    ///
    /// [`export`]: vimana_driver::HostDriver::export
    pub fn read_file(&self, path: &Path) -> std::io::Result<Bytes> {
        self.state().files.read(path)
    }

    /// Puts a file on the simulated host's disk, for [`import`] to find.
    ///
    /// [`import`]: vimana_driver::HostDriver::import
    pub fn write_file(&self, path: impl Into<PathBuf>, bytes: Bytes) {
        self.state().files.write(path.into(), bytes);
    }

    /// Whether drivers made from now on say that running machines can grow.
    pub fn set_hot_resize(&self, can: bool) {
        self.state().hot_resize = can;
    }

    /// What machines see on this host, as drivers made from now on say.
    pub fn set_hardware(&self, hardware: Hardware) {
        self.state().hardware = hardware;
    }

    pub(crate) fn hardware(&self) -> Hardware {
        self.state().hardware.clone()
    }

    pub(crate) fn hot_resize(&self) -> bool {
        self.state().hot_resize
    }

    /// The guest of `vm` ignores requests to switch itself off or restart.
    pub fn ignore_shutdown(&self, vm: VmId, deaf: bool) {
        self.state().vms.entry(vm).or_default().deaf = deaf;
    }

    /// The machine dies; `false` where it does not run.
    pub fn crash(&self, vm: VmId, reason: &str) -> bool {
        let reason = reason.to_owned();
        if let Some(vm) = self.state().vms.get_mut(&vm) {
            // What had changed was in the process's memory.
            vm.marks.forget();
        }
        self.end(vm, Power::Crashed { reason }, |e| &mut e.crashed)
    }

    /// The guest switches itself off; `false` where it does not run.
    pub fn guest_power_off(&self, vm: VmId) -> bool {
        self.end(vm, Power::Off, |e| &mut e.guest_off)
    }

    /// Every machine dies at once, as when the host loses power.
    pub fn crash_all(&self, reason: &str) {
        let all: Vec<VmId> = self.state().vms.keys().copied().collect();
        for vm in all {
            self.crash(vm, reason);
        }
    }

    #[must_use]
    pub fn effects(&self, vm: VmId) -> Effects {
        self.state()
            .vms
            .get(&vm)
            .map(|vm| vm.effects)
            .unwrap_or_default()
    }

    /// `None` where the host does not hold the VM.
    #[must_use]
    pub fn power(&self, vm: VmId) -> Option<Power> {
        self.machine(vm, |machine| machine.power.clone())
    }

    /// Size of the machine; `None` where the host does not hold the VM.
    #[must_use]
    pub fn resources(&self, vm: VmId) -> Option<Resources> {
        self.machine(vm, |machine| machine.resources)
    }

    /// The datastore that a machine's own disk is in; `None` where the host does not
    /// hold the VM.
    #[must_use]
    pub fn datastore(&self, vm: VmId) -> Option<DatastoreName> {
        self.machine(vm, |machine| machine.datastore.clone())
    }

    /// How often a machine was started from the VM's disk, wherever that was;
    /// `None` where the host does not hold the VM.
    #[must_use]
    pub fn boots(&self, vm: VmId) -> Option<u32> {
        self.machine(vm, |machine| {
            // Its disk is written before it runs.
            let arrived = self.log.arrived(vm, &self.name);
            let arrived = arrived.filter(|_| machine.power == Power::Arriving);
            arrived.unwrap_or(machine.contents).boots
        })
    }

    /// Everything the host holds for a VM, for people: empty when it was cleaned.
    #[must_use]
    pub fn left_behind(&self, vm: VmId) -> Vec<String> {
        let files = self.state().files.of(vm);
        let machine = self.power(vm).map(|_| "machine".to_owned());
        let files = files.iter().map(|path| path.display().to_string());
        machine.into_iter().chain(files).collect()
    }

    /// Everything the host holds.
    #[must_use]
    pub fn observed(&self) -> Vec<Observed> {
        let state = self.state();
        let held = state.vms.iter();
        held.filter_map(|(id, vm)| Some(observed(*id, vm.machine.as_ref()?)))
            .collect()
    }

    pub(crate) fn images_in_use(&self) -> Vec<PathBuf> {
        let state = self.state();
        let machines = state.vms.values().filter_map(|vm| vm.machine.as_ref());
        let images: BTreeSet<_> = machines.map(|machine| machine.image.clone()).collect();
        images.into_iter().collect()
    }

    pub(crate) fn subscribe(&self) -> broadcast::Receiver<Observed> {
        self.changes.subscribe()
    }

    /// Registers a call; refused where its epoch is out of date.
    pub(crate) fn arrive(&self, call: Call, vm: VmId, epoch: u64) -> Result<u64, Fault> {
        let mut state = self.state();
        let vm = state.vms.entry(vm).or_default();
        if epoch < vm.highest_epoch {
            return Err(superseded());
        }
        let overtakes = match call {
            Call::Kill | Call::Clean | Call::CallOff => true,
            // It takes back a save under way; repeated, it leaves itself alone.
            Call::Load => epoch > vm.highest_epoch,
            Call::Inventory
            | Call::Prepare
            | Call::ImagesInUse
            | Call::Boot
            | Call::Shutdown
            | Call::Save
            | Call::Export
            | Call::Import
            | Call::Reboot
            | Call::Reset
            | Call::Resize
            | Call::CreateVolume
            | Call::RemoveVolume
            | Call::GrowVolume
            | Call::CopyVolume
            | Call::RemoveCopy
            | Call::Volumes
            | Call::Attach
            | Call::MoveDisk
            | Call::Detach
            | Call::Snapshot
            | Call::Revert
            | Call::RemoveSnapshot
            | Call::BackUp
            | Call::EndBackup
            | Call::Receive
            | Call::Send
            | Call::Switch
            | Call::Run
            | Call::Complete
            | Call::Snapshots
            | Call::Serial => false,
        };
        vm.highest_epoch = epoch;
        vm.turn += u64::from(overtakes);
        Ok(vm.turn)
    }

    /// Whether a call that was delayed still counts.
    pub(crate) fn still_wanted(&self, vm: VmId, epoch: u64, turn: u64) -> Result<(), Fault> {
        let mut state = self.state();
        let vm = state.vms.entry(vm).or_default();
        if turn != vm.turn {
            let message = "a later call overtook this one";
            return Err(Fault::new(FaultKind::Cancelled, message));
        }
        if epoch < vm.highest_epoch {
            return Err(superseded());
        }
        Ok(())
    }

    /// What was planned for this call happens, up to its effect.
    pub(crate) async fn begin(&self, call: Call, vm: Option<VmId>) -> Result<Rest, Fault> {
        let course: Course = self.state().plans.next(call, vm);
        course.begin(call).await
    }

    /// Ends a running machine; `false` where it does not run.
    pub(crate) fn end(&self, id: VmId, power: Power, count: fn(&mut Effects) -> &mut u32) -> bool {
        let mut state = self.state();
        let state = &mut *state;
        let Some(vm) = state.vms.get_mut(&id) else {
            return false;
        };
        let machine = vm.machine.as_mut().filter(|m| has_process(&m.power));
        let Some(machine) = machine else {
            return false;
        };
        let ran = machine.power == Power::Running;
        self.log.process_ended(id, &self.name);
        if machine.power == Power::Arriving {
            // Its disk is written already; its memory was in the process.
            let arrived = self.log.arrived(id, &self.name);
            machine.contents.boots = arrived.map_or(0, |arrived| arrived.boots);
            for (volume, written) in self.log.arrived_volumes(id, &self.name) {
                if let Some(volume) = state.volumes.get_mut(&volume) {
                    volume.written = written;
                }
            }
            self.log.lose(id, &self.name);
        }
        machine.power = power;
        if let Some(serial) = &machine.serial {
            serial.close();
        }
        *count(&mut vm.effects) += 1;
        if ran {
            self.write_log(id, machine, Moment::Ended);
        }
        self.tell(observed(id, machine));
        // One that has left, or never ran here, writes nothing that others reach.
        if ran {
            state.shelve(id);
        }
        true
    }

    pub(crate) fn name(&self) -> &Arc<str> {
        &self.name
    }

    pub(crate) fn write_log(&self, vm: VmId, machine: &Machine, moment: Moment) {
        self.log.push(RunEntry {
            host: Arc::clone(&self.name),
            vm,
            run_epoch: machine.run_epoch,
            moment,
        });
    }

    pub(crate) fn tell(&self, change: Observed) {
        // Nobody listening is fine.
        let _ = self.changes.send(change);
    }

    pub(crate) fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn machine<T>(&self, vm: VmId, look: impl FnOnce(&Machine) -> T) -> Option<T> {
        let state = self.state();
        state.vms.get(&vm)?.machine.as_ref().map(look)
    }
}

pub(crate) fn observed(vm_id: VmId, machine: &Machine) -> Observed {
    Observed {
        vm_id,
        run_epoch: machine.run_epoch,
        power: machine.power.clone(),
    }
}

/// Whether there is a process, in which guest code may run or not.
pub(crate) const fn has_process(power: &Power) -> bool {
    matches!(power, Power::Running | Power::Arriving | Power::Left)
}

fn superseded() -> Fault {
    let message = "a later run of the machine is known";
    Fault::new(FaultKind::Superseded, message)
}

pub(crate) fn no_such_vm() -> Fault {
    let message = "the host does not hold this run of the machine";
    Fault::new(FaultKind::NoSuchVm, message)
}
