//! Requests of the manual life-cycle.

mod decide;
mod resolve;
mod show;

use vimana_client::RequestFilter;
use vimana_model::request::CreateRequest as Form;
use vimana_model::request::RequestAction as Action;
use vimana_model::vm::CreateVm;

use crate::args::{
    Answer, Approve, AskBack, CreateRequest, Decided, Reject, Request, RequestList, RequestShown,
    Terms,
};
use crate::failure::Outcome;
use crate::limits::MAX_LISTED_REQUESTS;
use crate::wait::RequestWatch;
use crate::{credentials, input, output};
use decide::decide;
use resolve::resolve;

pub async fn run(command: Request) -> Outcome {
    match command {
        Request::Create(args) => create(args).await,
        Request::List(args) => list(args).await,
        Request::Show(args) => show::show(args).await,
        Request::Events(args) => events(args).await,
        Request::Approve(Approve {
            decision,
            terms,
            remark,
        }) => decide(decision, Action::Approve, remark, terms).await,
        Request::Reject(Reject { decision, reason }) => {
            decide(decision, Action::Reject, Some(reason), Terms::default()).await
        }
        Request::AskBack(AskBack { decision, question }) => {
            decide(decision, Action::AskBack, Some(question), Terms::default()).await
        }
        Request::Answer(Answer {
            decision,
            terms,
            text,
        }) => decide(decision, Action::Answer, Some(text), terms).await,
        Request::Withdraw(args) => decided(args, Action::Withdraw).await,
        Request::Release(args) => decided(args, Action::AskRelease).await,
        Request::ConfirmRelease(args) => decided(args, Action::ConfirmRelease).await,
        Request::Keep(args) => decided(args, Action::Keep).await,
    }
}

async fn decided(Decided { decision, remark }: Decided, action: Action) -> Outcome {
    decide(decision, action, remark, Terms::default()).await
}

async fn create(args: CreateRequest) -> Outcome {
    let form = Form {
        terms: CreateVm {
            name: args.name,
            inputs: input::inputs(&args.preset)?,
            template: args.preset.template,
            image: args.preset.image.unwrap_or_default(),
            flavor: args.preset.flavor.unwrap_or_default(),
            ssh_key: input::ssh_key(args.ssh_key_file)?,
            user_data: input::user_data(args.user_data_file)?,
            datastore: args.preset.datastore,
            hold: false,
        },
        purpose: args.purpose,
    };
    let client = credentials::client()?;
    let watch = RequestWatch::open(&client, args.wait).await?;
    let request = client.create_request(&form).await?;
    show::report(request, watch, args.json).await
}

async fn list(args: RequestList) -> Outcome {
    let filter = RequestFilter {
        states: args.state,
        mine: args.mine,
        limit: Some(MAX_LISTED_REQUESTS),
    };
    let requests = credentials::client()?.requests(&filter).await?;
    if args.json.json {
        return output::json(&requests);
    }
    let rows: Vec<_> = requests
        .iter()
        .map(|request| {
            let vm = request.vm.as_ref().map_or("-", |vm| vm.state.slug());
            [
                request.terms.name.clone(),
                request.state.slug().to_owned(),
                vm.to_owned(),
                request.terms.flavor.clone(),
                request.terms.image.clone(),
                request.requester.to_string(),
                output::time(request.created_at),
                request.id.to_string(),
            ]
        })
        .collect();
    let titles = [
        "NAME",
        "STATE",
        "VM",
        "FLAVOR",
        "IMAGE",
        "REQUESTER",
        "CREATED",
        "ID",
    ];
    output::table(titles, &rows, "no requests")
}

async fn events(args: RequestShown) -> Outcome {
    let client = credentials::client()?;
    let id = resolve(&client, &args.request).await?;
    let events = client.request_timeline(id).await?;
    if args.json.json {
        return output::json(&events);
    }
    output::timeline(&events)
}
