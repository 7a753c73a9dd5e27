//! The walls between tenants: who asks for what is another tenant's gets the
//! answer of what never was, word for word, and for the same work.

use std::fmt::Debug;

use futures::future::BoxFuture;
use vimana_engine::{ActionArgs, Engine, OpContext, RequestQuery, VmQuery};
use vimana_model::action::VmAction;
use vimana_model::request::{RequestAction, RequestDecision};
use vimana_model::unit::MiB;
use vimana_model::volume::GrowVolume;
use vimana_model::{OperationId, RequestId, Result, VmId, VolumeId};
use vimana_store::request::{self, RequestFilter, RequestRecord};
use vimana_store::simulation::DiskCall;
use vimana_store::vm::VmRecord;
use vimana_store::{operation, volume};

use super::people::{AUTOMATIC, Person, tenant_id};
use super::{World, all};

/// How many things of another tenant's somebody tries to get at.
const TRIED: usize = 6;
/// Of the ids of what never was.
const NEVER: [u8; 10] = [0xEE; 10];

/// Something that can be asked, and its answer.
type Question<'a> = (&'static str, BoxFuture<'a, Result<String>>);
type Answers = Vec<(&'static str, String)>;

/// Who asks whom.
struct Asker<'a> {
    who: Person,
    cx: &'a OpContext,
    engine: &'a Engine,
}

impl World {
    /// What this person is told of others' things.
    ///
    /// # Panics
    /// No server serves.
    pub async fn check_wall(&self, who: Person) {
        let engine = self.server.until_serving().await;
        let cx = OpContext::new(who.subject());
        let asker = Asker {
            who,
            cx: &cx,
            engine: &engine,
        };
        let vms = all(&engine.store().read()).await;
        let theirs = |vm: &&&VmRecord| vm.tenant_id != tenant_id(who.tenant);
        let theirs: Vec<_> = vms.values().rev().filter(|vm| theirs(&vm)).collect();
        self.check_things(&asker, &theirs).await;
        self.check_volumes(&asker).await;
        self.check_requests(&asker).await;
        let listed = engine.vms(&cx, &VmQuery::default()).await.unwrap();
        for vm in &theirs {
            if listed.iter().any(|listed| listed.id == vm.id) {
                let what = format!("{} finds {} in the list", who.name, vm.name);
                self.journal.breach(6, what);
            }
        }
    }

    async fn check_things(&self, asker: &Asker<'_>, theirs: &[&VmRecord]) {
        let (cx, read) = (asker.cx, asker.engine.store().read());
        let never = (
            VmId::from_parts(1, NEVER),
            OperationId::from_parts(1, NEVER),
        );
        let no_vm = asker.of_vm(never.0);
        let no_vm = self.answers(&never.0.to_string(), no_vm).await;
        let no_operation = asker.of_operation(never.1);
        let no_operation = self.answers(&never.1.to_string(), no_operation).await;
        for vm in theirs.iter().take(TRIED) {
            let told = self.answers(&vm.id.to_string(), asker.of_vm(vm.id)).await;
            self.compare(asker, told, &no_vm);
            for found in operation::for_vm(&read, vm.id)
                .await
                .unwrap()
                .iter()
                .take(2)
            {
                let questions = asker.of_operation(found.id);
                let told = self.answers(&found.id.to_string(), questions).await;
                self.compare(asker, told, &no_operation);
            }
            let query = VmQuery {
                name: Some(vm.name.to_string()),
                ..VmQuery::default()
            };
            let found = asker.engine.vms(cx, &query).await.unwrap();
            if found.iter().any(|found| found.id == vm.id) {
                let what = format!("{} finds {} by its name", asker.who.name, vm.name);
                self.journal.breach(6, what);
            }
        }
    }

    /// The volumes of the tenant that has some.
    async fn check_volumes(&self, asker: &Asker<'_>) {
        let read = asker.engine.store().read();
        let whose = tenant_id(AUTOMATIC);
        if whose == tenant_id(asker.who.tenant) {
            return;
        }
        let never = VolumeId::from_parts(1, NEVER);
        let no_volume = asker.of_volume(never);
        let no_volume = self.answers(&never.to_string(), no_volume).await;
        let theirs = volume::list(&read, whose).await.unwrap();
        for volume in theirs.iter().take(TRIED) {
            let questions = asker.of_volume(volume.id);
            let told = self.answers(&volume.id.to_string(), questions).await;
            self.compare(asker, told, &no_volume);
        }
        let listed = asker.engine.volumes(asker.cx).await.unwrap();
        for listed in listed {
            if theirs.iter().any(|volume| volume.id == listed.id) {
                let what = format!("{} finds {} in the list", asker.who.name, listed.name);
                self.journal.breach(6, what);
            }
        }
    }

