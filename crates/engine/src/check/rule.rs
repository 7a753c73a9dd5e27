//! The rules that can be read from database, files and agents, and the
//! checks that read them.
//!
//! Of the design's rules these leave no trace that could be read later, and
//! are the simulator's alone: 7 (agents refuse what is old), 9 and 10 (who may
//! run a machine again), 19 (when authorization is decided), 21 (secrets in
//! logs). Of 16 (addresses) and 17 (affinity) nothing is recorded.

use serde::Serialize;

/// A rule that always holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Rule {
    /// 1. A writable disk has at most one running writer.
    OneWriter,
    /// 2. The sum of claims on a host stays within its capacity.
    ClaimsFit,
    /// 3. Usage of quotas is the sum over what there is.
    UsageIsSum,
    /// 4. Every accepted operation reaches an end.
    OperationsEnd,
    /// 5. A VM has one placement.
    OnePlacement,
    /// 6. No tenant can observe another's objects.
    TenantsApart,
    /// 8. `run_epoch` only grows.
    EpochsGrow,
    /// 11. No effect without a record before it.
    RecordFirst,
    /// 12. Deleted means that nothing is left.
    NothingLeft,
    /// 13. One idempotency key, one effect.
    OneEffect,
    /// 14. Acknowledged means durable.
    Durable,
    /// 15. No disk is deleted while a host may hold it.
    DisksStay,
    /// 18. The event sequence has no gaps.
    NoGaps,
    /// 20. Database and agents' reports agree.
    ReportsAgree,
    /// 22. No overflow, no negative size, no word that means nothing.
    SaneRows,
}

impl Rule {
    pub const ALL: [Self; 15] = [
        Self::OneWriter,
        Self::ClaimsFit,
        Self::UsageIsSum,
        Self::OperationsEnd,
        Self::OnePlacement,
        Self::TenantsApart,
        Self::EpochsGrow,
        Self::RecordFirst,
        Self::NothingLeft,
        Self::OneEffect,
        Self::Durable,
        Self::DisksStay,
        Self::NoGaps,
        Self::ReportsAgree,
        Self::SaneRows,
    ];

    /// Its number in the design.
    #[must_use]
    pub const fn number(self) -> u8 {
        match self {
            Self::OneWriter => 1,
            Self::ClaimsFit => 2,
            Self::UsageIsSum => 3,
            Self::OperationsEnd => 4,
            Self::OnePlacement => 5,
            Self::TenantsApart => 6,
            Self::EpochsGrow => 8,
            Self::RecordFirst => 11,
            Self::NothingLeft => 12,
            Self::OneEffect => 13,
            Self::Durable => 14,
            Self::DisksStay => 15,
            Self::NoGaps => 18,
            Self::ReportsAgree => 20,
            Self::SaneRows => 22,
        }
    }

    #[must_use]
    pub const fn sentence(self) -> &'static str {
        match self {
            Self::OneWriter => "a writable disk has at most one running writer",
            Self::ClaimsFit => "the sum of claims on a host stays within its capacity",
            Self::UsageIsSum => "usage of quotas is the sum over what there is",
            Self::OperationsEnd => "every accepted operation reaches an end",
            Self::OnePlacement => "a VM has one placement, and a claim that fits its state",
            Self::TenantsApart => "no tenant can observe another's objects",
            Self::EpochsGrow => "run epochs only grow",
            Self::RecordFirst => "no effect without a record before it",
            Self::NothingLeft => "deleted means that nothing is left",
            Self::OneEffect => "one idempotency key, one effect",
            Self::Durable => "acknowledged means durable",
            Self::DisksStay => "no disk is deleted while its VM lives",
            Self::NoGaps => "the event sequence has no gaps",
            Self::ReportsAgree => "the records agree with each other and with what hosts report",
            Self::SaneRows => "every row makes sense: no overflow, no negative size",
        }
    }
}

/// What a check compares.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Source {
    /// The database with itself. In one moment of it a breach is certain.
    Records,
    /// The database with hosts, datastore and repository, which are looked at
    /// before: what has moved meanwhile looks like a breach, but only once.
    Reports,
}

/// For what only a defect, or a hand in the database, brings about.
const MEND: &str = "keep a copy of the database and report it as a defect; the record can only be \
                    put right by hand, with the server stopped";
