//! What breaks: operations that fail and are taken back, and VMs that go on
//! from where they broke.

use vimana_driver_sim::Call;
use vimana_model::action::VmAction as A;
use vimana_model::operation::OperationState::{Failed, Succeeded};
use vimana_model::state::VmState as V;

use super::super::Scene::{Breaks, DatastoreBreaks, MachineDies, Mends};
use super::super::{Deed, Plan, Scene, Setback};
use super::{CREATE, DELETED, Ends, POWER_OFF, STOP, SUSPEND, plan};

const RESUME: Scene = Scene::Ask(Deed::Act(A::Resume));
const DELETE: Scene = Scene::Ask(Deed::Act(A::Delete));
const SHUTDOWN: Scene = Scene::Ask(Deed::Act(A::Shutdown));
const RETRY: Scene = Scene::Ask(Deed::Act(A::Retry));

/// A step fails for good, so that all is taken back; or it says so, and all
/// of it has happened.
pub fn failing() -> Vec<Plan> {
    const BROKEN: Ends = &[(Some(Failed), Some(V::Failed))];
    const OFF: Ends = &[(Some(Failed), Some(V::PoweredOff))];
    const RUNS: Ends = &[(Some(Failed), Some(V::Running))];
    const SUSPENDED: Ends = &[(Some(Failed), Some(V::Suspended))];
    const STOPPED: Ends = &[(Some(Failed), Some(V::Stopped))];
    let fails =
        |name, before, deed, call, ends| plan(name, before, deed, ends).but(Setback::Fails(call));
    let in_vain =
        |name, before, deed, call, ends| plan(name, before, deed, ends).but(Setback::InVain(call));
    let (stop, resume) = (Deed::Act(A::Stop), Deed::Act(A::Resume));
    let suspend = Deed::Act(A::Suspend);
    let (runs, stopped): (&[Scene], &[Scene]) = (&[CREATE], &[CREATE, STOP]);
    let unmake = &[Call::Kill, Call::Clean];
    vec![
        fails(
            "create that cannot prepare",
            &[],
            Deed::Create,
            Call::Prepare,
            BROKEN,
        )
        .calls(&[Call::Clean])
        .places(),
        fails(
            "create that cannot boot",
            &[],
            Deed::Create,
            Call::Boot,
            BROKEN,
        )
        .calls(unmake)
        .places(),
        fails(
            "start that cannot boot",
            &[CREATE, POWER_OFF],
            Deed::Act(A::Start),
            Call::Boot,
            OFF,
        )
        .calls(&[Call::Kill]),
        fails(
            "migrate to a host that cannot receive",
            runs,
            Deed::Migrate,
            Call::Receive,
            RUNS,
        )
        .calls(unmake),
        fails(
            "migrate that cannot send",
            runs,
            Deed::Migrate,
            Call::Send,
            RUNS,
        )
        .calls(&[Call::CallOff, Call::Kill, Call::Clean]),
        in_vain(
            "migrate that sends in vain",
            runs,
            Deed::Migrate,
            Call::Send,
            RUNS,
        )
        .calls(&[Call::CallOff, Call::Kill, Call::Clean]),
        fails(
            "migrate that cannot run",
            runs,
            Deed::Migrate,
            Call::Run,
            BROKEN,
        )
        .calls(unmake),
        fails(
            "migrate by post-copy that cannot switch",
            runs,
            Deed::MigrateByPostCopy,
            Call::Switch,
            BROKEN,
        )
        .calls(unmake),
        fails(
            "migrate by post-copy that cannot complete",
            runs,
            Deed::MigrateByPostCopy,
            Call::Complete,
            BROKEN,
        )
        .calls(unmake),
        fails(
            "migrate cold that cannot export",
            &[CREATE, POWER_OFF],
            Deed::Migrate,
            Call::Export,
            OFF,
        )
        .removes(),
        fails(
            "migrate cold that cannot import",
            &[CREATE, SUSPEND],
            Deed::Migrate,
            Call::Import,
            SUSPENDED,
        )
        .calls(&[Call::Export, Call::Kill, Call::Clean])
        .removes(),
        fails(
            "migrate of what is stopped that cannot import",
            stopped,
            Deed::Migrate,
            Call::Import,
            STOPPED,
        )
        .calls(unmake),
        fails("suspend that cannot save", runs, suspend, Call::Save, RUNS).calls(&[Call::Load]),
        fails("stop that cannot save", runs, stop, Call::Save, RUNS).calls(&[Call::Load]),
        fails("stop that cannot export", runs, stop, Call::Export, RUNS)
            .calls(&[Call::Load])
            .removes(),
        fails(
            "stop of a suspended VM that cannot export",
            &[CREATE, SUSPEND],
            stop,
            Call::Export,
            SUSPENDED,
        )
        .removes(),
        fails(
            "resume that cannot load",
            &[CREATE, SUSPEND],
            resume,
            Call::Load,
            SUSPENDED,
        ),
        fails(
            "resume that cannot import",
            stopped,
            resume,
            Call::Import,
            STOPPED,
        )
        .calls(&[Call::Clean])
        .places(),
        fails(
            "resume from the datastore that cannot load",
            stopped,
            resume,
            Call::Load,
            STOPPED,
        )
        .calls(unmake)
        .places(),
        in_vain(
            "create, prepared in vain",
            &[],
            Deed::Create,
            Call::Prepare,
            BROKEN,
        )
        .calls(&[Call::Clean]),
        in_vain(
            "create, booted in vain",
            &[],
            Deed::Create,
            Call::Boot,
            BROKEN,
        )
        .calls(unmake),
        in_vain("suspend, saved in vain", runs, suspend, Call::Save, RUNS).calls(&[Call::Load]),
        in_vain("stop, exported in vain", runs, stop, Call::Export, RUNS)
            .calls(&[Call::Load])
            .removes(),
        in_vain(
            "resume, loaded in vain",
            stopped,
            resume,
            Call::Load,
            STOPPED,
        )
        .calls(unmake),
    ]
}

