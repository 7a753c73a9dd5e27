// Quotas in the browser and on the command line: an administrator makes a tenant and
// limits it, its users see what is left, and are refused in words.

import assert from 'node:assert/strict';
import { after, before, describe, test } from 'node:test';
import { checkPage, inEveryLook, launch, newVm, openPage, signIn } from '../lib/browser.mjs';
import { Cli } from '../lib/cli.mjs';
import { Fleet } from '../lib/fleet.mjs';
import { Api, PASSWORD } from '../lib/stack.mjs';

const OVER = { expected: /409 \(Conflict\)|422 \(Unproc/ };
let fleet, browser, api, cli;

before(async () => {
  // No host: what is asked for waits, and counts.
  fleet = await Fleet.open([]);
  api = await Api.signIn(fleet.url);
  cli = new Cli(fleet.data);
  browser = await launch();
});

after(async () => {
  await browser?.close();
  await fleet?.destroy();
});

async function withPage(user, body, options) {
  const page = await openPage(browser, fleet.url, options);
  await signIn(page, PASSWORD, user);
  await page.getByText('Live', { exact: true }).waitFor();
  await body(page);
  assert.deepEqual(page.complaints, []);
  await page.context().close();
}

const limitRow = (page, table, counted) =>
  page.getByRole('table', { name: table }).locator(`tr[data-counted="${counted}"]`);

// Changes one limit in its dialog, which is answered for.
async function change(page, table, counted, { hard, soft = '' }) {
  await limitRow(page, table, counted).getByRole('button', { name: /^Change/ }).click();
  const dialog = page.getByRole('dialog', { name: /^Limit of/ });
  await dialog.getByLabel(/^At most/).fill(hard);
  await dialog.getByLabel(/^Warn above/).fill(soft);
  await dialog.getByRole('button', { name: 'Save' }).click();
  return dialog;
}

const gone = (dialog) => dialog.waitFor({ state: 'hidden' });

async function fillIn(page, name, flavor = 'tiny') {
  await newVm(page);
  await page.getByLabel('Name').fill(name);
  await page.getByLabel('Flavor').selectOption(flavor);
}

const takes = (page, measure) => page.locator(`[data-takes="${measure}"]`);

describe('quotas', { concurrency: false, timeout: 300_000 }, () => {
  test('an administrator makes a tenant and limits it', async () => {
    await withPage('admin', async (page) => {
      await page.getByRole('link', { name: 'Tenants', exact: true }).click();
      await page.getByRole('button', { name: 'New tenant' }).click();
      const form = page.getByRole('dialog', { name: 'New tenant' });
      await form.getByLabel('Name').fill('not a name');
      await form.getByRole('button', { name: 'Make it' }).click();
      await form.getByRole('alert').filter({ hasText: /\w/ }).first().waitFor();
      await form.getByLabel('Name').fill('acme');
      await form.getByRole('button', { name: 'Make it' }).click();
      await gone(form);
      await gone(await change(page, 'Default limits', 'volumes', { hard: '7' }));
      await page.getByRole('link', { name: 'acme', exact: true }).click();
      await page.getByRole('heading', { name: 'acme', level: 1 }).waitFor();
      const table = "The tenant's limits";
      assert.match(await limitRow(page, table, 'volumes').innerText(), /0 of 7[^]*as the defaults say/);
      const dialog = await change(page, table, 'vms', { hard: '2', soft: '3' });
      await dialog.getByText(/3 is above the hard limit of 2/).waitFor();
      await dialog.getByLabel(/^Warn above/).fill('1');
      await dialog.getByRole('button', { name: 'Save' }).click();
      await gone(dialog);
      assert.match(await limitRow(page, table, 'vms').innerText(), /0 of 2[^]*2, warns above 1/);
      await gone(await change(page, table, 'volumes', { hard: 'unlimited' }));
      assert.match(await limitRow(page, table, 'volumes').innerText(), /no limit/);
      const wrong = await change(page, table, 'vcpus', { hard: 'many' });
      await wrong.getByText(/A number up to/).waitFor();
      await wrong.getByRole('button', { name: 'Cancel' }).click();
    }, OVER);
    for (const [name, role] of [['mia', 'manager'], ['otto', 'operator'], ['vic', 'viewer']]) {
      await api.call('POST', '/users', { name, password: PASSWORD, tenant: 'acme', role });
    }
  });

  test('a form says what a VM takes, and a refusal how much there is', async () => {
    await withPage('otto', async (page) => {
      await fillIn(page, 'web-1');
      await takes(page, 'vms').getByText('0 → 1 of 2').waitFor();
      await page.getByRole('button', { name: 'Create' }).click();
      await page.getByRole('heading', { name: 'web-1' }).waitFor();
      await fillIn(page, 'web-2');
      await takes(page, 'vms').getByText('1 → 2 of 2').waitFor();
      await page.getByRole('button', { name: 'Create' }).click();
      await page.getByText(/The quota of tenant acme for VMs warns above 1: 2 in use/).waitFor();
      await fillIn(page, 'web-3');
      await takes(page, 'vms').getByText('2 → 3 of 2').waitFor();
      await takes(page, 'vms').getByText('More than the quota allows.').waitFor();
      await page.getByRole('button', { name: 'Create' }).click();
      const refused = /The quota of tenant acme for VMs is 2: 2 in use, and this needs 1 more/;
      await page.getByText(refused).waitFor();
    }, OVER);
  });

  test('everybody sees what there is, and a manager shares it out', async () => {
    await withPage('mia', async (page) => {
      await page.getByRole('link', { name: 'Quota', exact: true }).click();
      const vms = limitRow(page, "The tenant's limits", 'vms');
      assert.match(await vms.innerText(), /2 of 2[^]*Nothing left/);
      await gone(await change(page, 'Limits of every user', 'vms', { hard: '1' }));
    });
    await withPage('vic', async (page) => {
      await page.getByRole('link', { name: 'Quota', exact: true }).click();
      await limitRow(page, 'Your own limits', 'vms').getByText('0 of 1').waitFor();
      assert.equal(await page.getByRole('button', { name: /^Change/ }).count(), 0);
      assert.equal(await page.getByRole('link', { name: 'Tenants', exact: true }).count(), 0);
    });
    await api.call('PUT', `/tenants/${await acme()}/quota`, { limits: [] });
    await withPage('otto', async (page) => {
      await fillIn(page, 'web-3');
      await takes(page, 'vms').getByText('2 → 3 of 1').waitFor();
      await page.getByRole('button', { name: 'Create' }).click();
      await page.getByText(/The quota of user otto for VMs is 1: 2 in use/).waitFor();
    }, OVER);
  });

  test('the command line shows limits and sets them', async () => {
    const login = `login --url ${fleet.url} --user admin --password-stdin`;
    assert.equal((await cli.run(login, { input: PASSWORD })).status, 0);
    const set = await cli.run('quota set --tenant acme vms=3 volume_mib@local=100..200 vcpus=unlimited');
    assert.deepEqual([set.status, set.err], [0, '']);
    assert.match(set.out, /^vms +2 +no limit +3 +its own$/m);
    assert.match(set.out, /^volume_mib@local +0 MiB +100 MiB +200 MiB +its own$/m);
    const kept = await cli.run('quota set --tenant acme vms=inherited --json');
    const lines = JSON.parse(kept.out).lines.filter((line) => !line.inherited);
    assert.deepEqual(lines.map(({ measure }) => measure).sort(), ['vcpus', 'volume_mib']);
    const user = await cli.run('quota set --tenant acme --user otto vms=5');
    assert.match(user.out, /^vms +2 +no limit +5 +its own$/m);
    const shown = await cli.run('quota show --tenant acme --users');
    assert.match(shown.out, /^vms +0 +no limit +1 +its own$/m);
    for (const [line, why] of [
      ['quota set --tenant acme vms=3..2', /3 is above the hard limit of 2/],
      ['quota set --tenant acme cows=3', /not something that is counted/],
      ['quota set --tenant acme vms@local=3', /not counted by datastore/],
      ['quota show --tenant nobody', /tenant `nobody` not found/],
      ['quota show --tenant acme --user admin', /user `admin` of tenant `acme` not found/],
    ]) {
      const { status, err } = await cli.run(line);
      assert.notEqual(status, 0, line);
      assert.match(err, why);
    }
  });

  test('the pages are as they should be in every look', async () => {
    const id = await acme();
    await api.call('PUT', `/tenants/${id}/quota`, {
      limits: [
        { measure: 'vms', hard: 2 },
        { measure: 'memory_mib', hard: 1024, soft: 200 },
        { measure: 'volume_mib', datastore: 'local', hard: 100 },
      ],
    });
    await inEveryLook(async (options, look) => {
      await withPage('admin', async (page) => {
        for (const [path, name] of [
          ['/admin/tenants', 'tenants'],
          [`/admin/tenants/${id}`, 'tenant'],
        ]) {
          await page.goto(path);
          await page.getByRole('heading', { level: 1 }).waitFor();
          await checkPage(page, `${name} ${look}`);
        }
        await limitRow(page, "The tenant's limits", 'memory_mib')
          .getByRole('button', { name: /^Change/ })
          .click();
        await page.getByRole('dialog', { name: /^Limit of/ }).waitFor();
        await checkPage(page, `limit ${look}`);
      }, options);
      await withPage('otto', async (page) => {
        await page.goto('/quota');
        await page.getByRole('heading', { name: 'You' }).waitFor();
        await checkPage(page, `quota ${look}`);
        await page.goto('/vms/new');
        await takes(page, 'vms').first().waitFor();
        await checkPage(page, `takes ${look}`);
      }, options);
    });
  });
});

async function acme() {
  const { items } = await api.call('GET', '/tenants');
  return items.find(({ name }) => name === 'acme').id;
}
