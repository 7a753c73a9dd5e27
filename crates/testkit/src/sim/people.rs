//! People: what they ask, again and again until they have an answer, and what
//! they were promised.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use vimana_authz::Subject;
use vimana_engine::{Acted, ActionArgs, Engine, IdempotencyKey, OpContext};
use vimana_model::action::VmAction;
use vimana_model::evacuation::EvacuateHost;
use vimana_model::name::UserName;
use vimana_model::operation::Piece;
use vimana_model::request::{CreateRequest, RequestAction, RequestDecision};
use vimana_model::session::{Role, StaffRole};
use vimana_model::vm::{AcceptedView, CreateVm};
use vimana_model::volume::{CreateVolume, GrowVolume};
use vimana_model::{
    BackupId, Error, ErrorKind, HostId, OperationId, RequestId, Result, TenantId, UserId, VmId,
    VolumeId,
};
use vimana_store::Reader as Store;

use super::chance::Chance;
use super::journal::Journal;
use super::rights::Rights;
use super::server::Server;
use super::weather::{Weather, hop};

/// The tenant where people make VMs themselves, and the one where somebody
/// decides.
pub const AUTOMATIC: u8 = 1;
pub const MANUAL: u8 = 2;

/// What a person asks.
#[derive(Clone, Debug)]
pub enum Ask {
    Create(CreateVm),
    Act(VmId, VmAction, ActionArgs),
    Cancel(OperationId),
    Request(CreateRequest),
    Decide(RequestId, RequestAction, RequestDecision),
    MakeVolume(CreateVolume),
    GrowVolume(VolumeId, GrowVolume),
    DeleteVolume(VolumeId),
    DeleteBackup(BackupId),
    Host(HostId, Wanted),
}

/// What may be wanted of a host.
#[derive(Clone, Copy, Debug)]
pub enum Wanted {
    Cordoned,
    Evacuated(EvacuateHost),
    Enabled,
}

/// Who decides so about a request, and how they say it.
pub fn decision(
    request: RequestId,
    action: RequestAction,
    terms: Option<CreateVm>,
) -> (Person, Ask) {
    let manager = matches!(
        action,
        RequestAction::Approve
            | RequestAction::Reject
            | RequestAction::AskBack
            | RequestAction::ConfirmRelease
    );
    let form = RequestDecision {
        remark: action.needs_remark().then(|| "since it is so".to_owned()),
        terms,
        ..RequestDecision::default()
    };
    let who = if manager { MONA } else { RITA };
    (who, Ask::Decide(request, action, form))
}

/// What was promised.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Answer {
    pub vm: Option<VmId>,
    pub operation: Option<OperationId>,
    pub request: Option<RequestId>,
    pub volume: Option<VolumeId>,
    /// What of the VM the operation is about.
    pub piece: Option<Piece>,
}

/// An answer that somebody holds in their hands.
#[derive(Clone, Debug)]
pub struct Promise {
    pub key: String,
    pub who: Person,
    pub answer: Answer,
    /// It began the operation, rather than to speak of one.
    pub began: bool,
}

/// Everybody; clones are the same people.
#[derive(Clone)]
pub struct People {
    server: Server,
    chance: Chance,
    weather: Weather,
    journal: Journal,
    promises: Arc<Mutex<Vec<Promise>>>,
    rights: Rights,
    keys: Arc<AtomicU64>,
    home: Arc<AtomicBool>,
}

/// One person in one tenant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Person {
    pub number: u8,
    pub name: &'static str,
    pub tenant: u8,
    pub role: Role,
    pub staff: Option<StaffRole>,
}

pub const ADMIN: Person = Person {
    number: 1,
    name: "admin",
    tenant: AUTOMATIC,
    role: Role::Manager,
    staff: Some(StaffRole::Admin),
};
pub const RITA: Person = Person {
    number: 2,
    name: "rita",
    tenant: MANUAL,
    role: Role::Operator,
    staff: None,
};
/// In the tenant of the administrator's, without being staff.
pub const PAUL: Person = Person {
    number: 4,
    name: "paul",
    tenant: AUTOMATIC,
    role: Role::Operator,
    staff: None,
};
pub const MONA: Person = Person {
    number: 3,
    name: "mona",
    tenant: MANUAL,
    role: Role::Manager,
    staff: None,
};

impl Person {
    #[must_use]
    pub fn subject(&self) -> Subject {
        Subject {
            user_id: UserId::from_parts(u64::from(self.number), [self.number; 10]),
            user_name: UserName::new(self.name).unwrap(),
            staff: self.staff,
            tenant_id: tenant_id(self.tenant),
            role: self.role,
        }
    }
}

#[must_use]
pub fn tenant_id(number: u8) -> TenantId {
    TenantId::from_parts(u64::from(number), [number; 10])
}

