// kill -9 of every part at every step, with real QEMU: nothing is lost, nothing
// is left behind, and fsck finds every rule kept.

import assert from 'node:assert/strict';
import { after, before, test } from 'node:test';
import { Fleet } from '../lib/fleet.mjs';
import { Api } from '../lib/stack.mjs';

const HOST = 'host-a';
const MOVING = ['pending', 'prolog', 'boot', 'shutdown', 'epilog'];
const PATIENCE_MS = 60_000;
let fleet;
let api;

before(async () => {
  fleet = await Fleet.open();
  await fleet.startAgent(HOST);
  api = await Api.signIn(fleet.url);
});
after(async () => {
  await fleet?.destroy();
});

// Follows one VM: waits for events and looks, over restarts of the server.
class Watch {
  static async of(name) {
    const watch = new Watch();
    watch.name = name;
    watch.items = [];
    watch.waiting = [];
    watch.hangUp = await api.follow((item) => watch.take(item));
    return watch;
  }

  take(item) {
    if (item.vm?.name !== this.name) return;
    this.items.push(item);
    this.waiting = this.waiting.filter((wait) => !wait(item));
  }

  // The first item from now on, or from the start, that is as wanted.
  async until(what, wanted) {
    const known = this.items.find(wanted);
    if (known) return known;
    return within(what, (done) => {
      this.waiting.push((item) => wanted(item) && (done(item), true));
    });
  }
}

function within(what, work) {
  return new Promise((done, failed) => {
    const late = setTimeout(() => failed(new Error(`waited in vain for ${what}`)), PATIENCE_MS);
    work((value) => {
      clearTimeout(late);
      done(value);
    });
  });
}

const requested = (operation) => (item) =>
  item.event.event.kind === 'requested' && item.event.event.operation === operation;
const done = (step) => (item) =>
  item.event.event.kind === 'step' && item.event.event.step === step;
const placed = (item) => item.event.event.kind === 'placed';

// When each step of each operation has just begun.
const STEPS = {
  create: { prepare: placed, boot: done('prepare') },
  suspend: { save: requested('suspend') },
  stop: { save: requested('stop'), upload: done('save'), clean: done('upload') },
  delete: { kill: requested('delete'), clean: done('kill') },
};
const PLACES = Object.entries(STEPS).flatMap(([operation, steps]) =>
  Object.entries(steps).map(([step, begun]) => ({ operation, step, begun })),
);

async function make(name) {
  const form = { name, image: 'demo', flavor: 'tiny' };
  return (await api.call('POST', '/vms', form)).vm.id;
}

const ask = (operation, id) =>
  operation === 'delete'
    ? api.call('DELETE', `/vms/${id}`)
    : api.call('POST', `/vms/${id}/${operation}`);

// Waits until nothing is in flight for the VM, whatever comes and goes.
async function rest(id) {
  const end = Date.now() + PATIENCE_MS;
  for (;;) {
    try {
      const vm = await api.call('GET', `/vms/${id}`);
      const moves = MOVING.includes(vm.state);
      if (!moves && !['running', 'undoing'].includes(vm.operation?.state)) return vm;
    } catch (error) {
      // The server may be away for a moment.
      if (!(error instanceof TypeError)) throw error;
    }
    assert.ok(Date.now() < end, 'the operation does not end');
    await new Promise((soon) => setTimeout(soon, 50));
  }
}

async function removed(id) {
  const vm = await rest(id);
  if (vm.state !== 'done') await ask('delete', id);
  assert.equal((await rest(id)).state, 'done');
  assert.deepEqual(fleet.qemus(id), []);
  assert.deepEqual(fleet.traces(id), []);
}

function clean() {
  const report = fleet.fsck();
  assert.deepEqual(report.breaches, []);
  assert.deepEqual(report.hosts, { server_runs: true, recorded: 1, silent: [] });
  assert.equal(report.whole, true);
}

