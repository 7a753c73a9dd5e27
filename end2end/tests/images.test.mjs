// Images in the browser: imported before one's eyes, deleted and taken back,
// and nobody does what is not theirs to do.

import assert from 'node:assert/strict';
import { createHash } from 'node:crypto';
import { readFileSync } from 'node:fs';
import { createServer } from 'node:http';
import { after, before, describe, test } from 'node:test';
import {
  checkPage,
  choose,
  confirm,
  createVm,
  inEveryLook,
  launch,
  openPage,
  signIn,
  tabTo,
  untilState,
} from '../lib/browser.mjs';
import { Fleet, image } from '../lib/fleet.mjs';
import { Api, PASSWORD } from '../lib/stack.mjs';

const content = readFileSync(image);
const size = `${content.length >> 20} MiB`;
const sha256 = createHash('sha256').update(content).digest('hex');
let fleet, browser, api, source;

before(async () => {
  fleet = await Fleet.open(['--import-allow', '127.0.0.1/32']);
  await fleet.startAgent('host-a');
  source = await Source.open();
  api = await Api.signIn(fleet.url);
  await api.call('POST', '/tenants', { name: 'shop', kind: 'automatic' });
  for (const [name, role] of [['ann', 'operator'], ['vic', 'viewer']]) {
    await api.call('POST', '/users', { name, password: PASSWORD, tenant: 'shop', role });
  }
  browser = await launch();
});

after(async () => {
  await browser?.close();
  source?.close();
  await fleet?.destroy();
});

// A web server: of the slow file a two hundredth every 50 ms, until the test
// has seen enough.
class Source {
  static async open() {
    const source = new Source();
    source.slow = new Set();
    source.asked = [];
    source.server = createServer((request, response) => {
      source.asked.push(request.url);
      if (request.url === '/broken.qcow2') return void response.writeHead(404).end();
      response.writeHead(200, { 'content-length': content.length });
      if (request.url === '/slow.qcow2') source.drip(response);
      else response.end(content);
    });
    await new Promise((done) => source.server.listen(0, '127.0.0.1', done));
    source.url = `http://127.0.0.1:${source.server.address().port}`;
    return source;
  }

  drip(response) {
    const piece = Math.ceil(content.length / 200);
    let sent = 0;
    const timer = setInterval(() => {
      response.write(content.subarray(sent, sent + piece));
      sent += piece;
      if (sent >= content.length / 2) finish();
    }, 50);
    // The rest at once.
    const finish = () => {
      clearInterval(timer);
      this.slow.delete(finish);
      response.end(content.subarray(sent));
    };
    response.on('close', () => clearInterval(timer));
    this.slow.add(finish);
  }

  finish() {
    for (const finish of this.slow) finish();
  }

  close() {
    this.server.closeAllConnections();
    this.server.close();
  }
}

async function enter(user = 'admin', options) {
  const page = await openPage(browser, fleet.url, options);
  await signIn(page, PASSWORD, user);
  await page.getByText('Live', { exact: true }).waitFor();
  return page;
}

async function leave(page) {
  assert.deepEqual(page.complaints, []);
  await page.context().close();
}

// Runs `body` with a page of that user's and fails on anything the browser says.
async function withPage(user, body, options) {
  const page = await enter(user, options);
  await body(page);
  await leave(page);
}

// Sends the form; ends on the image's page. Answers the image's id.
async function importImage(page, file, { name, checksum } = {}) {
  await page.getByRole('link', { name: 'Images', exact: true }).first().click();
  await page.getByRole('link', { name: 'Import an image' }).first().click();
  await page.getByLabel('URL').fill(`${source.url}/${file}`);
  if (name) await page.getByLabel('Name').fill(name);
  if (checksum) await page.getByLabel('Checksum').fill(checksum);
  await page.getByRole('button', { name: 'Import the image' }).click();
  await page.waitForURL(/\/images\/image_[0-9a-f]{32}$/);
  return page.url().split('/').at(-1);
}

const badge = (page, state) => page.locator('.state-line .badge', { hasText: state });
const row = (page, name) => page.locator(`tr[data-image="${name}"]`);

async function removeForGood(id) {
  await api.call('DELETE', `/images/${id}`);
  await api.call('POST', `/images/${id}/purge`);
}

