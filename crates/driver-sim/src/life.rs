//! What the calls of the trait do to a simulated machine, each in one moment.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Weak};

use bytes::Bytes;
use tokio::sync::mpsc;
use vimana_driver::{
    DiskPlan, Fault, FaultKind, IncarnationSpec, Part, Power, SerialHub, SerialStream,
};
use vimana_model::VmId;
use vimana_model::unit::Resources;

use crate::backup::Marks;
use crate::files::Contents;
use crate::host::{Machine, SimHost, State, Vm, has_process, no_such_vm, observed};
use crate::run_log::Moment;
use crate::snapshot;
use crate::volume::{Root, no_such_volume};

/// Typed on the serial line (Ctrl-E): the guest counts in its memory and says
/// how far it got, as a letter from `A` on.
pub const COUNT: u8 = 0x05;
/// Typed on the serial line (Ctrl-B): the guest says how often it was started
/// from its disk, as a letter from `A` on.
pub const BOOTS: u8 = 0x02;

impl SimHost {
    pub(crate) fn prepare(&self, spec: &IncarnationSpec, image: &Path) -> Result<(), Fault> {
        let mut state = self.state();
        state.reaches(&spec.datastore)?;
        let vm = state.vms.entry(spec.vm_id).or_default();
        let mut machine = match vm.machine.take_if(|m| is_at_rest(m, spec.run_epoch)) {
            Some(before) => before,
            None => match &vm.machine {
                Some(held) if held.run_epoch == spec.run_epoch => return Ok(()),
                Some(held) => return Err(occupied(held)),
                None => Machine::new(spec, image),
            },
        };
        machine.run_epoch = spec.run_epoch;
        machine.power = Power::Prepared;
        machine.killed = false;
        machine.resources = spec.resources;
        machine.serial = None;
        vm.effects.prepared += 1;
        self.tell(observed(spec.vm_id, vm.machine.insert(machine)));
        state.shelve(spec.vm_id);
        Ok(())
    }

    pub(crate) fn boot(
        self: &Arc<Self>,
        id: VmId,
        epoch: u64,
        resources: &Resources,
    ) -> Result<(), Fault> {
        let mut state = self.state();
        let vm = state.vms.entry(id).or_default();
        let machine = vm.machine.as_mut().ok_or_else(no_such_vm)?;
        if epoch == machine.run_epoch {
            match has_run(machine)? {
                true => return Ok(()),
                false if machine.power == Power::Saved => return Err(occupied(machine)),
                false => {}
            }
        } else if !is_at_rest(machine, epoch) {
            return Err(occupied(machine));
        }
        machine.resources = grown(machine.resources, resources);
        machine.contents.boots += 1;
        machine.contents.count = 0;
        vm.effects.booted += 1;
        self.start(id, machine, epoch);
        greet(id, machine);
        Ok(())
    }

    /// Asks the guest to switch itself off; `true` where it runs on, deaf.
    pub(crate) fn ask_guest_off(&self, vm: VmId) -> bool {
        let deaf = self.state().vms.get(&vm).is_some_and(|vm| vm.deaf);
        if deaf {
            return self.power(vm) == Some(Power::Running);
        }
        self.guest_power_off(vm);
        false
    }

    pub(crate) fn stop(&self, vm: VmId) {
        if self.end(vm, Power::Off, |e| &mut e.stopped)
            && let Some(vm) = self.state().vms.get_mut(&vm)
            && let Some(machine) = &mut vm.machine
        {
            machine.killed = true;
        }
    }

    pub(crate) fn save(&self, id: VmId, epoch: u64) -> Result<(), Fault> {
        if self.of_run(id, epoch, |_, machine| machine.power.clone())? == Power::Saved {
            return Ok(());
        }
        self.running(id, epoch)?;
        self.end(id, Power::Saved, |e| &mut e.saved);
        Ok(())
    }

    pub(crate) fn load(self: &Arc<Self>, id: VmId, epoch: u64) -> Result<(), Fault> {
        let mut state = self.state();
        let vm = state.vms.entry(id).or_default();
        let machine = vm.machine.as_mut().ok_or_else(no_such_vm)?;
        match &machine.power {
            Power::Running if epoch > machine.run_epoch => {
                machine.run_epoch = epoch;
                machine.ran_epoch = epoch;
                vm.effects.renumbered += 1;
                self.write_log(id, machine, Moment::Renumbered);
                self.tell(observed(id, machine));
                Ok(())
            }
            Power::Saved if epoch > machine.ran_epoch => {
                vm.effects.loaded += 1;
                self.start(id, machine, epoch);
                state.files.remove(id);
                Ok(())
            }
            Power::Saved => {
                let message = "the machine was saved in this run; only a later one can go on";
                Err(Fault::new(FaultKind::Hypervisor, message))
            }
            Power::Prepared
            | Power::Arriving
            | Power::Left
            | Power::Running
            | Power::Off
            | Power::Crashed { .. }
            | Power::Unknown => {
                if epoch == machine.run_epoch && has_run(machine)? {
                    return Ok(());
                }
                let message = "the machine does not run, and its memory is not saved";
                Err(Fault::new(FaultKind::Hypervisor, message))
            }
        }
    }

