use leptos::prelude::*;
use vimana_model::VolumeId;
use vimana_model::volume::VolumeView;

use super::entry::renew;
use super::{Entry, Live, Mark};

impl Live {
    pub fn open_volumes(&self, (asked, volumes): (Mark, Vec<VolumeView>)) {
        for volume in volumes {
            self.adopt_volume(asked, volume);
        }
    }

    /// Takes in a volume the server gave; its entry stays up to date.
    pub fn adopt_volume(&self, asked: Mark, volume: VolumeView) {
        let id = volume.id;
        let (view, touched, mut names) = {
            let mut known = self.lock();
            let now = known.now;
            let new = !known.volumes.contains_key(&id);
            let entry = known
                .volumes
                .entry(id)
                .or_insert_with(|| Entry::new(volume.clone(), now));
            let (view, touched) = (entry.view.clone(), entry.touched);
            let named = |(id, entry): (&VolumeId, &Entry<VolumeView>)| {
                let name = entry.view.with_untracked(|volume| volume.name.clone());
                (name, *id)
            };
            let names = new.then(|| known.volumes.iter().map(named).collect::<Vec<_>>());
            (view, touched, names)
        };
        if let Some(names) = names.as_mut() {
            names.sort();
            self.volume_ids
                .set(names.iter().map(|(_, id)| *id).collect());
        }
        renew(&view, touched, asked, volume);
    }

    /// Ids in the order of the volumes' names; follows the world.
    #[must_use]
    pub fn volume_ids(&self) -> Vec<VolumeId> {
        self.volume_ids.get()
    }

    /// The entry of a volume that was adopted before.
    #[must_use]
    pub fn volume(&self, id: VolumeId) -> Option<ArcRwSignal<VolumeView>> {
        let known = self.lock();
        known.volumes.get(&id).map(|entry| entry.view.clone())
    }

    pub(super) fn put_volume(&self, now: Mark, volume: VolumeView) {
        let id = volume.id;
        self.adopt_volume(now, volume);
        if let Some(entry) = self.lock().volumes.get_mut(&id) {
            entry.touched = now;
        }
    }
}