// Brings a VM to where `operation` can be asked for, and asks for it.
async function begin(operation, name) {
  const watch = await Watch.of(name);
  const id = await make(name);
  if (operation !== 'create') {
    await watch.until('Running', (item) => item.vm.state === 'running');
    await ask(operation, id);
  }
  return { id, watch };
}

for (const { operation, step, begun } of PLACES) {
  test(`an agent is killed when ${operation} is at ${step}`, async () => {
    const name = `agent-${operation}-${step}`;
    const { id, watch } = await begin(operation, name);
    await watch.until(`${operation} at ${step}`, begun);
    await fleet.kill(HOST);
    await fleet.startAgent(HOST);
    const vm = await rest(id);
    watch.hangUp();
    assert.equal(vm.operation.state, 'succeeded', vm.operation.error);
    await connected();
    clean();
    await removed(id);
    clean();
  });

  test(`the server is killed when ${operation} is at ${step}`, async () => {
    const name = `server-${operation}-${step}`;
    const { id, watch } = await begin(operation, name);
    await watch.until(`${operation} at ${step}`, begun);
    watch.hangUp();
    await fleet.kill('server');
    await fleet.startServer();
    const vm = await rest(id);
    assert.equal(vm.operation.state, 'succeeded', vm.operation.error);
    await connected();
    clean();
    await removed(id);
    clean();
  });
}

for (const { operation, step, begun } of PLACES) {
  test(`QEMU is killed when ${operation} is at ${step}`, async () => {
    const name = `qemu-${operation}-${step}`;
    const { id, watch } = await begin(operation, name);
    await watch.until(`${operation} at ${step}`, begun);
    for (const pid of fleet.qemus(id)) {
      try {
        process.kill(pid, 'SIGKILL');
      } catch (error) {
        assert.equal(error.code, 'ESRCH');
      }
    }
    const vm = await rest(id);
    watch.hangUp();
    // Whether the operation was quicker or not: what is recorded is so.
    assert.ok(['running', 'failed', 'suspended', 'stopped', 'done'].includes(vm.state), vm.state);
    await api.call('GET', `/vms/${id}/operations`);
    await removed(id);
    clean();
  });
}

async function connected() {
  const end = Date.now() + PATIENCE_MS;
  for (;;) {
    const { items: hosts } = await api.call('GET', '/hosts');
    if (hosts.every((host) => host.connected)) return;
    assert.ok(Date.now() < end, 'the host does not come back');
    await new Promise((soon) => setTimeout(soon, 50));
  }
}

test('a machine whose QEMU is killed is found failed within seconds and starts again', async () => {
  const watch = await Watch.of('crash');
  const id = await make('crash');
  await watch.until('Running', (item) => item.vm.state === 'running');
  const [pid] = fleet.qemus(id);
  process.kill(pid, 'SIGKILL');
  await watch.until('Failed', (item) => item.vm.state === 'failed');
  await ask('retry', id);
  const vm = await rest(id);
  watch.hangUp();
  assert.equal(vm.state, 'running');
  assert.equal(vm.run_epoch, 2);
  clean();
  await removed(id);
});

test('twenty machines outlive their agent, which finds all of them again', async () => {
  const names = Array.from({ length: 20 }, (_, n) => `many-${n}`);
  const ids = await Promise.all(names.map(make));
  for (const id of ids) assert.equal((await rest(id)).state, 'running');
  const pids = ids.map((id) => fleet.qemus(id));
  await fleet.kill(HOST);
  await fleet.startAgent(HOST);
  await connected();
  clean();
  assert.deepEqual(
    ids.map((id) => fleet.qemus(id)),
    pids,
  );
  for (const id of ids) {
    const { items: timeline } = await api.call('GET', `/vms/${id}/timeline`);
    assert.ok(!timeline.some(({ event }) => event.kind === 'failed'));
    await removed(id);
  }
});
