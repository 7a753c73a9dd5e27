//! What the store promises, kept on SQLite, on PostgreSQL and in simulation
//! by the same cases: `cargo test -p vimana-store --test suite`, or `cargo nextest run`.
//!
//! Each case has a database of its own. PostgreSQL is started by the suite, in
//! a temporary directory on loopback, and is never skipped: where it is
//! missing, its cases fail and say what to install.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test that cannot go on fails"
)]

mod suite {
    pub mod backups;
    pub mod catalogue;
    pub mod claims;
    pub mod company;
    pub mod disks;
    pub mod enrolment;
    pub mod evacuations;
    pub mod events;
    pub mod full;
    pub mod groups;
    pub mod opening;
    pub mod people;
    pub mod postgres;
    pub mod quotas;
    pub mod simulated;
    pub mod survey;
    pub mod transactions;
    pub mod vms;
    pub mod world;
}

use libtest_mimic::{Arguments, Trial};
use suite::postgres::Server;
use suite::world::{Backend, World};
use suite::{
    backups, catalogue, claims, company, disks, enrolment, evacuations, events, full, groups,
    opening, people, quotas, simulated, survey, transactions, vms,
};
use tokio::runtime::Builder;

/// Turns async functions into one case per backend, named after them.
macro_rules! cases {
    ($on:ident: $($module:ident :: { $($case:ident),+ $(,)? })+) => {
        fn $on(trials: &mut Vec<Trial>, backend: Backend) {
            $($(
                let name = concat!(stringify!($module), "::", stringify!($case));
                trials.push(trial(backend, name, $module::$case));
            )+)+
        }
    };
}

cases! { everywhere:
    people::{
        names_of_tenants_and_users_are_unique,
        duplicate_leaves_the_transaction_usable,
        user_survives_with_all_columns_and_takes_a_new_password,
        memberships_are_those_of_the_user,
        standing_is_kept_until_the_transaction_ends,
        token_is_found_by_its_hash_until_it_is_deleted,
        expired_tokens_are_swept_away,
        expired_session_is_not_found,
        nothing_lives_longer_for_a_clock_that_was_set_back,
        session_update_never_inserts,
    }
    catalogue::{
        flavors_are_listed_by_memory_then_vcpus_then_name,
        a_flavor_changes_and_goes,
        templates_survive_with_all_columns,
        template_names_are_taken_by_tenant_and_freed,
        images_survive_with_all_columns,
        images_are_due_for_their_refresh,
        image_names_are_taken_by_tenant_and_freed,
        what_is_made_from_an_image_is_counted,
        hosts_are_listed_by_name_with_all_columns,
        host_facts_leave_the_claims_alone,
        restart_disconnects_those_that_were_connected,
        operations_survive_with_their_steps,
    }
    claims::{
        a_disk_in_a_datastore_is_claimed_there_and_the_rest_of_the_host,
        a_disk_that_both_hosts_reach_goes_over_with_the_commit,
        last_slot_goes_to_one_of_twenty,
        claim_that_does_not_fit_changes_nothing,
        claim_as_large_as_numbers_go_finds_no_room,
        second_claim_of_a_vm_is_refused_and_rolls_back,
        giving_back_twice_gives_back_once,
        a_claim_that_changes_twice_changes_once,
        twenty_givers_of_one_claim_give_back_once,
        sums_are_right_after_a_storm,
    }
    backups::{
        backups_survive_and_know_who_needs_them,
        one_alone_takes_on_what_is_due,
    }
    evacuations::{
        what_is_wanted_of_a_host_is_written_by_itself,
        migrations_since_a_time_are_found_and_nothing_else,
    }
    disks::{
        volumes_survive_with_all_columns,
        a_datastore_of_a_host_never_holds_more_than_it_has,
        hosts_that_share_a_datastore_share_its_room,
        volume_names_are_taken_by_tenant_and_freed,
        one_of_twenty_gets_a_volume,
        disk_of_a_host_is_claimed_to_its_last_mib,
        an_image_is_waited_for_until_the_volume_is_made,
        snapshots_survive_and_hand_on_their_parents,
    }
    quotas::{
        ones_own_limits_take_the_place_of_the_defaults,
        usage_is_the_sum_over_what_there_is,
        ten_of_fifty_at_once_get_one_each,
        what_a_vm_counts_survives,
    }
    enrolment::{
        join_token_survives_with_all_columns,
        join_token_is_spent_by_one_of_twenty,
        expired_join_token_is_not_spent_and_is_swept_away,
        join_token_of_the_future_counts_from_now_on,
        host_facts_leave_what_it_proves_itself_with_alone,
        sessions_are_numbered_and_a_copy_is_told_apart,
        one_of_twenty_copies_gets_the_session,
        revoked_host_is_offered_no_session_until_it_joins_anew,
    }
    vms::{
        vm_survives_with_all_columns,
        stale_generation_conflicts,
        live_name_is_unique_in_its_tenant_and_free_when_done,
        list_filters_and_begins_with_the_newest,
        many_ids_are_found_at_once,
        pending_and_on_host_begin_with_the_oldest,
        locked_changes_are_all_kept,
        unlocked_changes_are_all_kept_by_retrying,
    }
    events::{
        sequence_has_no_gaps_under_writers_and_rollbacks,
        reader_never_sees_a_gap,
        appending_nothing_takes_no_number,
        many_events_at_once_keep_their_order,
        timeline_of_a_vm_is_its_latest_oldest_first,
    }
    transactions::{
        uncommitted_is_invisible_to_readers,
        dropped_transaction_leaves_nothing_and_the_next_works,
        cancelled_write_leaves_all_or_nothing,
        failed_body_leaves_nothing,
        conflict_is_tried_again_and_at_last_told_as_busy,
        refusal_of_the_engine_is_not_tried_again,
        reading_inside_a_transaction_does_not_hang,
    }
    groups::{
        who_fails_panics_or_goes_away_goes_alone,
        failed_statement_leaves_nothing_else_to_do,
    }
    opening::{
        reopening_keeps_what_was_written,
        corrupt_rows_are_told_and_name_no_value,
        refused_row_is_told_without_its_values,
    }
    survey::{
        a_row_that_makes_no_sense_hides_no_other,
        corrupt_row_keeps_no_value,
        long_tables_are_read_to_their_end,
    }
}

