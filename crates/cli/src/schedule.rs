//! What is made again and again, and where it is kept.

use vimana_model::datastore::DatastoreView;
use vimana_model::schedule::{self as model, ScheduleView};
use vimana_model::unit::MiB;

use crate::args::{Datastore, Json, RemoveSchedule, Schedule, ScheduleList, SetSchedule};
use crate::failure::Outcome;
use crate::image::stored;
use crate::vm::resolve;
use crate::{credentials, output};

pub async fn run(command: Schedule) -> Outcome {
    match command {
        Schedule::List(args) => list(args).await,
        Schedule::Set(args) => set(args).await,
        Schedule::Remove(args) => remove(args).await,
    }
}

async fn list(ScheduleList { vm, json }: ScheduleList) -> Outcome {
    let client = credentials::client()?;
    let schedules = client.schedules(resolve(&client, &vm).await?).await?;
    print(&schedules, json)
}

fn print(schedules: &[ScheduleView], Json { json }: Json) -> Outcome {
    if json {
        return output::json(&schedules);
    }
    let rows: Vec<_> = schedules
        .iter()
        .map(|schedule| {
            let datastore = schedule.datastore.as_ref();
            [
                schedule.kind.to_string(),
                interval(schedule.every_s),
                schedule.keep.to_string(),
                datastore.map_or_else(|| "-".to_owned(), ToString::to_string),
                output::time(schedule.next_at),
                schedule
                    .last_at
                    .map_or_else(|| "-".to_owned(), output::time),
                schedule.trouble.clone().unwrap_or_default(),
            ]
        })
        .collect();
    let titles = [
        "MAKES",
        "EVERY",
        "KEEPS",
        "DATASTORE",
        "NEXT",
        "LAST",
        "TROUBLE",
    ];
    output::table(titles, &rows, "no schedules")
}

fn interval(seconds: u64) -> String {
    let units = [(86_400, 'd'), (3600, 'h'), (60, 'm')];
    let fits = units
        .into_iter()
        .find(|(length, _)| seconds.is_multiple_of(*length));
    match fits {
        Some((length, unit)) => format!("{}{unit}", seconds / length),
        None => format!("{seconds}s"),
    }
}

async fn set(args: SetSchedule) -> Outcome {
    let SetSchedule {
        vm,
        kind,
        every,
        keep,
        full_every,
        datastore,
        json,
    } = args;
    let client = credentials::client()?;
    let vm = resolve(&client, &vm).await?;
    let form = model::SetSchedule {
        every_s: every,
        keep,
        full_every,
        datastore,
    };
    let set = client.set_schedule(vm, kind, &form).await?;
    if json.json {
        return output::json(&set);
    }
    print(&[set], json)
}

async fn remove(RemoveSchedule { vm, kind }: RemoveSchedule) -> Outcome {
    let client = credentials::client()?;
    let id = resolve(&client, &vm).await?;
    client.remove_schedule(id, kind).await?;
    output::line(&format!("no {kind} of {vm} is made by itself any more"))
}

pub async fn datastores(Datastore::List(json): Datastore) -> Outcome {
    let datastores = credentials::client()?.datastores().await?;
    if json.json {
        return output::json(&datastores);
    }
    let rows: Vec<_> = datastores.iter().map(row).collect();
    let titles = [
        "NAME",
        "STATE",
        "BACKUPS",
        "IMAGES",
        "STOPPED",
        "BACKED UP",
        "FREE",
    ];
    output::table(titles, &rows, "no datastores")
}

fn row(datastore: &DatastoreView) -> [String; 7] {
    let used = datastore.used;
    let free = datastore.room.as_ref().map(|room| {
        let (free, all) = (room.free_bytes, room.capacity_bytes);
        format!("{} of {}", MiB::from_bytes(free), MiB::from_bytes(all))
    });
    [
        datastore.name.to_string(),
        datastore.state.name().to_lowercase(),
        if datastore.takes_backups { "yes" } else { "no" }.to_owned(),
        stored(used.image_bytes),
        stored(used.saved_bytes),
        stored(used.backup_bytes),
        free.unwrap_or_else(|| "-".to_owned()),
    ]
}