describe('images', { concurrency: false, timeout: 600_000 }, () => {
  test('an import is seen on its way, on its page and in the list', async () => {
    const watcher = await enter();
    await watcher.goto('/images');
    await watcher.getByText('Live', { exact: true }).waitFor();
    await withPage('admin', async (page) => {
      const id = await importImage(page, 'slow.qcow2', { checksum: sha256 });
      await badge(page, 'Importing').waitFor();
      await page.getByRole('heading', { name: 'slow', exact: true }).waitFor();
      await page.evaluate(() => {
        window.seen = [];
        setInterval(() => {
          const value = document.querySelector('progress')?.value;
          if (value !== undefined && value !== window.seen.at(-1)) window.seen.push(value);
        }, 20);
      });
      await row(watcher, 'slow').getByRole('progressbar').waitFor();
      await page.waitForFunction(() => window.seen.length >= 4);
      source.finish();
      await badge(page, 'Ready').waitFor();
      await page.getByText('verified', { exact: true }).waitFor();
      await page.getByText(`SHA-256 ${sha256}`).waitFor();
      const seen = await page.evaluate(() => window.seen);
      assert.deepEqual(seen, seen.toSorted((a, b) => a - b), 'it never ran backwards');
      const timeline = page.getByRole('region', { name: 'Timeline' });
      await timeline.getByText('Importing → Ready').waitFor();
      const inList = row(watcher, 'slow');
      await inList.getByText('Ready', { exact: true }).waitFor();
      await inList.getByText(`qcow2, ${size}`).waitFor();
      await removeForGood(id);
      await badge(page, 'Removed').waitFor();
      await inList.waitFor({ state: 'detached' });
    });
    await leave(watcher);
  });

  test('what is kept up to date is asked for at once', async () => {
    await withPage('admin', async (page) => {
      const id = await importImage(page, 'fresh.qcow2');
      await badge(page, 'Ready').waitFor();
      const now = page.getByRole('button', { name: 'Ask it now' });
      assert.equal(await now.count(), 0, 'it is not kept up to date');
      await page.getByLabel('Ask its source for something new').selectOption('86400');
      await page.getByRole('button', { name: 'Save' }).click();
      await page.getByText('fresh is refreshed every 1 day.').waitFor();
      assert.equal(await page.getByText('Last up to date').count(), 0);
      const before = source.asked.length;
      await now.click();
      await page.getByText('The source of fresh is asked.').waitFor();
      await page.getByText('Last up to date').waitFor();
      assert.ok(source.asked.length > before);
      await removeForGood(id);
    });
  });

  test('the form says what is wrong as one types, and so does the server', async () => {
    await withPage('admin', async (page) => {
      await page.goto('/images/new');
      await page.getByText('Live', { exact: true }).waitFor();
      const url = page.getByLabel('URL');
      await url.fill('file:///etc/shadow');
      await url.blur();
      await page.getByText(/images come from http/i).waitFor();
      await url.fill(`${source.url}/Some-Image.qcow2.xz`);
      await url.blur();
      assert.equal(await page.getByLabel('Name').getAttribute('placeholder'), 'some-image');
      await page.getByLabel('Checksum').fill('abc');
      await page.getByLabel('Checksum').blur();
      await page.getByText(/64 \(SHA-256\) or 128 \(SHA-512\)/).waitFor();
      await page.getByLabel('Checksum').fill('');
      await url.fill('http://169.254.169.254/latest');
      await page.getByRole('button', { name: 'Import the image' }).click();
      await page.getByText(/may not be fetched from/).waitFor();
      assert.equal(await url.getAttribute('aria-invalid'), 'true');
    }, { expected: /422/ });
  });

  test('an import is cancelled, fails, and is begun again', async () => {
    await withPage('admin', async (page) => {
      await importImage(page, 'slow.qcow2', { name: 'unwanted' });
      await page.getByRole('button', { name: 'Cancel' }).click();
      await badge(page, 'Failed').waitFor();
      await page.getByText('its import was cancelled by admin', { exact: false }).first().waitFor();
      await page.getByRole('button', { name: 'Delete', exact: true }).click();
      await badge(page, 'Removed').waitFor();

      await importImage(page, 'broken.qcow2');
      await badge(page, 'Failed').waitFor();
      await page.getByRole('heading', { name: 'It was not imported' }).waitFor();
      await page.getByText(/is not there/i).first().waitFor();
      await page.getByRole('button', { name: 'Import again' }).click();
      await page.getByText('Past operations (2)').waitFor();
      await badge(page, 'Failed').waitFor();
      await page.getByRole('button', { name: 'Delete', exact: true }).click();
      await badge(page, 'Removed').waitFor();
    });
  });

  test('a file is uploaded, and goes on where it was after a reload', async () => {
    await withPage('admin', async (page) => {
      page.on('dialog', (dialog) => dialog.accept());
      let parts = 0;
      await page.route('**/content', (route) => {
        const breaks = route.request().method() === 'PATCH' && ++parts > 2;
        return breaks ? route.abort() : route.continue();
      });
      await page.goto('/images/new');
      await page.getByText('Live', { exact: true }).waitFor();
      await page.getByRole('button', { name: 'Upload a file' }).click();
      await page.getByRole('button', { name: 'Import the image' }).click();
      await page.getByText('Choose a file.').waitFor();
      await page.getByLabel('File').setInputFiles(image);
      assert.equal(await page.getByLabel('Name').getAttribute('placeholder'), 'demo');
      await page.getByLabel('Name').fill('uploaded');
      await page.getByLabel('Checksum').fill(sha256);
      await page.getByRole('button', { name: 'Import the image' }).click();
      await page.waitForURL(/\/images\/image_[0-9a-f]{32}$/);
      await page.getByText(/Nobody answers at the moment/).waitFor();
      await page.getByText(new RegExp(`^[48] MiB of ${size}$`)).waitFor();
      await checkPage(page, 'an upload');

      await page.reload();
      await page.unroute('**/content');
      const again = page.getByLabel(/^The same file again/);
      await again.setInputFiles({ name: 'demo.qcow2', mimeType: '', buffer: Buffer.from('x') });
      await page.getByText(/another file than the upload was begun with/).waitFor();
      const sent = [];
      page.on('request', (request) => {
        if (request.method() === 'PATCH') sent.push(Number(request.headers()['upload-offset']));
      });
      await again.setInputFiles(image);
      await badge(page, 'Ready').waitFor();
      assert.equal(sent[0], 8 << 20, 'nothing is sent twice');
      await page.getByText('verified', { exact: true }).waitFor();
      await page.getByText('the uploaded file').waitFor();
      await removeForGood(page.url().split('/').at(-1));
    }, { expected: /ERR_FAILED/ });
  });

  test('an upload is cancelled', async () => {
    await withPage('ann', async (page) => {
      await page.route('**/content', (route) =>
        route.request().method() === 'PATCH' ? route.abort() : route.continue(),
      );
      await page.goto('/images/new');
      await page.getByText('Live', { exact: true }).waitFor();
      assert.equal(await page.getByRole('button', { name: "From the server's disk" }).count(), 0);
      await page.getByRole('button', { name: 'Upload a file' }).click();
      await page.getByLabel('File').setInputFiles(image);
      await page.getByRole('button', { name: 'Import the image' }).click();
      await page.getByText(/Nobody answers at the moment/).waitFor();
      await page.getByRole('button', { name: 'Cancel' }).click();
      await badge(page, 'Failed').waitFor();
      await page.getByRole('heading', { name: 'Upload' }).waitFor({ state: 'detached' });
      await page.getByRole('button', { name: 'Delete', exact: true }).click();
      await badge(page, 'Removed').waitFor();
    }, { expected: /ERR_FAILED|409/ });
  });

  test('what is deleted is taken back at once, or from the trash, by keyboard', async () => {
    await withPage('admin', async (page) => {
      await importImage(page, 'fast.qcow2', { name: 'regretted' });
      await badge(page, 'Ready').waitFor();
      await page.getByRole('link', { name: 'Images', exact: true }).first().click();
      await page.getByRole('button', { name: 'Delete regretted' }).click();
      await row(page, 'regretted').waitFor({ state: 'detached' });
      await page.getByRole('button', { name: 'Undo' }).click();
      await row(page, 'regretted').getByText('Ready', { exact: true }).waitFor();

      await tabTo(page, 'Delete regretted');
      await page.keyboard.press('Enter');
      await row(page, 'regretted').waitFor({ state: 'detached' });
      await page.getByRole('link', { name: /^Trash/ }).click();
      await row(page, 'regretted').getByText(/gone for good\s+in \d+ d/).waitFor();
      await tabTo(page, 'Restore regretted');
      await page.keyboard.press('Enter');
      await page.getByRole('heading', { name: 'The trash is empty' }).waitFor();
      await page.getByRole('link', { name: /^Catalogue/ }).click();
      await page.getByRole('button', { name: 'Delete regretted' }).click();
      await page.getByRole('link', { name: /^Trash/ }).click();
      await page.getByRole('button', { name: 'Remove for good regretted' }).click();
      await confirm(page, 'Remove regretted for good');
      await page.getByRole('heading', { name: 'The trash is empty' }).waitFor();
    });
  });

  test('an image in use says by how many, and why it stays', async () => {
    await withPage('admin', async (page) => {
      const id = await importImage(page, 'fast.qcow2', { name: 'in-use' });
      await badge(page, 'Ready').waitFor();
      await page.getByRole('link', { name: 'New VM' }).last().click();
      await page.getByLabel('Image').waitFor();
      assert.equal(await page.getByLabel('Image').inputValue(), 'in-use');
      await page.goBack();
      const vmId = await createVm(page, 'user');
      await api.call('DELETE', `/vms/${vmId}`);
      const { vm } = await api.call('POST', '/vms', { name: 'uses', image: 'in-use', flavor: 'tiny' });
      await page.getByRole('link', { name: 'Images', exact: true }).first().click();
      await row(page, 'in-use').getByText('1 VM', { exact: true }).waitFor();
      await page.getByRole('link', { name: 'in-use' }).click();
      await page.getByRole('button', { name: 'Delete', exact: true }).click();
      await badge(page, 'Trashed').waitFor();
      const why = 'in-use cannot be removed yet: 1 VM is made from it.';
      const purge = page.getByRole('button', { name: 'Remove for good' });
      assert.equal(await purge.getAttribute('aria-disabled'), 'true');
      await purge.focus();
      await page.getByRole('tooltip', { name: why }).waitFor();
      await page.getByRole('button', { name: 'All actions' }).click();
      await page.getByRole('menuitem', { name: /^Import again/ }).getByText('in-use was imported already.').waitFor();
      await page.keyboard.press('Escape');
      await api.call('DELETE', `/vms/${vm.id}`);
      await page.locator('#content-title ~ dl').getByText('no VM').waitFor({ timeout: 60_000 });
      await purge.click();
      await confirm(page, 'Remove in-use for good');
      await badge(page, 'Removed').waitFor();
      assert.equal((await api.call('GET', `/images/${id}`)).state, 'removed');
    });
  });

  test('who may only look, or only change their own, is told so', async () => {
    await withPage('vic', async (page) => {
      await page.goto('/images');
      await row(page, 'demo').getByRole('cell', { name: 'all tenants' }).waitFor();
      // Not only when the next minute is full.
      await row(page, 'demo').getByText(/ ago$|^just now$/).waitFor({ timeout: 5_000 });
      assert.equal(await page.getByRole('link', { name: 'Import an image' }).count(), 0);
      await page.goto('/images/new');
      await page.getByRole('heading', { name: 'Not allowed' }).waitFor();
    });
    await withPage('ann', async (page) => {
      await page.goto('/images');
      await page.getByText('Live', { exact: true }).waitFor();
      const remove = page.getByRole('button', { name: 'Delete demo' });
      assert.equal(await remove.getAttribute('aria-disabled'), 'true');
      await remove.focus();
      await page.getByRole('tooltip', { name: 'It is for all tenants; only an administrator changes it.' }).waitFor();
      await page.goto('/images/new');
      await page.getByLabel('URL').waitFor();
      assert.equal(await page.getByLabel('For all tenants').count(), 0);
    });
  });

  test('axe finds nothing on any page, light and dark, wide and narrow', async () => {
    const form = (name, file) => ({ name, url: `${source.url}/${file}` });
    const begin = (name, file) => api.call('POST', '/images', form(name, file));
    const slow = await begin('on-its-way', 'slow.qcow2');
    const broken = await begin('broken-import', 'broken.qcow2');
    const trashed = await begin('thrown-away', 'fast.qcow2');
    await withPage('admin', async (page) => {
      await page.goto(`/images/${trashed.image.id}`);
      await badge(page, 'Ready').waitFor();
      await page.goto(`/images/${broken.image.id}`);
      await badge(page, 'Failed').waitFor();
    });
    await api.call('DELETE', `/images/${trashed.image.id}`);
    const pages = [slow, broken, trashed].map(({ image }) => `/images/${image.id}`);
    await inEveryLook(async (options, look) => {
      await withPage('admin', async (page) => {
        for (const path of ['/images', '/images?show=trash', '/images/new', ...pages]) {
          await page.goto(path);
          await page.getByText('Live', { exact: true }).waitFor();
          await checkPage(page, `${path} ${look}`);
          if (process.env.VIMANA_SHOTS) {
            const file = `${path.replaceAll(/\W+/g, '-')}-${look}.png`;
            await page.screenshot({ path: `${process.env.VIMANA_SHOTS}/${file}`, fullPage: true });
          }
        }
        await choose(page, 'Remove for good');
        await page.getByRole('dialog').waitFor();
        await checkPage(page, `the question ${look}`);
      }, options);
    });
    source.finish();
    await withPage('admin', async (page) => {
      await page.goto(pages[0]);
      await badge(page, 'Ready').waitFor();
    });
    fleet.isClean();
  });
});