const RESTORE: &str = "compare with the latest backup of the database: what was acknowledged has \
                       been lost; keep a copy of the database and report it";

macro_rules! checks {
    ($($(#[$doc:meta])* $name:ident: $rule:ident, $source:ident, $advice:expr;)+) => {
        /// One thing that can be wrong. Its name on the wire does not change.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
        #[serde(rename_all = "snake_case")]
        pub enum Check {
            $($(#[$doc])* $name,)+
        }

        impl Check {
            pub const ALL: &'static [Self] = &[$(Self::$name),+];

            #[must_use]
            pub const fn rule(self) -> Rule {
                match self {
                    $(Self::$name => Rule::$rule,)+
                }
            }

            #[must_use]
            pub const fn source(self) -> Source {
                match self {
                    $(Self::$name => Source::$source,)+
                }
            }

            /// What an operator should do about it.
            #[must_use]
            pub const fn advice(self) -> &'static str {
                match self {
                    $(Self::$name => $advice,)+
                }
            }
        }
    };
}

checks! {
    /// A host says of a volume that another VM has it than is recorded.
    VolumeOfOtherVm: OneWriter, Reports,
        "detach the volume from every VM before it is used again, and have its file system checked";
    /// A VM runs on several hosts.
    RunsTwice: OneWriter, Reports,
        "at once: on the host that the record does not name, restart the agent so that the machine \
         goes into quarantine, and remove it with `vimana host discard`; then have the VM's file \
         system checked";

    /// What is recorded as used of a host is not the sum of its claims.
    SumIsOff: ClaimsFit, Records, MEND;
    /// What is claimed for a VM's snapshots is not what they claim.
    KeptIsOff: ClaimsFit, Records, MEND;
    /// The claims on a host exceed what it has.
    ClaimsExceed: ClaimsFit, Records,
        "stop or delete VMs there until they fit; where the host has become smaller, give back what \
         it had";
    /// VMs hold something of a host that is in maintenance.
    ClaimsInMaintenance: ClaimsFit, Records,
        "before the host is switched off, cordon it and evacuate it again";

    /// A VM counts more or less of quotas than it has.
    CountsAreOff: UsageIsSum, Records,
        "let anything be done with the VM, which counts it anew; keep a copy of the database and \
         report it";

    OperationOfNoVm: OperationsEnd, Records, MEND;
    /// An operation is in flight that its VM does not point to.
    OperationUnknownToVm: OperationsEnd, Records, MEND;
    OperationOnDoneVm: OperationsEnd, Records, MEND;
    /// An operation is in flight and none of its steps is.
    OperationWithoutStep: OperationsEnd, Records,
        "delete the VM, which overtakes the operation; keep a copy of the database and report it";
    /// The step that is under way is recorded as something else.
    StepNotUnderWay: OperationsEnd, Records,
        "restart the server, which sends the step again; keep a copy of the database and report it";
    /// A step waits for its next try, which has no time.
    StepNeverTried: OperationsEnd, Records,
        "delete the VM, which overtakes the operation; keep a copy of the database and report it";
    /// A step waits for the answer of a host that the VM does not have.
    StepWithoutHost: OperationsEnd, Records,
        "delete the VM, which overtakes the operation; keep a copy of the database and report it";
    UndoWithoutReason: OperationsEnd, Records, MEND;
    /// A VM is in a state that something moves on, and nothing does.
    MovesWithoutOperation: OperationsEnd, Records,
        "delete the VM, or restart its host's agent, which reports again what it holds; keep a copy \
         of the database and report it";
    /// A volume is being given to a VM, or taken from it, and nothing does so.
    VolumeMovesWithoutOperation: OperationsEnd, Records,
        "delete its VM, which lets go of it; keep a copy of the database and report it";
    RequestWithoutVm: OperationsEnd, Records, MEND;
    /// A backup is being made that no operation makes.
    BackupStuck: OperationsEnd, Records, MEND;
    /// The VM of a request is done, the request is not.
    RequestOutlivesVm: OperationsEnd, Records, MEND;
    /// The VM of a request runs, and the request still waits for that.
    RequestStaysInProvision: OperationsEnd, Records,
        "reboot the VM, or suspend and resume it: the request follows its next change";

    ClaimOnNoHost: OnePlacement, Records, MEND;
    ClaimWithoutPlacement: OnePlacement, Records, MEND;
    PlacementWithoutClaim: OnePlacement, Records, MEND;
    ClaimElsewhere: OnePlacement, Records, MEND;
    /// A VM at rest claims more or less than its state needs.
    ClaimOfOtherSize: OnePlacement, Records,
        "power the VM off and start it again: its claim is taken anew; keep a copy of the database \
         and report it";
    /// A VM that runs or rests on a host has none.
    StateWithoutHost: OnePlacement, Records, MEND;
    /// A VM that waits or is stopped has a host.
    HostWithoutNeed: OnePlacement, Records, MEND;
    /// A VM has a volume that is on another host.
    VolumeElsewhere: OnePlacement, Records, MEND;
    /// A host has a volume in another of its datastores than is recorded.
    VolumeInOtherDatastore: OnePlacement, Reports,
        "move the volume to the datastore that the host names, with `vimana volume move`";
    /// A host holds a VM that is recorded elsewhere, or nowhere.
    HeldElsewhere: OnePlacement, Reports,
        "restart that host's agent, so that the machine goes into quarantine, and look at it with \
         `vimana host orphans`; remove it with `vimana host discard` once nobody needs it";

    RequestOfOtherTenant: TenantsApart, Records, MEND;
    /// Another tenant is shown what happened to a VM or a request.
    EventOfOtherTenant: TenantsApart, Records,
        "another tenant may have seen it: keep a copy of the database and report it as a security \
         defect";

    /// A host runs a VM in a later run than is recorded.
    RunsLaterEpoch: EpochsGrow, Reports,
        "the database may be an old copy: if so, restore the latest one before anything is started; \
         otherwise restart that host's agent, and the VM is marked as failed";
    /// The copy of a stopped VM is of a later run than the VM ever had.
    CopyOfLaterRun: EpochsGrow, Records,
        "the database may be an old copy: if so, restore the latest one before anything is started";

    /// A host holds a machine that is not recorded at all.
    HeldUnrecorded: RecordFirst, Reports,
        "look at it with `vimana host orphans`; remove it with `vimana host discard` once nobody \
         needs it";
    /// A host holds a volume that is not recorded at all.
    VolumeUnrecorded: RecordFirst, Reports,
        "the database may be an old copy: if so, restore the latest one; otherwise look on the host \
         for what is on it, and remove it by hand";
    /// There is a VM for a request that nobody approved.
    MadeUndecided: RecordFirst, Records,
        "delete the VM, or have a manager decide about the request anew";

    ClaimOfNoVm: NothingLeft, Records, MEND;
    DoneWithClaim: NothingLeft, Records, MEND;
    DoneWithHost: NothingLeft, Records, MEND;
    DoneWithCopy: NothingLeft, Records, MEND;
    DoneStillHeld: NothingLeft, Reports,
        "restart that host's agent, so that the machine goes into quarantine, and remove it with \
         `vimana host discard`";
    /// A VM that is done, or nowhere, has snapshots.
    SnapshotOfNoVm: NothingLeft, Records, MEND;
    /// A VM that is done, or nowhere, has a volume.
    VolumeOfNoVm: NothingLeft, Records, MEND;
    /// A host holds a volume that is recorded as removed, or on another host.
    VolumeHeldElsewhere: NothingLeft, Reports,
        "look on the host for what is on it, and remove it by hand";
    /// A host holds a snapshot of a VM that is not recorded.
    SnapshotUnrecorded: NothingLeft, Reports,
        "it goes with its VM; where its room is needed before, remove it on the host by hand";
    /// A datastore holds files of a backup that no record wants there.
    BackupOfNobody: NothingLeft, Reports,
        "the server removes it within two minutes; where it does not, its log says why";
    /// A VM runs or rests on a host with a copy recorded that nothing removes.
    CopyBesideMachine: NothingLeft, Records,
        "suspend, stop and resume the VM: the resume removes the copy";
    /// Everything was given back, but the VM is there.
    ReleasedButLives: NothingLeft, Records,
        "delete the VM as its tenant's manager";
    /// The datastore holds what no record points to.
    CopyOfNobody: NothingLeft, Reports,
        "a server that runs removes it within a minute or two; where it stays, see the server's log \
         for why the datastore cannot be written";
    /// The datastore holds another run of a VM beside the one recorded.
    CopyOfOtherRun: NothingLeft, Reports,
        "it goes with the copy beside it when the VM is resumed or deleted; where its room is \
         needed, remove that directory by hand";

    /// The repository holds files that no image's record wants.
    ImageOfNobody: NothingLeft, Reports,
        "a server that runs removes it within a minute or two; where it stays, or the image is in \
         use, see the server's log, and remove the file by hand where nobody needs it";

    /// What was answered to a key names something that is not recorded.
    AnswerOfNothing: OneEffect, Records, RESTORE;

    LatestOperationGone: Durable, Records, RESTORE;
    RequestGone: Durable, Records, RESTORE;
    /// Something happened to a VM or a request that is not recorded.
    EventOfNothing: Durable, Records, RESTORE;

    /// The repository does not have the file of an image.
    ImageGone: Durable, Reports,
        "restore the file in the repository from a backup before a VM is made from the image; where \
         there is none, delete the image and import it again";
    /// The file of an image is shorter or longer than it was.
    ImageOfOtherSize: Durable, Reports,
        "restore the file in the repository from a backup; hosts refuse the image as it is";

    StoppedWithoutCopy: DisksStay, Records,
        "do not delete the VM: look for its directory in the datastore and in the backups";
    /// What is recorded of a copy does not name both disk and memory.
    CopyIncomplete: DisksStay, Records,
        "do not delete the VM: look for its directory in the datastore and in the backups";
    /// A backup holds changes since one that is not there, or is not whole.
    BackupBaseGone: DisksStay, Records,
        "delete the backup: no VM can be made from it; make a full one";
    /// A datastore does not have a backup's file as it is recorded.
    BackupGone: DisksStay, Reports,
        "restore the backup's directory in the datastore, or delete the backup and make a full one";
    /// The datastore has nothing of the copy that is recorded.
    CopyGone: DisksStay, Reports,
        "restore the VM's directory in the datastore from a backup before it is resumed";
    /// A file of the copy is missing.
    PartMissing: DisksStay, Reports,
        "restore the file in the datastore from a backup before the VM is resumed";
    /// A file of the copy is shorter or longer than it was.
    PartOfOtherSize: DisksStay, Reports,
        "restore the file in the datastore from a backup before the VM is resumed; a resume refuses \
         it as it is";
    /// A host does not hold a volume that is recorded there.
    VolumeLost: DisksStay, Reports,
        "do not attach or delete it: look on the host for its directory";
    /// A host does not hold a snapshot that is recorded.
    SnapshotLost: DisksStay, Reports,
        "delete the snapshot: nobody can go back to it";
    /// A host does not hold the VM that is recorded there.
    HostLostIt: DisksStay, Reports,
        "look on the host for the VM's files before its agent is restarted: it then reports the \
         loss, and the VM is marked as failed";

    EventsMissing: NoGaps, Records, RESTORE;
    /// The counter of events is not at the last one.
    CounterIsOff: NoGaps, Records, RESTORE;

    /// A host says something else of a VM at rest than the record.
    PowerDiffers: ReportsAgree, Reports,
        "restart that host's agent: the record follows what it reports";
    OperationOfOtherVm: ReportsAgree, Records, MEND;
    RequestUnknownToVm: ReportsAgree, Records, MEND;
    RequestOfOtherVm: ReportsAgree, Records, MEND;
    /// A machine is in quarantine on the host where its VM is recorded.
    QuarantinedAtHome: ReportsAgree, Records,
        "do not discard it: restart that host's agent, which takes it out of quarantine";
    /// A machine in quarantine is no longer on its host.
    QuarantinedAndGone: ReportsAgree, Reports,
        "restart that host's agent: what it no longer holds leaves the quarantine";
    /// The number of machines in quarantine is not that of their records.
    QuarantineCountIsOff: ReportsAgree, Records, MEND;

    CorruptRow: SaneRows, Records,
        "restore the row from a backup of the database, with the server stopped: nobody can read it \
         as it is";
    /// A row points to another that is not there.
    PointsNowhere: SaneRows, Records, MEND;
    /// A failed VM without a reason, or a reason without a failure.
    FailureDiffers: SaneRows, Records,
        "retry or delete the VM; keep a copy of the database and report it";
}
