//! Every limit of the driver in one place.

use std::time::Duration;

use vimana_model::unit::MiB;

/// From spawning QEMU until it answers on QMP.
pub const START_TIMEOUT: Duration = Duration::from_secs(20);
/// How often a starting QEMU's socket is tried.
pub const START_POLL: Duration = Duration::from_millis(5);
/// One QMP command.
pub const QMP_TIMEOUT: Duration = Duration::from_secs(5);
/// One that has QEMU read and check certificates, beside all that runs on a busy
/// host.
pub const OBJECT_TIMEOUT: Duration = Duration::from_secs(30);
/// Connecting to a QEMU that survived the agent.
pub const ADOPT_TIMEOUT: Duration = Duration::from_secs(5);
/// A QEMU that was asked to quit is killed after this.
pub const QUIT_TIMEOUT: Duration = Duration::from_millis(1500);
/// A killed process is gone after this, or the host is in trouble.
pub const KILL_TIMEOUT: Duration = Duration::from_secs(10);
/// How often the power button is pressed: a guest that still boots misses it.
pub const POWER_BUTTON_EVERY: Duration = Duration::from_secs(3);
/// How often a machine that stopped for lack of disk space is continued.
pub const IO_ERROR_RETRY: Duration = Duration::from_secs(5);
/// How long a guest that is sent may stand still at first …
pub const FIRST_DOWNTIME_MS: u64 = 5;
/// … for so many rounds through its memory.
pub const ROUNDS_AT_FIRST: u64 = 3;
/// A memory that is changed faster than it is copied is given up after so many rounds
/// with the longest end that is allowed …
pub const ROUNDS_IN_VAIN: u64 = 30;
/// … and so long: QEMU slows the guest down meanwhile, a bit more every second or two.
pub const IN_VAIN: Duration = Duration::from_secs(120);
/// By post-copy a guest is stopped after so many rounds through its memory: most of
/// it never changes, and need not be waited for.
pub const ROUNDS_BEFORE: u64 = 1;
/// A machine that runs while its memory comes, and whose QEMU says nothing for so
/// long, waits for what never comes.
pub const REST_TIMEOUT: Duration = Duration::from_secs(30);
/// How many connections a memory comes by, besides the first. Each has a thread of
/// its own at both ends, which for the most part encrypts. Measured on two cores that
/// both ends and the guest share, with TLS: 720 MB in 4.2 to 5.0 s by 2 of them, 4.1 to
/// 5.6 s by 4, and 5.8 to 6.9 s without …
pub const CHANNELS: u8 = 2;
/// … from this size on. There the guest stands still for longer at the end (48 to 110
/// ms, where one connection takes 36 to 77), and a small memory gains too little for
/// it (256 MiB: 83 MB in 0.4 to 0.7 s instead of 0.7 to 0.9).
pub const CHANNELS_FROM: MiB = MiB(1024);
/// How long an event of a move of memory is waited for before asking.
pub const MIGRATION_POLL: Duration = Duration::from_secs(1);
/// How often QEMU is asked whether a move of memory is through to its last step:
/// that has no event.
pub const FINALIZE_POLL: Duration = Duration::from_millis(2);
/// A move of memory that was cancelled has ended after this.
pub const MIGRATION_CANCEL_TIMEOUT: Duration = Duration::from_secs(10);
/// How often a process is started anew that lost its port to somebody else.
pub const LISTEN_ATTEMPTS: u32 = 3;
/// Who sent a machine knows of its arrival this much sooner than its target.
pub const ARRIVAL_TIMEOUT: Duration = Duration::from_secs(3);
/// A guest that stands still at the end of its sending has arrived this much
/// later than was allowed, or stays.
pub const SWITCHOVER_TIMEOUT: Duration = Duration::from_secs(30);
/// A copy of which nothing moves for so long is given up. The other host may just
/// be bringing all of it to its disk.
pub const STALL_TIMEOUT: Duration = Duration::from_secs(120);
/// How often a watcher of a copy is told at most.
pub const WATCH_EVERY: Duration = Duration::from_millis(500);
/// The other host is reached within this.
pub const REACH_TIMEOUT: Duration = Duration::from_secs(5);
/// Sending a machine, at most: its disks, and then its memory.
pub const SEND_TIMEOUT: Duration = Duration::from_secs(6 * 3600);
/// A guest lets go of a volume within this.
pub const DETACH_TIMEOUT: Duration = Duration::from_secs(10);
/// How long a device's end is waited for before asking.
pub const DETACH_POLL: Duration = Duration::from_millis(20);
/// Copying an image into a volume, at most.
pub const COPY_TIMEOUT: Duration = Duration::from_secs(3600);
/// A mirror that is in step takes its source's place, or gives up, within this.
pub const MOVE_END_TIMEOUT: Duration = Duration::from_secs(10);
/// Any other use of `qemu-img`.
pub const IMG_TIMEOUT: Duration = Duration::from_secs(60);
/// Volumes of one machine.
pub const VOLUMES: u8 = 16;
/// A snapshot's memory and disks are written or read within this.
pub const SNAPSHOT_TIMEOUT: Duration = Duration::from_secs(600);
/// All disks of a machine are copied within this.
pub const BACKUP_TIMEOUT: Duration = Duration::from_secs(6 * 3600);
/// The agent in a guest answers within this.
pub const GUEST_TIMEOUT: Duration = Duration::from_secs(5);
/// It has written out what its file systems hold, and stopped them.
pub const FREEZE_TIMEOUT: Duration = Duration::from_secs(15);
/// How often one that does not answer is asked to let them go on.
pub const THAW_EVERY: Duration = Duration::from_secs(2);
/// A process that has only disks ends within this.
pub const STORAGE_END_TIMEOUT: Duration = Duration::from_secs(30);
/// How long an event of a QEMU's job is waited for before asking.
pub const JOB_POLL: Duration = Duration::from_millis(20);
/// How often a QEMU that lives and hung up on us is tried to be reached.
pub const RECONNECT_EVERY: Duration = Duration::from_secs(1);
/// After an agent's death in the middle of a restart, its guest may take this
/// long to switch itself off and still be started again.
pub const RESTART_AFTERMATH: Duration = Duration::from_secs(30);
/// Wait for another agent to let go of the state directory.
pub const LOCK_TIMEOUT: Duration = Duration::from_secs(5);
/// A boot sector that takes longer under KVM shows that KVM is not real.
pub const PROBE_SECTOR_TIMEOUT: Duration = Duration::from_secs(2);
/// The same for a kernel.
pub const PROBE_KERNEL_TIMEOUT: Duration = Duration::from_secs(8);
/// `qemu --version`.
pub const VERSION_TIMEOUT: Duration = Duration::from_secs(10);

/// One line of QMP.
pub const QMP_LINE_BYTES: usize = 1 << 20;
/// One line of a guest's agent.
pub const GUEST_LINE_BYTES: u64 = 64 * 1024;
/// QMP events that may wait for the supervisor; then it asks for the status.
pub const QMP_EVENTS: usize = 256;
/// QMP commands that may wait.
pub const QMP_COMMANDS: usize = 16;
/// Changes of power state a slow subscriber may lag behind.
pub const CHANGES: usize = 1024;
/// QEMU's own messages that are kept.
pub const LOG_BYTES: u64 = 64 * 1024;
/// How often that is enforced.
pub const LOG_TRIM_EVERY: Duration = Duration::from_secs(30);
/// Longest reason taken from QEMU's messages.
pub const REASON_CHARS: usize = 200;
/// A record of ours on disk.
pub const RECORD_BYTES: u64 = 1 << 20;
/// The longest backing file name the qcow2 format has room for.
pub const BACKING_NAME_BYTES: usize = 1023;