    async fn check_requests(&self, asker: &Asker<'_>) {
        let filter = RequestFilter {
            limit: u32::MAX,
            ..RequestFilter::default()
        };
        let found = request::list(&asker.engine.store().read(), &filter).await;
        let found = found.unwrap();
        let theirs = |found: &&RequestRecord| found.tenant_id != tenant_id(asker.who.tenant);
        let theirs: Vec<_> = found.iter().filter(theirs).collect();
        let never = RequestId::from_parts(1, NEVER);
        let no_request = asker.of_request(never);
        let no_request = self.answers(&never.to_string(), no_request).await;
        for request in theirs.iter().take(TRIED) {
            let questions = asker.of_request(request.id);
            let told = self.answers(&request.id.to_string(), questions).await;
            self.compare(asker, told, &no_request);
        }
        let query = RequestQuery::default();
        let listed = asker.engine.requests(asker.cx, &query).await;
        for listed in listed.unwrap() {
            if theirs.iter().any(|request| request.id == listed.id) {
                let what = format!("{} finds {} in the list", asker.who.name, listed.id);
                self.journal.breach(6, what);
            }
        }
    }

    /// The answers without the name of what was asked for, and what each took:
    /// how long it takes shall tell nothing either.
    async fn answers(&self, name: &str, questions: Vec<Question<'_>>) -> Answers {
        let begun = || self.server.calls_of(DiskCall::Begin);
        let mut answers = Vec::new();
        for (what, asked) in questions {
            let before = begun();
            let answer = match asked.await {
                Ok(answer) => answer,
                Err(error) => format!("{:?} {} {:?}", error.kind, error.public, error.fields),
            };
            let took = begun() - before;
            let answer = answer.replace(name, "it");
            answers.push((what, format!("`{answer}` in {took} transactions")));
        }
        answers
    }

    fn compare(&self, asker: &Asker<'_>, told: Answers, nothing: &Answers) {
        for ((what, told), (_, of_nothing)) in told.into_iter().zip(nothing) {
            if told != *of_nothing {
                let what = format!(
                    "{} asks another tenant for {what} and is told {told}, of what never was {of_nothing}",
                    asker.who.name
                );
                self.journal.breach(6, what);
            }
        }
    }
}

impl<'a> Asker<'a> {
    fn of_vm(&self, id: VmId) -> Vec<Question<'a>> {
        let (engine, cx) = (self.engine, self.cx);
        let act = |action| shown(engine.act_on_vm(cx, id, action, ActionArgs::None));
        // The ticket itself is a secret.
        let ticket = async move { Ok(engine.console_ticket(cx, id).await?.vm_id) };
        vec![
            ("a VM", shown(engine.vm(cx, id))),
            ("its timeline", shown(engine.vm_timeline(cx, id))),
            ("its operations", shown(engine.vm_operations(cx, id))),
            ("its snapshots", shown(engine.vm_snapshots(cx, id))),
            ("its console", shown(ticket)),
            ("its deletion", act(VmAction::Delete)),
            ("its suspension", act(VmAction::Suspend)),
        ]
    }

    fn of_operation(&self, id: OperationId) -> Vec<Question<'a>> {
        let (engine, cx) = (self.engine, self.cx);
        vec![
            ("an operation", shown(engine.operation(cx, id))),
            ("its end", shown(engine.cancel_operation(cx, id))),
        ]
    }

    fn of_volume(&self, id: VolumeId) -> Vec<Question<'a>> {
        let (engine, cx) = (self.engine, self.cx);
        let larger = GrowVolume {
            size_mib: MiB(1 << 10),
        };
        vec![
            ("a volume", shown(engine.volume(cx, id))),
            ("its timeline", shown(engine.volume_timeline(cx, id))),
            ("its release", shown(engine.detach_volume(cx, id))),
            ("its growth", shown(engine.grow_volume(cx, id, larger))),
            ("its deletion", shown(engine.delete_volume(cx, id))),
        ]
    }

    fn of_request(&self, id: RequestId) -> Vec<Question<'a>> {
        let (engine, cx) = (self.engine, self.cx);
        let act = |action| {
            shown(async move {
                let form = RequestDecision::default();
                engine.act_on_request(cx, id, action, &form).await
            })
        };
        vec![
            ("a request", shown(engine.request(cx, id))),
            ("its timeline", shown(engine.request_timeline(cx, id))),
            ("its approval", act(RequestAction::Approve)),
            ("its withdrawal", act(RequestAction::Withdraw)),
        ]
    }
}

fn shown<'a, T: Debug>(
    asked: impl Future<Output = Result<T>> + Send + 'a,
) -> BoxFuture<'a, Result<String>> {
    Box::pin(async move { asked.await.map(|answer| format!("{answer:?}")) })
}
