// kill -9 of every part at every step, with real QEMU: nothing is lost, nothing
// is left behind, and fsck finds every rule kept.
//
// A kill counts only where the agent's ledger proves that it came while the
// step was under way: begun, and not ended. Where the step was quicker, what
// must hold is looked at all the same, and another VM is tried.

import assert from 'node:assert/strict';
import { existsSync, readdirSync } from 'node:fs';
import { join } from 'node:path';
import { after, before, test } from 'node:test';
import { setImmediate as turn } from 'node:timers/promises';
import { Fleet } from '../lib/fleet.mjs';
import { Ledger } from '../lib/ledger.mjs';
import { Api } from '../lib/stack.mjs';
import { Vms } from '../lib/vms.mjs';

const HOST = 'host-a';
const TRIES = 25;
const PATIENCE_MS = 60_000;
let fleet, vms, ledger, machines;
// What was killed where: how often that was tried, and how often it came there.
const table = new Map();
let names = 0;

before(async () => {
  fleet = await Fleet.open();
  await fleet.startAgent(HOST);
  vms = new Vms(fleet, await Api.signIn(fleet.url));
  ledger = new Ledger(join(fleet.data, HOST));
  machines = join(fleet.data, HOST, 'machines');
  // The image is on the host from here on.
  await vms.removed(await vms.make('first'));
});

after(async () => {
  await fleet?.destroy();
  console.log('\nkill -9 of   during                    moment     hits');
  for (const [place, [tries, hits]] of table) console.log(`${place}${hits} of ${tries}`);
});

// Each operation: what is asked, of a running machine after `before`, and how it
// ends. Each step, in its order, with that by which one sees that it has had an
// effect, though it has not ended.
const has = (id, name) => existsSync(join(machines, id, name));
const saving = ({ id }) => has(id, 'memory.part') || has(id, 'memory');
const arriving = ({ id }) =>
  readdirSync(join(fleet.data, HOST), { recursive: true }).some((name) => name.includes(id));
const running = ({ id }) => fleet.qemus(id).length > 0;
const gone = ({ id }) => !existsSync(join(machines, id));
const OPERATIONS = {
  create: { ends: 'running', steps: { prepare: arriving, boot: running } },
  suspend: { before: [], ends: 'suspended', steps: { save: saving } },
  resume: { before: ['suspend'], ends: 'running', steps: { load: running } },
  stop: {
    ...{ before: [], ends: 'stopped' },
    steps: {
      save: saving,
      upload: ({ id }) => existsSync(join(fleet.data, 'server/saved', id)),
      clean: gone,
    },
  },
  'resume stopped': {
    ...{ asks: 'resume', before: ['stop'], ends: 'running' },
    steps: { download: arriving, load: running },
  },
  delete: {
    ...{ before: [], ends: 'done' },
    steps: { kill: ({ qemu }) => !existsSync(`/proc/${qemu}/exe`), clean: gone },
  },
};
const PLACES = Object.entries(OPERATIONS).flatMap(([operation, { asks, steps, ...rest }]) =>
  Object.entries(steps).flatMap(([step, effect]) => {
    const place = { operation, kind: asks ?? operation, step, ...rest };
    return [
      { ...place, moment: 'begun', effect: () => true },
      { ...place, moment: 'half-way', effect },
    ];
  }),
);

// Brings a VM to where the operation can be asked for, asks, and answers as
// soon as the place is reached or the step is over.
async function reach({ kind, before: earlier, step, effect }, name) {
  const at = { id: await vms.make(name, { hold: kind === 'create' }) };
  if (kind !== 'create') {
    assert.equal((await vms.rest(at.id)).state, 'running');
    [at.qemu] = fleet.qemus(at.id);
    for (const action of earlier) {
      await vms.ask(action, at.id);
      await vms.rest(at.id);
    }
  }
  // The answer may be lost with the server.
  vms.ask(kind === 'create' ? 'release' : kind, at.id).catch(() => {});
  const end = Date.now() + PATIENCE_MS;
  for (;;) {
    const stage = ledger.stage(at.id, step);
    if (stage === 'ended' || (stage === 'begun' && effect(at))) return at;
    assert.ok(Date.now() < end, `${kind} never comes to ${step}`);
    await turn();
  }
}

