// Templates and flavors in the browser: made by those who keep them, started
// from by those who use them.

import assert from 'node:assert/strict';
import { after, before, describe, test } from 'node:test';
import {
  checkPage,
  confirm,
  inEveryLook,
  launch,
  newVm,
  openPage,
  signIn,
} from '../lib/browser.mjs';
import { Fleet } from '../lib/fleet.mjs';
import { Api, PASSWORD } from '../lib/stack.mjs';

const USER_DATA = `#cloud-config
users:
  - name: {input: user}
    plain_text_passwd: {input: password}
ssh_pwauth: {input: login}
`;
const INPUTS = [
  { name: 'user', label: 'Login name', help: 'Who logs in.', kind: 'text', required: true, max_length: 8, characters: 'a-z' },
  { name: 'password', label: 'Secret', kind: 'password', required: true },
  { name: 'login', label: 'Login by password', kind: 'switch', default: true },
];
let fleet, browser, api;

before(async () => {
  fleet = await Fleet.open([]);
  api = await Api.signIn(fleet.url);
  await api.call('POST', '/tenants', { name: 'shop', kind: 'automatic' });
  for (const [name, role] of [['mia', 'manager'], ['otto', 'operator']]) {
    await api.call('POST', '/users', { name, password: PASSWORD, tenant: 'shop', role });
  }
  browser = await launch();
});

after(async () => {
  await browser?.close();
  await fleet?.destroy();
});

// Runs `body` with a page of that user's and fails on anything the browser says.
async function withPage(user, body, options) {
  const page = await openPage(browser, fleet.url, options);
  await signIn(page, PASSWORD, user);
  await page.getByText('Live', { exact: true }).waitFor();
  await body(page);
  assert.deepEqual(page.complaints, []);
  await page.context().close();
}

const inputAt = (page, number) => page.getByRole('group', { name: `Input ${number}`, exact: true });

// Says in the form of a template what is to be filled in.
async function addInput(page, { name, label, help, kind, required, max_length, characters, ...rest }) {
  await page.getByRole('button', { name: 'Add an input' }).click();
  const input = page.getByRole('group', { name: /^Input \d+$/ }).last();
  await input.getByLabel('Name in the user-data').fill(name);
  await input.getByLabel('What people read').fill(label);
  if (help) await input.getByLabel('Explanation').fill(help);
  await input.getByLabel('Kind').selectOption(kind);
  if (max_length) await input.getByLabel('Longest, in characters').fill(String(max_length));
  if (characters) await input.getByLabel('Only these characters').fill(characters);
  if (required) await input.getByLabel('It has to be filled in').check();
  if (rest.default === true) await input.getByLabel('Where nothing is said').selectOption('true');
  return input;
}

const row = (page, name) => page.locator(`tr[data-template="${name}"]`);

