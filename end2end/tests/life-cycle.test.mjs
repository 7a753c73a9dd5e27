// Every way through the life-cycle, in the portal, with a real machine that
// counts on, or boots anew, as each way promises.

import assert from 'node:assert/strict';
import { after, before, describe, test } from 'node:test';
import {
  booted,
  choose,
  confirm,
  counted,
  createVm,
  launch,
  litStates,
  number,
  openConsole,
  openPage,
  signIn,
  startCounting,
  tabTo,
  untilState,
  watchStates,
} from '../lib/browser.mjs';
import { Api, Stack } from '../lib/stack.mjs';

let stack, browser, api, page, vmId;

before(async () => {
  stack = await Stack.create();
  await stack.start();
  api = await Api.signIn(stack.url);
  browser = await launch();
  page = await openPage(browser, stack.url);
  await signIn(page);
  await page.getByRole('heading', { name: 'My VMs' }).waitFor();
}, { timeout: 1_200_000 });

after(async () => {
  await browser?.close();
  await stack?.destroy();
});

const button = (name) => page.getByRole('button', { name, exact: true });
const facts = () => page.getByRole('region', { name: 'Facts' });
const operation = (name) => page.getByRole('article', { name, exact: true }).first();

// The console is there again, by itself, after the machine was away.
const reconnected = () => page.getByText('Connected', { exact: true }).waitFor();

const boots = () => number(page, 'cat /data/boots');

// The machine is the one it was: same boot, and the counter goes on.
async function goesOn(before) {
  await reconnected();
  assert.equal(await boots(), before.boots);
  const first = await counted(page);
  assert.ok(first >= before.count, `${first} after ${before.count}`);
  await page.waitForTimeout(300);
  assert.ok((await counted(page)) > first, 'it stands still');
}

const look = async () => ({ boots: await boots(), count: await counted(page) });
const used = async () => {
  const { items } = await api.call('GET', '/hosts');
  const sum = (what) => items.reduce((total, host) => total + host.used[what], 0);
  return { vcpus: sum('vcpus'), memory: sum('memory_mib'), disk: sum('disk_mib') };
};

