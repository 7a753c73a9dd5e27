//! A host with what was proposed for it and is not yet in its figures.

use vimana_model::VmId;
use vimana_model::unit::MiB;
use vimana_placement::Needs;
use vimana_protocol::scheduler::{DatastoreFacts, HostFacts};

/// One proposal's provisional claim on a host.
#[derive(Debug)]
struct Booking {
    vm_id: VmId,
    needs: Needs,
    /// The server accepted it; its figures will hold it soon.
    accepted: bool,
    /// The host's figures came anew since the proposal.
    refreshed: bool,
}

/// A host as placement should see it.
#[derive(Debug)]
pub struct BookedHost {
    /// As the server told it last.
    told: HostFacts,
    /// The same with the bookings in `used`.
    facts: HostFacts,
    bookings: Vec<Booking>,
}

impl BookedHost {
    pub fn new(told: HostFacts) -> Self {
        Self {
            facts: told.clone(),
            told,
            bookings: Vec::new(),
        }
    }

    /// With the bookings counted as used.
    pub fn facts(&self) -> &HostFacts {
        &self.facts
    }

    /// Takes new figures; says whether anything looks different.
    ///
    /// The figures do not tell which claims they hold. Accepted bookings are
    /// taken to be in there; where they are not, the server refuses what does
    /// not fit and the next figures mend it.
    pub fn update(&mut self, told: HostFacts) -> bool {
        let changed = self.told != told;
        self.told = told;
        self.bookings.retain(|booking| !booking.accepted);
        for booking in &mut self.bookings {
            booking.refreshed = true;
        }
        self.recount();
        changed
    }

    /// Takes what another host that reaches it has told of a datastore; says whether
    /// anything looks different.
    pub fn share(&mut self, datastore: &DatastoreFacts) -> bool {
        let mut known = self.told.datastores.iter_mut();
        let Some(known) = known.find(|known| known.id == datastore.id) else {
            return false;
        };
        if known.used_mib == datastore.used_mib {
            return false;
        }
        known.used_mib = datastore.used_mib;
        for booking in &mut self.bookings {
            booking.refreshed = true;
        }
        self.recount();
        true
    }

    pub fn book(&mut self, vm_id: VmId, needs: Needs) {
        self.bookings.push(Booking {
            vm_id,
            needs,
            accepted: false,
            refreshed: false,
        });
        self.recount();
    }

    /// The server accepted the proposal: the booking stays until the figures
    /// hold it.
    pub fn accept(&mut self, vm_id: VmId) {
        self.bookings
            .retain(|booking| booking.vm_id != vm_id || !booking.refreshed);
        for booking in self
            .bookings
            .iter_mut()
            .filter(|booking| booking.vm_id == vm_id)
        {
            booking.accepted = true;
        }
        self.recount();
    }

    /// Takes a booking back; says whether the host's figures came anew since
    /// it was made.
    pub fn release(&mut self, vm_id: VmId) -> bool {
        let refreshed = self
            .bookings
            .iter()
            .any(|b| b.vm_id == vm_id && b.refreshed);
        self.bookings.retain(|booking| booking.vm_id != vm_id);
        self.recount();
        refreshed
    }

    /// How many bookings wait for a verdict.
    #[cfg(test)]
    pub fn open(&self) -> usize {
        self.bookings
            .iter()
            .filter(|booking| !booking.accepted)
            .count()
    }

    fn recount(&mut self) {
        self.facts.clone_from(&self.told);
        let used = &mut self.facts.used;
        for Booking { needs, .. } in &self.bookings {
            let resources = needs.resources;
            used.vcpus = used.vcpus.saturating_add(resources.vcpus);
            add(&mut used.memory_mib, resources.memory_mib);
            if needs.datastore.is_local() {
                add(&mut used.disk_mib, resources.disk_mib);
                continue;
            }
            let mut known = self.facts.datastores.iter_mut();
            if let Some(datastore) = known.find(|known| known.name == needs.datastore) {
                add(&mut datastore.used_mib, resources.disk_mib);
            }
        }
    }
}

fn add(sum: &mut MiB, more: MiB) {
    sum.0 = sum.0.saturating_add(more.0);
}
