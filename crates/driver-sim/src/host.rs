//! What a simulated host holds, and how to make it misbehave.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::{broadcast, mpsc};
use vimana_driver::{Fault, FaultKind, IncarnationSpec, Observed, Power, SerialHub, SerialStream};
use vimana_model::VmId;

/// Changes a slow subscriber may lag behind.
const CHANGES: usize = 1024;

/// A call that can be delayed or made to fail.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Call {
    Inventory,
    Prepare,
    Boot,
    Shutdown,
    Kill,
    Clean,
    Serial,
}

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
    pub cleaned: u32,
}

/// The part of a simulated host that survives its agent.
pub struct SimHost {
    state: Mutex<State>,
    changes: broadcast::Sender<Observed>,
}

#[derive(Default)]
struct State {
    vms: BTreeMap<VmId, Vm>,
    faults: BTreeMap<Call, VecDeque<Fault>>,
    delays: BTreeMap<Call, Duration>,
}

/// Outlives its machine: epochs and counters are not forgotten.
#[derive(Default)]
struct Vm {
    highest_epoch: u64,
    /// Grows with every overtaking call.
    turn: u64,
    deaf: bool,
    effects: Effects,
    machine: Option<Machine>,
}

struct Machine {
    run_epoch: u64,
    power: Power,
    /// Ended by a kill: this run does not start again.
    killed: bool,
    serial: Option<Arc<SerialHub>>,
}

impl SimHost {
    #[must_use]
    pub fn new() -> Arc<Self> {
        Arc::new(Self {
            state: Mutex::default(),
            changes: broadcast::Sender::new(CHANGES),
        })
    }

    /// The next `call` fails so, before it has any effect. Several queue up.
    pub fn fail_next(&self, call: Call, fault: Fault) {
        self.state()
            .faults
            .entry(call)
            .or_default()
            .push_back(fault);
    }

    /// Every `call` from now on takes this long before it has an effect.
    pub fn delay(&self, call: Call, by: Duration) {
        self.state().delays.insert(call, by);
    }

    /// The guest of `vm` ignores requests to switch itself off.
    pub fn ignore_shutdown(&self, vm: VmId, deaf: bool) {
        self.state().vms.entry(vm).or_default().deaf = deaf;
    }

    /// The machine dies; `false` where it does not run.
    pub fn crash(&self, vm: VmId, reason: &str) -> bool {
        let reason = reason.to_owned();
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
        let state = self.state();
        let machine = state.vms.get(&vm)?.machine.as_ref()?;
        Some(machine.power.clone())
    }

    pub(crate) fn subscribe(&self) -> broadcast::Receiver<Observed> {
        self.changes.subscribe()
    }

    pub(crate) fn observed(&self) -> Vec<Observed> {
        let state = self.state();
        let held = state.vms.iter();
        held.filter_map(|(id, vm)| Some(observed(*id, vm.machine.as_ref()?)))
            .collect()
    }

    /// Registers a call; refused where its epoch is out of date.
    pub(crate) fn arrive(&self, vm: VmId, epoch: u64, overtakes: bool) -> Result<u64, Fault> {
        let mut state = self.state();
        let vm = state.vms.entry(vm).or_default();
        if epoch < vm.highest_epoch {
            return Err(superseded());
        }
        vm.highest_epoch = epoch;
        vm.turn += u64::from(overtakes);
        Ok(vm.turn)
    }

    /// Whether a call that was delayed still counts.
    pub(crate) fn still_wanted(&self, vm: VmId, epoch: u64, turn: u64) -> Result<(), Fault> {
        let mut state = self.state();
        let vm = state.vms.entry(vm).or_default();
        if epoch < vm.highest_epoch {
            return Err(superseded());
        }
        if turn != vm.turn {
            let message = "a later call stopped the machine";
            return Err(Fault::new(FaultKind::Cancelled, message));
        }
        Ok(())
    }

    /// The injected delay, then the injected fault.
    pub(crate) async fn strike(&self, call: Call) -> Result<(), Fault> {
        let delay = self.state().delays.get(&call).copied();
        if let Some(delay) = delay {
            tokio::time::sleep(delay).await;
        }
        let fault = self
            .state()
            .faults
            .get_mut(&call)
            .and_then(VecDeque::pop_front);
        fault.map_or(Ok(()), Err)
    }

