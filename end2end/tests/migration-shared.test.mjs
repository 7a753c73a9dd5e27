// Machines that go to another host with all of their disks: what is in a datastore
// that both hosts reach stays where it is, and the rest is copied.

import assert from 'node:assert/strict';
import { existsSync, lstatSync, mkdirSync, statSync } from 'node:fs';
import { join } from 'node:path';
import { after, before, test } from 'node:test';
import { Cli } from '../lib/cli.mjs';
import { Fleet } from '../lib/fleet.mjs';
import { Guest } from '../lib/guest.mjs';
import { Api, PASSWORD } from '../lib/stack.mjs';
import { Vms } from '../lib/vms.mjs';

const HOSTS = ['host-a', 'host-b'];
const PATIENCE = { timeout: 480_000 };
const VOLUME_MIB = 64;
// What is written of each: guests are slow at making it up.
const FILL_MIB = 6;
const FILL_BYTES = FILL_MIB * 2 ** 20;
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

// Brings it to rest, and as that to the other host, and wakes it there; `there` looks at
// it in between, and at what the command has answered, `awake` in the end.
async function goAtRest(guest, there, awake) {
  for (const [rest, wake] of [
    ['suspend', 'resume'],
    ['poweroff', 'start'],
  ]) {
    const { id } = guest;
    await vms.ask(rest, id);
    const { state } = await vms.rest(id);
    const answer = await migrate(guest);
    guest.host = other(guest.host);
    const vm = await vms.look(id);
    assert.deepEqual([vm.state, vm.host.name], [state, guest.host]);
    await there(answer);
    fleet.isClean();
    await vms.ask(wake, id);
    assert.equal((await vms.rest(id)).state, 'running');
    if (wake === 'resume') await guest.countsOnAnew();
    await awake(wake);
  }
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
  // A snapshot is inside the disk, and goes along.
  await run('snapshot create shared early --memory --wait');
  const before = await used('shared');
  for (let round = 0; round < 3; round += 1) {
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
    assert.ok(!existsSync(join(fleet.data, other(guest.host), 'machines', id)), 'nothing stays behind');
    fleet.isClean();
  }
  await guest.write('after', 8);
  await guest.hasAll();
  await run('snapshot revert shared early --wait');
  await guest.isSameBoot();
  guest.files.delete('after');
  assert.equal(await guest.word('[ -e /data/after ] && echo there || echo gone'), 'gone');
  await guest.hasAll();
  // Off, and suspended, it is handed over as it is.
  const isSame = (answer) => {
    assert.equal(answer.transferred_bytes, 0);
    assert.deepEqual([answer.downtime_ms, answer.blackout_ms], [null, null]);
    assert.equal(statSync(inShared(id)).ino, disk.ino);
  };
  await goAtRest(guest, isSame, () => {});
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
  const wanted = [];
  const sum = (device) => guest.word(`head -c ${FILL_BYTES} ${device} | md5sum | cut -c -32`);
  for (const place of places) {
    const size = `--size-mib ${VOLUME_MIB} --datastore ${place}`;
    await run(`volume create of-${place} ${size}`);
    await run(`volume attach of-${place} laden --wait`);
    // The latest of them is the last by name.
    const made = `until [ $(ls /dev/sd? | wc -l) = ${wanted.length + 1} ]; do usleep 20000; done`;
    const device = await guest.word(`${made}; ls /dev/sd? | tail -n 1 | cut -c 6-`);
    await guest.word(`dd if=/dev/urandom of=/dev/${device} bs=1M count=${FILL_MIB} 2>/dev/null; sync; echo filled`);
    wanted.push(await sum(`/dev/${device}`));
  }
  wanted.sort();
  // A guest that boots gives disks their names in whatever order it finds them.
  const hasVolumes = async () => {
    const sums = [];
    for (const letter of ['a', 'b', 'c']) sums.push(await sum(`/dev/sd${letter}`));
    assert.deepEqual(sums.sort(), wanted);
  };
  await guest.count();
  for (let round = 0; round < 2; round += 1) {
    const answer = await migrate(guest);
    guest.host = other(guest.host);
    assert.equal(answer.operation.state, 'succeeded');
    assert.ok(answer.transferred_bytes > 2 * FILL_BYTES, 'both are copied');
    await guest.countsOn();
    // What the guest has read is in its memory; what it reads now is on the disks.
    await guest.word('echo 3 >/proc/sys/vm/drop_caches; echo dropped');
    await hasVolumes();
    const { items } = await api.call('GET', '/volumes');
    for (const { name, host, datastore, state } of items) {
      assert.deepEqual([host.name, `of-${datastore}`, state], [guest.host, name, 'attached']);
    }
    fleet.isClean();
  }
  // So they do with one that does not run.
  const hasBoth = async (answer) => {
    assert.ok(answer.transferred_bytes > 2 * FILL_BYTES, 'both are copied');
    const { items } = await api.call('GET', '/volumes');
    for (const { host } of items) assert.equal(host.name, guest.host);
  };
  const hasAll = async (wake) => {
    if (wake === 'resume') {
      await guest.word('echo 3 >/proc/sys/vm/drop_caches; echo dropped');
    } else {
      guest.open();
      await guest.hears(/~# $/);
      await guest.word(`until [ $(ls /dev/sd? | wc -l) = ${places.length} ]; do usleep 20000; done; echo all`);
    }
    await hasVolumes();
  };
  await goAtRest(guest, hasBoth, hasAll);
  await vms.removed(id);
  for (const place of places) await run(`volume delete of-${place} --yes`);
  fleet.isClean();
});

