// A machine from an image of somebody else's, with a real disk: kept, broken
// and brought back; and volumes that come and go while it runs.

import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { createServer } from 'node:http';
import { after, before, describe, test } from 'node:test';
import {
  ask,
  booted,
  checkPage,
  choose,
  confirm,
  counted,
  inEveryLook,
  launch,
  newVm,
  number,
  openConsole,
  openPage,
  signIn,
  startCounting,
  untilState,
  word,
} from '../lib/browser.mjs';
import { Cli } from '../lib/cli.mjs';
import { image } from '../lib/fleet.mjs';
import { Api, PASSWORD, Stack } from '../lib/stack.mjs';

let stack, browser, api, page, source, vmId;

before(async () => {
  stack = await Stack.create({ VIMANA_IMPORT_ALLOW: '127.0.0.1/32' });
  await stack.start();
  api = await Api.signIn(stack.url);
  const bytes = readFileSync(image);
  source = createServer((_, answer) => answer.end(bytes)).listen(0, '127.0.0.1');
  browser = await launch();
  // A snapshot's name that is taken.
  page = await openPage(browser, stack.url, { expected: /409 \(Conflict\)/ });
  await signIn(page);
  await page.getByRole('heading', { name: 'My VMs' }).waitFor();
}, { timeout: 1_200_000 });

after(async () => {
  await browser?.close();
  source?.close();
  await stack?.destroy();
});

const button = (name) => page.getByRole('button', { name, exact: true });
const snapshot = (name) => page.locator(`[data-snapshot="${name}"]`);
const volume = (name) => page.locator(`[data-volume="${name}"]`);
const operations = async () => (await api.call('GET', `/vms/${vmId}/operations`)).items;

const KINDS = { 'Go back': 'revert', 'Make larger': 'grow', Snapshot: 'snapshot' };
const ended = new Set();

// The last thing that was asked for is through.
async function through(title) {
  // The page may still show the one before, and the server not yet know of it.
  const isBefore = ({ id, kind }) => kind !== KINDS[title] || ended.has(id);
  let latest;
  do [latest] = await operations();
  while (isBefore(latest) || latest.state === 'running');
  assert.equal(latest.state, 'succeeded');
  ended.add(latest.id);
  const shown = page.getByRole('article', { name: title, exact: true }).first();
  await shown.getByText('succeeded').waitFor({ timeout: 60_000 });
}

async function take(name, { memory = true } = {}) {
  await button('Take a snapshot').click();
  await page.getByLabel('Name').fill(name);
  await page.getByLabel('With the memory').setChecked(memory);
  await button('Take it').click();
  await snapshot(name).getByText('you are here').waitFor({ timeout: 60_000 });
}

const disks = () => word(page, 'ls /sys/block | grep -c ^sd');

