//! Golden scenarios: a short list of commands, and below it the log that a
//! person may expect of them.
//!
//! One command a line; `#` begins a remark. `expect` waits until the VM is in
//! the state and nothing is in flight for it.

use std::fmt::Write as _;
use std::sync::Arc;
use std::time::Duration;

use vimana_driver::{Fault, FaultKind, HostDriver as _, ImageRef, IncarnationSpec, Seed};
use vimana_driver_sim::{Call, SimDriver};
use vimana_engine::ActionArgs;
use vimana_model::action::VmAction;
use vimana_model::evacuation::EvacuateHost;
use vimana_model::image::ImageFormat;
use vimana_model::name::DatastoreName;
use vimana_model::operation::OperationState;
use vimana_model::request::{CreateRequest, RequestAction};
use vimana_model::unit::{MiB, Resources};
use vimana_model::vm::{CreateVm, PowerOffVm, ResizeVm};
use vimana_model::{HostId, ImageId, RequestId, VmId};
use vimana_store::request::RequestFilter;
use vimana_store::vm::VmRecord;
use vimana_store::{operation, orphan, request, vm};

use super::net::Way;
use super::people::{ADMIN, Answer, Ask, MONA, Person, RITA, Wanted, decision};
use super::run::in_time;
use super::setup::USER_DATA;
use super::{Host, World};

/// How long a state may let itself be waited for.
const PATIENCE: Duration = Duration::from_secs(1200);

/// The log of a scenario's commands, and what broke.
///
/// # Errors
/// The command that makes no sense, or was in vain; the log so far.
pub fn play(commands: &str) -> Result<String, String> {
    in_time(async {
        let mut world = World::new(1).await;
        world.add_scheduler();
        world.add_reader(ADMIN);
        world.add_reader(MONA);
        let mut ended = Ok(());
        for line in commands.lines() {
            let command = line.split('#').next().unwrap_or_default().trim();
            if command.is_empty() {
                continue;
            }
            world.journal.say(">", command);
            if let Err(why) = perform(&mut world, command).await {
                ended = Err(format!("`{command}`: {why}"));
                break;
            }
        }
        let log = log(&world);
        match (ended, world.journal.breaches()) {
            (Ok(()), breaches) if breaches.is_empty() => Ok(log),
            (Ok(()), breaches) => Err(format!("{}\n{log}", breaches.join("\n"))),
            (Err(why), _) => Err(format!("{why}\n{log}")),
        }
    })
}

/// What people asked, what was done to the parts, and what happened.
fn log(world: &World) -> String {
    let mut log = String::new();
    for line in world.journal.lines() {
        let who = line.split_whitespace().nth(1).unwrap_or_default();
        let told = matches!(who, ">" | "event" | "server") || who.starts_with("host-");
        if told {
            // Writing to a string cannot fail.
            let _ = writeln!(log, "{}", line.trim_end());
        }
    }
    log
}

async fn perform(world: &mut World, command: &str) -> Result<(), String> {
    let words: Vec<&str> = command.split_whitespace().collect();
    match words.as_slice() {
        ["start", "server"] => {
            world.server.start();
            world.server.until_serving().await;
            world.schedulers.iter().for_each(super::Scheduler::start);
            Ok(())
        }
        ["crash", "server"] => {
            world.server.crash("by hand");
            Ok(())
        }
        ["host"] => {
            let host = world.add_host();
            host.start_agent();
            let id = host.id;
            connected(world, id).await
        }
        ["wait", seconds] => {
            tokio::time::sleep(duration(seconds)?).await;
            Ok(())
        }
        ["datastore", how @ ("fails" | "works")] => {
            let mut sky = world.weather.now();
            sky.bad_datastore = u32::from(*how == "fails");
            world.weather.set(sky);
            Ok(())
        }
        ["disk", "full", seconds] => {
            let until = tokio::time::Instant::now() + duration(seconds)?;
            world.weather.fill_disk(until);
            Ok(())
        }
        ["clock", by] => {
            let days = by.strip_suffix('d').and_then(|n| n.parse::<i64>().ok());
            let hours = by.strip_suffix('h').and_then(|n| n.parse::<i64>().ok());
            let hours = days.map(|days| days * 24).or(hours);
            world.clock.step(hours.ok_or("days or hours")? * 3_600_000);
            Ok(())
        }
        ["check"] => {
            world.come_to_rest().await;
            world.check_rest().await;
            Ok(())
        }
        ["sweep"] => {
            world.come_to_rest().await;
            world.sweep_up().await;
            world.check_rest().await;
            world.check_nothing_left().await;
            world.check_readers().await;
            Ok(())
        }
        ["expect", name, state] => expect(world, name, state).await,
        [host, rest @ ..] if host.starts_with("host-") => on_host(world, host, rest).await,
        _ => ask(world, &words).await,
    }
}

