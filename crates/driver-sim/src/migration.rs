//! Machines that go from one simulated host to another. What is on the way is
//! kept in the log that the hosts share.

use std::net::{IpAddr, Ipv4Addr};
use std::path::Path;
use std::sync::Arc;

use vimana_driver::{DiskPlan, Endpoint, Fault, FaultKind, IncarnationSpec, Power, Sending};
use vimana_model::VmId;
use vimana_model::migration::Sent;

use crate::host::{Machine, SimHost, no_such_vm, observed};
use crate::run_log::Moment;
use crate::snapshot;

/// Nobody listens there: the log is the way.
const NOWHERE: Endpoint = Endpoint {
    address: IpAddr::V4(Ipv4Addr::LOCALHOST),
    memory_port: 1,
    disk_port: 2,
    channels: 0,
    post_copy: false,
    plain: true,
};
const MIB: u64 = 1 << 20;

impl SimHost {
    pub(crate) fn receive(
        &self,
        spec: &IncarnationSpec,
        image: &Path,
        disks: &DiskPlan,
    ) -> Result<Endpoint, Fault> {
        let mut state = self.state();
        let vm = state.vms.entry(spec.vm_id).or_default();
        match &vm.machine {
            Some(held) if held.run_epoch == spec.run_epoch && held.power == Power::Arriving => {
                return Ok(NOWHERE);
            }
            Some(_) => {
                let message = "the host still holds another disk of this machine";
                return Err(Fault::new(FaultKind::Host, message));
            }
            None => {}
        }
        state.reaches(&spec.datastore)?;
        state.root_is_there(spec, disks)?;
        let kept = self.log().kept_snapshots(spec.vm_id);
        let snapshots = snapshot::coming(disks, kept)?;
        state.expect_volumes(spec.vm_id, disks)?;
        let vm = state.vms.entry(spec.vm_id).or_default();
        let mut machine = Machine::new(spec, image);
        machine.power = Power::Arriving;
        vm.snapshots = snapshots;
        vm.effects.received += 1;
        self.log().expect(spec.vm_id, self.name());
        self.tell(observed(spec.vm_id, vm.machine.insert(machine)));
        Ok(NOWHERE)
    }

    /// All that refuses a sending from its beginning.
    pub(crate) fn may_send(&self, id: VmId, epoch: u64, disks: &DiskPlan) -> Result<(), Fault> {
        let conflict = |message: &str| Err(Fault::new(FaultKind::Conflict, message));
        match self.of_run(id, epoch, |_, machine| machine.power.clone())? {
            Power::Running => {}
            Power::Left => return Ok(()),
            Power::Saved => return conflict("the machine's memory is saved"),
            Power::Prepared
            | Power::Arriving
            | Power::Off
            | Power::Crashed { .. }
            | Power::Unknown => {
                let message = "the machine does not run";
                return Err(Fault::new(FaultKind::Hypervisor, message));
            }
        }
        let state = self.state();
        if !disks.names_all(state.volumes_of(id).into_keys()) {
            return Err(DiskPlan::other_volumes());
        }
        let Some(vm) = state.vms.get(&id) else {
            return Ok(());
        };
        snapshot::may_leave(&vm.snapshots, disks)?;
        if !vm.snapshots.is_empty() && !disks.shares_all() {
            return Err(DiskPlan::copies_without_snapshots());
        }
        Ok(())
    }

    /// By post-copy, a part of its memory stays here for now.
    pub(crate) fn send(&self, id: VmId, epoch: u64, to: &Sending) -> Result<Sent, Fault> {
        self.may_send(id, epoch, &to.disks)?;
        let post_copy = to.endpoint.post_copy;
        let mut state = self.state();
        let state = &mut *state;
        let held = state.volumes.iter();
        let held = held.filter(|(_, volume)| volume.attached_to == Some(id));
        let written = held.map(|(volume, held)| (*volume, held.written)).collect();
        let vm = state.vms.entry(id).or_default();
        let machine = vm.machine.as_mut().ok_or_else(no_such_vm)?;
        let sent = took(machine);
        if machine.power == Power::Left {
            return Ok(sent);
        }
        if !self.log().deliver(id, machine.contents, written) {
            let message = "the machine was not sent: the other host does not wait for it";
            return Err(Fault::new(FaultKind::Hypervisor, message));
        }
        self.log().owe(id, self.name(), post_copy);
        machine.power = Power::Left;
        vm.effects.sent += 1;
        self.write_log(id, machine, Moment::Left);
        self.tell(observed(id, machine));
        state.shelve(id);
        Ok(sent)
    }

