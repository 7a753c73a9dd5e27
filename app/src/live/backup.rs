use vimana_model::event::EventKind;
use vimana_model::operation::OperationKind;

/// Whether backups or schedules may be others after it.
pub fn tells(event: &EventKind) -> bool {
    if let EventKind::Requested { operation }
    | EventKind::OperationFailed { operation, .. }
    | EventKind::Cancelled { operation } = event
    {
        return *operation == OperationKind::Backup;
    }
    // A note may be about a schedule.
    matches!(
        event,
        EventKind::BackedUp { .. } | EventKind::BackupDeleted { .. } | EventKind::Note { .. }
    )
}
