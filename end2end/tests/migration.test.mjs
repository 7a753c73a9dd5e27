// Machines that go to another host while they run: two agents with QEMU, each a
// host of its own, whose disks have nothing in common.

import assert from 'node:assert/strict';
import { after, before, test } from 'node:test';
import { Cli } from '../lib/cli.mjs';
import { Fleet } from '../lib/fleet.mjs';
import { Api, PASSWORD } from '../lib/stack.mjs';
import { Vms } from '../lib/vms.mjs';

const HOSTS = ['host-a', 'host-b'];
const PATIENCE = { timeout: 180_000 };
let fleet, api, vms, cli;

before(async () => {
  fleet = await Fleet.open();
  for (const host of HOSTS) await fleet.startAgent(host);
  api = await Api.signIn(fleet.url);
  vms = new Vms(fleet, api);
  cli = new Cli(fleet.data);
  const login = `login --url ${fleet.url} --user admin --password-stdin`;
  assert.equal((await cli.run(login, { input: PASSWORD })).status, 0);
});
after(async () => {
  cli?.kill();
  await fleet?.destroy();
});

const other = (host) => HOSTS.find((name) => name !== host);

// The numbers that a console shows, and where it is talked to.
function watch(name) {
  const console = cli.talk(`vm console ${name}`);
  let said = '';
  console.listen((piece) => (said += piece));
  return {
    console,
    said: () => said,
    ticks: () => [...said.matchAll(/tick (\d+) /g)].map(([, n]) => Number(n)),
  };
}

