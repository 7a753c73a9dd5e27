// Machines that go to another host with all of their disks: what is in a datastore
// that both hosts reach stays where it is, and the rest is copied.

import assert from 'node:assert/strict';
import { existsSync, mkdirSync, statSync } from 'node:fs';
import { join } from 'node:path';
import { after, before, test } from 'node:test';
import { Cli } from '../lib/cli.mjs';
import { Fleet } from '../lib/fleet.mjs';
import { Guest } from '../lib/guest.mjs';
import { Api, PASSWORD } from '../lib/stack.mjs';
import { Vms } from '../lib/vms.mjs';

const HOSTS = ['host-a', 'host-b'];
const PATIENCE = { timeout: 240_000 };
const VOLUME_MIB = 64;
let fleet, api, vms, cli;

before(async () => {
  fleet = await Fleet.open();
  const shared = join(fleet.data, 'shared');
  mkdirSync(shared);
  for (const host of HOSTS) {
    const fast = join(fleet.data, `${host}-fast`);
    mkdirSync(fast);
    await fleet.startAgent(host, ['--datastore', `shared=${shared},fast=${fast}`]);
  }
  api = await Api.signIn(fleet.url);
  vms = new Vms(fleet, api);
  cli = new Cli(fleet.data);
  const login = `login --url ${fleet.url} --user admin --password-stdin`;
  assert.equal((await cli.run(login, { input: PASSWORD })).status, 0);
  await vms.eventually('both hosts', async () => {
    const hosts = await vms.hosts();
    return hosts.length === HOSTS.length && hosts.every(({ connected }) => connected);
  });
});
after(async () => {
  cli?.kill();
  await fleet?.destroy();
});

async function run(line) {
  const { status, out, err } = await cli.run(line);
  assert.equal(status, 0, `${line}: ${err}`);
  return out;
}

const other = (host) => HOSTS.find((name) => name !== host);
const inShared = (id) => join(fleet.data, 'shared', id, 'disk.qcow2');

async function migrate({ name, host }, how = '') {
  const out = await run(`vm migrate ${name} --to ${other(host)} ${how} --wait --json`);
  return JSON.parse(out);
}

// What of a datastore is used, as both hosts show it.
async function used(name) {
  const hosts = await vms.hosts();
  const places = hosts.flatMap(({ datastores }) => datastores);
  return places.filter((place) => place.name === name).map(({ used_mib }) => used_mib);
}

