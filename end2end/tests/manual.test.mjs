// The manual life-cycle: two people in two browsers, one real machine, and no
// page that is ever reloaded.

import assert from 'node:assert/strict';
import { after, before, describe, test } from 'node:test';
import {
  checkPage,
  choose,
  confirm,
  inEveryLook,
  launch,
  newVm,
  openPage,
  signIn,
  untilState,
} from '../lib/browser.mjs';
import { Api, PASSWORD, Stack } from '../lib/stack.mjs';

let stack, browser, api, ann, max;

before(async () => {
  stack = await Stack.create();
  await stack.start();
  api = await Api.signIn(stack.url);
  await api.call('POST', '/tenants', { name: 'shop', kind: 'manual' });
  for (const [name, role] of [['ann', 'operator'], ['max', 'manager'], ['eve', 'operator']]) {
    await api.call('POST', '/users', { name, password: PASSWORD, tenant: 'shop', role });
  }
  browser = await launch();
  ann = await enter('ann');
  max = await enter('max');
}, { timeout: 1_200_000 });

after(async () => {
  await browser?.close();
  await stack?.destroy();
});

async function enter(user, options) {
  const page = await openPage(browser, stack.url, options);
  await signIn(page, PASSWORD, user);
  await page.getByText('Live', { exact: true }).waitFor();
  await page.evaluate(() => (window.neverReloaded = true));
  return page;
}

const lit = (page, state) => untilState(page, state);
const waiting = (page) => page.getByRole('navigation', { name: 'Main' }).locator('.count');
const textbox = (page, name) => page.getByRole('textbox', { name });

// Sends the form; ends on the page of the request.
async function request(page, name, purpose, flavor = 'small') {
  await newVm(page, 'New request');
  await page.getByLabel('Name').fill(name);
  await page.getByLabel('Flavor').selectOption(flavor);
  await textbox(page, 'Purpose').fill(purpose);
  await page.getByRole('button', { name: 'Send the request' }).click();
  await page.waitForURL(/\/requests\/req_[0-9a-f]{32}$/);
}

// Does something with the request of the page, and says something with it.
async function decide(page, action, { says, as } = {}) {
  await page.getByRole('button', { name: action, exact: true }).click();
  if (says) await page.getByRole('dialog').locator('#remark').fill(says);
  await confirm(page, as ?? action);
}