async fn connected(world: &World, id: HostId) -> Result<(), String> {
    let there = world.until(PATIENCE, async |store| {
        let found = vimana_store::host::find(&store, id).await.unwrap();
        found.is_some_and(|host| host.connected)
    });
    if there.await {
        // Its inventory, and the reader, take a moment.
        tokio::time::sleep(Duration::from_millis(100)).await;
        Ok(())
    } else {
        Err("a host does not connect".to_owned())
    }
}

async fn expect(world: &World, name: &str, state: &str) -> Result<(), String> {
    let wanted = |vm: &VmRecord| vm.name.as_str() == name && vm.state.slug() == state;
    let there = world.until(PATIENCE, async |store| {
        let vms = super::all(&store).await;
        let Some(vm) = vms.values().rfind(|vm| wanted(vm)) else {
            return false;
        };
        // A VM that waits has its creation in flight.
        let waits = matches!(state, "pending" | "hold" | "unknown");
        let running = operation::running(&store).await.unwrap();
        waits || running.iter().all(|op| op.object.vm() != Some(vm.id))
    });
    if there.await {
        tokio::time::sleep(Duration::from_millis(50)).await;
        return Ok(());
    }
    let id = world.vm_named(name).await;
    let read = world.server.until_serving().await.store().read();
    let found = vm::find(&read, id).await.map_err(|e| e.to_string())?;
    Err(format!("it is {:?}", found.map(|vm| vm.state)))
}

async fn on_host(world: &mut World, name: &str, command: &[&str]) -> Result<(), String> {
    let host = world.hosts.iter().find(|host| host.name == name);
    let host = host.ok_or("there is no such host")?;
    match command {
        ["agent", "killed"] => host.kill_agent(),
        ["agent", "started"] => {
            host.start_agent();
            connected(world, host.id).await?;
        }
        ["loses", "power"] => host.lose_power(0),
        ["fails", call, times] => {
            let fault = Fault::new(FaultKind::Host, "the simulated host has a bad moment");
            for _ in 0..times.parse::<u32>().map_err(|e| e.to_string())? {
                host.sim.fail_next(call_named(call)?, fault.clone());
            }
        }
        ["takes", seconds, "for", call] => {
            host.sim.delay(call_named(call)?, duration(seconds)?);
        }
        ["silent", seconds] => {
            for way in [Way::ToServer, Way::ToAgent] {
                world.net.stall(name, way, duration(seconds)?);
            }
        }
        ["guest-off", vm] => {
            host.sim.guest_power_off(world.vm_named(vm).await);
        }
        ["machine-dies", vm] => {
            let reason = "the process was killed by signal 9";
            host.sim.crash(world.vm_named(vm).await, reason);
        }
        ["holds", "stranger"] => {
            let known = stranger(host).await?;
            world.strangers.push(known);
        }
        ["discards", "stranger"] => discard(world, host).await?,
        ["cordon"] => want(world, host, Wanted::Cordoned).await?,
        ["enable"] => want(world, host, Wanted::Enabled).await?,
        ["evacuate"] => want(world, host, Wanted::Evacuated(EvacuateHost::default())).await?,
        ["becomes", state] => becomes(world, host, state).await?,
        _ => return Err("nobody knows how".to_owned()),
    }
    Ok(())
}

async fn want(world: &World, host: &Host, wanted: Wanted) -> Result<(), String> {
    let asked = world.people.ask(ADMIN, Ask::Host(host.id, wanted)).await;
    asked.map(drop).map_err(|error| error.public)
}

async fn becomes(world: &World, host: &Host, state: &str) -> Result<(), String> {
    let there = world.until(PATIENCE, async |store| {
        let found = vimana_store::host::find(&store, host.id).await.unwrap();
        found.is_some_and(|found| found.state.slug() == state)
    });
    if !there.await {
        return Err(format!("it does not become {state}"));
    }
    tokio::time::sleep(Duration::from_millis(50)).await;
    Ok(())
}

/// A machine that no server ever heard of.
async fn stranger(host: &Host) -> Result<VmId, String> {
    let driver = SimDriver::new(Arc::clone(&host.sim));
    let resources = Resources {
        vcpus: 1,
        memory_mib: MiB(128),
        disk_mib: MiB(1024),
    };
    let spec = IncarnationSpec {
        vm_id: VmId::from_parts(1, [9; 10]),
        run_epoch: 1,
        resources,
        datastore: DatastoreName::local(),
        image: ImageRef {
            id: ImageId::from_parts(1, [0; 10]),
            format: ImageFormat::Qcow2,
            size_bytes: 512,
            sha256: "0".repeat(64),
        },
        seed: Seed {
            host_name: "stranger".to_owned(),
            ssh_key: None,
            user_data: None,
        },
    };
    let failed = |fault: Fault| fault.message;
    let image = std::path::Path::new("/simulated/image");
    driver.prepare(&spec, image).await.map_err(failed)?;
    let booted = driver.boot(spec.vm_id, 1, &resources).await;
    booted.map_err(failed).map(|()| spec.vm_id)
}

