//! What is said of a VM on its way to another host.

use leptos::prelude::*;
use vimana_model::migration::{CopyPhase, CopyProgress, MigrationResult, MigrationView};
use vimana_model::operation::OperationView;
use vimana_ui::{memo, part};

use crate::page::amount;

/// How it goes, and in the end what it took.
#[component]
pub fn MigrationLine(operation: Memo<Option<OperationView>>) -> impl IntoView {
    let migration =
        memo(move || operation.with(|now| now.as_ref().and_then(|now| now.migration.clone())));
    let said = move || {
        migration.with(|migration| {
            let MigrationView { copy, result, .. } = migration.as_ref()?;
            let copying = copy.map(copying);
            result.map(took).or(copying)
        })
    };
    part(move || said().map(|said| view! { <p class="faint">{said}</p> }))
}

/// "from host-a to host-b".
pub fn way(migration: &MigrationView) -> String {
    let MigrationView {
        from,
        to,
        datastore,
        ..
    } = migration;
    match (datastore, from) {
        (Some(datastore), _) => format!("to datastore {datastore}"),
        (None, Some(from)) => format!("from {} to {}", from.name, to.name),
        (None, None) => format!("from the datastore to {}", to.name),
    }
}

fn copying(copy: CopyProgress) -> String {
    let left = amount(copy.remaining_bytes);
    let fast = amount(copy.bytes_per_s);
    match copy.phase {
        CopyPhase::Disks => format!("The disk is copied: {left} left, {fast} a second."),
        CopyPhase::Switchover => "It stands still while the last of it is copied.".to_owned(),
        CopyPhase::Memory if copy.bytes_per_s > 0 && copy.dirty_bytes_per_s >= copy.bytes_per_s => {
            format!(
                "Its memory is copied: {left} left. The guest changes {} a second, which is more than the {fast} that are copied: it is slowed down until it gets through, or cancel it and try when it does less.",
                amount(copy.dirty_bytes_per_s)
            )
        }
        CopyPhase::Memory => format!(
            "Its memory is copied: {left} left, {fast} a second; the guest changes {} a second.",
            amount(copy.dirty_bytes_per_s)
        ),
    }
}

fn took(result: MigrationResult) -> String {
    let copied = format!(
        "{} copied in {:.1} s.",
        amount(result.transferred_bytes),
        seconds(result.total_ms),
    );
    match (result.blackout_ms, result.downtime_ms) {
        (Some(blackout), Some(downtime)) => format!(
            "{copied} It stood still for {blackout} ms, of which {downtime} ms by the hypervisor's count."
        ),
        (Some(blackout), None) => format!("{copied} It stood still for {blackout} ms."),
        (None, _) => copied,
    }
}

fn seconds(ms: u64) -> f64 {
    std::time::Duration::from_millis(ms).as_secs_f64()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_guest_that_is_faster_than_its_copy_is_told_of() {
        let mut copy = CopyProgress {
            phase: CopyPhase::Memory,
            remaining_bytes: 64 << 20,
            dirty_bytes_per_s: 10 << 20,
            bytes_per_s: 100 << 20,
            rounds: 2,
        };
        let fine = "Its memory is copied: 64 MiB left, 100 MiB a second; the guest changes 10 MiB a second.";
        assert_eq!(copying(copy), fine);
        copy.dirty_bytes_per_s = 200 << 20;
        let said = copying(copy);
        assert!(said.contains("more than the 100 MiB"), "{said}");
    }

    #[test]
    fn what_it_took_is_said_in_a_sentence() {
        let result = MigrationResult {
            total_ms: 1250,
            transferred_bytes: 80 << 20,
            downtime_ms: Some(20),
            blackout_ms: Some(31),
        };
        assert_eq!(
            took(result),
            "80 MiB copied in 1.2 s. It stood still for 31 ms, of which 20 ms by the hypervisor's count."
        );
    }
}