describe('life-cycle', { concurrency: false, timeout: 900_000 }, () => {
  test('a machine starts and counts', async () => {
    vmId = await createVm(page, 'counter');
    await page.evaluate(() => (window.neverReloaded = true));
    await watchStates(page);
    await untilState(page, 'running');
    await openConsole(page);
    await startCounting(page);
    assert.equal(await boots(), 1);
  });

  test('suspended it gives vCPUs and memory back, resumed it goes on', async () => {
    const before = await look();
    await button('Suspend').click();
    await untilState(page, 'suspended');
    await page.getByText('counter does not run.').first().waitFor();
    assert.deepEqual(stack.qemus(vmId), []);
    const { vcpus, memory } = await used();
    assert.deepEqual({ vcpus, memory }, { vcpus: 0, memory: 0 });
    await button('Resume').click();
    await untilState(page, 'running');
    await goesOn(before);
  });

  test('stopped it leaves its host, resumed it goes on anywhere', async () => {
    const before = await look();
    await choose(page, 'Stop');
    await untilState(page, 'stopped', 120_000);
    assert.deepEqual(await used(), { vcpus: 0, memory: 0, disk: 0 });
    assert.match(await facts().innerText(), /Host\s+–/);
    await button('Resume').click();
    await untilState(page, 'running', 120_000);
    await goesOn(before);
    // Pending may be over before the page draws it; the timeline keeps it.
    const lit = (await litStates(page)).filter((state) => state !== 'pending');
    assert.deepEqual(lit.slice(-4), ['stopped', 'prolog', 'boot', 'running']);
    const timeline = page.getByRole('region', { name: 'Timeline' });
    await timeline.getByText('Stopped → Pending').waitFor();
  });

  test('a stop that is cancelled goes back to the running machine', async () => {
    // Enough in memory that there is time to think better of it.
    await number(page, 'dd if=/dev/urandom of=/dev/shm/full bs=1M count=48 2>/dev/null; echo 0');
    const before = await look();
    await choose(page, 'Stop');
    await button('Cancel').click();
    const stop = operation('Stop');
    await stop.getByText(/cancelled|going back/).first().waitFor();
    await stop.getByText('cancelled', { exact: true }).waitFor({ timeout: 60_000 });
    await untilState(page, 'running');
    await stop.getByText('taken back').first().waitFor();
    await stop.getByText('Cancelled by admin.').waitFor();
    await goesOn(before);
  });

  test('rebooted it boots once more under the same run', async () => {
    const before = await boots();
    const [qemu] = stack.qemus(vmId);
    await choose(page, 'Reboot');
    await booted(page, before + 1);
    assert.equal(await boots(), before + 1);
    assert.deepEqual(stack.qemus(vmId), [qemu]);
  });

  test('powered off it keeps its disk, resized and started it is larger', async () => {
    const before = await boots();
    await button('Power off').click();
    await confirm(page, 'Power off');
    await untilState(page, 'powered_off', 90_000);
    assert.deepEqual(stack.qemus(vmId), []);

    await button('Resize').click();
    await button('Amounts of its own').click();
    await page.getByLabel('vCPUs').fill('2');
    await page.getByLabel('Memory in MiB').fill('192');
    await page.getByLabel('Disk in MiB').fill('512');
    await page.getByText('A disk never shrinks; it has 1024 MiB.').waitFor();
    await page.getByLabel('Disk in MiB').fill('1024');
    await page.getByText('1 → 2').waitFor();
    await page.getByText('128 MiB → 192 MiB').waitFor();
    await confirm(page, 'Resize');
    await page.getByText('counter has its new size.').waitFor();
    assert.match(await facts().innerText(), /vCPUs\s+2\s/);

    await button('Start').click();
    await untilState(page, 'running');
    await reconnected();
    await booted(page, before + 1);
    assert.equal(await boots(), before + 1);
    assert.equal(await number(page, 'grep -c ^processor /proc/cpuinfo'), 2);
  });

  test('a guest that switches itself off is seen to be off, and started again', async () => {
    const before = await boots();
    await page.locator('.console-screen textarea').focus();
    await page.keyboard.type('poweroff');
    await page.keyboard.press('Enter');
    await untilState(page, 'powered_off', 20_000);
    await button('Start').click();
    await untilState(page, 'running');
    await reconnected();
    await booted(page, before + 1);
    assert.equal(await boots(), before + 1);
  });

  test('the keyboard alone resets it, after a question, and deletes it', async () => {
    const before = await boots();
    await page.locator('.console-screen textarea').focus();
    await page.keyboard.press('Shift+Escape');
    await page.evaluate(() => window.scrollTo(0, 0));
    await page.getByRole('link', { name: 'Skip to the content' }).focus();
    await tabTo(page, 'All actions');
    await page.keyboard.press('Enter');
    await focusOn('Console');
    await walkTo('Reset');
    await page.keyboard.press('Enter');
    await page.getByRole('dialog').waitFor();
    await page.keyboard.press('Escape');
    await focusIs('All actions');
    await page.keyboard.press('Enter');
    await focusOn('Console');
    await walkTo('Reset');
    await page.keyboard.press('Enter');
    await page.getByRole('dialog').waitFor();
    await tabTo(page, 'Reset counter');
    await page.keyboard.press('Enter');
    await booted(page, before + 1);

    await focusIs('All actions');
    await page.keyboard.press('Enter');
    await focusOn('Console');
    await page.keyboard.press('End');
    await focusOn('Delete');
    await page.keyboard.press('Enter');
    await page.getByRole('dialog').waitFor();
    await tabTo(page, 'Delete counter');
    await page.keyboard.press('Enter');
    await untilState(page, 'done');
    assert.deepEqual(stack.qemus(vmId), []);
    assert.deepEqual(stack.traces(vmId), []);
    assert.deepEqual(await used(), { vcpus: 0, memory: 0, disk: 0 });
  });

  test('all of it happened on one page that was never reloaded', async () => {
    assert.equal(await page.evaluate(() => window.neverReloaded), true);
    assert.deepEqual(page.complaints, []);
  });
});

// The item of the menu that has the focus.
const focusOn = (item) =>
  page.waitForFunction(
    (item) => document.activeElement.querySelector('.menu-label')?.innerText === item,
    item,
  );

const focusIs = (name) =>
  page.waitForFunction((name) => document.activeElement.innerText?.trim() === name, name);

// Arrow keys until the item has the focus.
async function walkTo(item) {
  for (let presses = 0; presses < 14; presses += 1) {
    const here = await page.evaluate(
      () => document.activeElement.querySelector('.menu-label')?.innerText,
    );
    if (here === item) return;
    await page.keyboard.press('ArrowDown');
  }
  throw new Error(`no way to ${item} with the arrow keys`);
}