test('all disks go into the datastore that is named, running or not', PATIENCE, async () => {
  const guest = await Guest.start(vms, cli, 'settler');
  const { id } = guest;
  await run(`volume create luggage --size-mib ${VOLUME_MIB} --delete-with-vm`);
  await run('volume attach luggage settler --wait');
  const volume = (await api.call('GET', '/volumes')).items[0].id;
  const there = 'until [ -b /dev/sda ]; do usleep 20000; done';
  const fill = `dd if=/dev/urandom of=/dev/sda bs=1M count=${FILL_MIB} 2>/dev/null; sync`;
  const sum = `head -c ${FILL_BYTES} /dev/sda | md5sum | cut -c -32`;
  const is = await guest.word(`${there}; ${fill}; ${sum}`);
  await guest.write('before', FILL_MIB);
  await guest.count();
  const isThere = async (where) => {
    const vm = await vms.look(id);
    assert.deepEqual([vm.host.name, vm.datastore], [guest.host, where]);
    const { host, datastore } = await api.call('GET', `/volumes/${volume}`);
    assert.deepEqual([host.name, datastore], [guest.host, where]);
    const dirs = HOSTS.flatMap((name) => [`${name}/machines`, `${name}-fast`]);
    for (const file of [`${id}/disk.qcow2`, `${volume}/volume.qcow2`]) {
      const found = dirs.filter((dir) =>
        lstatSync(join(fleet.data, dir, file), { throwIfNoEntry: false })?.isFile(),
      );
      const wanted = where === 'fast' ? `${guest.host}-fast` : `${guest.host}/machines`;
      assert.deepEqual(found, [wanted], `where ${file} is`);
    }
    fleet.isClean();
  };
  for (const where of ['fast', 'local']) {
    const answer = await migrate(guest, `--datastore ${where}`);
    guest.host = other(guest.host);
    assert.ok(answer.transferred_bytes > 2 * FILL_BYTES, `${answer.transferred_bytes} bytes`);
    await isThere(where);
    await guest.countsOn();
    // What it has read is in its memory; what it reads now is on the disk.
    await guest.word('echo 3 >/proc/sys/vm/drop_caches; echo dropped');
    assert.equal(await guest.word(sum), is, `from ${where}`);
  }
  await vms.ask('poweroff', id);
  await vms.rest(id);
  await migrate(guest, '--datastore fast');
  guest.host = other(guest.host);
  await isThere('fast');
  await vms.ask('start', id);
  assert.equal((await vms.rest(id)).state, 'running');
  guest.open();
  await guest.hears(/~# $/);
  await guest.hasAll();
  assert.equal(await guest.word(`${there}; ${sum}`), is);
  const both = await cli.run(`vm migrate settler --to ${other(guest.host)} --datastore shared`);
  assert.match(both.err, /its own host reaches datastore `shared` as well/);
  await vms.removed(id);
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
