// What an agent notices of its machines: their end, each in its kind, and all
// of them again after it was away. Prints how long that takes; what is promised
// is that it happens.

import assert from 'node:assert/strict';
import { existsSync } from 'node:fs';
import { after, before, test } from 'node:test';
import { setImmediate as turn } from 'node:timers/promises';
import { Cli } from '../lib/cli.mjs';
import { Fleet } from '../lib/fleet.mjs';
import { Api, PASSWORD } from '../lib/stack.mjs';
import { Vms } from '../lib/vms.mjs';

const HOST = 'host-a';
const MANY = 20;
let fleet, api, vms;

before(async () => {
  fleet = await Fleet.open();
  await fleet.startAgent(HOST);
  api = await Api.signIn(fleet.url);
  vms = new Vms(fleet, api);
});
after(async () => {
  await fleet?.destroy();
});

const PATIENCE = { timeout: 120_000 };
const figure = (t, what, since, until) =>
  t.diagnostic(`${what}: ${Math.round(until - since)} ms`);

// Its process is gone.
async function ended(pid) {
  while (existsSync(`/proc/${pid}/exe`)) await turn();
  return performance.now();
}

// Follows the events; `told` resolves when one says that the VM is in that state.
async function watch(id, state) {
  let tell;
  const told = new Promise((done) => (tell = done));
  const hangUp = await api.follow(({ event }) => {
    const { kind, to } = event.event;
    if (event.vm_id === id && kind === 'state' && to === state) tell(performance.now());
  });
  return { told, hangUp };
}

async function run(name) {
  const id = await vms.make(name);
  assert.equal((await vms.rest(id)).state, 'running');
  return [id, fleet.qemus(id)[0]];
}

const used = async () => (await api.call('GET', '/hosts')).items[0].used;

test('a guest that switches itself off is found off, and starts again', PATIENCE, async (t) => {
  const [id, qemu] = await run('leaves');
  const cli = new Cli(fleet.data);
  const login = `login --url ${fleet.url} --user admin --password-stdin`;
  assert.equal((await cli.run(login, { input: PASSWORD })).status, 0);
  const console = cli.talk('vm console leaves');
  await console.hears(/~#/);
  const { told, hangUp } = await watch(id, 'powered_off');
  console.write('poweroff\n');
  figure(t, 'from the end of its process to PoweredOff', await ended(qemu), await told);
  hangUp();
  assert.equal(await console.end(), 0);
  const { vcpus, memory_mib, disk_mib } = await used();
  assert.deepEqual({ vcpus, memory_mib }, { vcpus: 0, memory_mib: 0 });
  assert.ok(disk_mib > 0, 'its disk stays');
  await vms.ask('start', id);
  const vm = await vms.rest(id);
  assert.deepEqual([vm.state, vm.run_epoch], ['running', 2]);
  fleet.isClean();
  await vms.removed(id);
});

test('a machine whose QEMU is killed is found failed, and starts again', PATIENCE, async (t) => {
  const [id, qemu] = await run('crashes');
  const { told, hangUp } = await watch(id, 'failed');
  process.kill(qemu, 'SIGKILL');
  figure(t, 'from kill -9 to Failed', performance.now(), await told);
  hangUp();
  const { vcpus, memory_mib } = await used();
  assert.deepEqual({ vcpus, memory_mib }, { vcpus: 0, memory_mib: 0 });
  await vms.ask('retry', id);
  const vm = await vms.rest(id);
  assert.deepEqual([vm.state, vm.run_epoch], ['running', 2]);
  fleet.isClean();
  await vms.removed(id);
});

test(`${MANY} machines outlive their agent, which finds all of them again`, PATIENCE, async (t) => {
  const names = Array.from({ length: MANY }, (_, n) => `many-${n}`);
  const ids = await Promise.all(names.map((name) => vms.make(name)));
  for (const id of ids) assert.equal((await vms.rest(id)).state, 'running');
  const qemus = () => ids.map((id) => fleet.qemus(id));
  const before = qemus();
  const { items: machines } = await api.call('GET', '/vms?state=running');
  assert.equal(machines.length, MANY);

  await fleet.kill(HOST);
  await vms.disconnected();
  // One that ends meanwhile is found, too.
  process.kill(before[0][0], 'SIGKILL');
  const { told, hangUp } = await watch(ids[0], 'failed');
  const since = performance.now();
  await fleet.startAgent(HOST);
  await vms.connected();
  figure(t, `from the agent's start to ${MANY} machines adopted`, since, await told);
  hangUp();

  fleet.isClean();
  assert.deepEqual(qemus(), [[], ...before.slice(1)]);
  for (const id of ids.slice(1)) {
    assert.equal((await vms.look(id)).state, 'running');
    const { items: timeline } = await api.call('GET', `/vms/${id}/timeline`);
    assert.ok(!timeline.some(({ event }) => event.kind === 'failed'));
  }
  for (const id of ids) await vms.removed(id);
  fleet.isClean();
});
