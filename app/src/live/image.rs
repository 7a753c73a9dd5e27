use leptos::prelude::*;
use vimana_model::event::EventKind;
use vimana_model::image::ImageView;
use vimana_model::operation::OperationKind;
use vimana_model::{ImageId, VmState};

use super::entry::renew;
use super::{About, Entry, Live, Mark};

/// Whether after this one of a VM another number of VMs is made from its image.
pub fn counts(event: &EventKind) -> bool {
    let made = EventKind::Requested {
        operation: OperationKind::Create,
    };
    let over = |to: &VmState| to.is_final();
    *event == made || matches!(event, EventKind::State { to, .. } if over(to))
}

impl Live {
    pub fn open_images(&self, (asked, images): (Mark, Vec<ImageView>)) {
        for image in images {
            self.adopt_image(asked, image);
        }
    }

    /// Takes in an image the server gave and gives the entry that stays up to
    /// date.
    pub fn adopt_image(&self, asked: Mark, mut image: ImageView) -> ArcRwSignal<ImageView> {
        let id = image.id;
        let (view, touched, mut names) = {
            let mut known = self.lock();
            let now = known.now;
            let new = !known.images.contains_key(&id);
            let entry = known
                .images
                .entry(id)
                .or_insert_with(|| Entry::new(image.clone(), now));
            let (view, touched) = (entry.view.clone(), entry.touched);
            let named = |(id, entry): (&ImageId, &Entry<ImageView>)| {
                (entry.view.with_untracked(|image| image.name.clone()), *id)
            };
            let names = new.then(|| known.images.iter().map(named).collect::<Vec<_>>());
            (view, touched, names)
        };
        if let Some(names) = names.as_mut() {
            names.sort();
            self.image_ids
                .set(names.iter().map(|(_, id)| *id).collect());
        }
        // Events do not tell it.
        image.used_by = image
            .used_by
            .or_else(|| view.with_untracked(|image| image.used_by));
        renew(&view, touched, asked, image);
        view
    }

    /// Ids in the order of the images' names; follows the world.
    #[must_use]
    pub fn image_ids(&self) -> Vec<ImageId> {
        self.image_ids.get()
    }

    /// The entry of an image that was adopted before.
    #[must_use]
    pub fn image(&self, id: ImageId) -> Option<ArcRwSignal<ImageView>> {
        let known = self.lock();
        known.images.get(&id).map(|entry| entry.view.clone())
    }

    pub(super) fn put_image(&self, now: Mark, image: ImageView) {
        let (id, operation) = (image.id, image.operation.clone());
        self.adopt_image(now, image);
        if let Some(entry) = self.lock().images.get_mut(&id) {
            entry.touched = now;
        }
        self.put_operation(About::Image(id), operation);
    }
}