    pub(crate) fn export(&self, id: VmId, disks: &DiskPlan) -> Result<Vec<(Part, PathBuf)>, Fault> {
        let mut state = self.state();
        let state = &mut *state;
        // Whether anything is written on each.
        let volumes = state.volumes_of(id);
        let vm = state.vms.entry(id).or_default();
        let machine = vm.machine.as_ref().ok_or_else(no_such_vm)?;
        let with_memory = match machine.power {
            Power::Saved => true,
            Power::Off | Power::Crashed { .. } => false,
            Power::Prepared | Power::Running | Power::Arriving | Power::Left | Power::Unknown => {
                let message = "the machine is neither off nor saved";
                return Err(Fault::new(FaultKind::Hypervisor, message));
            }
        };
        snapshot::may_leave(&vm.snapshots, disks)?;
        if !disks.volumes.is_empty() && !disks.names_all(volumes.keys().copied()) {
            return Err(DiskPlan::other_volumes());
        }
        vm.effects.exported += 1;
        let (run_epoch, contents) = (machine.ran_epoch, machine.contents);
        let value = |part| {
            let value = match part {
                Part::Disk => contents.boots,
                Part::Memory => contents.count,
                Part::Volume(id) => u32::from(*volumes.get(&id).ok_or_else(no_such_volume)?),
            };
            Ok((part, value))
        };
        let parts = disks.parts(with_memory).into_iter().map(value);
        let parts = parts.collect::<Result<Vec<_>, Fault>>()?;
        state
            .files
            .export(id, run_epoch, &parts)
            .map_err(|error| Fault::io("writing the saved machine", &error))
    }

    pub(crate) fn import(
        &self,
        spec: &IncarnationSpec,
        image: &Path,
        files: &[(Part, PathBuf)],
        disks: &DiskPlan,
    ) -> Result<(), Fault> {
        let mut state = self.state();
        let state = &mut *state;
        let vm = state.vms.entry(spec.vm_id).or_default();
        match &vm.machine {
            Some(held) if held.run_epoch == spec.run_epoch => return Ok(()),
            Some(_) => {
                let message = "the host still holds another disk of this machine";
                return Err(Fault::new(FaultKind::Host, message));
            }
            None => {}
        }
        state.reaches(&spec.datastore)?;
        let kept = self.log().kept_snapshots(spec.vm_id);
        let snapshots = snapshot::coming(disks, kept)?;
        let mut machine = Machine::new(spec, image);
        let root = state.root_is_there(spec, disks)?;
        let values = state.files.import(spec.vm_id, files, disks)?;
        let value = |part| values.get(&part).copied();
        let saved = match root {
            Some(root) => {
                machine.contents = root.contents;
                root.saved
            }
            None => {
                machine.contents = Contents {
                    boots: value(Part::Disk).unwrap_or_default(),
                    count: value(Part::Memory).unwrap_or_default(),
                };
                value(Part::Memory).is_some()
            }
        };
        state.expect_volumes(spec.vm_id, disks)?;
        for plan in disks.copied_volumes() {
            if let Some(volume) = state.volumes.get_mut(&plan.volume_id) {
                volume.written = value(Part::Volume(plan.volume_id)) == Some(1);
            }
        }
        let vm = state.vms.entry(spec.vm_id).or_default();
        machine.power = if saved { Power::Saved } else { Power::Off };
        // It ran before, on another host.
        machine.ran_epoch = spec.run_epoch.saturating_sub(1);
        vm.effects.imported += 1;
        vm.snapshots = snapshots;
        self.tell(observed(spec.vm_id, vm.machine.insert(machine)));
        state.shelve(spec.vm_id);
        Ok(())
    }

    /// Whether the guest ignores what it is asked.
    pub(crate) fn is_deaf(&self, id: VmId, epoch: u64) -> Result<bool, Fault> {
        self.running(id, epoch)?;
        self.of_run(id, epoch, |vm, _| vm.deaf)
    }

    /// The guest starts anew; who asked for it counts.
    pub(crate) fn restart(&self, id: VmId, epoch: u64, asked: bool) -> Result<(), Fault> {
        self.running(id, epoch)?;
        let mut state = self.state();
        let vm = state.vms.entry(id).or_default();
        let machine = vm.machine.as_mut().ok_or_else(no_such_vm)?;
        machine.contents.boots += 1;
        machine.contents.count = 0;
        greet(id, machine);
        match asked {
            true => vm.effects.rebooted += 1,
            false => vm.effects.reset += 1,
        }
        Ok(())
    }