// A machine whose guest counts on its serial line.
async function counting(name) {
  const id = await vms.make(name);
  const vm = await vms.rest(id);
  assert.equal(vm.state, 'running');
  const line = watch(name);
  await line.console.hears(/~#/);
  line.console.write('cat /proc/sys/kernel/random/boot_id | sed s/^/boot=/\n');
  await line.console.hears(/boot=[\w-]{36}/);
  const [, boot] = line.said().match(/boot=([\w-]{36})/);
  line.console.write('n=0; while :; do n=$((n+1)); echo "tick $n "; sleep 0.02; done\n');
  await line.console.hears(/tick 20 /);
  return { id, vm, line, boot };
}

test('a guest goes to another host and back without missing a tick', PATIENCE, async (t) => {
  const { id, vm, line, boot } = await counting('counter');
  let [seen, host] = [line, vm.host.name];
  for (let round = 0; round < 2; round += 1) {
    const to = other(host);
    const done = await cli.run(`vm migrate counter --to ${to} --wait --json`);
    assert.equal(done.status, 0, done.err);
    const answer = JSON.parse(done.out);
    assert.equal(answer.operation.state, 'succeeded');
    for (const figure of ['total_ms', 'transferred_bytes', 'downtime_ms', 'blackout_ms']) {
      assert.ok(answer[figure] > 0, `${figure} is ${answer[figure]}`);
    }
    t.diagnostic(
      `blackout ${answer.blackout_ms} ms, QEMU says ${answer.downtime_ms} ms, ` +
        `${answer.transferred_bytes} bytes in ${answer.total_ms} ms`,
    );
    const now = await vms.look(id);
    assert.deepEqual([now.state, now.host.name], ['running', to]);
    assert.equal(fleet.qemus(id).length, 1, 'one QEMU is left');
    // What the line said before it ended, and what the next one says.
    await seen.console.over;
    const next = watch('counter');
    const last = seen.ticks().at(-1);
    await next.console.hears(new RegExp(`tick ${last + 30} `));
    const ticks = [...new Set([...seen.ticks(), ...next.ticks()])];
    const from = ticks[0];
    assert.deepEqual(
      ticks,
      ticks.map((_, index) => from + index),
    );
    [seen, host] = [next, to];
  }
  seen.console.write('\x03');
  await seen.console.hears(/\^C[\s\S]*~#/);
  seen.console.write('cat /proc/sys/kernel/random/boot_id | sed s/^/again=/\n');
  await seen.console.hears(/again=[\w-]{36}/);
  assert.equal(seen.said().match(/again=([\w-]{36})/)[1], boot);
  await seen.console.end();
  fleet.isClean();
  await vms.removed(id);
});

test('a migration that cannot be is refused in words', PATIENCE, async () => {
  const id = await vms.make('stays');
  const { host } = await vms.rest(id);
  const refused = async (to) => {
    const { status, err } = await cli.run(`vm migrate stays --to ${to}`);
    assert.equal(status, 1);
    return err;
  };
  assert.match(await refused(host.name), /is on host `host-[ab]` already/);
  assert.match(await refused('nowhere'), /there is no host `nowhere`/);
  await vms.removed(id);
});

test('a source or a target that dies while it copies leaves one that runs', PATIENCE, async () => {
  for (const victim of ['source', 'target']) {
    const name = `dies-${victim}`;
    const id = await vms.make(name);
    const { host } = await vms.rest(id);
    const [source] = fleet.qemus(id);
    await api.call('POST', `/vms/${id}/migrate`, { host: other(host.name) });
    const target = await vms.eventually('the process that waits', () =>
      fleet.qemus(id).find((pid) => pid !== source),
    );
    process.kill(victim === 'source' ? source : target, 'SIGKILL');
    const vm = await vms.rest(id);
    const left = fleet.qemus(id);
    if (vm.state === 'failed') {
      // It ended where it was, or had just arrived.
      assert.deepEqual(left, []);
      await vms.ask('retry', id);
      assert.equal((await vms.rest(id)).state, 'running');
    } else {
      assert.equal(vm.state, 'running');
    }
    assert.equal(fleet.qemus(id).length, 1);
    fleet.isClean();
    await vms.removed(id);
  }
});

test('a host is emptied, and every machine runs on', { timeout: 900_000 }, async (t) => {
  const [source, target] = HOSTS;
  const ids = [];
  await cli.run(`host cordon ${target}`);
  for (let number = 1; number <= 10; number += 1) {
    const id = await vms.make(`one-of-ten-${number}`);
    const vm = await vms.rest(id);
    assert.deepEqual([vm.state, vm.host.name], ['running', source]);
    ids.push(id);
  }
  const boots = new Map(ids.map((id) => [id, fleet.qemus(id)[0]]));
  // Nobody takes them.
  const stuck = await cli.run(`host evacuate ${source} --wait`);
  assert.equal(stuck.status, 1);
  const sentences = stuck.err.trim().split('\n');
  assert.equal(sentences.length, 10, stuck.err);
  const named = /^vimana: `one-of-ten-\d+` could not be moved: host `host-b` is cordoned$/;
  for (const sentence of sentences) assert.match(sentence, named);
  assert.equal((await cli.run(`host enable ${target}`)).status, 0);
  const begun = Date.now();
  const done = await cli.run(`host evacuate ${source} --limit 2 --wait --timeout 800 --json`);
  assert.equal(done.status, 0, done.err);
  const view = JSON.parse(done.out);
  assert.deepEqual([view.over, view.moved, view.limit], [true, 10, 2]);
  assert.deepEqual([view.moving, view.waiting, view.stuck], [[], [], []]);
  t.diagnostic(`10 machines in ${Date.now() - begun} ms`);
  for (const id of ids) {
    const vm = await vms.look(id);
    assert.deepEqual([vm.state, vm.host.name], ['running', target]);
    assert.equal(vm.operation.migration.mode, 'live');
    const pids = fleet.qemus(id);
    assert.equal(pids.length, 1, 'one QEMU is left');
    assert.notEqual(pids[0], boots.get(id));
  }
  const [host] = (await vms.hosts()).filter(({ name }) => name === source);
  assert.deepEqual([host.state, host.vms], ['maintenance', 0]);
  const refused = await cli.run(`vm migrate one-of-ten-1 --to ${source}`);
  assert.match(refused.err, /host `host-a` is in maintenance/);
  fleet.isClean();
  assert.equal((await cli.run(`host enable ${source}`)).status, 0);
  for (const id of ids) await vms.removed(id);
});
