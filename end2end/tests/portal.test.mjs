// Someone asks for a VM in the browser and a real one boots.

import assert from 'node:assert/strict';
import { after, before, describe, test } from 'node:test';
import {
  ask,
  checkPage,
  choose,
  confirm,
  createVm,
  inEveryLook,
  launch,
  litStates,
  newVm,
  openConsole,
  openPage,
  signIn,
  untilState,
  watchStates,
} from '../lib/browser.mjs';
import { Api, Stack } from '../lib/stack.mjs';

let stack, browser, api;

before(async () => {
  stack = await Stack.create();
  await stack.start();
  api = await Api.signIn(stack.url);
  browser = await launch();
}, { timeout: 1_200_000 });

after(async () => {
  await browser?.close();
  await stack?.destroy();
});

// Runs `body` with a signed-in page and fails on anything the browser says.
async function withPage(body, options) {
  const page = await openPage(browser, stack.url, options);
  try {
    await signIn(page);
    await page.getByRole('heading', { name: 'My VMs' }).waitFor();
    await page.getByText('Live', { exact: true }).waitFor();
    await body(page);
    assert.deepEqual(page.complaints, []);
  } finally {
    await page.context().close();
  }
}

async function removeVm(page) {
  await choose(page, 'Delete');
  await confirm(page, /delete/i);
  await untilState(page, 'done');
}

const used = async () => {
  const { items } = await api.call('GET', '/hosts');
  return items.map((host) => host.used).reduce((sum, one) => ({
    vcpus: sum.vcpus + one.vcpus,
    memory_mib: sum.memory_mib + one.memory_mib,
    disk_mib: sum.disk_mib + one.disk_mib,
  }));
};