    pub(crate) fn prepare(&self, spec: &IncarnationSpec) -> Result<(), Fault> {
        let mut state = self.state();
        let vm = state.vms.entry(spec.vm_id).or_default();
        match &vm.machine {
            Some(held) if held.run_epoch == spec.run_epoch => return Ok(()),
            Some(held) if held.power == Power::Running => {
                let message = "an earlier run of the machine has not ended";
                return Err(Fault::new(FaultKind::Hypervisor, message));
            }
            Some(_) | None => {}
        }
        vm.effects.prepared += 1;
        let machine = vm.machine.insert(Machine {
            run_epoch: spec.run_epoch,
            power: Power::Prepared,
            killed: false,
            serial: None,
        });
        self.tell(observed(spec.vm_id, machine));
        Ok(())
    }

    pub(crate) fn boot(&self, id: VmId, epoch: u64) -> Result<(), Fault> {
        let mut state = self.state();
        let vm = state.vms.entry(id).or_default();
        let machine = vm.machine.as_mut().filter(|m| m.run_epoch == epoch);
        let machine = machine.ok_or_else(no_such_vm)?;
        let ended = |how: &str| {
            let message = format!("this run of the machine has already ended: {how}");
            Err(Fault::new(FaultKind::Hypervisor, message))
        };
        match &machine.power {
            Power::Prepared => {}
            Power::Running => return Ok(()),
            Power::Off if machine.killed => return ended("it was stopped"),
            Power::Off => return Ok(()),
            Power::Crashed { reason } => return ended(reason),
        }
        let (serial, keys) = SerialHub::new();
        serial.output(format!("simulated machine {id} runs\r\n").as_bytes());
        tokio::spawn(echo(Arc::downgrade(&serial), keys));
        machine.serial = Some(serial);
        machine.power = Power::Running;
        vm.effects.booted += 1;
        self.tell(observed(id, machine));
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

    pub(crate) fn clean(&self, vm: VmId) -> Result<(), Fault> {
        let mut state = self.state();
        let vm = state.vms.entry(vm).or_default();
        match vm.machine.take_if(|m| m.power != Power::Running) {
            Some(_) => vm.effects.cleaned += 1,
            None if vm.machine.is_none() => {}
            None => {
                let message = "the machine still runs";
                return Err(Fault::new(FaultKind::Hypervisor, message));
            }
        }
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

    /// Ends a running machine; `false` where it does not run.
    fn end(&self, id: VmId, power: Power, count: fn(&mut Effects) -> &mut u32) -> bool {
        let mut state = self.state();
        let Some(vm) = state.vms.get_mut(&id) else {
            return false;
        };
        let machine = vm.machine.as_mut().filter(|m| m.power == Power::Running);
        let Some(machine) = machine else {
            return false;
        };
        machine.power = power;
        if let Some(serial) = &machine.serial {
            serial.close();
        }
        *count(&mut vm.effects) += 1;
        self.tell(observed(id, machine));
        true
    }

    fn tell(&self, change: Observed) {
        // Nobody listening is fine.
        let _ = self.changes.send(change);
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The guest's end of the serial line; ends with the machine.
async fn echo(line: std::sync::Weak<SerialHub>, mut keys: mpsc::Receiver<Bytes>) {
    while let Some(typed) = keys.recv().await {
        match line.upgrade() {
            Some(line) if !line.is_closed() => line.output(&typed),
            Some(_) | None => return,
        }
    }
}

fn observed(vm_id: VmId, machine: &Machine) -> Observed {
    Observed {
        vm_id,
        run_epoch: machine.run_epoch,
        power: machine.power.clone(),
    }
}

fn superseded() -> Fault {
    let message = "a later run of the machine is known";
    Fault::new(FaultKind::Superseded, message)
}

fn no_such_vm() -> Fault {
    let message = "the host does not hold this run of the machine";
    Fault::new(FaultKind::NoSuchVm, message)
}
