// What is on a volume leaves its host: an image of it while its machine runs,
// a download that is what the guest wrote, and the page of all volumes.

import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { createHash } from 'node:crypto';
import { existsSync, mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { after, before, describe, test } from 'node:test';
import {
  ask,
  checkPage,
  confirm,
  counted,
  createVm,
  inEveryLook,
  launch,
  number,
  openConsole,
  openLive,
  openPage,
  reopenConsole,
  signIn,
  startCounting,
  untilState,
} from '../lib/browser.mjs';
import { Cli } from '../lib/cli.mjs';
import { Api, PASSWORD, Stack } from '../lib/stack.mjs';

let stack, browser, api, page, cli, fast, vmId;

before(async () => {
  stack = await Stack.create();
  fast = join(stack.data, 'fast');
  mkdirSync(fast);
  stack.environment.VIMANA_AGENT_DATASTORE = `fast=${fast}`;
  await stack.start();
  api = await Api.signIn(stack.url);
  browser = await launch();
  page = await openPage(browser, stack.url);
  await signIn(page);
  await page.getByRole('heading', { name: 'My VMs' }).waitFor();
  cli = new Cli(stack.data);
}, { timeout: 1_200_000 });

after(async () => {
  await browser?.close();
  await stack?.destroy();
});

const button = (name) => page.getByRole('button', { name, exact: true });
const volume = (name) => page.locator(`[data-volume="${name}"]`);
const way = (name) => page.getByRole('navigation', { name: 'Main' }).getByRole('link', { name });

async function good(line, options) {
  const ran = await cli.run(line, options);
  assert.equal(ran.status, 0, `${line}: ${ran.err}`);
  return ran.out;
}

// The disk that a guest would see in a qcow2 file.
function disk(file) {
  const raw = `${file}.raw`;
  execFileSync('qemu-img', ['convert', '-f', 'qcow2', '-O', 'raw', file, raw]);
  return readFileSync(raw);
}

const read = (bytes, at) => bytes.subarray(at, at + 12).toString();

describe('volumes', { concurrency: false, timeout: 900_000 }, () => {
  test('a volume is made on its page, and given to a machine that runs', async () => {
    await createVm(page, 'precious');
    vmId = page.url().split('/').at(-1);
    await untilState(page, 'running');
    await way('Volumes').click();
    await page.getByText('No volumes yet').waitFor();
    await page.evaluate(() => (window.neverReloaded = true));
    await button('New volume').click();
    await page.getByLabel('Name').fill('../x');
    await button('Make it').click();
    await page.getByText('only letters').waitFor();
    await page.getByLabel('Name').fill('data');
    await page.getByLabel('Size in MiB').fill('64');
    await button('Make it').click();
    await volume('data').getByText('free').waitFor();
    const copy = volume('data').getByRole('button', { name: 'Make an image of data' });
    assert.equal(await copy.getAttribute('aria-disabled'), 'true', 'nothing is on it yet');
    await volume('data').getByRole('button', { name: 'Attach data to a VM' }).click();
    await page.getByLabel('VM', { exact: true }).selectOption('precious');
    await button('Attach it').click();
    await volume('data').getByText('attached', { exact: true }).waitFor({ timeout: 60_000 });
    await volume('data').getByRole('link', { name: 'precious' }).waitFor();
    await volume('data').getByRole('button', { name: 'Make data larger' }).click();
    await page.getByLabel('Size in MiB').fill('96');
    await button('Make it larger').click();
    await volume('data').getByText('96 MiB').waitFor({ timeout: 60_000 });
  });

  test('an image is made of it while the guest writes on', async () => {
    await volume('data').getByRole('link', { name: 'precious' }).click();
    await openConsole(page);
    await startCounting(page);
    // Before the guest knows the disk, this would make a file of its name.
    await ask(page, 'until [ -b /dev/sda ]; do usleep 20000; done; echo disk-$((1+1))', 'disk-2');
    // Each says something of its own: the console repeats what it said before.
    const put = (text, block) => {
      const write = `dd of=/dev/sda bs=512 seek=${block} conv=fsync,notrunc`;
      const said = `${text}-at-${block}`;
      return ask(page, `printf ${text} | ${write} 2>/dev/null; echo ${said}-$?`, `${said}-0`);
    };
    await put('before-image', 0);
    // At its end, too: a copy that tears has one of them and not the other.
    await put('before-image', 2048 * 90);
    // It counts at both ends, one after the other, all the while.
    const note = (block) =>
      `printf %08d $n | dd of=/dev/sda bs=512 seek=${block} conv=fsync,notrunc`;
    const loop = `n=0; while :; do n=$((n+1)); ${note(8)}; ${note(2048 * 95)}; done &`;
    await number(page, `sh -c '${loop}' >/dev/null 2>&1; echo 0`);
    const before = await counted(page);
    await way('Volumes').click();
    await volume('data').getByRole('button', { name: 'Make an image of data' }).click();
    await page.getByLabel('Name of the image').fill('of-data');
    await button('Make the image').click();
    await page.waitForURL(/\/images\/image_[0-9a-f]{32}$/);
    await page.getByText('what was on volume').waitFor();
    await page.getByRole('link', { name: 'Download' }).waitFor({ timeout: 120_000 });
    await page.goto(`/vms/${vmId}`);
    await reopenConsole(page);
    await put('after--image', 0);
    assert.ok((await counted(page)) > before, 'the guest never stood still for good');
    assert.deepEqual(stack.traces('.copy'), [], 'no copy is left on the host');
  });

  test('what is downloaded is what the guest had written', async () => {
    await openLive(page, '/images');
    await page.getByRole('link', { name: 'of-data' }).click();
    const arrives = page.waitForEvent('download');
    await page.getByRole('link', { name: 'Download' }).click();
    const download = await arrives;
    assert.equal(download.suggestedFilename(), 'of-data.qcow2');
    const file = join(stack.data, 'from-portal.qcow2');
    await download.saveAs(file);
    const { items } = await api.call('GET', '/images');
    const { content } = items.find(({ name }) => name === 'of-data');
    const sum = createHash('sha256').update(readFileSync(file)).digest('hex');
    assert.equal(sum, content.sha256);
    assert.ok(content.size_bytes < 8 << 20, `${content.size_bytes} bytes for a few blocks`);
    const bytes = disk(file);
    assert.equal(bytes.length, 96 << 20);
    assert.deepEqual([read(bytes, 0), read(bytes, 90 << 20)], ['before-image', 'before-image']);
    const count = (block) => Number(bytes.subarray(block * 512, block * 512 + 8).toString());
    const [first, last] = [count(8), count(2048 * 95)];
    assert.ok(last > 0 && (last === first || last === first - 1), `${first} and ${last}: torn`);
  });

  test('the command line downloads and clones', async () => {
    await good(`login --url ${stack.url} --user admin --password-stdin`, { input: PASSWORD });
    const image = join(stack.data, 'of-data.qcow2');
    // What an earlier command left is gone on from; what is damaged is told.
    const whole = readFileSync(join(stack.data, 'from-portal.qcow2'));
    const { items } = await api.call('GET', '/images');
    const { sha256 } = items.find(({ name }) => name === 'of-data').content;
    const part = `${image}.${sha256.slice(0, 12)}.part`;
    writeFileSync(part, Buffer.alloc(1000, 'x'));
    const damaged = await cli.run(`image download of-data ${image}`);
    assert.match(damaged.err, /damaged, and is removed; ask again/);
    assert.equal(existsSync(part), false);
    writeFileSync(part, whole.subarray(0, 70_000));
    assert.match(await good(`image download of-data ${image}`), /is in .*of-data\.qcow2 \(SHA-256/);
    assert.equal(read(disk(image), 0), 'before-image');
    const again = await cli.run(`image download of-data ${image}`);
    assert.match(again.err, /is there already/);

    const raw = join(stack.data, 'mine.img');
    writeFileSync(raw, Buffer.concat([Buffer.from('from-a-file!'), Buffer.alloc((4 << 20) - 12)]));
    assert.match(await good(`volume upload ${raw} mine`), /^size +4 MiB$/m);
    const twice = await cli.run(`volume upload ${raw} mine`);
    assert.match(twice.err, /there is already a volume named `mine`/);
    await good('volume attach mine precious --wait');
    const mine = join(stack.data, 'mine.qcow2');
    await good(`volume download mine ${mine}`);
    assert.equal(read(disk(mine), 0), 'from-a-file!');

    await openLive(page, '/images/new');
    await button('From a volume').click();
    await button('Import the image').click();
    await page.getByText('Choose a volume.').waitFor();
    await page.getByLabel('Volume').selectOption('mine');
    assert.equal(await page.getByLabel('Name').getAttribute('placeholder'), 'mine');
    await button('Import the image').click();
    await page.waitForURL(/\/images\/image_[0-9a-f]{32}$/);
    await page.getByText('what was on volume').waitFor();
    await page.getByRole('link', { name: 'Download' }).waitFor({ timeout: 120_000 });

    const now = join(stack.data, 'now.qcow2');
    await good(`volume download data ${now}`);
    const bytes = disk(now);
    assert.deepEqual([read(bytes, 0), read(bytes, 90 << 20)], ['after--image', 'before-image']);
    const names = async () => (await api.call('GET', '/images')).items.map(({ name }) => name);
    assert.deepEqual((await names()).filter((name) => name.startsWith('download-')), []);

    await openLive(page, '/volumes');
    await volume('data').getByRole('button', { name: 'Clone data' }).click();
    await page.getByLabel('Name of the new volume').fill('twin');
    await button('Clone it').click();
    await volume('twin').getByText('began as image clone-of-data-').waitFor();
    assert.match(await good('volume clone data third --wait'), /^state +ready/m);
    await good('volume attach twin precious --wait');
    await volume('twin').getByText('attached', { exact: true }).waitFor({ timeout: 60_000 });
    const twin = join(stack.data, 'twin.qcow2');
    await good(`volume download twin ${twin}`);
    assert.equal(read(disk(twin), 0), 'after--image');
  });

  test('a volume moves to another datastore while its guest counts', async () => {
    const { items } = await api.call('GET', '/volumes');
    const { id } = items.find(({ name }) => name === 'data');
    const there = () => existsSync(join(fast, id, 'volume.qcow2'));
    await page.goto(`/vms/${vmId}`);
    await reopenConsole(page);
    const before = await counted(page);
    await way('Volumes').click();
    await volume('data').getByRole('button', { name: 'Move data to another datastore' }).click();
    await page.getByLabel('To datastore').selectOption('fast');
    await button('Move it').click();
    await volume('data').getByText('in fast', { exact: true }).waitFor({ timeout: 60_000 });
    assert.ok(there());
    assert.match(await good('volume move data --to local --wait'), /^datastore +local$/m);
    assert.equal(there(), false);
    assert.match(await good('volume move data --to fast --wait'), /^datastore +fast$/m);
    const nowhere = await cli.run('volume move data --to slow --wait');
    assert.match(nowhere.err, /has no datastore `slow`/);
    const again = await cli.run('volume move data --to fast');
    assert.match(again.err, /is in datastore `fast` already/);
    await page.goto(`/vms/${vmId}`);
    await reopenConsole(page);
    assert.ok((await counted(page)) > before, 'the guest never stood still for good');
    const moved = join(stack.data, 'moved.qcow2');
    await good(`volume download data ${moved}`);
    assert.deepEqual([read(disk(moved), 0), read(disk(moved), 90 << 20)], ['after--image', 'before-image']);
    // Both hosts reach it, and show what is claimed of it.
    const hosts = (await api.call('GET', '/hosts')).items;
    const { host } = (await api.call('GET', `/vms/${vmId}`));
    const used = hosts.map(({ id, datastores: [{ name, used_mib }] }) => [name, used_mib, id === host.id]);
    assert.deepEqual(used.toSorted(), [['fast', 96, false], ['fast', 96, true]]);
    await page.goto(`/admin/hosts/${host.id}`);
    await page.getByText('Datastore fast').first().waitFor();
    await openLive(page, '/volumes');
    // Whichever host's VM is given it, it is the same one.
    await good('volume detach data --wait');
    let other;
    for (let n = 0; !other; n += 1) {
      const { vm } = await api.call('POST', '/vms', { name: `other-${n}`, image: 'demo', flavor: 'tiny' });
      let now = vm;
      while (now.state !== 'running') now = await api.call('GET', `/vms/${vm.id}`);
      if (now.host.id !== host.id) other = now;
      else await api.call('DELETE', `/vms/${vm.id}`);
    }
    assert.match(await good(`volume attach data ${other.name} --wait`), new RegExp(`^host +${other.host.name}$`, 'm'));
    const carried = join(stack.data, 'carried.qcow2');
    await good(`volume download data ${carried}`);
    assert.equal(read(disk(carried), 0), 'after--image');
  });

  test('the page is as it should be in every look', async () => {
    await inEveryLook(async (look, name) => {
      const other = await openPage(browser, stack.url, look);
      await signIn(other);
      await other.getByRole('heading', { name: 'My VMs' }).waitFor();
      await other.goto('/volumes');
      await other.getByText('Live', { exact: true }).waitFor();
      await other.locator('[data-volume="data"]').waitFor();
      await checkPage(other, name);
      const pictures = process.env.VIMANA_PICTURES;
      if (pictures) await other.screenshot({ path: `${pictures}/volumes-${name}.png`, fullPage: true });
      await other.getByRole('button', { name: 'New volume' }).click();
      await other.getByLabel('Size in MiB').waitFor();
      await checkPage(other, `${name} with a dialog`);
      assert.deepEqual(other.complaints, []);
      await other.context().close();
    });
  });

  test('free again, a volume is deleted, and the page says so at once', async () => {
    const { items } = await api.call('GET', '/volumes');
    for (const { id, name, state } of items) {
      if (state === 'attached') await good(`volume detach ${name} --wait`);
      await volume(name).getByText('free').waitFor({ timeout: 60_000 });
      await volume(name).getByRole('button', { name: `Delete ${name}` }).click();
      await confirm(page, `Delete ${name}`);
      await volume(name).waitFor({ state: 'detached', timeout: 60_000 });
      assert.deepEqual(stack.traces(id), []);
    }
    await page.getByText('No volumes yet').waitFor();
    assert.deepEqual(page.complaints, []);
  });
});
