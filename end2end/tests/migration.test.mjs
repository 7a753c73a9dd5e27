// Machines that go to another host while they run: two agents with QEMU, each a
// host of its own, whose disks have nothing in common.

import assert from 'node:assert/strict';
import { lstatSync, mkdirSync } from 'node:fs';
import { join } from 'node:path';
import { after, before, test } from 'node:test';
import {
  checkPage,
  choose,
  confirm,
  inEveryLook,
  launch,
  openLive,
  openPage,
  signIn,
  tabTo,
} from '../lib/browser.mjs';
import { Cli } from '../lib/cli.mjs';
import { Fleet } from '../lib/fleet.mjs';
import { Api, PASSWORD } from '../lib/stack.mjs';
import { Vms } from '../lib/vms.mjs';

const HOSTS = ['host-a', 'host-b'];
const PATIENCE = { timeout: 180_000 };
const pictures = process.env.VIMANA_PICTURES;
let fleet, api, vms, cli, browser;

before(async () => {
  fleet = await Fleet.open();
  for (const host of HOSTS) await start(host);
  api = await Api.signIn(fleet.url);
  vms = new Vms(fleet, api);
  cli = new Cli(fleet.data);
  const login = `login --url ${fleet.url} --user admin --password-stdin`;
  assert.equal((await cli.run(login, { input: PASSWORD })).status, 0);
  browser = await launch();
});
after(async () => {
  cli?.kill();
  await browser?.close();
  await fleet?.destroy();
});

// A host that has a further datastore.
async function start(host) {
  const fast = join(fleet.data, `${host}-fast`);
  mkdirSync(fast, { recursive: true });
  await fleet.startAgent(host, ['--datastore', `fast=${fast}`]);
}

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
  let host = vm.host.name;
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
    // The console follows it.
    const last = line.ticks().at(-1);
    await line.console.hears(new RegExp(`tick ${last + 60} `));
    const ticks = [...new Set(line.ticks())];
    assert.deepEqual(
      ticks,
      ticks.map((_, index) => index + 1),
    );
    host = to;
  }
  line.console.write('\x03');
  await line.console.hears(/\^C[\s\S]*~#/);
  line.console.write('cat /proc/sys/kernel/random/boot_id | sed s/^/again=/\n');
  await line.console.hears(/again=[\w-]{36}/);
  assert.equal(line.said().match(/again=([\w-]{36})/)[1], boot);
  await line.console.end();
  fleet.isClean();
  await vms.removed(id);
});