const underWay = (place, at) => ledger.stage(at.id, place.step) === 'begun' && place.effect(at);

// Tries until the blow has really come at the place; `survived` looks at each
// VM when all is quiet again.
async function untilHit(victim, place, blow, survived) {
  const { operation, step, moment } = place;
  const row = `${victim.padEnd(13)}${`${operation}: ${step}`.padEnd(26)}${moment.padEnd(11)}`;
  const count = [0, 0];
  table.set(row, count);
  while (count[1] === 0) {
    assert.ok(count[0] < TRIES, `not hit in ${TRIES} tries: ${row}`);
    count[0] += 1;
    names += 1;
    const at = await reach(place, `vm-${names}`);
    const hit = await blow(at);
    if (hit) count[1] += 1;
    const vm = await vms.rest(at.id);
    await survived(vm, hit);
    await vms.connected();
    fleet.isClean();
    await vms.removed(at.id);
  }
}

// All came through as if nothing had been.
const asAsked = ({ kind, ends }) => (vm) => {
  assert.equal(vm.operation.kind, kind);
  assert.equal(vm.operation.state, 'succeeded', vm.operation.error);
  assert.equal(vm.state, ends);
};

for (const place of PLACES) {
  const { operation, step, moment } = place;
  test(`an agent is killed in ${operation}, ${step} ${moment}`, async () => {
    const blow = async (at) => {
      await fleet.kill(HOST);
      const hit = underWay(place, at);
      await fleet.startAgent(HOST);
      return hit;
    };
    await untilHit('agent', place, blow, asAsked(place));
  });

  test(`the server is killed in ${operation}, ${step} ${moment}`, async () => {
    const blow = async (at) => {
      // It stands still until the server is gone: what has not ended then was
      // not told.
      fleet.parts.get(HOST).kill('SIGSTOP');
      await fleet.kill('server');
      const hit = underWay(place, at);
      fleet.parts.get(HOST).kill('SIGCONT');
      await fleet.startServer();
      return hit;
    };
    await untilHit('server', place, blow, asAsked(place));
  });
}

// Where there is a QEMU, in what state the VM is left when that is killed, and
// what brings it back: nothing is ever lost but what only its memory held. Where
// a save broke, a retry first tries whether there is a memory to run on from,
// and only the next one starts the machine anew.
const WITH_QEMU = [
  ['create', 'boot', 'half-way', 'failed', 'retry'],
  ['suspend', 'save', 'begun', 'failed', 'retry', 'retry'],
  ['suspend', 'save', 'half-way', 'failed', 'retry', 'retry'],
  ['resume', 'load', 'half-way', 'suspended', 'resume'],
  ['stop', 'save', 'begun', 'failed', 'retry', 'retry'],
  ['stop', 'save', 'half-way', 'failed', 'retry', 'retry'],
  ['resume stopped', 'load', 'half-way', 'stopped', 'resume'],
  ['delete', 'kill', 'begun', 'done'],
];

for (const [operation, step, moment, left, ...again] of WITH_QEMU) {
  const place = PLACES.find(
    (it) => it.operation === operation && it.step === step && it.moment === moment,
  );
  test(`QEMU is killed in ${operation}, ${step} ${moment}`, async () => {
    const blow = async (at) => {
      fleet.parts.get(HOST).kill('SIGSTOP');
      const killed = fleet.qemus(at.id).filter((pid) => process.kill(pid, 'SIGKILL'));
      const hit = killed.length > 0 && ledger.stage(at.id, step) === 'begun';
      fleet.parts.get(HOST).kill('SIGCONT');
      return hit;
    };
    await untilHit('QEMU', place, blow, async (vm, hit) => {
      if (!hit) return;
      assert.equal(vm.state, left, vm.operation.error);
      assert.equal(vm.operation.state, left === 'done' ? 'succeeded' : 'failed');
      if (left === 'done') return;
      for (const action of again) {
        if ((await vms.look(vm.id)).state === 'running') break;
        await vms.ask(action, vm.id);
        await vms.rest(vm.id);
      }
      assert.equal((await vms.look(vm.id)).state, 'running');
    });
  });
}
