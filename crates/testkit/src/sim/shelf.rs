//! What a person has beside VMs: volumes, and snapshots of the VMs.

use vimana_engine::ActionArgs;
use vimana_model::action::VmAction;
use vimana_model::name::DatastoreName;
use vimana_model::operation::Piece;
use vimana_model::snapshot::TakeSnapshot;
use vimana_model::unit::MiB;
use vimana_model::volume::{CreateVolume, GrowVolume};
use vimana_model::{Result, SnapshotId, VmId, VolumeId};

use super::chance::Chance;
use super::host::{fast, shared};
use super::people::{Answer, Ask};

/// Volumes one person has at most.
const ENOUGH: usize = 3;

pub struct Shelf {
    /// Whose it is; names tell.
    number: usize,
    made: usize,
    volumes: Vec<VolumeId>,
    snapshots: Vec<(VmId, SnapshotId)>,
}

impl Shelf {
    pub fn of(number: usize) -> Self {
        Self {
            number,
            made: 0,
            volumes: Vec::new(),
            snapshots: Vec::new(),
        }
    }

    /// Something to do with the VM's disks, or with volumes alone.
    pub fn idea(&mut self, chance: &Chance, vm: VmId) -> Ask {
        use VmAction as A;
        let taken: Vec<_> = self.snapshots.iter().filter(|(of, _)| *of == vm).collect();
        let snapshot = chance.pick(&taken).map(|(_, snapshot)| *snapshot);
        let volume = chance.pick(&self.volumes).copied();
        let ideas = [
            A::Snapshot,
            A::Revert,
            A::Revert,
            A::RemoveSnapshot,
            A::Attach,
            A::Attach,
            A::Attach,
            A::Detach,
            A::Grow,
            A::Move,
        ];
        let action = chance.pick(&ideas).copied().unwrap_or(A::Attach);
        match (action, snapshot, volume) {
            (A::Revert | A::RemoveSnapshot, Some(snapshot), _) => {
                Ask::Act(vm, action, ActionArgs::Snapshot(snapshot))
            }
            (A::Grow, _, Some(volume)) => {
                let size_mib = MiB(if chance.one_in(2) { 128 } else { 256 });
                Ask::GrowVolume(volume, GrowVolume { size_mib })
            }
            (A::Move, _, Some(volume)) => {
                let to = if chance.one_in(2) {
                    DatastoreName::local()
                } else {
                    fast()
                };
                Ask::Act(vm, A::Move, ActionArgs::Move { volume, to })
            }
            (A::Detach, _, Some(volume)) if chance.one_in(4) => Ask::DeleteVolume(volume),
            (A::Attach | A::Detach, _, Some(volume)) if self.volumes.len() >= ENOUGH => {
                Ask::Act(vm, action, ActionArgs::Volume(volume))
            }
            (A::Attach | A::Detach | A::Grow | A::Move, ..) => {
                Ask::MakeVolume(self.new_volume(chance))
            }
            _ => {
                self.made += 1;
                // It may be one that the VM does not have.
                let of = self.volumes.first().filter(|_| chance.one_in(3));
                let form = TakeSnapshot {
                    name: format!("snapshot-{}-{}", self.number, self.made),
                    memory: of.is_none() && chance.one_in(2),
                    volume: of.map(ToString::to_string),
                };
                Ask::Act(vm, A::Snapshot, ActionArgs::TakeSnapshot(form))
            }
        }
    }

    fn new_volume(&mut self, chance: &Chance) -> CreateVolume {
        self.made += 1;
        CreateVolume {
            name: format!("volume-{}-{}", self.number, self.made),
            size_mib: MiB(64),
            datastore: chance.one_in(2).then(|| {
                let place = if chance.one_in(2) { fast() } else { shared() };
                place.to_string()
            }),
            delete_with_vm: chance.one_in(3),
            ..CreateVolume::default()
        }
    }

    /// What came of an idea.
    pub fn note(&mut self, ask: &Ask, answer: &Result<Answer>) {
        let Ok(answer) = answer else { return };
        if let Ask::MakeVolume(_) = ask {
            self.volumes.extend(answer.volume);
        }
        if let Ask::DeleteVolume(gone) = ask {
            self.volumes.retain(|volume| volume != gone);
        }
        if let (Ask::Act(vm, VmAction::Snapshot, _), Some(Piece::Snapshot { id, .. })) =
            (ask, &answer.piece)
        {
            self.snapshots.push((*vm, *id));
        }
    }
}