describe('templates', () => {
  test('a manager makes one, and the form says what is wrong', async () => {
    await withPage('mia', async (page) => {
      await page.getByRole('link', { name: 'Templates' }).click();
      await page.getByRole('link', { name: 'New template' }).first().click();
      await page.getByLabel('Name').fill('web');
      await page.getByLabel('Description').fill('a web server');
      await page.getByLabel('Image').selectOption('demo');
      await page.getByLabel('Flavor').selectOption('small');
      await page.getByLabel('User-data').fill(USER_DATA);
      for (const input of INPUTS.slice(1)) await addInput(page, input);
      await page.getByRole('button', { name: 'Make it' }).click();
      await page.getByText('There is no input user.').waitFor();
      const last = await addInput(page, { ...INPUTS[0], max_length: 'eight' });
      await page.getByRole('button', { name: 'Make it' }).click();
      await last.getByText('A whole number is wanted.').waitFor();
      await last.getByLabel('Longest, in characters').fill('8');
      // The one that comes first is asked first.
      for (const place of [2, 1]) {
        await page.getByRole('button', { name: 'Move input user up' }).click();
        assert.equal(await inputAt(page, place).getByLabel('Name in the user-data').inputValue(), 'user');
      }
      await addInput(page, { name: 'spare', label: 'Spare', kind: 'number' });
      await page.getByRole('button', { name: 'Remove input spare' }).click();
      await checkPage(page, 'the form of a template with inputs');
      const pictures = process.env.VIMANA_PICTURES;
      if (pictures) await page.screenshot({ path: `${pictures}/template-inputs.png`, fullPage: true });
      await page.getByRole('button', { name: 'Make it' }).click();
      await row(page, 'web').getByText('Login name, Secret').waitFor();
    }, { expected: /create-template/ });
  });

  test('an operator starts from it and fills in what it asks for', async () => {
    await withPage('otto', async (page) => {
      await page.goto('/templates');
      assert.equal(await row(page, 'web').getByRole('button').count(), 0);
      await newVm(page);
      await page.getByLabel('Name', { exact: true }).fill('web-1');
      await page.getByLabel('Template').selectOption('web');
      assert.equal(await page.getByLabel('Flavor').inputValue(), 'small');
      assert.equal(await page.getByLabel('User-data').count(), 0);
      assert.equal(await page.getByLabel('Login by password').isChecked(), true);
      await page.getByText('Who logs in.').waitFor();
      const user = page.getByLabel('Login name');
      await user.fill('Otto');
      await user.blur();
      await page.getByText('Only the characters a-z are allowed.').waitFor();
      assert.equal(await user.getAttribute('aria-invalid'), 'true');
      await user.fill('otto');
      await page.getByRole('button', { name: 'Create VM' }).click();
      await page.getByText('Fill this in.').waitFor();
      const secret = page.getByLabel('Secret');
      assert.equal(await secret.getAttribute('type'), 'password');
      await secret.fill('a: "b"\'#');
      await checkPage(page, 'the form of a template');
      await page.getByRole('button', { name: 'Create VM' }).click();
      await page.waitForURL(/\/vms\/vm_[0-9a-f]{32}$/);
      await page.getByText('small', { exact: true }).first().waitFor();
    });
  });

  test('it is changed and deleted', async () => {
    await withPage('mia', async (page) => {
      await page.goto('/templates');
      await row(page, 'web').getByRole('link', { name: 'web' }).click();
      await page.getByLabel('Flavor').selectOption('tiny');
      await page.getByRole('button', { name: 'Save' }).click();
      await row(page, 'web').getByText('tiny').waitFor();
      await row(page, 'web').getByRole('button', { name: 'Delete web' }).click();
      await confirm(page, 'Delete web');
      await row(page, 'web').waitFor({ state: 'detached' });
      await page.getByText('No templates yet').waitFor();
    });
  });
});

describe('flavors', () => {
  const flavor = (page, name) => page.locator(`tr[data-flavor="${name}"]`);

  test('an administrator makes, changes and retires one', async () => {
    await withPage('admin', async (page) => {
      await page.getByRole('link', { name: 'Flavors' }).click();
      await page.getByRole('button', { name: 'New flavor' }).click();
      const form = page.getByRole('dialog');
      await form.getByLabel('Name').fill('odd');
      await form.getByLabel('vCPUs').fill('3');
      await form.getByLabel('Memory in MiB').fill('1');
      await form.getByLabel('Disk in MiB').fill('2048');
      await form.getByRole('button', { name: 'Make it' }).click();
      await form.getByText(/From 32 MiB/).waitFor();
      await form.getByLabel('Memory in MiB').fill('512');
      await form.getByRole('button', { name: 'Make it' }).click();
      await flavor(page, 'odd').getByText('512 MiB').waitFor();
      await page.getByRole('button', { name: 'Change odd' }).click();
      await form.getByLabel('vCPUs').fill('4');
      await form.getByRole('button', { name: 'Save' }).click();
      await flavor(page, 'odd').getByText('4', { exact: true }).waitFor();
      await page.getByRole('button', { name: 'Retire odd' }).click();
      await confirm(page, 'Retire odd');
      await flavor(page, 'odd').waitFor({ state: 'detached' });
    });
  });

  test('they are nobody else\'s to keep', async () => {
    await withPage('mia', async (page) => {
      assert.equal(await page.getByRole('link', { name: 'Flavors' }).count(), 0);
      await page.goto('/admin/flavors');
      await page.getByText('Not allowed').waitFor();
      const template = await api.call('POST', '/templates', { name: 'read', image: 'demo', public: true });
      await page.goto(`/templates/${template.id}`);
      await page.getByText('left open').waitFor();
      assert.equal(await page.getByRole('button', { name: 'Save' }).count(), 0);
      await checkPage(page, 'a template to read');
    });
  });
});

test('the pages are in order in every look', async () => {
  const form = { name: 'looks', description: 'to look at', image: 'demo', public: true, inputs: INPUTS, user_data: USER_DATA };
  const { id } = await api.call('POST', '/templates', form);
  const pages = ['/templates', '/templates/new', `/templates/${id}`, '/admin/flavors', '/vms/new'];
  await inEveryLook(async (options, look) => {
    await withPage('admin', async (page) => {
      for (const path of pages) {
        await page.goto(path);
        await page.getByText('Live', { exact: true }).waitFor();
        await checkPage(page, `${path} ${look}`);
      }
      await page.getByLabel('Template').selectOption('looks');
      await page.getByLabel('Secret').waitFor();
      await checkPage(page, `inputs ${look}`);
    }, options);
  });
});
