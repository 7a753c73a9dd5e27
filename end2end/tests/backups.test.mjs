// A machine whose disks are copied while it runs, and machines that are made of
// the copies: after it is gone, and from each of them.

import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { mkdirSync, readdirSync } from 'node:fs';
import { join } from 'node:path';
import { after, before, describe, test } from 'node:test';
import {
  ask,
  booted,
  checkPage,
  choose,
  confirm,
  inEveryLook,
  launch,
  openConsole,
  openLive,
  openPage,
  signIn,
  untilState,
  word,
} from '../lib/browser.mjs';
import { Cli } from '../lib/cli.mjs';
import { bin } from '../lib/fleet.mjs';
import { Api, PASSWORD, Stack } from '../lib/stack.mjs';

let stack, browser, api, page, kept, vmId;

before(async () => {
  stack = await Stack.create();
  kept = join(stack.data, 'kept');
  mkdirSync(kept);
  stack.environment.VIMANA_DATASTORE = `shelf=${kept}`;
  await stack.start();
  api = await Api.signIn(stack.url);
  browser = await launch();
  // A backup that another one needs, and a name that is none.
  page = await openPage(browser, stack.url, { expected: /409 \(Conflict\)|422 \(Unproc/ });
  await signIn(page);
  await page.getByRole('heading', { name: 'My VMs' }).waitFor();
}, { timeout: 1_200_000 });

after(async () => {
  await browser?.close();
  await stack?.destroy();
});

const button = (name) => page.getByRole('button', { name, exact: true });
const row = (name) => page.locator(`[data-backup="${name}"]`);
const backups = async () => (await api.call('GET', '/backups')).items;
// The answer is not in the line that is typed: that alone says nothing.
const write = (text) =>
  ask(page, `echo ${text} > /data/said; sync; echo said-$(cat /data/said)`, `said-${text}`);

async function backUp(name, form = {}) {
  const { operation } = await api.call('POST', `/vms/${vmId}/backups`, { name, ...form });
  let now = operation;
  while (now.state === 'running') now = await api.call('GET', `/operations/${operation.id}`);
  assert.equal(now.state, 'succeeded', now.error);
  return (await backups()).find((backup) => backup.name === name);
}

async function cli(line, options) {
  const ran = await tool.run(line, options);
  assert.deepEqual({ status: ran.status, err: ran.err }, { status: 0, err: '' }, line);
  return ran.out;
}
let tool;

// What a machine that was made of a backup has on its disk.
async function said(name) {
  const { items } = await api.call('GET', '/vms');
  const made = items.find((vm) => vm.name === name);
  await openLive(page, `/vms/${made.id}`);
  await untilState(page, 'running');
  await page.getByRole('button', { name: 'Open the console' }).click();
  // Its disk has booted before, as the machine that was backed up.
  await booted(page, 2);
  return word(page, 'cat /data/said');
}

describe('backups', { concurrency: false, timeout: 900_000 }, () => {
  test('a running machine is backed up from its menu', async () => {
    const { vm } = await api.call('POST', '/vms', { name: 'precious', image: 'demo', flavor: 'tiny' });
    vmId = vm.id;
    await page.goto(`/vms/${vmId}`);
    await untilState(page, 'running');
    await openConsole(page);
    await write('first');
    // Its agent has come up and holds its end of the port.
    const listens = 'ls -l /proc/$(pidof qemu-ga)/fd 2>/dev/null | grep -q vport';
    await ask(page, `until ${listens}; do usleep 20000; done; echo agent-$((1+1))`, 'agent-2');
    await choose(page, 'Back up');
    const title = page.getByRole('article', { name: 'Back up', exact: true }).first();
    await title.getByText('succeeded').waitFor({ timeout: 120_000 });
    const [made] = await backups();
    assert.deepEqual(
      [made.state, made.since, made.datastore, made.disks.length, made.frozen],
      ['ready', null, 'shelf', 1, true],
    );
    assert.deepEqual(readdirSync(join(kept, made.id)), ['root']);
  });

  test('then only what changed is copied, by the command line and with a volume in full', async () => {
    tool = new Cli(stack.data);
    await cli(`login --url ${stack.url} --user admin --password-stdin`, { input: PASSWORD });
    await write('second');
    assert.match(await cli('backup create precious --name changed --wait'), /backup succeeded/);
    const [changed, full] = await backups();
    assert.equal(changed.since, full.id);
    assert.ok(changed.stored_bytes < full.stored_bytes / 2, `${changed.stored_bytes} of ${full.stored_bytes}`);
    await write('third');
    await cli('volume create data --size-mib 16');
    await cli('volume attach data precious --wait');
    await ask(page, 'until [ -b /dev/sda ]; do usleep 20000; done; echo disk-$((1+1))', 'disk-2');
    await ask(page, 'echo on-the-volume | dd of=/dev/sda conv=fsync 2>/dev/null; echo put-$?', 'put-0');
    const whole = await backUp('with-data');
    assert.deepEqual([whole.since, whole.disks.length], [null, 2]);
    const needed = await tool.run('backup delete ' + full.id);
    assert.equal(needed.status, 1);
    assert.match(needed.err, /cannot be deleted: `changed` holds only what has changed since it/);
  });

  test('the machine goes, its backups stay, and become machines again', async () => {
    await api.call('DELETE', `/vms/${vmId}`);
    await untilState(page, 'done');
    assert.equal((await backups()).length, 3);
    const made = await cli('backup restore changed again --wait');
    assert.match(made, /^state +running since /m);
    const busy = await tool.run(`backup restore with-data again --wait`);
    assert.match(busy.err, /there is already a VM named `again`/);
    assert.equal(await said('again'), 'second');

    await openLive(page, '/backups');
    await row('with-data').getByRole('button', { name: 'Make a VM from with-data' }).click();
    await page.getByLabel('Name').fill('../x');
    await button('Make the VM').click();
    await page.getByText('only letters').waitFor();
    await page.getByLabel('Name').fill('latest');
    await button('Make the VM').click();
    await page.getByText('latest and a volume are being made').waitFor();
    const is = async () => (await api.call('GET', '/vms')).items.some(({ name }) => name === 'latest');
    while (!(await is()));
    assert.equal(await said('latest'), 'third');
    assert.match(await cli('volume attach latest-data latest --wait'), /^size +16 MiB$/m);
    await ask(page, 'until [ -b /dev/sda ]; do usleep 20000; done; echo disk-$((1+1))', 'disk-2');
    assert.equal(await word(page, 'head -n 1 /dev/sda'), 'on-the-volume');
  });

  test('a volume in a backup becomes an image', async () => {
    const whole = (await backups()).find(({ name }) => name === 'with-data');
    const volume = whole.disks.find(({ disk }) => disk !== 'root');
    await cli(`image import of-data --from-backup with-data --disk ${volume.disk} --wait`);
    const { items } = await api.call('GET', '/images');
    assert.equal(items.find(({ name }) => name === 'of-data').content.virtual_mib, 16);
  });

  test('a schedule makes backups by itself', async () => {
    await openLive(page, '/backups');
    await button('Set a schedule').click();
    await page.getByLabel('VM', { exact: true }).selectOption('again');
    await page.getByLabel('How many are kept').fill('0');
    await button('Set it; the first is made now').click();
    await page.getByText('From 1 to 365').waitFor();
    await page.getByLabel('How many are kept').fill('3');
    await page.getByLabel('Every so many is a full one').fill('0');
    await button('Set it; the first is made now').click();
    await page.getByText('From 1 to 365').waitFor();
    await page.getByLabel('Every so many is a full one').fill('5');
    await page.getByLabel('Datastore', { exact: true }).selectOption('shelf');
    await button('Set it; the first is made now').click();
    await page.locator('[data-schedule="backup of again"]').getByText('a backup, every day').waitFor();
    await page.locator('[data-schedule="backup of again"]').getByText('in shelf').waitFor();
    await page.getByText('by its schedule').waitFor({ timeout: 60_000 });
    const { items } = await api.call('GET', '/vms');
    const again = items.find(({ name }) => name === 'again');
    const [schedule] = (await api.call('GET', `/vms/${again.id}/schedules`)).items;
    assert.deepEqual([schedule.keep, schedule.full_every], [3, 5]);
    assert.match(await cli('schedule list again'), /^backup +1d +3 /m);
    await cli('schedule remove again backup');
    assert.deepEqual((await api.call('GET', `/vms/${again.id}/schedules`)).items, []);
    assert.match(await cli('datastore list'), /^shelf +(fine|low) +yes /m);
  });

  test('every rule is kept, and a damaged backup is found', async () => {
    const fsck = (...args) =>
      spawnSync(join(bin, 'vimana-server'), ['fsck', '--json', '--data-dir', join(stack.data, 'server'), ...args], { encoding: 'utf8' });
    const all = ['--datastore', `shelf=${kept}`];
    let found = fsck(...all);
    assert.deepEqual([found.status, JSON.parse(found.stdout).breaches], [0, []], found.stderr);
    const whole = (await backups()).find(({ name }) => name === 'with-data');
    spawnSync('truncate', ['-s', '10', join(kept, whole.id, 'root')]);
    found = fsck(...all);
    assert.deepEqual(JSON.parse(found.stdout).breaches.map(({ check }) => check), ['backup_gone']);
    const broken = await tool.run('backup restore with-data never --wait');
    assert.equal(broken.status, 1);
    assert.match(broken.err, /is damaged: a file of it is not what was stored/);
  });

  test('the page is as it should be in every look', async () => {
    await inEveryLook(async (look, name) => {
      const other = await openPage(browser, stack.url, look);
      await signIn(other);
      await other.getByRole('heading', { name: 'My VMs' }).waitFor();
      await other.goto('/backups');
      await other.getByText('Live', { exact: true }).waitFor();
      await other.locator('[data-datastore="shelf"]').waitFor();
      await checkPage(other, name);
      const pictures = process.env.VIMANA_PICTURES;
      if (pictures) await other.screenshot({ path: `${pictures}/backups-${name}.png`, fullPage: true });
      assert.deepEqual(other.complaints, []);
      await other.context().close();
    });
  });

  test('deleted, nothing is left of a backup', async () => {
    await openLive(page, '/backups');
    const gone = (await backups()).find(({ name }) => name === 'with-data');
    await row('with-data').getByRole('button', { name: 'Delete with-data' }).click();
    await confirm(page, 'Delete with-data');
    await row('with-data').waitFor({ state: 'detached', timeout: 60_000 });
    while (readdirSync(kept).includes(gone.id)) await backups();
    assert.deepEqual(page.complaints, []);
  });
});