test('a machine of another tenant is moved, and waited for', PATIENCE, async () => {
  await api.call('POST', '/tenants', { name: 'shop', kind: 'automatic' });
  const user = { name: 'olive', password: PASSWORD, tenant: 'shop', role: 'operator' };
  await api.call('POST', '/users', user);
  const theirs = new Vms(fleet, await Api.signIn(fleet.url, 'olive'));
  const id = await theirs.make('stand');
  const { host } = await theirs.rest(id);
  // Nobody tells whoever waits what happens to it.
  const done = await cli.run(`vm migrate ${id} --to ${other(host.name)} --wait --json --timeout 60`);
  assert.equal(done.status, 0, done.err);
  const answer = JSON.parse(done.out);
  assert.deepEqual([answer.vm.state, answer.vm.host.name], ['running', other(host.name)]);
  assert.ok(answer.blackout_ms > 0, done.out);
  await theirs.removed(id);
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

test('a guest that is suspended goes cold, and counts on where it was', PATIENCE, async (t) => {
  const { id, vm, line, boot } = await counting('sleeper');
  const to = other(vm.host.name);
  assert.equal((await cli.run('vm suspend sleeper --wait')).status, 0);
  const last = line.ticks().at(-1);
  const wrong = await cli.run(`vm migrate sleeper --to ${to} --mode live`);
  assert.match(wrong.err, /`sleeper` does not run: it migrates cold/);
  const done = await cli.run(`vm migrate sleeper --to ${to} --mode cold --wait --json`);
  assert.equal(done.status, 0, done.err);
  const answer = JSON.parse(done.out);
  assert.deepEqual(
    [answer.vm.state, answer.vm.host.name, answer.operation.state],
    ['suspended', to, 'succeeded'],
  );
  assert.ok(answer.total_ms > 0 && answer.transferred_bytes > 1 << 20, done.out);
  assert.deepEqual([answer.downtime_ms, answer.blackout_ms], [null, null]);
  t.diagnostic(`${answer.transferred_bytes >> 20} MiB in ${answer.total_ms} ms`);
  assert.equal((await cli.run('vm resume sleeper --wait')).status, 0);
  const seen = watch('sleeper');
  await seen.console.hears(/tick \d+ [^]*tick \d+ /);
  // What it says first may be cut.
  const ticks = seen.ticks().slice(1);
  assert.ok(ticks[0] > last && ticks[0] < last + 200, `${ticks[0]} after ${last}`);
  seen.console.write('\x03');
  seen.console.write('cat /proc/sys/kernel/random/boot_id | sed s/^/boot=/\n');
  await seen.console.hears(/boot=[\w-]{36}/);
  assert.equal(seen.said().match(/boot=([\w-]{36})/)[1], boot, 'the same boot');
  await vms.removed(id);
});

test('the disks of a guest that counts go to another datastore', PATIENCE, async (t) => {
  const { id, vm, line, boot } = await counting('keeper');
  for (const name of ['data', 'logs']) {
    const made = await cli.run(`volume create ${name} --size-mib 256 --delete-with-vm`);
    assert.equal(made.status, 0, made.err);
    const given = await cli.run(`volume attach ${name} keeper --wait`);
    assert.equal(given.status, 0, given.err);
  }
  const before = line.ticks().length;
  const own = () => [`${vm.host.name}/machines/${id}/disk.qcow2`, `${vm.host.name}-fast/${id}/disk.qcow2`]
    .map((file) => lstatSync(join(fleet.data, file), { throwIfNoEntry: false })?.isFile() ?? false);
  assert.deepEqual(own(), [true, false]);
  const done = await cli.run('vm migrate keeper --datastore fast --mode storage --wait --json');
  assert.equal(done.status, 0, done.err);
  const answer = JSON.parse(done.out);
  assert.deepEqual([answer.vm.state, answer.vm.host.name], ['running', vm.host.name]);
  assert.deepEqual(answer.operation.steps.map(({ state }) => state), ['done', 'done', 'done']);
  assert.equal(answer.vm.datastore, 'fast');
  assert.deepEqual(own(), [false, true], 'nothing of it is left where it was');
  assert.ok(answer.blackout_ms >= 0 && answer.blackout_ms < 2000, done.out);
  t.diagnostic(`its own disk and two volumes in ${answer.total_ms} ms, blackout ${answer.blackout_ms} ms`);
  await line.console.hears(new RegExp(`tick ${before + 100} `));
  const ticks = line.ticks();
  assert.deepEqual(ticks, ticks.map((_, index) => index + 1), 'no tick is missing');
  const again = await cli.run('vm migrate keeper --datastore fast');
  assert.match(again.err, /all disks of `keeper` are in datastore `fast` already/);
  // And back, as the portal does it.
  const page = await portal();
  await openLive(page, `/vms/${id}`);
  await watchPhases(page);
  await page.locator('.facts', { hasText: /Disk\s*\d+ GiB in fast/ }).waitFor();
  await choose(page, 'Migrate');
  const dialog = page.getByRole('dialog', { name: 'Migrate keeper' });
  const to = dialog.getByLabel('To', { exact: true });
  await to.selectOption('datastore:local');
  await dialog.getByText('It stays on its host and runs on while its disks are copied').waitFor();
  assert.equal(await dialog.getByLabel('Run there before all').count(), 0);
  await checkPage(page, 'dialog-storage');
  await picture(page, 'dialog-storage');
  await confirm(page, 'Move its disks to local');
  const moved = page.locator('.operation', { hasText: 'to datastore local' });
  await moved.locator('.figures', { hasText: 'Blackout' }).waitFor({ timeout: 60_000 });
  await page.locator('.facts', { hasText: /Disk\s*\d+ GiB in local/ }).waitFor();
  assert.ok((await page.evaluate(() => window.phases)).includes('Copy'));
  await picture(page, 'storage');
  await leave(page);
  assert.deepEqual(own(), [true, false]);
  const last = line.ticks().at(-1);
  await line.console.hears(new RegExp(`tick ${last + 60} `));
  assert.deepEqual(line.ticks(), line.ticks().map((_, index) => index + 1), 'no tick is missing');
  line.console.write('\x03');
  await line.console.hears(/\^C[\s\S]*~#/);
  line.console.write('cat /proc/sys/kernel/random/boot_id | sed s/^/again=/\n');
  await line.console.hears(/again=[\w-]{36}/);
  assert.equal(line.said().match(/again=([\w-]{36})/)[1], boot, 'the same boot');
  await line.console.end();
  await vms.removed(id);
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

// A page of an administrator's; `look` says how it is shown.
async function portal(look = {}) {
  const page = await openPage(browser, fleet.url, look);
  await signIn(page);
  await page.getByRole('heading', { name: 'My VMs' }).waitFor();
  return page;
}

async function leave(page) {
  assert.deepEqual(page.complaints, []);
  await page.context().close();
}

async function picture(page, name) {
  if (pictures) await page.screenshot({ path: `${pictures}/migration-${name}.png`, fullPage: true });
}

// Notes every phase that is under way, from now on.
async function watchPhases(page) {
  await page.evaluate(() => {
    window.phases = [];
    const note = () => {
      const now = document.querySelector('.stepper [data-mark="under-way"] .stepper-title');
      const phase = now?.textContent;
      if (phase && phase !== window.phases.at(-1)) window.phases.push(phase);
    };
    const whole = { subtree: true, childList: true, attributes: true };
    new MutationObserver(note).observe(document.body, whole);
  });
}

const step = (page, phase, mark) =>
  page.locator(`.stepper:not([data-compact]) [data-mark="${mark}"]`, { hasText: phase });

test('by keyboard alone a VM is sent to another host, and its phases are seen', PATIENCE, async () => {
  const id = await vms.make('keys');
  const { host } = await vms.rest(id);
  const to = other(host.name);
  const page = await portal();
  await openLive(page, `/vms/${id}`);
  await watchPhases(page);
  await tabTo(page, 'All actions');
  await page.keyboard.press('Enter');
  const migrate = page.getByRole('menuitem', { name: /^Migrate\b/ });
  await migrate.waitFor();
  for (let presses = 0; presses < 20; presses += 1) {
    if (await migrate.evaluate((item) => item === document.activeElement)) break;
    await page.keyboard.press('ArrowDown');
  }
  await page.keyboard.press('Enter');
  const dialog = page.getByRole('dialog', { name: 'Migrate keys' });
  await dialog.getByLabel('To', { exact: true }).waitFor();
  assert.match(await dialog.getByLabel('To', { exact: true }).innerText(), new RegExp(`^${to}: \\d+ % of its room`));
  await tabTo(page, `Migrate to ${to}`);
  await page.keyboard.press('Enter');
  await dialog.waitFor({ state: 'hidden' });
  const line = page.locator('.operation', { hasText: `from ${host.name} to ${to}` });
  await line.locator('.figures', { hasText: 'Blackout' }).waitFor({ timeout: 60_000 });
  await line.locator('.stepper[data-compact]').waitFor();
  assert.equal(await line.locator('[data-mark="done"]').count(), 7);
  for (const figure of ['Total time', 'Transferred', 'Blackout']) {
    assert.match(await line.locator('.figures').innerText(), new RegExp(`${figure}\\s+\\d`));
  }
  // Those that are over in a moment may be missed, but none comes too early.
  const all = ['Prepare', 'Copy', 'Switchover', 'Confirm', 'Clean up'];
  const seen = await page.evaluate(() => window.phases);
  assert.deepEqual(seen, all.filter((phase) => seen.includes(phase)));
  assert.ok(seen.includes('Copy'), `saw ${seen}`);
  await leave(page);
  await vms.removed(id);
});

test('one that is off goes cold, and shows the phases that this has', PATIENCE, async () => {
  const id = await vms.make('off');
  const { host } = await vms.rest(id);
  const to = other(host.name);
  await api.call('POST', `/vms/${id}/poweroff`, { force: true });
  assert.equal((await vms.rest(id)).state, 'powered_off');
  const page = await portal();
  await openLive(page, `/vms/${id}`);
  await choose(page, 'Migrate');
  const dialog = page.getByRole('dialog', { name: 'Migrate off' });
  await dialog.getByText('by way of the datastore').waitFor();
  await confirm(page, `Migrate to ${to}`);
  const line = page.locator('.operation', { hasText: `from ${host.name} to ${to}` });
  await line.locator('.stepper[data-compact]').waitFor({ timeout: 60_000 });
  const phases = await line.locator('[data-mark="done"] .stepper-title').allInnerTexts();
  assert.deepEqual(phases, ['Plan', 'Reserve', 'Copy', 'Clean up']);
  assert.match(await line.locator('.figures').innerText(), /Total time\s+\d/);
  await leave(page);
  const now = await vms.look(id);
  assert.deepEqual([now.state, now.host.name], ['powered_off', to]);
  await vms.removed(id);
});

// A page that is told by the test alone how far operations are.
async function told(page) {
  await page.addInitScript(() => {
    const listen = EventSource.prototype.addEventListener;
    EventSource.prototype.addEventListener = function (name, listener) {
      if (name === 'progress') window.tell = (item) => listener({ data: JSON.stringify(item) });
      else listen.call(this, name, listener);
    };
  });
}

test('a copy is followed, never runs backwards, and is cancelled', PATIENCE, async () => {
  const id = await vms.make('followed');
  const { host } = await vms.rest(id);
  const [source] = fleet.qemus(id);
  const page = await portal();
  await told(page);
  await openLive(page, `/vms/${id}`);
  // Slow enough to be seen on any machine.
  await api.call('POST', `/vms/${id}/migrate`, { host: other(host.name), max_mib_per_s: 1 });
  const target = await vms.eventually('the process that waits', () =>
    fleet.qemus(id).find((pid) => pid !== source),
  );
  await step(page, 'Copy', 'under-way').waitFor();
  // It takes nothing any more: there is time to look.
  process.kill(target, 'SIGSTOP');
  try {
    const { operation } = await vms.look(id);
    const tell = async (phase, done, total, more) => {
      const copy = { phase, remaining_bytes: total - done, rounds: 1, ...more };
      const progress = { done_bytes: done, total_bytes: total, copy };
      await page.evaluate((item) => window.tell(item), { operation: { ...operation, progress } });
    };
    const [mib, calm] = [2 ** 20, { dirty_bytes_per_s: 0, bytes_per_s: 50 * 2 ** 20 }];
    const fact = (title) =>
      page.locator('.copying > div', { has: page.getByText(title, { exact: true }) }).locator('dd');
    const bar = (title) => fact(title).getByRole('progressbar').getAttribute('value').then(Number);

    await tell('disks', 100 * mib, 500 * mib, calm);
    await fact('Disk').getByText('100 MiB of 500 MiB, 400 MiB left').waitFor();
    assert.deepEqual([await bar('Disk'), await bar('Memory')], [200, 0]);
    await fact('Time left').getByText('about 8 s for the disk, then the memory').waitFor();

    const writes = { dirty_bytes_per_s: 20 * mib, bytes_per_s: 50 * mib };
    let before = 0;
    for (const [done, left, rounds] of [[300, 200, 1], [480, 20, 1], [500, 90, 2], [500, 30, 2]]) {
      await tell('memory', done * mib, 500 * mib, { ...writes, remaining_bytes: left * mib, rounds });
      await fact('Memory').getByText(`${left} MiB left`).waitFor();
      assert.ok((await bar('Memory')) >= before);
      before = await bar('Memory');
    }
    assert.equal(await bar('Disk'), 1000);
    assert.equal(await page.locator('.advice').count(), 0);

    const wild = { dirty_bytes_per_s: 900 * mib, bytes_per_s: 50 * mib, rounds: 3 };
    for (const left of [80, 70, 85, 75, 90]) {
      await tell('memory', 500 * mib, 500 * mib, { ...wild, remaining_bytes: left * mib });
      await fact('Memory').getByText(`${left} MiB left`).waitFor();
    }
    await page.locator('.advice', { hasText: 'cancel, and migrate it at a quieter time' }).waitFor();
    await fact('Time left').getByText('no end in sight').waitFor();
    for (const colorScheme of ['light', 'dark']) {
      for (const width of [1280, 390]) {
        await page.emulateMedia({ colorScheme });
        await page.setViewportSize({ width, height: 900 });
        await checkPage(page, `${colorScheme}-${width}`);
        await picture(page, `copy-${colorScheme}-${width}`);
      }
    }
    await page.setViewportSize({ width: 1280, height: 900 });
    await tell('switchover', 490 * mib, 500 * mib, calm);
    await step(page, 'Switchover', 'under-way').waitFor();
    await fact('Time left').getByText('a moment').waitFor();

    await page.getByRole('button', { name: 'Cancel', exact: true }).click();
    await step(page, 'Copy', 'going-back').waitFor();
    await picture(page, 'going-back');
  } finally {
    process.kill(target, 'SIGCONT');
  }
  assert.equal((await vms.rest(id)).host.name, host.name);
  const line = page.locator('.operation', { hasText: 'Migrate' });
  await line.locator('[data-mark="cancelled"]').waitFor();
  await line.locator('[data-mark="undone"]', { hasText: 'Reserve' }).waitFor();
  await picture(page, 'cancelled');
  await leave(page);
  fleet.isClean();
  await vms.removed(id);
});

test('a dialog says where a VM can go, and where not', PATIENCE, async () => {
  const id = await vms.make('asked');
  const { host } = await vms.rest(id);
  const to = other(host.name);
  const open = async (page) => {
    await openLive(page, `/vms/${id}`);
    await choose(page, 'Migrate');
    return page.getByRole('dialog', { name: 'Migrate asked' });
  };
  await inEveryLook(async (look, name) => {
    const page = await portal(look);
    const dialog = await open(page);
    await dialog.getByRole('button', { name: `Migrate to ${to}` }).waitFor();
    await checkPage(page, `dialog-${name}`);
    await picture(page, `dialog-${name}`);
    await leave(page);
  });
  await fleet.kill(to);
  await vms.eventually('the host to be away', async () =>
    (await vms.hosts()).some(({ name, connected }) => name === to && !connected),
  );
  const page = await portal();
  const dialog = await open(page);
  await dialog.getByText('No other host can take it now.').waitFor();
  await dialog.getByText(`Host ${to} takes no VMs now.`).waitFor();
  await checkPage(page, 'nowhere');
  await picture(page, 'nowhere');
  // Its disks could go elsewhere; nobody does that for it who wanted something else.
  const field = dialog.getByLabel('To', { exact: true });
  assert.match(await field.innerText(), /Choose where to[^]*Datastore fast of its own host: \d+/);
  await dialog.getByRole('button', { name: 'Migrate', exact: true }).focus();
  await page.keyboard.press('Enter');
  assert.ok(await dialog.isVisible());
  await page.keyboard.press('Escape');
  await dialog.waitFor({ state: 'hidden' });
  assert.equal((await vms.look(id)).operation.kind, 'create');
  await leave(page);
  await start(to);
  await vms.connected();
  await vms.removed(id);
});

test('a VM is dragged onto a host, and nothing happens before that is confirmed', PATIENCE, async () => {
  const id = await vms.make('dragged');
  const { host } = await vms.rest(id);
  const to = other(host.name);
  const page = await portal();
  await openLive(page, '/vms');
  const dock = page.locator('.dock');
  const name = page.getByRole('link', { name: 'dragged' });
  const take = async () => {
    await name.hover();
    await page.mouse.down();
    await page.mouse.move(400, 300, { steps: 4 });
    await dock.locator('li', { hasText: to }).hover();
  };
  await take();
  await dock.getByText(/\d+ % of its room stays free/).waitFor();
  await picture(page, 'dock');
  await page.mouse.up();
  const dialog = page.getByRole('dialog', { name: 'Migrate dragged' });
  await dialog.getByRole('button', { name: `Migrate to ${to}` }).waitFor();
  await dock.waitFor({ state: 'hidden' });
  assert.equal((await vms.look(id)).operation.kind, 'create');
  // Where its disks are to be there, is said beside it.
  const disks = dialog.getByLabel('Its disks there');
  assert.match(await disks.innerText(), /^In datastores of the same names\s+All in fast$/);
  await disks.selectOption('fast');
  await checkPage(page, 'dialog-into');
  await picture(page, 'dialog-into');
  await confirm(page, `Migrate to ${to}`);
  await dialog.waitFor({ state: 'hidden' });
  const { host: on, datastore } = await vms.rest(id);
  assert.deepEqual([on.name, datastore], [to, 'fast']);
  await leave(page);
  await vms.removed(id);
});

// Shows the page in every look; `name` says which moment it is.
async function everyLook(page, name) {
  for (const colorScheme of ['light', 'dark']) {
    for (const width of [1280, 390]) {
      await page.emulateMedia({ colorScheme });
      await page.setViewportSize({ width, height: 900 });
      await checkPage(page, `${name}-${colorScheme}-${width}`);
      await picture(page, `${name}-${colorScheme}-${width}`);
    }
  }
  await page.emulateMedia({ colorScheme: 'light' });
  await page.setViewportSize({ width: 1280, height: 900 });
}

test('by keyboard alone a host is evacuated, and it is seen how far that is', PATIENCE, async () => {
  const id = await vms.make('leaves');
  const { host } = await vms.rest(id);
  const [from, to] = [host.name, other(host.name)];
  assert.equal((await cli.run(`host cordon ${to}`)).status, 0);
  const page = await portal();
  await openLive(page, '/admin/hosts');
  const badge = (state) => page.locator(`[data-host="${from}"] .badge`, { hasText: state });
  const dialog = page.getByRole('dialog', { name: `Evacuate ${from}` });
  const panel = page.getByRole('region', { name: `Evacuation of ${from}` });
  const press = async (name) => {
    await tabTo(page, name);
    await page.keyboard.press('Enter');
  };

  // Nobody takes it.
  await press(`Evacuate ${from}…`);
  await dialog.getByText('The 1 VM on it is moved').waitFor();
  const limit = dialog.getByLabel('VMs on their way at once');
  assert.equal(await limit.inputValue(), '2');
  await page.keyboard.press('Control+A');
  await page.keyboard.type('17');
  await page.keyboard.press('Enter');
  await dialog.getByText('From 1 to 16 VMs at once.').waitFor();
  await everyLook(page, 'evacuate-dialog');
  await page.keyboard.press('Control+A');
  await page.keyboard.type('3');
  await page.keyboard.press('Enter');
  await dialog.waitFor({ state: 'hidden' });
  await badge('Draining').waitFor();
  const stays = panel.getByRole('row', { name: 'leaves' });
  await stays.getByText(`Host ${to} is cordoned.`).waitFor();
  await panel.getByText('1 VM cannot be moved').waitFor();
  await panel.getByText('0 of 1 moved').waitFor();
  await everyLook(page, 'evacuation-stuck');
  await press('Stop');
  await badge('Cordoned').waitFor();
  await panel.waitFor({ state: 'hidden' });

  assert.equal((await cli.run(`host enable ${to}`)).status, 0);
  await press(`Evacuate ${from}…`);
  await dialog.waitFor();
  await page.keyboard.press('Enter');
  const [source] = fleet.qemus(id);
  const target = await vms.eventually('the process that waits', () =>
    fleet.qemus(id).find((pid) => pid !== source),
  );
  // It takes nothing any more: there is time to look.
  process.kill(target, 'SIGSTOP');
  try {
    await panel.getByRole('row', { name: 'leaves' }).getByText(`to ${to}`).waitFor();
    await panel.getByText('At most 2 at once, as admin asked.').waitFor();
    await everyLook(page, 'evacuation');
    await press('How many at once…');
    await dialog.getByText('VMs on their way go on').waitFor();
    assert.equal(await limit.inputValue(), '2');
    // It does not wait for ever: one look is enough here.
    await checkPage(page, 'evacuation-limit');
    await picture(page, 'evacuation-limit');
    await page.keyboard.press('Control+A');
    await page.keyboard.type('4');
    await page.keyboard.press('Enter');
    await dialog.waitFor({ state: 'hidden' });
    await panel.getByText('At most 4 at once, as admin asked.').waitFor();
  } finally {
    process.kill(target, 'SIGCONT');
  }
  await badge('Maintenance').waitFor({ timeout: 60_000 });
  await panel.getByText('1 of 1 moved').waitFor();
  await panel.getByText('Nothing is left on it.').waitFor();
  await everyLook(page, 'maintenance');
  await page.getByRole('link', { name: from }).click();
  await panel.getByText('Nothing is left on it.').waitFor();
  await everyLook(page, 'maintenance-host');
  await press('Enable');
  await page.locator('.state-line .badge', { hasText: 'Enabled' }).waitFor();
  await panel.waitFor({ state: 'hidden' });
  await leave(page);
  const now = await vms.look(id);
  assert.deepEqual([now.state, now.host.name], ['running', to]);
  fleet.isClean();
  await vms.removed(id);
});