// What has an address, and others beside the store.
cases! { on_databases:
    transactions::{
        sixty_four_writers_beside_a_long_reader_and_checkpoints_all_pass,
    }
    opening::{
        eight_openers_migrate_at_once,
        newer_schema_is_refused,
        strange_address_is_refused_without_repeating_it,
    }
    company::{
        tool_reads_and_writes_beside_the_server,
        tool_makes_no_tables,
    }
    survey::{
        a_snapshot_sees_one_moment,
    }
}

cases! { on_sqlite:
    company::{
        second_store_on_a_file_is_refused,
        second_process_is_refused_until_the_first_dies,
        tool_makes_no_file,
    }
    survey::{
        a_column_of_another_type_hides_no_other_row,
        every_table_is_surveyed,
    }
}

cases! { on_files:
    full::{
        full_disk_is_told_and_the_store_goes_on_when_there_is_room,
        who_needs_too_much_room_takes_nobody_with_him,
    }
}

cases! { in_simulation:
    simulated::{
        writing_takes_no_virtual_time,
        busy_task_lets_others_run,
        crash_at_any_call_leaves_what_was_committed,
        the_same_run_twice_is_the_same,
        refusal_of_the_disk_is_the_stores_error,
        who_was_there_before_is_cut_off,
    }
    groups::{
        failed_statement_cannot_be_committed,
        many_writers_share_a_commit,
        failed_commit_acknowledges_nobody,
        commit_that_was_busy_is_tried_again_by_all,
        refusal_is_told_when_its_grounds_are_durable,
    }
}

fn trials() -> Vec<Trial> {
    let mut trials = Vec::new();
    for backend in [Backend::Sqlite, Backend::Postgres, Backend::Simulated] {
        everywhere(&mut trials, backend);
        match backend {
            Backend::Sqlite => {
                on_databases(&mut trials, backend);
                on_sqlite(&mut trials, backend);
                on_files(&mut trials, backend);
            }
            Backend::Postgres => on_databases(&mut trials, backend),
            Backend::Simulated => {
                in_simulation(&mut trials, backend);
                on_files(&mut trials, backend);
            }
        }
    }
    trials
}

fn trial<F>(backend: Backend, name: &str, case: fn(World) -> F) -> Trial
where
    F: Future<Output = ()> + Send + 'static,
{
    Trial::test(format!("{}::{name}", backend.name()), move || {
        let mut runtime = match backend {
            Backend::Sqlite | Backend::Postgres => Builder::new_multi_thread(),
            Backend::Simulated => Builder::new_current_thread(),
        };
        if backend == Backend::Simulated {
            runtime.start_paused(true);
        }
        let runtime = runtime.worker_threads(2).enable_all().build()?;
        runtime.block_on(async {
            let world = World::new(backend).await?;
            // In a task of its own, as the engine runs it.
            tokio::spawn(case(world)).await?;
            Ok(())
        })
    })
}

fn main() {
    if company::is_other_process() {
        return;
    }
    let conclusion = libtest_mimic::run(&Arguments::from_args(), trials());
    // Before the exit, which runs no destructors.
    Server::stop();
    conclusion.exit();
}