impl People {
    #[must_use]
    pub fn new(server: Server, chance: Chance, weather: Weather, journal: Journal) -> Self {
        Self {
            server,
            chance,
            weather,
            journal,
            promises: Arc::default(),
            rights: Rights::default(),
            keys: Arc::default(),
            home: Arc::default(),
        }
    }

    /// Whoever waits for an answer still gets it; nobody asks anything new.
    pub fn go_home(&self) {
        self.home.store(true, Ordering::Relaxed);
    }

    #[must_use]
    pub fn are_home(&self) -> bool {
        self.home.load(Ordering::Relaxed)
    }

    #[must_use]
    pub fn promises(&self) -> Vec<Promise> {
        let promises = self.promises.lock();
        promises.unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Asks until there is an answer, under one key.
    ///
    /// # Errors
    /// The server's refusal.
    pub async fn ask(&self, who: Person, ask: Ask) -> Result<Answer> {
        let key = format!("key-{}", self.keys.fetch_add(1, Ordering::Relaxed));
        let first = self.ask_under(who, &ask, &key).await;
        if self.weather.now().slow && self.chance.one_in(6) {
            // The same call once more, as by a client that is not sure.
            let again = self.ask_under(who, &ask, &key).await;
            if let (Ok(first), Ok(again)) = (&first, &again)
                && first != again
            {
                let what = format!("{key} was answered {first:?}, then {again:?}");
                self.journal.breach(13, what);
            }
        }
        first
    }

    async fn ask_under(&self, who: Person, ask: &Ask, key: &str) -> Result<Answer> {
        let said = self.describe(ask);
        self.journal.say(who.name, format!("asks to {said}"));
        let key = IdempotencyKey {
            key: key.to_owned(),
            fingerprint: format!("{ask:?}"),
        };
        loop {
            match self.try_once(who, &key, ask).await {
                None => {
                    tokio::time::sleep(self.chance.ms(200..=1500)).await;
                }
                Some(Ok(answer)) => {
                    self.promised(who, ask, &key.key, &answer);
                    return Ok(answer);
                }
                Some(Err(error)) if passes(error.kind) => {
                    tokio::time::sleep(self.chance.ms(200..=1500)).await;
                }
                Some(Err(error)) => {
                    if error.kind == ErrorKind::Internal {
                        let what = format!("{said}: {:?}", error.source);
                        self.journal.breach(20, what);
                    }
                    self.journal.say(who.name, format!("is refused: {error}"));
                    self.journal.count("refusals", 1);
                    return Err(error);
                }
            }
        }
    }

    /// `None` where no answer came.
    async fn try_once(
        &self,
        who: Person,
        key: &IdempotencyKey,
        ask: &Ask,
    ) -> Option<Result<Answer>> {
        let sky = self.weather.now();
        if sky.slow {
            tokio::time::sleep(hop(&self.chance)).await;
        }
        // Who asks is known before all of it has arrived.
        let slowly = sky.slow && self.chance.one_in(5);
        let arrives = self.chance.ms(0..=if slowly { 4000 } else { 0 });
        let (key, ask) = (key.clone(), ask.clone());
        let called = self.server.call(|engine| async move {
            let subject = engine.subject_of_user(who.subject().user_id).await?;
            if !arrives.is_zero() {
                tokio::time::sleep(arrives).await;
            }
            let cx = OpContext::new(subject).with_idempotency(key);
            carry(engine, cx, ask).await
        });
        let answer = called.await;
        if sky.slow {
            tokio::time::sleep(hop(&self.chance)).await;
        }
        answer.filter(|_| !self.chance.one_in(sky.lost_answers))
    }

    fn promised(&self, who: Person, ask: &Ask, key: &str, answer: &Answer) {
        if let (Some(vm), Ask::Create(form)) = (answer.vm, ask) {
            self.journal.name(vm, &form.name);
        }
        if let (Some(vm), Ask::Decide(..)) = (answer.vm, ask) {
            self.journal.name(vm, &self.journal.name_of(vm));
        }
        self.hold(Promise {
            key: key.to_owned(),
            who,
            answer: answer.clone(),
            began: answer.operation.is_some() && !matches!(ask, Ask::Cancel(_)),
        });
    }

    /// Somebody holds this answer in their hands.
    pub fn hold(&self, promise: Promise) {
        let mut promises = self.promises.lock().unwrap_or_else(PoisonError::into_inner);
        if promises.iter().all(|known| known.key != promise.key) {
            let began = u64::from(promise.began);
            self.journal.count("operations", began);
            promises.push(promise);
        }
    }

    fn describe(&self, ask: &Ask) -> String {
        match ask {
            Ask::Create(form) => format!("create {} ({})", form.name, form.flavor),
            Ask::Act(vm, action, _) => format!("{action} {}", self.journal.name_of(*vm)),
            Ask::Cancel(operation) => format!("cancel {operation}"),
            Ask::Request(form) => format!("be given {}", form.terms.name),
            Ask::Decide(_, action, _) => format!("{action} a request"),
            Ask::MakeVolume(form) => format!("make volume {}", form.name),
            Ask::GrowVolume(volume, _) => format!("grow {volume}"),
            Ask::DeleteVolume(volume) => format!("delete {volume}"),
            Ask::DeleteBackup(backup) => format!("delete {backup}"),
            Ask::Host(host, Wanted::Cordoned) => format!("cordon {host}"),
            Ask::Host(host, Wanted::Evacuated(_)) => format!("evacuate {host}"),
            Ask::Host(host, Wanted::Enabled) => format!("enable {host}"),
        }
    }

    /// The operations that promises began, each with all its keys.
    #[must_use]
    pub fn begun(&self) -> BTreeMap<OperationId, Vec<String>> {
        let mut begun: BTreeMap<OperationId, Vec<String>> = BTreeMap::new();
        for promise in self.promises().into_iter().filter(|promise| promise.began) {
            if let Some(operation) = promise.answer.operation {
                begun.entry(operation).or_default().push(promise.key);
            }
        }
        begun
    }

    /// From now on this person may only look.
    pub async fn take_rights(&self, who: Person) {
        self.rights.take(&self.server, who).await;
        self.journal.say(who.name, "may only look from now on");
        self.journal.count("lost rights", 1);
    }

    /// From now on this person may do again what they could.
    pub async fn give_rights_back(&self, who: Person) {
        self.rights.give_back(&self.server, who).await;
        self.journal.say(who.name, "has the rights of before");
    }

    /// Nobody did anything without a right to.
    pub async fn check_rights(&self, store: &Store) {
        self.rights.check(store, &self.journal).await;
    }

    /// A pause between two things somebody does.
    pub async fn pause(&self, long: Duration) {
        tokio::time::sleep(long).await;
    }
}

fn of_volume(id: VolumeId) -> Answer {
    Answer {
        volume: Some(id),
        ..Answer::default()
    }
}

/// Another try may well be answered otherwise.
fn passes(kind: ErrorKind) -> bool {
    matches!(kind, ErrorKind::Unavailable | ErrorKind::RateLimited)
}

async fn carry(engine: Engine, cx: OpContext, ask: Ask) -> Result<Answer, Error> {
    let accepted = |accepted: AcceptedView| Answer {
        vm: Some(accepted.vm.id),
        operation: Some(accepted.operation.id),
        piece: accepted.operation.piece,
        ..Answer::default()
    };
    match ask {
        Ask::Create(form) => Ok(accepted(engine.create_vm(&cx, &form).await?)),
        Ask::Act(vm, action, args) => match engine.act_on_vm(&cx, vm, action, args).await? {
            Acted::Vm(view) => Ok(Answer {
                vm: Some(view.id),
                ..Answer::default()
            }),
            Acted::Accepted(view) => Ok(accepted(*view)),
        },
        Ask::Cancel(operation) => {
            let view = engine.cancel_operation(&cx, operation).await?;
            Ok(Answer {
                vm: view.object.vm(),
                operation: Some(view.id),
                piece: view.piece,
                ..Answer::default()
            })
        }
        Ask::Request(form) => {
            let view = engine.create_request(&cx, &form).await?;
            Ok(Answer {
                request: Some(view.id),
                ..Answer::default()
            })
        }
        Ask::Decide(request, action, form) => {
            let view = engine.act_on_request(&cx, request, action, &form).await?;
            Ok(Answer {
                vm: view.vm.map(|vm| vm.id),
                request: Some(view.id),
                ..Answer::default()
            })
        }
        Ask::MakeVolume(form) => {
            let view = engine.create_volume(&cx, &form).await?;
            Ok(of_volume(view.id))
        }
        Ask::GrowVolume(volume, form) => {
            let grown = engine.grow_volume(&cx, volume, form).await?;
            let operation = grown.operation;
            Ok(Answer {
                vm: operation.as_ref().and_then(|found| found.object.vm()),
                operation: operation.map(|found| found.id),
                ..of_volume(grown.volume.id)
            })
        }
        Ask::DeleteVolume(volume) => {
            let view = engine.delete_volume(&cx, volume).await?;
            Ok(of_volume(view.id))
        }
        Ask::DeleteBackup(backup) => {
            engine.delete_backup(&cx, backup).await?;
            Ok(Answer::default())
        }
        Ask::Host(host, wanted) => {
            match wanted {
                Wanted::Cordoned => engine.cordon_host(&cx, host).await?,
                Wanted::Evacuated(form) => engine.evacuate_host(&cx, host, &form).await?,
                Wanted::Enabled => engine.enable_host(&cx, host).await?,
            };
            Ok(Answer::default())
        }
    }
}
