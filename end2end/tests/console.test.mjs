// A machine and the console somebody has open on it outlive kill -9 of every
// part between the two.

import assert from 'node:assert/strict';
import { after, before, describe, test } from 'node:test';
import {
  ask,
  booted,
  counted,
  createVm,
  launch,
  openConsole,
  openPage,
  signIn,
  startCounting,
  word,
} from '../lib/browser.mjs';
import { Fleet } from '../lib/fleet.mjs';

const HOST = 'host-a';
// What a browser says about a server that is not there.
const AWAY = /ERR_CONNECTION_REFUSED|ERR_CONNECTION_RESET|ERR_INCOMPLETE|ERR_EMPTY|WebSocket|503/;
let fleet, browser, page, vmId, qemu, guest;

before(async () => {
  fleet = await Fleet.open();
  await fleet.startAgent(HOST);
  browser = await launch();
  page = await openPage(browser, fleet.url, { expected: AWAY });
  await signIn(page);
});

after(async () => {
  await browser?.close();
  await fleet?.destroy();
});

const says = (text) => page.getByText(text, { exact: true }).waitFor({ timeout: 60_000 });
const bootId = () => word(page, 'cat /proc/sys/kernel/random/boot_id');

// Notes everything the page says about the connection, from now on.
const watchWire = () =>
  page.evaluate(() => {
    const wire = document.querySelector('.wire');
    window.wireSaid = [];
    new MutationObserver(() => window.wireSaid.push(wire.innerText)).observe(wire, {
      ...{ subtree: true, childList: true, characterData: true },
    });
  });

// The console answers again, by itself, and behind it is the same machine.
async function goesOn() {
  await says('Live');
  await says('Connected');
  await ask(page, 'echo alive-$((40+2))', 'alive-42');
  assert.equal(await bootId(), guest.boot, 'it booted anew');
  const count = await counted(page);
  assert.ok(count > guest.count, `${count} after ${guest.count}`);
  guest.count = count;
  assert.deepEqual(fleet.qemus(vmId), [qemu], 'the very same process');
}

describe('console', { concurrency: false, timeout: 300_000 }, () => {
  test('a console shows what the guest answers', async () => {
    vmId = await createVm(page, 'steady');
    await page.evaluate(() => (window.neverReloaded = true));
    await openConsole(page);
    const [rows, place] = await page.evaluate(() =>
      ['.xterm-screen', '.console-screen'].map((name) =>
        document.querySelector(name).getBoundingClientRect().toJSON(),
      ),
    );
    assert.ok(rows.bottom <= place.bottom, 'the last row is cut off');
    assert.ok(rows.right <= place.right, 'the last column is cut off');
    await startCounting(page);
    guest = { boot: await bootId(), count: await counted(page) };
    [qemu] = fleet.qemus(vmId);
  });

  test('an agent is killed: the page says so, and the console comes back by itself', async () => {
    await watchWire();
    await fleet.kill(HOST);
    // It tries in vain more than once.
    await page.waitForFunction(
      () => window.wireSaid.filter((said) => said.startsWith('Connection lost')).length > 2,
    );
    const said = await page.evaluate(() => window.wireSaid);
    assert.ok(!said.includes('Connected'), `there is nobody to connect to: ${said}`);
    assert.deepEqual(fleet.qemus(vmId), [qemu]);
    await fleet.startAgent(HOST);
    await goesOn();
  });

  test('the server is killed: the page says so, and all of it comes back', async () => {
    await fleet.kill('server');
    await says('Stale — reconnecting…');
    await says('Connection lost; trying again…');
    assert.deepEqual(fleet.qemus(vmId), [qemu]);
    await fleet.startServer();
    await goesOn();
  });

  test('both are killed at once', async () => {
    await Promise.all([fleet.kill('server'), fleet.kill(HOST)]);
    await says('Connection lost; trying again…');
    assert.deepEqual(fleet.qemus(vmId), [qemu]);
    await fleet.startAgent(HOST);
    await fleet.startServer();
    await goesOn();
  });

  test('a machine that goes off says so; started again it has its console again', async () => {
    await ask(page, 'poweroff', 'Power down');
    await says('steady does not run.');
    await page.getByRole('button', { name: 'Start', exact: true }).click();
    await says('Connected');
    await booted(page, 2);
    await ask(page, 'echo again-$((40+2))', 'again-42');
    assert.notEqual(await bootId(), guest.boot);
  });

  test('nobody reloaded the page, and every rule is kept', async () => {
    assert.equal(await page.evaluate(() => window.neverReloaded), true);
    assert.deepEqual(page.complaints, []);
    fleet.isClean();
  });
});