describe('portal', { concurrency: false, timeout: 600_000 }, () => {
  test('a wrong password gets one sentence and no entry', async () => {
    const page = await openPage(browser, stack.url, { expected: /401/ });
    await signIn(page, 'wrong');
    await page.getByText(/wrong user name or password/i).waitFor();
    assert.match(page.url(), /\/sign-in/);
    assert.deepEqual(page.complaints, []);
    await page.context().close();
  });

  test('a page of the portal leads to sign-in and back', async () => {
    const page = await openPage(browser, stack.url);
    await page.goto('/admin/hosts');
    await page.waitForURL(/\/sign-in\?next=/);
    await page.getByLabel('User name').fill('admin');
    await page.getByLabel('Password').fill((await import('../lib/stack.mjs')).PASSWORD);
    await page.keyboard.press('Enter');
    await page.getByRole('heading', { name: 'Hosts', exact: true }).waitFor();
    await page.context().close();
  });

  test('a VM lives from the form to Done and leaves nothing', async () => {
    await withPage(async (page) => {
      const vmId = await createVm(page, 'first', { hold: true });
      await watchStates(page);
      await untilState(page, 'hold');
      await page.getByRole('button', { name: 'Release' }).click();
      await untilState(page, 'running');
      const lit = await litStates(page);
      assert.equal(lit[0], 'hold');
      assert.deepEqual(lit.filter((state) => state !== 'pending').slice(-3), ['prolog', 'boot', 'running']);
      const timeline = page.getByRole('region', { name: 'Timeline' });
      for (const turn of ['Hold → Pending', 'Pending → Prolog', 'Prolog → Boot', 'Boot → Running']) {
        await timeline.getByText(turn).waitFor();
      }
      assert.equal(stack.qemus(vmId).length, 1);
      assert.notEqual(stack.traces(vmId).length, 0);
      assert.deepEqual(await used(), { vcpus: 1, memory_mib: 128, disk_mib: 1024 });

      await openConsole(page);
      await ask(page, 'uname -sn', 'Linux first');

      await choose(page, 'Shut down');
      await confirm(page, /shut down/i);
      await untilState(page, 'done');
      for (const turn of ['Running → Shutdown', 'Shutdown → Epilog', 'Epilog → Done']) {
        await timeline.getByText(turn).waitFor();
      }
      assert.deepEqual(stack.qemus(vmId), []);
      assert.deepEqual(stack.traces(vmId), []);
      assert.deepEqual(await used(), { vcpus: 0, memory_mib: 0, disk_mib: 0 });
    });
  });

  test('the form says what is wrong as one types', async () => {
    await withPage(async (page) => {
      await newVm(page);
      const name = page.getByLabel('Name');
      await name.fill('"><svg onload=alert(1)>');
      await name.blur();
      await page.getByText(/only letters/i).filter({ visible: true }).last().waitFor();
      assert.equal(await name.getAttribute('aria-invalid'), 'true');
      await name.fill('fine');
      assert.equal(await name.getAttribute('aria-invalid'), null);
      await page.getByLabel('SSH keys').fill('-----BEGIN OPENSSH PRIVATE KEY-----');
      await page.getByLabel('SSH keys').blur();
      await page.getByText(/this is a private key/i).waitFor();
    });
  });

  test('a VM that fits nowhere says why, and what is refused says so', async () => {
    await withPage(async (page) => {
      await createVm(page, 'vast', { flavor: 'huge' });
      await page.getByText(/needs 16 vCPUs/).first().waitFor();
      await page.getByRole('button', { name: 'All actions' }).click();
      const shutdown = page.getByRole('menuitem', { name: /^Shut down/ });
      assert.equal(await shutdown.getAttribute('aria-disabled'), 'true');
      await shutdown.getByText('vast is still being created; wait for it, or cancel it').waitFor();
      await page.keyboard.press('Escape');
      await page.getByRole('button', { name: 'Hold', exact: true }).click();
      await untilState(page, 'hold');
      await page.getByRole('button', { name: 'Release' }).click();
      await untilState(page, 'pending');
      await removeVm(page);
    });
  });

  test('a killed QEMU shows as Failed within seconds', async () => {
    await withPage(async (page) => {
      const vmId = await createVm(page, 'victim');
      await untilState(page, 'running');
      process.kill(stack.qemus(vmId)[0], 'SIGKILL');
      await untilState(page, 'failed', 2_000);
      await page.getByText(/signal 9|killed/i).first().waitFor();
      const left = await used();
      assert.deepEqual([left.vcpus, left.memory_mib], [0, 0]);
      await removeVm(page);
      assert.deepEqual(stack.traces(vmId), []);
    });
  });

  test('the list is live, in every window', async () => {
    await withPage(async (page) => {
      const form = { name: 'elsewhere', image: 'demo', flavor: 'tiny' };
      const { vm } = await api.call('POST', '/vms', form);
      const row = page.getByRole('row').filter({ hasText: 'elsewhere' });
      await row.getByText('Running', { exact: true }).first().waitFor({ timeout: 60_000 });
      await api.call('DELETE', `/vms/${vm.id}`);
      await row.getByText('Done', { exact: true }).first().waitFor({ timeout: 60_000 });
    });
  });

  test('VMs and open pages outlive the control plane', async () => {
    const cut = /ERR_CONNECTION_REFUSED|ERR_INCOMPLETE|WebSocket|Failed to load|ERR_EMPTY/;
    await withPage(async (page) => {
      const vmId = await createVm(page, 'survivor');
      await untilState(page, 'running');
      await openConsole(page);
      await ask(page, 'echo before-$((40+2))', 'before-42');
      const [qemu] = stack.qemus(vmId);
      await page.evaluate(() => (window.neverReloaded = true));

      await stack.interrupt();
      await page.getByText(/^Stale/).waitFor();
      assert.deepEqual(stack.qemus(vmId), [qemu], 'it runs on');
      await stack.start();
      await page.getByText('Live', { exact: true }).waitFor({ timeout: 60_000 });
      await untilState(page, 'running');
      await page.getByText('Connected', { exact: true }).waitFor({ timeout: 60_000 });
      await ask(page, 'echo after-$((40+2))', 'after-42');
      assert.deepEqual(stack.qemus(vmId), [qemu], 'the very same');
      assert.equal(await page.evaluate(() => window.neverReloaded), true);
      await removeVm(page);
    }, { expected: cut });
  });

  test('hosts show capacity, use, certificate and how guests run', async () => {
    await withPage(async (page) => {
      await page.getByRole('link', { name: 'Hosts' }).click();
      for (const name of ['host-a', 'host-b']) await page.getByText(name, { exact: true }).first().waitFor();
      await page.getByText(/KVM|TCG/).first().waitFor();
      await page.getByRole('link', { name: 'host-a' }).click();
      await page.getByRole('heading', { name: 'host-a' }).waitFor();
      await page.getByText(/renewed before it ends in \d+/).waitFor();
      await page.getByText('It holds none: every machine on it is recorded.').waitFor();
    });
  });

  test('axe finds nothing on any page, light and dark, wide and narrow', async () => {
    const { items } = await api.call('GET', '/hosts');
    await inEveryLook(async (options, look) => {
      await withPage(async (page) => {
        const vmId = await createVm(page, `axe-${look}`, { flavor: 'huge' });
        await page.getByText(/needs 16 vCPUs/).first().waitFor();
        const host = `/admin/hosts/${items[0].id}`;
        for (const path of ['/vms', '/vms/new', `/vms/${vmId}`, '/admin/hosts', host]) {
          await page.goto(path);
          await page.getByText('Live', { exact: true }).waitFor();
          await checkPage(page, path);
        }
        await page.goto(`/vms/${vmId}`);
        await page.getByText('Live', { exact: true }).waitFor();
        await page.getByRole('button', { name: 'All actions' }).click();
        await page.getByRole('menuitem', { name: /^Console/ }).waitFor();
        await checkPage(page, 'the menu');
        const running = await createVm(page, `axe-runs-${look}`);
        await untilState(page, 'running');
        await checkPage(page, 'a running VM');
        await choose(page, 'Resize');
        await page.getByLabel('Flavor').waitFor();
        await checkPage(page, 'the dialog');
        await api.call('DELETE', `/vms/${running}`);
        await api.call('DELETE', `/vms/${vmId}`);
      }, options);
    });
  });
});