    pub(crate) fn resize(&self, id: VmId, epoch: u64, to: &Resources) -> Result<(), Fault> {
        self.running(id, epoch)?;
        let hot_resize = self.hot_resize();
        let mut state = self.state();
        let vm = state.vms.entry(id).or_default();
        let machine = vm.machine.as_mut().ok_or_else(no_such_vm)?;
        let has = machine.resources;
        if (has.vcpus, has.memory_mib) == (to.vcpus, to.memory_mib) {
            machine.resources = grown(has, to);
            return Ok(());
        }
        if !hot_resize || to.vcpus < has.vcpus || to.memory_mib < has.memory_mib {
            let message = "the machine cannot be resized so while it runs";
            return Err(Fault::new(FaultKind::Unsupported, message));
        }
        machine.resources = grown(has, to);
        vm.effects.resized += 1;
        Ok(())
    }

    /// As [`Self::clean`] is `with_disk`; without, what other hosts reach of it stays.
    pub(crate) fn remove(&self, id: VmId, with_disk: bool) -> Result<(), Fault> {
        let mut state = self.state();
        let state = &mut *state;
        let vm = state.vms.entry(id).or_default();
        let mut home = None;
        match vm.machine.take_if(|m| !has_process(&m.power)) {
            Some(machine) => {
                home = Some(machine.datastore);
                vm.effects.cleaned += 1;
            }
            None if vm.machine.is_none() => {}
            None => {
                let message = "the machine still runs";
                return Err(Fault::new(FaultKind::Hypervisor, message));
            }
        }
        state.files.remove(id);
        vm.snapshots.clear();
        vm.marks = Marks::default();
        // Another host that reaches one of the others may have the disk there now.
        let home = home.filter(|_| with_disk);
        if let Some(datastore) = home.and_then(|home| state.datastores.get(&home)) {
            datastore.shelf().roots.remove(&id);
        }
        for volume in state.volumes.values_mut() {
            volume.attached_to.take_if(|owner| *owner == id);
        }
        state.put_back();
        Ok(())
    }

    pub(crate) fn serial(&self, vm: VmId) -> Result<Box<dyn SerialStream>, Fault> {
        let state = self.state();
        let machine = state.vms.get(&vm).and_then(|vm| vm.machine.as_ref());
        let hub = machine.ok_or_else(no_such_vm)?.serial.as_ref();
        let hub = hub
            .ok_or_else(|| Fault::new(FaultKind::Hypervisor, "the machine has not started yet"))?;
        Ok(hub.attach())
    }

    /// From here on guest code runs.
    pub(crate) fn start(self: &Arc<Self>, id: VmId, machine: &mut Machine, epoch: u64) {
        let (serial, keys) = SerialHub::new();
        let guest = guest(id, Arc::downgrade(self), Arc::downgrade(&serial), keys);
        tokio::spawn(guest);
        machine.serial = Some(serial);
        machine.power = Power::Running;
        machine.killed = false;
        machine.run_epoch = epoch;
        machine.ran_epoch = epoch;
        self.write_log(id, machine, Moment::Started);
        self.tell(observed(id, machine));
    }

    /// A look at the machine, if `epoch` is its run.
    pub(crate) fn of_run<T>(
        &self,
        id: VmId,
        epoch: u64,
        look: impl FnOnce(&Vm, &Machine) -> T,
    ) -> Result<T, Fault> {
        let state = self.state();
        let vm = state.vms.get(&id).ok_or_else(no_such_vm)?;
        let machine = vm.machine.as_ref().filter(|m| m.run_epoch == epoch);
        Ok(look(vm, machine.ok_or_else(no_such_vm)?))
    }

    /// Whether it is the run whose disks are meant: also one that has ended,
    /// where a later one was to begin and never did.
    pub(crate) fn of_disks(&self, id: VmId, epoch: u64) -> Result<(), Fault> {
        let state = self.state();
        let machine = state.vms.get(&id).and_then(|vm| vm.machine.as_ref());
        let ours =
            |m: &&Machine| m.run_epoch == epoch || (m.run_epoch < epoch && !has_process(&m.power));
        machine.filter(ours).ok_or_else(no_such_vm).map(drop)
    }

    fn running(&self, id: VmId, epoch: u64) -> Result<(), Fault> {
        if self.of_run(id, epoch, |_, m| m.power == Power::Running)? {
            return Ok(());
        }
        let message = "the machine does not run";
        Err(Fault::new(FaultKind::Hypervisor, message))
    }