/// From wherever a VM broke.
pub fn retried() -> Vec<Plan> {
    const RUNS: Ends = &[(Some(Succeeded), Some(V::Running))];
    const STOPPED: Ends = &[(Some(Succeeded), Some(V::Stopped))];
    let retry = |name, before, ends| plan(name, before, Deed::Act(A::Retry), ends);
    let restart = &[Call::Kill, Call::Boot];
    let make = &[Call::Prepare, Call::Boot];
    let anew = &[Call::Kill, Call::Clean, Call::Prepare, Call::Boot];
    let again = &[Call::Kill, Call::Clean, Call::Import, Call::Load];
    let removes = &[Call::Kill, Call::Clean];
    vec![
        retry("retry after the machine died", &[CREATE, MachineDies], RUNS).calls(restart),
        retry(
            "retry of a create that did not prepare",
            &[Breaks(Call::Prepare), CREATE, Mends],
            RUNS,
        )
        .calls(make)
        .places(),
        retry(
            "retry of a create that did not boot",
            &[Breaks(Call::Boot), CREATE, Mends],
            RUNS,
        )
        .calls(make)
        .places(),
        retry(
            "retry of a create that neither prepared nor cleaned",
            &[Breaks(Call::Prepare), Breaks(Call::Clean), CREATE, Mends],
            RUNS,
        )
        .calls(anew)
        .places(),
        retry(
            "retry of a create that neither booted nor stopped",
            &[Breaks(Call::Boot), Breaks(Call::Kill), CREATE, Mends],
            RUNS,
        )
        .calls(anew)
        .places(),
        retry(
            "retry of a suspend that neither saved nor ran on",
            &[
                CREATE,
                Breaks(Call::Save),
                Breaks(Call::Load),
                SUSPEND,
                Mends,
            ],
            RUNS,
        )
        .calls(&[Call::Load]),
        retry(
            "retry of a stop that neither exported nor ran on",
            &[
                CREATE,
                Breaks(Call::Export),
                Breaks(Call::Load),
                STOP,
                Mends,
            ],
            RUNS,
        )
        .calls(&[Call::Load]),
        retry(
            "retry of a stop that did not clean",
            &[CREATE, Breaks(Call::Clean), STOP, Mends],
            STOPPED,
        )
        .calls(&[Call::Clean]),
        retry(
            "retry of a resume that neither imported nor cleaned",
            &[
                CREATE,
                STOP,
                Breaks(Call::Import),
                Breaks(Call::Clean),
                RESUME,
                Mends,
            ],
            RUNS,
        )
        .calls(again)
        .removes()
        .places(),
        retry(
            "retry of a resume that neither loaded nor stopped",
            &[
                CREATE,
                STOP,
                Breaks(Call::Load),
                Breaks(Call::Kill),
                RESUME,
                Mends,
            ],
            RUNS,
        )
        .calls(again)
        .removes()
        .places(),
        retry(
            "second retry of a machine that died while it was to be saved",
            &[
                CREATE,
                Breaks(Call::Save),
                Breaks(Call::Load),
                SUSPEND,
                Mends,
                MachineDies,
                RETRY,
            ],
            RUNS,
        )
        .calls(restart),
        retry(
            "third retry of a machine whose memory is saved",
            &[
                CREATE,
                Breaks(Call::Export),
                Breaks(Call::Load),
                STOP,
                RETRY,
                RETRY,
                Mends,
            ],
            RUNS,
        )
        .calls(&[Call::Load]),
        retry(
            "retry of a shutdown that did not clean",
            &[CREATE, Breaks(Call::Clean), SHUTDOWN, Mends],
            DELETED,
        )
        .calls(removes),
        retry(
            "retry of a delete that did not kill",
            &[CREATE, Breaks(Call::Kill), DELETE, Mends],
            DELETED,
        )
        .calls(removes),
        retry(
            "retry of a delete that did not remove the copy",
            &[CREATE, STOP, DatastoreBreaks, DELETE, Mends],
            DELETED,
        )
        .removes(),
    ]
}