describe('manual life-cycle', { concurrency: false, timeout: 600_000 }, () => {
  test('a request waits for a manager, who sees it come', async () => {
    await max.getByRole('link', { name: 'Requests' }).click();
    await max.getByRole('heading', { name: 'No requests' }).waitFor();
    await request(ann, 'shop-web', 'The new front end.\nUntil March.');
    await lit(ann, 'request');
    await max.getByRole('heading', { name: 'Waiting for you' }).waitFor();
    await waiting(max).getByText('1').waitFor();
    assert.equal(await waiting(ann).count(), 0);
    await max.getByRole('link', { name: 'shop-web' }).click();
    await max.getByText('waiting for your decision').waitFor();
    await max.getByText('Until March.').waitFor();
  });

  test('what is not possible now says why', async () => {
    await ann.getByRole('button', { name: 'All actions' }).click();
    const release = ann.getByRole('menuitem', { name: /^Ask for release/ });
    assert.equal(await release.getAttribute('aria-disabled'), 'true');
    await ann.getByText('The request is not decided; withdraw it instead.').waitFor();
    assert.equal(await ann.getByRole('menuitem', { name: /^Approve/ }).count(), 0, 'not hers');
    await ann.keyboard.press('Escape');
  });

  test('a question needs words; its answer brings the request back', async () => {
    await max.getByRole('button', { name: 'Ask back' }).click();
    await confirm(max, 'Ask back');
    await max.getByText('Say something here.').waitFor();
    await max.getByRole('dialog').locator('#remark').fill('Two vCPUs for 50 visitors?');
    await confirm(max, 'Ask back');
    await lit(ann, 'returned');
    await ann.getByText('waiting for your answer').waitFor();
    await waiting(ann).getByText('1').waitFor();
    await ann.getByText('Two vCPUs for 50 visitors?').waitFor();
    await decide(ann, 'Answer', { says: 'One will do.' });
    await lit(max, 'request');
    await max.getByText('One will do.').waitFor();
    assert.equal(await waiting(ann).count(), 0);
  });

  test('approved with changes, a real machine comes up on both pages', async () => {
    await max.getByRole('button', { name: 'Approve' }).click();
    await max.getByRole('button', { name: 'Change the terms' }).click();
    await max.getByRole('combobox', { name: 'Flavor' }).selectOption('tiny');
    await max.getByRole('dialog').getByText('small → tiny').waitFor();
    await max.getByRole('dialog').locator('#remark').fill('Tiny serves 200.');
    await confirm(max, 'Approve with these terms');
    for (const page of [ann, max]) {
      await lit(page, 'operation');
      await page.getByText('flavor tiny instead of small').waitFor();
      const machine = page.getByRole('region', { name: 'The machine' });
      await machine.getByText('Running', { exact: true }).waitFor();
    }
    assert.equal(await waiting(max).count(), 0);
  });

  test('its owner uses the machine, and gives it back by a release alone', async () => {
    const url = ann.url();
    await ann.getByRole('region', { name: 'The machine' }).getByRole('link').click();
    await untilState(ann, 'running');
    assert.equal(stack.qemus(ann.url().split('/').at(-1)).length, 1);
    await ann.getByRole('button', { name: 'All actions' }).click();
    await ann.getByText('shop-web was requested; ask for its release instead.').first().waitFor();
    await ann.keyboard.press('Escape');
    await ann.getByRole('button', { name: 'Suspend' }).click();
    await untilState(ann, 'suspended');
    const machine = max.getByRole('region', { name: 'The machine' });
    await machine.getByText('Suspended', { exact: true }).waitFor();
    await ann.getByRole('button', { name: 'Resume' }).click();
    await untilState(ann, 'running');
    await ann.getByRole('link', { name: 'the request it was made for' }).click();
    await ann.waitForURL(url);
  });

  test('a release is kept, asked for again and confirmed', async () => {
    await decide(ann, 'Ask for release');
    await lit(max, 'release');
    await waiting(max).getByText('1').waitFor();
    await decide(max, 'Keep running', { says: 'The customer wants one more week.' });
    await lit(ann, 'operation');
    await ann.getByText('one more week').waitFor();
    await decide(ann, 'Ask for release', { says: 'Now it is over.' });
    await lit(max, 'release');
    await decide(max, 'Confirm release');
    for (const page of [ann, max]) await untilState(page, 'released', 120_000);
    const { items } = await api.call('GET', '/hosts');
    assert.ok(items.every((host) => host.used.vcpus === 0 && host.used.disk_mib === 0));
  });

  test('a request is rejected with a reason, another is withdrawn', async () => {
    await request(ann, 'too-large', 'For fun');
    await max.getByRole('link', { name: 'Requests' }).first().click();
    await max.getByRole('link', { name: 'too-large' }).click();
    await decide(max, 'Reject', { says: 'Fun is not a purpose.' });
    await untilState(ann, 'rejected');
    await ann.getByText('Fun is not a purpose.').waitFor();
    await request(ann, 'never-mind', 'Perhaps');
    await decide(ann, 'Withdraw');
    await untilState(ann, 'withdrawn');
  });

  test('a requester sees the own requests, a manager all, in every state', async () => {
    const eve = await enter('eve');
    await eve.getByRole('link', { name: 'Requests' }).click();
    await eve.getByRole('heading', { name: 'No requests' }).waitFor();
    await eve.context().close();
    await max.getByRole('link', { name: 'Requests' }).first().click();
    const choices = max.getByRole('navigation', { name: 'Which requests' });
    const expected = { Rejected: 'too-large', Withdrawn: 'never-mind', Released: 'shop-web' };
    for (const [state, name] of Object.entries(expected)) {
      await choices.getByRole('link', { name: state, exact: true }).click();
      await max.waitForURL(new RegExp(`state=${state.toLowerCase()}`));
      await max.getByRole('row').filter({ hasText: name }).waitFor();
    }
  });

  test('someone who decided meanwhile is not overruled', async () => {
    await request(ann, 'contested', 'To be decided twice');
    const path = new URL(ann.url()).pathname;
    await max.goto(path);
    await max.getByText('Live', { exact: true }).waitFor();
    await max.getByRole('button', { name: 'Reject' }).click();
    await max.getByRole('dialog').locator('#remark').fill('No.');
    await decide(ann, 'Withdraw');
    await max.getByText('The request has changed since you opened this').waitFor();
    max.complaints.length = 0;
    await confirm(max, 'Reject');
    await max.getByRole('dialog').getByText(/was withdrawn|changed/).first().waitFor();
    await max.keyboard.press('Escape');
    await untilState(max, 'withdrawn');
    max.complaints = max.complaints.filter((text) => !/409|412/.test(text));
  });

  test('axe finds nothing on any page, light and dark, wide and narrow', async () => {
    await request(ann, 'to-look-at', 'Something to look at');
    const path = new URL(ann.url()).pathname;
    await inEveryLook(async (options) => {
      for (const user of ['ann', 'max']) {
        const page = await enter(user, options);
        for (const where of ['/requests', '/requests?state=all', path, '/vms/new', '/vms']) {
          await page.goto(where);
          await page.getByText('Live', { exact: true }).waitFor();
          await checkPage(page, `${where} of ${user}`);
        }
        await page.goto(path);
        await page.getByText('Live', { exact: true }).waitFor();
        await choose(page, user === 'max' ? 'Approve' : 'Withdraw');
        await page.getByRole('dialog').locator('#remark').waitFor();
        if (user === 'max') {
          await page.getByRole('button', { name: 'Change the terms' }).click();
          await page.getByRole('combobox', { name: 'Flavor' }).selectOption('tiny');
        }
        await checkPage(page, `the dialog of ${user}`);
        assert.deepEqual(page.complaints, []);
        await page.context().close();
      }
    });
  });

  test('all of it happened on pages that were never reloaded by hand', async () => {
    assert.equal(await ann.evaluate(() => window.neverReloaded), true);
    assert.deepEqual([...ann.complaints, ...max.complaints], []);
  });
});
