// Machines on their way to another host when it is hard: a guest that writes
// faster than it may be copied, a disk that becomes full, people who ask at the
// wrong time, and parts that are killed and connections that are cut midway.

import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { once } from 'node:events';
import { readlinkSync } from 'node:fs';
import { connect, createServer } from 'node:net';
import { join } from 'node:path';
import { after, before, test } from 'node:test';
import { launch, openLive, openPage, signIn } from '../lib/browser.mjs';
import { Cli } from '../lib/cli.mjs';
import { Copying } from '../lib/copying.mjs';
import { Fleet } from '../lib/fleet.mjs';
import { Guest } from '../lib/guest.mjs';
import { Ledger } from '../lib/ledger.mjs';
import { Api, PASSWORD } from '../lib/stack.mjs';
import { Vms, soon } from '../lib/vms.mjs';

const HOSTS = ['host-a', 'host-b'];
const SMALL = 'host-b';
const PATIENCE = { timeout: 300_000 };
const MIB = 2 ** 20;
// So that there is time to look: a machine's memory takes 16 s then.
const SLOWLY = 8;
const MEMORY_MIB = 128;
const ROUNDS = 5;
const NOUNS = { disks: 'disk', memory: 'memory' };
let fleet, api, vms, cli, disk;

before(async () => {
  fleet = await Fleet.open();
  disk = fleet.onSmallDisk(SMALL, 512);
  for (const host of HOSTS) await fleet.startAgent(host);
  api = await Api.signIn(fleet.url);
  vms = new Vms(fleet, api);
  cli = new Cli(fleet.data);
  await run(`login --url ${fleet.url} --user admin --password-stdin`, { input: PASSWORD });
  await vms.eventually('both hosts', async () => (await vms.hosts()).length === HOSTS.length);
  await vms.connected();
});
after(async () => {
  cli?.kill();
  await fleet?.destroy();
});

// What a command that is to go well says.
async function run(line, options) {
  const { status, out, err } = await cli.run(line, options);
  assert.equal(status, 0, `${line}: ${err}`);
  return out;
}

// What one says that is refused.
async function refused(line) {
  const { status, err } = await cli.run(line);
  assert.equal(status, 1, `${line} was not refused`);
  return err;
}

const other = (host) => HOSTS.find((name) => name !== host);

// Which host a QEMU is on: it lives in that one's directory.
const hostOf = (pid) =>
  HOSTS.find((host) => readlinkSync(`/proc/${pid}/cwd`).startsWith(`${join(fleet.data, host)}/`));

// What is claimed of the hosts, and by how many VMs.
async function claims() {
  const hosts = await vms.hosts();
  return Object.fromEntries(hosts.map(({ name, used, vms: count }) => [name, { used, count }]));
}

// A machine, with what was claimed before it was there.
async function start(name) {
  const claimed = await claims();
  const guest = await Guest.start(vms, cli, name);
  const [qemu] = fleet.qemus(guest.id);
  return { guest, id: guest.id, host: guest.host, to: other(guest.host), qemu, claimed };
}

// One that can go to the host with the small disk.
async function startElsewhere(name) {
  await run(`host cordon ${SMALL}`);
  const at = await start(name);
  await run(`host enable ${SMALL}`);
  return at;
}

// Nothing of the VM is left on the host.
async function hasNothing(host, { id, claimed }) {
  const now = await claims();
  assert.deepEqual(now[host], claimed[host], `what is claimed of ${host}`);
  assert.ok(!fleet.qemus(id).map(hostOf).includes(host), `no process is left on ${host}`);
  const files = fleet.traces(id).filter((name) => name.startsWith(`${host}/`));
  assert.deepEqual(files, [], `files on ${host}`);
}

// It is where it was, in the very process that it was in, and nowhere else.
async function staysWhereItWas(at) {
  const { guest, id, host, to, qemu } = at;
  const vm = await vms.rest(id);
  assert.deepEqual([vm.state, vm.host.name, vm.run_epoch], ['running', host, 1]);
  assert.deepEqual(fleet.qemus(id), [qemu]);
  // Nobody hears what is said while an agent is away.
  await (at.isCutOff ? guest.countsOnAnew() : guest.countsOn());
  await hasNothing(to, at);
  fleet.isClean();
}

