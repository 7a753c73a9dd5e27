// Images from servers of somebody else's, from the person's machine and from the
// server's, by the command line: packed and converted, until a machine boots
// from them.

import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { createHash, randomBytes } from 'node:crypto';
import { copyFileSync, mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, describe, test } from 'node:test';
import { gzipSync } from 'node:zlib';
import { Cli } from '../lib/cli.mjs';
import { Fleet, image } from '../lib/fleet.mjs';
import { Peers } from '../lib/peers.mjs';
import { PASSWORD } from '../lib/stack.mjs';

let fleet, cli, files, shared, peers, http, ftp;

before(async () => {
  shared = mkdtempSync(join(tmpdir(), 'vimana-shared-'));
  copyFileSync(image, join(shared, 'demo.qcow2'));
  fleet = await Fleet.open(['--import-allow', '127.0.0.1/32', '--import-path', shared]);
  await fleet.startAgent('host-a');
  cli = new Cli(fleet.data);
  files = join(fleet.data, 'files');
  mkdirSync(files);
  copyFileSync(image, join(files, 'demo.qcow2'));
  writeFileSync(join(files, 'demo.qcow2.gz'), gzipSync(readFileSync(image), { level: 1 }));
  execFileSync('qemu-img', [
    ...['convert', '-f', 'qcow2', '-O', 'vmdk', '-o', 'subformat=streamOptimized'],
    ...[image, join(files, 'demo.vmdk')],
  ]);
  peers = new Peers(fleet.data, files);
  http = await peers.nginx();
  ftp = await peers.pyftpdlib();
});

after(async () => {
  peers?.kill();
  await fleet?.destroy();
  rmSync(shared, { recursive: true, force: true });
});

async function good(line) {
  const ran = await cli.run(line);
  assert.deepEqual({ status: ran.status, err: ran.err }, { status: 0, err: '' }, line);
  return ran.out;
}

const json = async (line) => JSON.parse(await good(`${line} --json`));

async function bad(line, sentence) {
  const { status, out, err } = await cli.run(line);
  assert.deepEqual({ status, out }, { status: 1, out: '' }, line);
  assert.match(err, sentence, line);
}

describe('images', () => {
  test('signs in', async () => {
    const ran = await cli.run(`login --url ${fleet.url} --user admin --password-stdin`, {
      input: PASSWORD,
    });
    assert.equal(ran.status, 0);
  });

  test('come over HTTP, by a redirect, and are what was promised', async () => {
    const sha256 = createHash('sha256').update(readFileSync(image)).digest('hex');
    const from = `http://${http}/old/demo.qcow2`;
    const got = await json(`image import web-image --from ${from} --sha256 ${sha256} --wait`);
    assert.equal(got.state, 'ready');
    assert.equal(got.content.sha256, sha256);
    assert.deepEqual(got.origin, {
      kind: 'url',
      url: from,
      fetched: {
        size_bytes: readFileSync(image).length,
        checksum: `SHA-256 ${sha256}`,
        verified: true,
      },
    });
    const wrong = '0'.repeat(64);
    await bad(
      `image import wrong --from http://${http}/demo.qcow2 --sha256 ${wrong} --wait`,
      new RegExp(`image \`wrong\` was not imported: .*${sha256}`),
    );
    assert.match(await good('image show wrong'), /^state +failed/m);
    await good('image delete wrong');
  });

  test('come over FTP with a password that is not shown, and are unpacked', async () => {
    const from = `ftp://ann:hunter2@${ftp}/demo.qcow2.gz`;
    const said = await good(`image import ftp-image --from ${from} --wait`);
    assert.match(said, /^state +ready/m);
    assert.doesNotMatch(said, /hunter2/);
    assert.match(said, new RegExp(`^from +ftp://ann:\\*\\*\\*@${ftp}/demo.qcow2.gz$`, 'm'));
  });

  test('of another hypervisor are converted', async () => {
    const got = await json(`image import converted --from http://${http}/demo.vmdk --wait`);
    assert.equal(got.content.format, 'qcow2');
  });

  test('are sent from here, and on from where they were when the server died', async () => {
    const file = join(files, 'vast.img');
    const bytes = randomBytes(384 << 20);
    writeFileSync(file, bytes);
    const sha256 = createHash('sha256').update(bytes).digest('hex');
    const sending = json(`image upload ${file} --sha256 ${sha256} --wait`);
    const sent = async () => {
      const images = await json('image list');
      const image = images.find(({ name }) => name === 'vast');
      return image?.operation.progress?.done_bytes ?? 0;
    };
    let done = 0;
    while (done === 0) done = await sent();
    assert.ok(done < bytes.length);
    await fleet.kill('server');
    await fleet.startServer();
    const got = await sending;
    assert.equal(got.state, 'ready');
    assert.equal(got.content.sha256, sha256);
    assert.deepEqual([got.origin.kind, got.origin.file_name], ['upload', 'vast.img']);
    await good('image delete vast');
    await good('image purge vast');
  });

  test('are sent packed, under a name of their own', async () => {
    const said = await good(`image upload ${join(files, 'demo.qcow2.gz')} --name sent --wait`);
    assert.match(said, /^state +ready/m);
    assert.match(said, /^from +demo.qcow2.gz$/m);
  });

  test("come from the server's own machine, from where its operator says", async () => {
    const got = await json(`image import kept --path ${join(shared, 'demo.qcow2')} --wait`);
    assert.deepEqual([got.state, got.origin.kind], ['ready', 'file']);
    await bad(`image import x --path ${image}`, /path: the file is in no directory that images/);
  });

  test('boot', async () => {
    for (const name of ['ftp-image', 'converted', 'sent', 'kept']) {
      const made = await json(`vm create of-${name} --image ${name} --flavor tiny --wait running`);
      assert.equal(made.vm.state, 'running');
      assert.equal(fleet.qemus(made.vm.id).length, 1);
    }
  });

  test('outlive their deletion for as long as they are used', async () => {
    await good('image delete ftp-image');
    await bad('vm create late --image ftp-image --flavor tiny', /there is no image `ftp-image`/);
    await bad('image purge ftp-image', /1 VMs are made from it/);
    await good('image restore ftp-image');
    await good('vm delete of-ftp-image --wait');
    await good('image delete ftp-image');
    assert.match(await good('image purge ftp-image'), /^state +removed/m);
    fleet.isClean();
  });

  test('come from nowhere that is not allowed', async () => {
    const port = http.split(':')[1];
    for (const host of ['127.0.0.2', '169.254.169.254', '[::1]', '10.0.0.1']) {
      await bad(`image import x --from http://${host}:${port}/demo.qcow2`, /may not be fetched from/);
    }
    await bad('image import x --from file:///etc/shadow', /images come from http/);
  });
});