describe('disks', { concurrency: false, timeout: 900_000 }, () => {
  test('an image comes, and a machine boots from it', async () => {
    const url = `http://127.0.0.1:${source.address().port}/linux.qcow2`;
    const { image } = await api.call('POST', '/images', { name: 'linux', url });
    let state = 'importing';
    while (state === 'importing') {
      state = (await api.call('GET', `/images/${image.id}`)).state;
    }
    assert.equal(state, 'ready');
    await newVm(page);
    await page.getByLabel('Name').fill('precious');
    await page.getByLabel('Image').selectOption('linux');
    await page.getByRole('button', { name: 'Create VM' }).click();
    await page.waitForURL(/\/vms\/vm_[0-9a-f]{32}$/);
    vmId = page.url().split('/').at(-1);
    await page.evaluate(() => (window.neverReloaded = true));
    await untilState(page, 'running');
    await openConsole(page);
  });

  test('a snapshot keeps it as it is, disk and memory', async () => {
    await startCounting(page);
    await ask(page, 'echo there > /data/keep; sync; echo still-$(cat /data/keep)', 'still-there');
    await take('good');
    const taken = (await api.call('GET', `/vms/${vmId}/snapshots`)).items;
    assert.deepEqual(
      taken.map(({ name, state, memory, current }) => ({ name, state, memory, current })),
      [{ name: 'good', state: 'ready', memory: true, current: true }],
    );
  });

  test('broken, it goes back to what it was while it runs', async () => {
    const before = await counted(page);
    await ask(page, 'rm -f /data/keep; sync; echo gone-$(ls /data | grep -c keep)', 'gone-0');
    await snapshot('good').getByRole('button', { name: 'Go back to good' }).click();
    await confirm(page, 'Go back to good');
    await through('Go back');
    assert.equal(await word(page, 'cat /data/keep'), 'there');
    assert.equal(await number(page, 'cat /data/boots'), 1, 'it was not started anew');
    assert.ok((await counted(page)) > 0 && before > 0, 'what it did goes on');
    await page.getByText('Went back to snapshot good').waitFor();
  });

  test('without its memory a snapshot waits until the machine is off', async () => {
    await take('disks', { memory: false });
    const back = snapshot('disks').getByRole('button', { name: 'Go back to disks' });
    await back.hover();
    await page.getByText('It has no memory in it; power the VM off first').waitFor();
    assert.equal(await back.getAttribute('aria-disabled'), 'true');
    await choose(page, 'Take a snapshot');
    await page.getByLabel('Name').fill('disks');
    await button('Take it').click();
    await page.getByText('There is already a snapshot named disks').waitFor();
    await page.keyboard.press('Escape');
    for (const name of ['disks', 'good']) {
      await snapshot(name).getByRole('button', { name: `Delete ${name}` }).click();
      await confirm(page, `Delete ${name}`);
      await snapshot(name).waitFor({ state: 'detached', timeout: 60_000 });
    }
    await page.getByText('Take one before you change something').waitFor();
  });

  test('a volume comes while it runs, grows and goes, and stays', async () => {
    assert.equal(await disks(), '0');
    await button('New volume').click();
    await page.getByLabel('Name').fill('../x');
    await button('Make and attach it').click();
    await page.getByText('only letters').waitFor();
    await page.getByLabel('Name').fill('data');
    await page.getByLabel('Size in MiB').fill('64');
    await button('Make and attach it').click();
    await volume('data').getByText('attached', { exact: true }).waitFor({ timeout: 60_000 });
    assert.equal(await number(page, 'cat /sys/block/sda/size'), 64 * 2048);
    await ask(page, 'until [ -b /dev/sda ]; do usleep 20000; done; echo disk-$((1+1))', 'disk-2');
    await ask(page, 'echo on-a-volume | dd of=/dev/sda conv=fsync 2>/dev/null; echo put-$?', 'put-0');

    await volume('data').getByRole('button', { name: 'Make data larger' }).click();
    await page.getByLabel('Size in MiB').fill('128');
    await button('Make it larger').click();
    await volume('data').getByText('128 MiB').waitFor({ timeout: 60_000 });
    await through('Make larger');

    await volume('data').getByRole('button', { name: 'Detach data' }).click();
    await volume('data').getByText('free').waitFor({ timeout: 60_000 });
    assert.equal(await disks(), '0');
    await volume('data').getByRole('button', { name: 'Attach data' }).click();
    await volume('data').getByText('attached', { exact: true }).waitFor({ timeout: 60_000 });
    assert.equal(await word(page, 'head -n 1 /dev/sd?'), 'on-a-volume');
    assert.equal(await number(page, 'cat /sys/block/sd?/size'), 128 * 2048);
  });

  test('the command line does the same', async () => {
    const cli = new Cli(stack.data);
    const good = async (line, options) => {
      const ran = await cli.run(line, options);
      assert.deepEqual({ status: ran.status, err: ran.err }, { status: 0, err: '' }, line);
      return ran.out;
    };
    await good(`login --url ${stack.url} --user admin --password-stdin`, { input: PASSWORD });
    await good('volume create more --size-mib 8');
    assert.match(await good('volume attach more precious --wait'), /^state +attached/m);
    assert.match(await good('volume grow more --size-mib 16 --wait'), /^size +16 MiB/m);
    assert.match(await good('snapshot create precious both --memory --wait'), /snapshot succeeded/);
    const held = await cli.run('volume detach more --wait');
    assert.equal(held.status, 1);
    assert.match(held.err, /is in snapshot `both` of `precious`; delete that first/);
    assert.match(await good('snapshot revert precious both --wait'), /revert succeeded/);
    assert.match(await good('snapshot list precious'), /^both +ready +memory, root disk, .* here$/m);
    await good('snapshot delete precious both --wait');
    assert.match(await good('volume detach more --wait'), /^state +ready/m);
    await good('volume delete more --yes');
    const lost = await cli.run('snapshot revert precious never');
    assert.equal(lost.status, 1);
    assert.match(lost.err, /snapshot `never` of `precious` not found/);
  });

  test('a volume alone goes back, and the rest stays', async () => {
    await button('Take a snapshot').click();
    await page.getByLabel('Name').fill('of-data');
    await page.getByLabel('Of', { exact: true }).selectOption('data');
    assert.equal(await page.getByLabel('With the memory').count(), 0);
    await button('Take it').click();
    await snapshot('of-data').getByText('volume data alone').waitFor();
    await through('Snapshot');
    assert.equal(await snapshot('of-data').getByText('you are here').count(), 0);
    await ask(page, 'echo newer >/data/newer; sync; echo newer-$(cat /data/newer)', 'newer-newer');
    await ask(page, 'echo over-written | dd of=/dev/sd? conv=fsync 2>/dev/null; echo over-$?', 'over-0');
    const boots = await number(page, 'cat /data/boots');
    await button('Power off').click();
    await confirm(page, 'Power off');
    await untilState(page, 'powered_off');
    await snapshot('of-data').getByRole('button', { name: 'Go back to of-data' }).click();
    await page.getByText('The volume becomes what it was then.').waitFor();
    await confirm(page, 'Go back to of-data');
    await through('Go back');
    await button('Start').click();
    await untilState(page, 'running');
    await page.getByText('Connected', { exact: true }).waitFor({ timeout: 60_000 });
    await booted(page, boots + 1);
    await ask(page, 'until [ -b /dev/sda ]; do usleep 20000; done; echo disk-$((1+1))', 'disk-2');
    assert.equal(await word(page, 'head -n 1 /dev/sda'), 'on-a-volume');
    assert.equal(await word(page, 'cat /data/newer'), 'newer');
    await snapshot('of-data').getByRole('button', { name: 'Delete of-data' }).click();
    await confirm(page, 'Delete of-data');
    await snapshot('of-data').waitFor({ state: 'detached', timeout: 60_000 });
  });

  test('the page is as it should be in every look', async () => {
    await take('look', { memory: false });
    await inEveryLook(async (look, name) => {
      const other = await openPage(browser, stack.url, look);
      await signIn(other);
      await other.getByRole('heading', { name: 'My VMs' }).waitFor();
      await other.goto(`/vms/${vmId}`);
      await snapshotOf(other, 'look').waitFor();
      await checkPage(other, name);
      const pictures = process.env.VIMANA_PICTURES;
      if (pictures) await other.screenshot({ path: `${pictures}/disks-${name}.png`, fullPage: true });
      assert.deepEqual(other.complaints, []);
      await other.context().close();
    });
  });

  test('deleted, its snapshots go, its volume stays until somebody deletes it', async () => {
    await api.call('DELETE', `/vms/${vmId}`);
    await untilState(page, 'done');
    const { items } = await api.call('GET', '/volumes');
    assert.deepEqual(items.map(({ name, state }) => [name, state]), [['data', 'ready']]);
    await api.call('DELETE', `/volumes/${items[0].id}`);
    const gone = async () => (await api.call('GET', '/volumes')).items.length === 0;
    while (!(await gone()));
    assert.deepEqual(stack.traces(vmId), []);
    assert.deepEqual(stack.traces(items[0].id), []);
    assert.equal(await page.evaluate(() => window.neverReloaded), true);
    assert.deepEqual(page.complaints, []);
  });
});

const snapshotOf = (other, name) => other.locator(`[data-snapshot="${name}"]`);
