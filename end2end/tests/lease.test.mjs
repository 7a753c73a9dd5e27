// Host leases with real processes and real QEMU: a host that does not hear from
// the server stops its machines, even where its agent hangs.

import assert from 'node:assert/strict';
import { after, before, test } from 'node:test';
import { Fleet } from '../lib/fleet.mjs';
import { Api } from '../lib/stack.mjs';

const HOST = 'host-a';
const PATIENCE_MS = 60_000;
let fleet;
let api;

before(async () => {
  process.env.VIMANA_HOST_LEASE = '10';
  fleet = await Fleet.open();
  await fleet.startAgent(HOST);
  api = await Api.signIn(fleet.url);
});
after(async () => {
  delete process.env.VIMANA_HOST_LEASE;
  await fleet?.destroy();
});

// Looks again until it is so: the control plane may be away meanwhile.
async function eventually(what, so) {
  const end = Date.now() + PATIENCE_MS;
  for (;;) {
    if (await so()) return;
    assert.ok(Date.now() < end, `waited in vain for ${what}`);
    await new Promise((soon) => setTimeout(soon, 100));
  }
}

const state = async (id) => (await api.call('GET', `/vms/${id}`)).state;

async function running(name) {
  const form = { name, image: 'demo', flavor: 'tiny' };
  const { vm } = await api.call('POST', '/vms', form);
  await eventually(`${name} to run`, async () => (await state(vm.id)) === 'running');
  return vm.id;
}

// The record says what happened, and nothing is left in the end.
async function foundFailed(id) {
  await eventually('the VM to be found failed', async () => (await state(id)) === 'failed');
  const { items: hosts } = await api.call('GET', '/hosts');
  const { items: events } = await api.call('GET', `/hosts/${hosts[0].id}/events`);
  assert.ok(events.some(({ event }) => event.kind === 'host_fenced'));
  await api.call('DELETE', `/vms/${id}`);
  await eventually('the VM to be gone', async () => (await state(id)) === 'done');
  assert.deepEqual(fleet.traces(id), []);
  fleet.isClean();
}

test('machines run on while the lease is renewed', async () => {
  const id = await running('renewed');
  const [qemu] = fleet.qemus(id);
  // Longer than the lease.
  await new Promise((over) => setTimeout(over, 13_000));
  assert.deepEqual(fleet.qemus(id), [qemu]);
  assert.equal(await state(id), 'running');
  await api.call('DELETE', `/vms/${id}`);
});

test('the watchdog stops the machines of an agent that hangs', async () => {
  const id = await running('hung');
  fleet.parts.get(HOST).kill('SIGSTOP');
  await eventually('the machine to be stopped', () => fleet.qemus(id).length === 0);
  fleet.parts.get(HOST).kill('SIGCONT');
  await foundFailed(id);
});

test('machines end with the lease of a server that does not come back', async () => {
  const id = await running('orphaned');
  await fleet.kill('server');
  await eventually('the machine to be stopped', () => fleet.qemus(id).length === 0);
  await fleet.startServer();
  await foundFailed(id);
});