async fn discard(world: &World, host: &Host) -> Result<(), String> {
    let engine = world.server.until_serving().await;
    let cx = vimana_engine::OpContext::new(ADMIN.subject());
    let held = orphan::on_host(&engine.store().read(), host.id).await;
    for orphan in held.map_err(|e| e.to_string())? {
        let discarded = engine.discard_orphan(&cx, host.id, orphan.vm_id).await;
        discarded.map_err(|e| e.public)?;
    }
    tokio::time::sleep(Duration::from_secs(1)).await;
    Ok(())
}

async fn ask(world: &World, words: &[&str]) -> Result<(), String> {
    let (who, asked) = match words {
        ["create", name] => (ADMIN, Ask::Create(form(name, "tiny"))),
        ["create", name, flavor] => (ADMIN, Ask::Create(form(name, flavor))),
        ["request", name] => {
            let terms = form(name, "tiny");
            let purpose = "an experiment".to_owned();
            (RITA, Ask::Request(CreateRequest { terms, purpose }))
        }
        ["cancel", name] => (ADMIN, Ask::Cancel(in_flight(world, name).await?)),
        ["refused", rest @ ..] => {
            return match Box::pin(ask(world, rest)).await {
                Ok(()) => Err("it was accepted".to_owned()),
                Err(_) => Ok(()),
            };
        }
        [word, name, rest @ ..] => match request_action(word) {
            Some(action) => decide(world, action, name, rest).await?,
            None => act(world, word, name, rest).await?,
        },
        _ => return Err("nobody knows how".to_owned()),
    };
    let answered: Result<Answer, _> = world.people.ask(who, asked).await;
    answered.map(drop).map_err(|error| error.public)
}

async fn act(
    world: &World,
    word: &str,
    name: &str,
    rest: &[&str],
) -> Result<(Person, Ask), String> {
    let action = VmAction::ALL
        .into_iter()
        .find(|action| action.name() == word);
    let action = action.ok_or("nobody knows how")?;
    let args = match (action, rest) {
        (VmAction::PowerOff, ["force"]) => ActionArgs::PowerOff(PowerOffVm { force: true }),
        (VmAction::Resize, [flavor]) => ActionArgs::Resize(ResizeVm {
            flavor: Some((*flavor).to_owned()),
            ..ResizeVm::default()
        }),
        (_, []) => ActionArgs::None,
        _ => return Err("nobody knows how".to_owned()),
    };
    // In the lab it is hers.
    let who = if name.starts_with("lab") { RITA } else { ADMIN };
    Ok((who, Ask::Act(world.vm_named(name).await, action, args)))
}

async fn decide(
    world: &World,
    action: RequestAction,
    name: &str,
    rest: &[&str],
) -> Result<(Person, Ask), String> {
    let terms = match rest {
        ["as", flavor] => Some(form(name, flavor)),
        _ => None,
    };
    Ok(decision(requested(world, name).await?, action, terms))
}

fn request_action(word: &str) -> Option<RequestAction> {
    let all = RequestAction::ALL.into_iter();
    all.into_iter().find(|action| action.name() == word)
}

async fn requested(world: &World, name: &str) -> Result<RequestId, String> {
    let read = world.server.until_serving().await.store().read();
    let filter = RequestFilter {
        limit: 100,
        ..RequestFilter::default()
    };
    let all = request::list(&read, &filter)
        .await
        .map_err(|e| e.to_string())?;
    let found = all.into_iter().find(|request| request.terms.name == name);
    Ok(found.ok_or("there is no such request")?.id)
}

async fn in_flight(world: &World, name: &str) -> Result<vimana_model::OperationId, String> {
    let id = world.vm_named(name).await;
    let read = world.server.until_serving().await.store().read();
    let all = operation::for_vm(&read, id)
        .await
        .map_err(|e| e.to_string())?;
    let running = all
        .into_iter()
        .find(|op| op.state == OperationState::Running);
    Ok(running.ok_or("nothing is in flight")?.id)
}

fn form(name: &str, flavor: &str) -> CreateVm {
    CreateVm {
        name: name.to_owned(),
        image: "demo".to_owned(),
        flavor: flavor.to_owned(),
        user_data: Some(USER_DATA.to_owned()),
        ..CreateVm::default()
    }
}

fn duration(seconds: &str) -> Result<Duration, String> {
    seconds
        .parse()
        .map(Duration::from_secs_f64)
        .map_err(|_| "seconds".to_owned())
}

fn call_named(name: &str) -> Result<Call, String> {
    Ok(match name {
        "prepare" => Call::Prepare,
        "boot" => Call::Boot,
        "shutdown" => Call::Shutdown,
        "kill" => Call::Kill,
        "save" => Call::Save,
        "load" => Call::Load,
        "export" => Call::Export,
        "import" => Call::Import,
        "reboot" => Call::Reboot,
        "reset" => Call::Reset,
        "resize" => Call::Resize,
        "clean" => Call::Clean,
        "receive" => Call::Receive,
        "send" => Call::Send,
        _ => return Err("there is no such call".to_owned()),
    })
}