// It runs on the other host, in the process that waited there, and nowhere else.
async function hasGone(at) {
  const { guest, id, host, to, target } = at;
  const vm = await vms.rest(id);
  assert.equal(vm.operation.state, 'succeeded', vm.operation.error);
  assert.deepEqual([vm.state, vm.host.name, vm.run_epoch], ['running', to, 2]);
  assert.deepEqual(fleet.qemus(id), [target]);
  await guest.countsOnAnew();
  await hasNothing(host, at);
  fleet.isClean();
}

// It has ended where it was.
async function hasFailed(at) {
  const { state, host, operation, failure } = await vms.rest(at.id);
  assert.deepEqual([state, host.name, operation.state], ['failed', at.host, 'failed']);
  assert.match(failure.reason, /^the QEMU process was killed by signal 9$/);
  assert.deepEqual(fleet.qemus(at.id), []);
  await hasNothing(at.to, at);
  fleet.isClean();
}

// Its disk is the one that it wrote: it is started once more, and nothing is missing.
async function startAgain({ guest, id }) {
  const { state, host } = await vms.rest(id);
  // A console of a guest that counts would listen for as long as that does.
  cli.kill();
  await run(`vm ${state === 'failed' ? 'retry' : 'reset'} ${guest.name} --wait`);
  guest.open();
  await guest.hears(/ready boots=2\r?\n[^]*~# $/);
  await guest.hasAll();
  const now = await vms.rest(id);
  assert.deepEqual([now.state, now.host.name], ['running', host.name]);
  assert.deepEqual(fleet.qemus(id).map(hostOf), [host.name]);
}

async function remove({ id }) {
  cli.kill();
  await vms.removed(id);
}

// A guest that writes faster than it is copied, on its way.
async function sendWild(name, begin = start) {
  const at = await begin(name);
  await at.guest.count();
  at.guest.type('dirty 100 24 &');
  at.copying = await Copying.follow(api, at.id);
  at.line = `vm migrate ${name} --to ${at.to} --wait`;
  at.migrated = cli.run(`${at.line} --bandwidth ${SLOWLY}`);
  await at.copying.until(`${ROUNDS} rounds`, ({ rounds }) => rounds === ROUNDS);
  return at;
}

test('a guest that writes faster than it is copied stays, and goes later', PATIENCE, async (t) => {
  const at = await sendWild('wild');
  const { operation } = await vms.look(at.id);
  assert.equal(operation.state, 'running', 'it does not come to an end');
  assert.deepEqual(operation.migration.copy, operation.progress.copy);
  assert.ok(operation.progress.copy.rounds >= ROUNDS);
  isTruthful(at.copying, t);

  await run('vm cancel wild --wait');
  at.copying.end();
  const { status, err } = await at.migrated;
  assert.equal(status, 1);
  assert.equal(err, 'vimana: the migrate of `wild` was cancelled by admin; it is running\n');
  await staysWhereItWas(at);

  await run(at.line);
  assert.deepEqual(fleet.qemus(at.id).map(hostOf), [at.to]);
  await at.guest.isSameBoot();
  await hasNothing(at.host, at);
  await remove(at);
});

const isAbout = (one, another, what) =>
  assert.ok(one > another / 2 && one < another * 2, `${what}: ${one} against ${another}`);

// What was told of a copy that does not converge: of every round with how much
// it began, how fast that is copied, and how fast the guest writes.
function isTruthful(copying, t) {
  const all = copying.rounds();
  assert.deepEqual(all.map(([{ rounds }]) => rounds), [1, 2, 3, 4, 5], 'rounds grow one by one');
  let done = 0;
  for (const report of all.flat()) {
    assert.ok(report.done_bytes >= done && report.done_bytes <= report.total_bytes);
    done = report.done_bytes;
    // Beside the memory, what the firmware is in and the screen.
    assert.ok(report.remaining_bytes <= (MEMORY_MIB + 32) * MIB);
  }
  for (const [index, reports] of all.entries()) {
    const left = reports.map(({ remaining_bytes }) => remaining_bytes);
    assert.deepEqual(left, left.toSorted((a, b) => b - a), 'less and less is left of a round');
    // The first has empty pages, and of the last one has only heard.
    if (index === 0 || index === all.length - 1) continue;
    const [first, last, next] = [reports[0], reports.at(-1), all[index + 1][0]];
    const seconds = (last.at - first.at) / 1000;
    const rate = reports.reduce((sum, { bytes_per_s }) => sum + bytes_per_s, 0) / reports.length;
    t.diagnostic(
      `round ${first.rounds}: ${first.remaining_bytes} bytes, copied with ${rate.toFixed()}/s; ` +
        `then ${next.remaining_bytes}, written with ${next.dirty_bytes_per_s}/s`,
    );
    assert.ok(rate < SLOWLY * MIB * 1.25, `it is copied with ${rate} bytes a second`);
    isAbout(rate * seconds, first.remaining_bytes - last.remaining_bytes, 'copied by then');
    const whole = (next.at - first.at) / 1000;
    isAbout(next.dirty_bytes_per_s * whole, next.remaining_bytes, 'written by then');
    assert.ok(next.remaining_bytes > first.remaining_bytes * 0.8, 'it comes no nearer to its end');
  }
}

// What somebody who watches it sees, when there have been some rounds.
async function watchHopeless(name, look) {
  const at = await sendWild(name);
  try {
    await look(at);
  } finally {
    await run(`vm cancel ${name} --wait`);
    at.copying.end();
    await at.migrated;
  }
  await remove(at);
}

test('the portal says of a copy that does not converge that it has no end', PATIENCE, () =>
  watchHopeless('hopeless', async ({ id, copying }) => {
    const browser = await launch();
    try {
      const page = await openPage(browser, fleet.url);
      await signIn(page);
      await page.getByRole('heading', { name: 'My VMs' }).waitFor();
      await openLive(page, `/vms/${id}`);
      const seen = copying.told.at(-1).rounds;
      await copying.until('three more rounds', ({ rounds }) => rounds > seen + 3);
      assert.match(await page.locator('.copying').innerText(), /no end in sight/);
    } finally {
      await browser.close();
    }
  }),
);

test('the command line shows what is left of a copy, and in which round', PATIENCE, () =>
  watchHopeless('unseen', async () => {
    assert.match(await run('vm show unseen'), /MiB left in round \d+, at /);
  }),
);

// A machine on its way to a host whose disk becomes full in that phase.
async function sendToFull(name, phase) {
  const at = await startElsewhere(name);
  await at.guest.write('before', 40);
  await at.guest.count();
  at.line = `vm migrate ${name} --to ${SMALL} --wait`;
  const copying = await Copying.follow(api, at.id);
  at.migrated = cli.run(`${at.line} --bandwidth ${SLOWLY}`);
  await copying.until(phase, (report) => report.phase === phase && report.done_bytes > 0);
  copying.end();
  disk.fill();
  await at.guest.write('meanwhile', 16);
  return at;
}

const NO_DISK = 'nothing may be mounted here: there is no disk that could be made full';

for (const phase of Object.keys(NOUNS)) {
  const title = `a host whose disk becomes full while it gets the ${NOUNS[phase]} gives all back`;
  test(title, PATIENCE, async (t) => {
    if (!disk) return t.skip(NO_DISK);
    const at = await sendToFull(`full-${phase}`, phase);
    try {
      const { status, err } = await at.migrated;
      assert.equal(status, 1);
      assert.match(err, /^vimana: the migrate of `full-\w+` failed: the disk of host `[\w-]+` is full/);
      assert.match(err, /; it is running\n$/);
      const { operation } = await vms.rest(at.id);
      assert.equal(operation.state, 'failed');
      assert.deepEqual(
        operation.steps.map(({ kind, state }) => `${kind} ${state}`),
        ['receive undone', 'send undone', 'run skipped', 'leave skipped'],
      );
      // All of that though the disk is still full.
      await staysWhereItWas(at);
      disk.fill();
      const again = /: the host's disk is full: it keeps 256 MiB free; it is running\n$/;
      assert.match(await refused(at.line), again);
      await staysWhereItWas(at);
    } finally {
      disk.free();
    }
    await run(at.line);
    await at.guest.isSameBoot();
    await hasNothing(at.host, at);
    await startAgain(at);
    await remove(at);
  });
}

test('it is said which host has a full disk', PATIENCE, async () => {
  const at = await sendToFull('unnamed', 'disks');
  try {
    const { err } = await at.migrated;
    assert.match(err, new RegExp(`disk of host \`${SMALL}\` is full`));
    assert.doesNotMatch(err, /blockdev-mirror/);
  } finally {
    disk.free();
  }
  await remove(at);
});

test('a copy whose disk is full is given up before its memory has gone', PATIENCE, async () => {
  const at = await sendWild('lost', startElsewhere);
  disk.fill();
  try {
    // It breaks the mirror: the other host has no room for it.
    await at.guest.write('meanwhile', 16);
    const { rounds } = at.copying.told.at(-1);
    const goesOn = at.copying.until('three more rounds', (report) => report.rounds > rounds + 3);
    const first = await Promise.race([at.migrated, goesOn]);
    assert.equal(first.status, 1, `it goes on: ${JSON.stringify(first)}`);
  } finally {
    disk.free();
    await cli.run('vm cancel lost --wait');
    at.copying.end();
  }
  await remove(at);
});

test('who asks at the wrong time is refused in words, and nothing changes', PATIENCE, async (t) => {
  t.after(async () => {
    for (const name of HOSTS) await cli.run(`host enable ${name}`);
  });
  const at = await start('asked');
  const line = (to) => `vm migrate asked --to ${to}`;
  await at.guest.count();

  // Two at the same moment.
  const slowly = `${line(at.to)} --bandwidth 16`;
  const both = await Promise.all([cli.run(slowly), cli.run(slowly)]);
  assert.deepEqual(both.map(({ status }) => status).toSorted(), [0, 1], JSON.stringify(both));
  const busy = 'vimana: `asked` is moving to another host; wait for it, or cancel it\n';
  assert.equal(both.find(({ status }) => status === 1).err, busy);
  assert.equal(await refused(line(at.host)), busy);
  const { operation, host, run_epoch } = await vms.rest(at.id);
  assert.deepEqual([operation.state, host.name, run_epoch], ['succeeded', at.to, 2]);
  const kinds = (await api.call('GET', `/vms/${at.id}/operations`)).items.map(({ kind }) => kind);
  assert.deepEqual(kinds, ['migrate', 'create']);
  await hasNothing(at.host, at);

  const there = other(host.name);
  // While something else is under way: its host does not come to it.
  fleet.parts.get(host.name).kill('SIGSTOP');
  try {
    await run('snapshot create asked first');
    assert.equal(
      await refused(line(there)),
      'vimana: `asked` has a snapshot taken of it; wait for it, or cancel it\n',
    );
  } finally {
    fleet.parts.get(host.name).kill('SIGCONT');
  }
  assert.equal((await vms.rest(at.id)).operation.kind, 'snapshot');
  await run('snapshot delete asked first --wait');

  const before = await vms.rest(at.id);
  const [qemu] = fleet.qemus(at.id);
  assert.match(await refused(line(host.name)), /^vimana: `asked` is on host `host-[ab]` already$/m);
  assert.match(await refused(line('nowhere')), /there is no host `nowhere`$/m);
  await run(`host cordon ${there}`);
  assert.equal(await refused(line(there)), `vimana: host \`${there}\` is cordoned\n`);
  await run(`host enable ${there}`);
  // A host that drains, of a machine that no host takes.
  await run(`host cordon ${host.name}`);
  const stays = await vms.make('stays');
  assert.equal((await vms.rest(stays)).host.name, there);
  await run(`host evacuate ${there}`);
  assert.equal(await refused(line(there)), `vimana: host \`${there}\` drains\n`);
  for (const name of HOSTS) await run(`host enable ${name}`);
  await vms.removed(stays);
  assert.deepEqual(await vms.look(at.id), before);
  assert.deepEqual(fleet.qemus(at.id), [qemu]);
  await at.guest.isSameBoot();
  fleet.isClean();
  await remove(at);
});

// Whether the machine is being sent, as far as its host has written down.
const isSent = ({ id, host }) => new Ledger(join(fleet.data, host)).stage(id, 'send') === 'begun';

// Kills a QEMU while no agent sees it.
async function killQemu(at, host, pid) {
  const agents = HOSTS.map((name) => fleet.parts.get(name));
  for (const agent of agents) agent.kill('SIGSTOP');
  process.kill(pid, 'SIGKILL');
  const hit = isSent(at);
  for (const agent of agents) agent.kill('SIGCONT');
  return hit;
}

async function killAgent(at, host) {
  await fleet.kill(host);
  const hit = isSent(at);
  at.isCutOff = true;
  await fleet.startAgent(host);
  return hit;
}

async function killServer(at) {
  await fleet.kill('server');
  const hit = isSent(at);
  await fleet.startServer();
  return hit;
}

// Ends the connections to the QEMU that waits.
async function cut(at) {
  const open = connections(at.target);
  assert.ok(open.length > 0, 'the hosts are connected');
  const hit = isSent(at);
  for (const port of open) spawnSync('ss', ['-K', '-tn', 'sport', '=', `:${port}`]);
  return hit;
}

// The ports of a process's connections.
function connections(pid) {
  const { stdout } = spawnSync('ss', ['-tnpH', 'state', 'established'], { encoding: 'utf8' });
  const lines = stdout.split('\n').filter((line) => line.includes(`pid=${pid},`));
  return lines.map((line) => line.trim().split(/\s+/)[2].split(':').at(-1));
}

// Whether anybody can: that takes root, and a kernel that has it.
async function canCut() {
  const server = createServer((end) => end.on('error', () => {})).listen(0, '127.0.0.1');
  await once(server, 'listening');
  const { port } = server.address();
  const end = connect(port, '127.0.0.1');
  await once(end, 'connect');
  const ended = new Promise((done) => end.on('error', () => done(true)));
  spawnSync('ss', ['-K', '-tn', 'dport', '=', `:${port}`]);
  const is = await Promise.race([ended, soon(1000).then(() => false)]);
  end.destroy();
  server.close();
  return is;
}

const SOURCE_QEMU = (at) => killQemu(at, at.host, at.qemu);
const TARGET_QEMU = (at) => killQemu(at, at.to, at.target);
const ENDS_AS = { failed: 'can be started', stays: 'stays', goes: 'goes on' };
const BLOWS = [
  ["the source's QEMU is killed", SOURCE_QEMU, 'disks', 'failed'],
  ["the source's QEMU is killed", SOURCE_QEMU, 'memory', 'failed'],
  ["the target's QEMU is killed", TARGET_QEMU, 'disks', 'stays'],
  ["the target's QEMU is killed", TARGET_QEMU, 'memory', 'stays'],
  ["the source's agent is killed", (at) => killAgent(at, at.host), 'disks', 'stays'],
  ["the source's agent is killed", (at) => killAgent(at, at.host), 'memory', 'goes'],
  ["the target's agent is killed", (at) => killAgent(at, at.to), 'disks', 'goes'],
  ["the target's agent is killed", (at) => killAgent(at, at.to), 'memory', 'goes'],
  ['the server is killed', killServer, 'memory', 'goes'],
  ['the connection is cut', cut, 'disks', 'stays'],
  ['the connection is cut', cut, 'memory', 'stays'],
];

// Of what is left, exactly one runs; or none, and it can be started.
const ENDS = { failed: hasFailed, stays: staysWhereItWas, goes: hasGone };

for (const [index, [what, blow, phase, ends]] of BLOWS.entries()) {
  test(`${what} while the ${NOUNS[phase]} is copied: it ${ENDS_AS[ends]}`, PATIENCE, async (t) => {
    if (blow === cut && !(await canCut())) return t.skip('no connection can be cut here');
    const at = await start(`blow-${index}`);
    const { guest, id, to } = at;
    await guest.write('before', phase === 'disks' ? 40 : 4);
    await guest.count();
    const copying = await Copying.follow(api, id);
    // Five seconds for the disk, eight for the memory.
    const limit = phase === 'disks' ? SLOWLY : 2 * SLOWLY;
    await run(`vm migrate ${guest.name} --to ${to} --bandwidth ${limit}`);
    await copying.until(phase, (report) => report.phase === phase && report.done_bytes > 0);
    at.target = fleet.qemus(id).find((pid) => pid !== at.qemu);
    // Here and there.
    await guest.write('meanwhile', 1);
    // A server that is killed ends the stream.
    copying.end();
    const hit = await blow(at);
    assert.ok(hit, 'it came while the machine was being sent');
    assert.equal(copying.told.at(-1).phase, phase, 'it came in time');
    const { operation } = await vms.rest(id);
    await vms.connected();
    if (ends !== 'goes') {
      assert.equal(operation.state, 'failed');
      assert.match(operation.error, /^the machine was not sent: /);
      t.diagnostic(operation.error);
    }
    await ENDS[ends](at);
    await startAgain(at);
    await remove(at);
  });
}