    /// What the guest answers to a key.
    fn typed(&self, id: VmId, key: u8) -> u8 {
        let mut state = self.state();
        let machine = state.vms.get_mut(&id).and_then(|vm| vm.machine.as_mut());
        match (machine, key) {
            (Some(machine), COUNT) => {
                machine.contents.count += 1;
                letter(machine.contents.count)
            }
            (Some(machine), BOOTS) => letter(machine.contents.boots),
            (Some(_) | None, _) => key,
        }
    }
}

impl Machine {
    pub(crate) fn new(spec: &IncarnationSpec, image: &Path) -> Self {
        Self {
            run_epoch: spec.run_epoch,
            ran_epoch: 0,
            power: Power::Prepared,
            killed: false,
            resources: spec.resources,
            datastore: spec.datastore.clone(),
            contents: Contents::default(),
            serial: None,
            image: image.to_owned(),
        }
    }
}

/// Whether a later run may start from the disk.
fn is_at_rest(machine: &Machine, epoch: u64) -> bool {
    machine.run_epoch < epoch
        && match machine.power {
            Power::Prepared | Power::Off | Power::Crashed { .. } => true,
            Power::Running | Power::Arriving | Power::Left | Power::Saved | Power::Unknown => false,
        }
}

/// Whether a run has begun; an error where it has also ended, other than by
/// its guest, which may be quick.
fn has_run(machine: &Machine) -> Result<bool, Fault> {
    let ended = |how: &str| {
        let message = format!("this run of the machine has already ended: {how}");
        Err(Fault::new(FaultKind::Hypervisor, message))
    };
    match &machine.power {
        Power::Prepared | Power::Arriving | Power::Saved | Power::Unknown => Ok(false),
        Power::Running => Ok(true),
        Power::Left => ended("it has left for another host"),
        Power::Off if machine.killed => ended("it was stopped"),
        Power::Off => Ok(true),
        Power::Crashed { reason } => ended(reason),
    }
}

/// Why another run cannot begin.
fn occupied(machine: &Machine) -> Fault {
    let message = match machine.power {
        Power::Saved => "the machine's memory is saved; it can only run on from there",
        Power::Prepared
        | Power::Running
        | Power::Arriving
        | Power::Left
        | Power::Off
        | Power::Crashed { .. }
        | Power::Unknown => "an earlier run of the machine has not ended",
    };
    Fault::new(FaultKind::Hypervisor, message)
}

/// Disks never shrink.
fn grown(has: Resources, to: &Resources) -> Resources {
    Resources {
        disk_mib: has.disk_mib.max(to.disk_mib),
        ..*to
    }
}

fn greet(id: VmId, machine: &Machine) {
    if let Some(serial) = &machine.serial {
        let boots = machine.contents.boots;
        let line = format!("simulated machine {id} runs, boot {boots}\r\n");
        serial.output(line.as_bytes());
    }
}

fn letter(count: u32) -> u8 {
    let place = u8::try_from(count.saturating_sub(1) % 26).unwrap_or_default();
    b'A' + place
}

/// The guest's end of the serial line; ends with the machine.
async fn guest(
    id: VmId,
    host: Weak<SimHost>,
    line: Weak<SerialHub>,
    mut keys: mpsc::Receiver<Bytes>,
) {
    while let Some(typed) = keys.recv().await {
        let (Some(host), Some(line)) = (host.upgrade(), line.upgrade()) else {
            return;
        };
        if line.is_closed() {
            return;
        }
        let answer: Vec<u8> = typed.iter().map(|key| host.typed(id, *key)).collect();
        line.output(&answer);
    }
}

impl State {
    /// What is on the machine's own disk, where its guest does not run, is seen by all
    /// hosts that share its datastore.
    pub(crate) fn shelve(&self, id: VmId) {
        let machine = self.vms.get(&id).and_then(|vm| vm.machine.as_ref());
        let Some(machine) = machine.filter(|machine| machine.power != Power::Running) else {
            return;
        };
        if let Some(datastore) = self.datastores.get(&machine.datastore) {
            let root = Root {
                contents: machine.contents,
                saved: machine.power == Power::Saved,
            };
            datastore.shelf().roots.insert(id, root);
        }
    }

    /// The disk of a machine of another host, where both reach it.
    pub(crate) fn root_is_there(
        &self,
        spec: &IncarnationSpec,
        disks: &DiskPlan,
    ) -> Result<Option<Root>, Fault> {
        if !disks.shares_root {
            return Ok(None);
        }
        let datastore = self.datastores.get(&spec.datastore);
        let root = datastore.and_then(|store| store.shelf().roots.get(&spec.vm_id).copied());
        if root.is_none() {
            let message = "the host does not find the machine's disk where it is to be";
            return Err(Fault::new(FaultKind::Host, message));
        }
        Ok(root)
    }
}