test('only the memory of a machine goes where both hosts reach its disk', PATIENCE, async (t) => {
  const guest = await Guest.start(vms, cli, 'shared', { datastore: 'shared' });
  const { id } = guest;
  await guest.write('before', 40);
  await guest.count();
  const disk = statSync(inShared(id));
  const before = await used('shared');
  for (let round = 0; round < 2; round += 1) {
    const answer = await migrate(guest);
    guest.host = other(guest.host);
    assert.equal(answer.operation.state, 'succeeded');
    const { transferred_bytes: bytes, downtime_ms: downtime, blackout_ms: blackout } = answer;
    assert.ok(bytes > 2 ** 20 && bytes < 128 * 2 ** 20, `${bytes} bytes of a memory of 128 MiB`);
    assert.ok(downtime > 0 && blackout > 0);
    t.diagnostic(`blackout ${blackout} ms, QEMU says ${downtime} ms, ${bytes} bytes`);
    const vm = await vms.look(id);
    assert.deepEqual([vm.state, vm.host.name, vm.datastore], ['running', guest.host, 'shared']);
    assert.equal(fleet.qemus(id).length, 1, 'one QEMU is left');
    await guest.countsOn();
    assert.equal(statSync(inShared(id)).ino, disk.ino, 'its disk is the same file');
    assert.deepEqual(await used('shared'), before);
    assert.ok(!existsSync(join(fleet.data, other(guest.host), 'vms', id)), 'nothing stays behind');
    fleet.isClean();
  }
  await guest.write('after', 8);
  await guest.hasAll();
  // Off, and suspended, it is handed over as it is.
  for (const [rest, wake] of [
    ['suspend', 'resume'],
    ['poweroff', 'start'],
  ]) {
    await vms.ask(rest, id);
    const { state } = await vms.rest(id);
    const answer = await migrate(guest);
    guest.host = other(guest.host);
    assert.equal(answer.transferred_bytes, 0);
    assert.deepEqual([answer.downtime_ms, answer.blackout_ms], [null, null]);
    const there = await vms.look(id);
    assert.deepEqual([there.state, there.host.name], [state, guest.host]);
    assert.equal(statSync(inShared(id)).ino, disk.ino);
    fleet.isClean();
    await vms.ask(wake, id);
    assert.equal((await vms.rest(id)).state, 'running');
    if (wake === 'resume') await guest.countsOnAnew();
  }
  guest.open();
  await guest.hears(/~# $/);
  await guest.hasAll();
  await vms.removed(id);
  assert.ok(!existsSync(inShared(id)));
  assert.deepEqual(await used('shared'), [0, 0]);
  fleet.isClean();
});

test('volumes go along, whatever datastore they are in', PATIENCE, async () => {
  const guest = await Guest.start(vms, cli, 'laden');
  const { id } = guest;
  const places = ['local', 'fast', 'shared'];
  const sums = [];
  for (const place of places) {
    const size = `--size-mib ${VOLUME_MIB} --datastore ${place}`;
    await run(`volume create of-${place} ${size}`);
    await run(`volume attach of-${place} laden --wait`);
    // The latest of them is the last by name.
    const made = `until [ $(ls /dev/sd? | wc -l) = ${sums.length + 1} ]; do usleep 20000; done`;
    const device = await guest.word(`${made}; ls /dev/sd? | tail -n 1 | cut -c 6-`);
    const fill = `dd if=/dev/urandom of=/dev/${device} bs=1M count=20 2>/dev/null; sync`;
    const sum = `head -c 20971520 /dev/${device} | md5sum | cut -c -32`;
    sums.push({ sum, is: await guest.word(`${fill}; ${sum}`) });
  }
  await guest.count();
  for (let round = 0; round < 2; round += 1) {
    const answer = await migrate(guest);
    guest.host = other(guest.host);
    assert.equal(answer.operation.state, 'succeeded');
    const [local, fast] = [20 * 2 ** 20, 20 * 2 ** 20];
    assert.ok(answer.transferred_bytes > local + fast, 'both are copied');
    await guest.countsOn();
    // What the guest has read is in its memory; what it reads now is on the disks.
    await guest.word('echo 3 >/proc/sys/vm/drop_caches; echo dropped');
    for (const { sum, is } of sums) assert.equal(await guest.word(sum), is);
    const { items } = await api.call('GET', '/volumes');
    for (const { name, host, datastore, state } of items) {
      assert.deepEqual([host.name, `of-${datastore}`, state], [guest.host, name, 'attached']);
    }
    fleet.isClean();
  }
  // One that does not run takes along only what both reach.
  await vms.ask('poweroff', id);
  await vms.rest(id);
  const { status, err } = await cli.run(`vm migrate laden --to ${other(guest.host)}`);
  assert.equal(status, 1);
  assert.match(err, /only goes along while `laden` runs/);
  await vms.removed(id);
  for (const place of places) await run(`volume delete of-${place} --yes`);
  fleet.isClean();
});

test('by post-copy a machine runs before all of its memory is there', PATIENCE, async (t) => {
  for (const datastore of ['local', 'shared']) {
    const guest = await Guest.start(vms, cli, `later-${datastore}`, { datastore });
    await guest.write('before', 40);
    await guest.count();
    const answer = await migrate(guest, '--post-copy');
    guest.host = other(guest.host);
    assert.equal(answer.operation.state, 'succeeded');
    t.diagnostic(`${datastore}: blackout ${answer.blackout_ms} ms, ${answer.transferred_bytes} bytes`);
    const vm = await vms.look(guest.id);
    assert.deepEqual([vm.state, vm.host.name], ['running', guest.host]);
    await guest.countsOn();
    await guest.hasAll();
    assert.equal(fleet.qemus(guest.id).length, 1);
    fleet.isClean();
    await vms.removed(guest.id);
  }
});

test('a disk is refused where no host has its datastore, or the other one has not', PATIENCE, async () => {
  const { status, err } = await cli.run(
    'vm create nowhere --image demo --flavor tiny --datastore attic',
  );
  assert.equal(status, 1);
  assert.match(err, /no host has a datastore `attic`/);
  const id = await vms.make('alone', { datastore: 'fast' });
  const { host } = await vms.rest(id);
  // Both have one of that name, and neither reaches the other's: it is copied.
  await run(`vm migrate alone --to ${other(host.name)} --wait`);
  assert.ok(existsSync(join(fleet.data, `${other(host.name)}-fast`, id, 'disk.qcow2')));
  assert.ok(!existsSync(join(fleet.data, `${host.name}-fast`, id)));
  fleet.isClean();
  await vms.removed(id);
});