    pub(crate) fn call_off(&self, id: VmId, epoch: u64) -> Result<(), Fault> {
        self.of_run(id, epoch, |_, _| ())?;
        let mut state = self.state();
        let vm = state.vms.entry(id).or_default();
        let machine = vm.machine.as_mut().ok_or_else(no_such_vm)?;
        if machine.power == Power::Left {
            machine.power = Power::Running;
            self.log().owe(id, self.name(), false);
            vm.effects.called_off += 1;
            self.write_log(id, machine, Moment::WentOn);
            self.tell(observed(id, machine));
        }
        Ok(())
    }

    pub(crate) fn switch(&self, id: VmId, epoch: u64) -> Result<Sent, Fault> {
        let mut state = self.state();
        let vm = state.vms.entry(id).or_default();
        let machine = vm.machine.as_ref().ok_or_else(no_such_vm)?;
        if machine.power != Power::Left || epoch <= machine.run_epoch {
            let message = "the machine has not left";
            return Err(Fault::new(FaultKind::Hypervisor, message));
        }
        self.log().switch(id);
        Ok(took(machine))
    }

    pub(crate) fn complete(&self, id: VmId, epoch: u64) -> Result<(), Fault> {
        let ended = |reason: &str| {
            let message = format!("the machine has ended: {reason}");
            Err(Fault::new(FaultKind::Hypervisor, message))
        };
        match self.of_run(id, epoch, |_, machine| machine.power.clone())? {
            Power::Running if self.log().complete(id) => Ok(()),
            Power::Running => {
                let reason = "the rest of its memory is lost";
                self.crash(id, reason);
                ended(reason)
            }
            Power::Off => Ok(()),
            Power::Crashed { reason } => ended(&reason),
            Power::Prepared | Power::Arriving | Power::Left | Power::Saved | Power::Unknown => {
                ended("it does not run")
            }
        }
    }

    pub(crate) fn run(self: &Arc<Self>, id: VmId, epoch: u64) -> Result<(), Fault> {
        let mut state = self.state();
        let state = &mut *state;
        let vm = state.vms.entry(id).or_default();
        let machine = vm.machine.as_mut().ok_or_else(no_such_vm)?;
        let again = machine.run_epoch == epoch;
        match &machine.power {
            Power::Running if again => return Ok(()),
            Power::Off if again && !machine.killed => return Ok(()),
            Power::Arriving if epoch > machine.run_epoch => {}
            Power::Crashed { reason } => {
                let message = format!("the machine has ended before it ran here: {reason}");
                return Err(Fault::new(FaultKind::Hypervisor, message));
            }
            Power::Prepared
            | Power::Running
            | Power::Arriving
            | Power::Left
            | Power::Saved
            | Power::Off
            | Power::Unknown => return Err(not_arrived()),
        }
        let contents = self.log().arrived(id, self.name());
        let contents = contents.filter(|_| self.log().may_run(id));
        machine.contents = contents.ok_or_else(not_arrived)?;
        for (volume, written) in self.log().arrived_volumes(id, self.name()) {
            if let Some(volume) = state.volumes.get_mut(&volume) {
                volume.written = written;
            }
        }
        self.log().lose(id, self.name());
        vm.effects.arrived += 1;
        self.start(id, machine, epoch);
        Ok(())
    }
}

/// What sending it took.
fn took(machine: &Machine) -> Sent {
    Sent {
        transferred_bytes: machine.resources.memory_mib.0.saturating_mul(MIB),
        total_ms: 1000,
        downtime_ms: 10,
        paused_ms: 12,
    }
}

fn not_arrived() -> Fault {
    let message = "the machine has not arrived here";
    Fault::new(FaultKind::Hypervisor, message)
}
