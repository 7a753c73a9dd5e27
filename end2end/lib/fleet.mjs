// A Vimana whose parts can be killed and started one by one.

import assert from 'node:assert/strict';
import { spawn, spawnSync } from 'node:child_process';
import { mkdtempSync, openSync, rmSync, writeFileSync } from 'node:fs';
import { homedir, tmpdir } from 'node:os';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { SmallDisk } from './small-disk.mjs';
import { PASSWORD, Stack } from './stack.mjs';

const cache =
  process.env.VIMANA_CACHE ??
  join(process.env.XDG_CACHE_HOME ?? join(homedir(), '.cache'), 'vimana');
export const bin = join(cache, 'bin', process.env.VIMANA_PROFILE ?? 'release');
export const image = join(cache, 'demo-image/demo.qcow2');

export class Fleet extends Stack {
  // `serverArguments` are given to every start of the server.
  static async open(serverArguments = []) {
    const fleet = new Fleet();
    fleet.serverArguments = serverArguments;
    fleet.data = mkdtempSync(join(tmpdir(), 'vimana-'));
    fleet.parts = new Map();
    fleet.listen = '127.0.0.1:0';
    fleet.agentListen = '127.0.0.1:0';
    await fleet.startServer();
    await fleet.startPart('scheduler', 'vimana-scheduler', [
      ...['--server', fleet.url],
      ...['--secret-file', join(fleet.data, 'server/secrets/scheduler')],
    ]);
    return fleet;
  }

  // Keeps the addresses of the first start.
  async startServer() {
    const lines = await this.startPart(
      'server',
      'vimana-server',
      [
        ...['--data-dir', join(this.data, 'server')],
        ...['--listen', this.listen],
        ...['--agent-listen', this.agentListen],
        ...['--site-dir', join(cache, 'site')],
        ...['--import-image', `demo=${image}`],
        ...this.serverArguments,
      ],
      /^Agents connect to /,
    );
    const address = (start) =>
      lines.find((line) => line.startsWith(start)).match(/https?:\/\/\S+/)[0];
    this.url = address('Vimana listens on ');
    this.agentUrl = address('Agents connect to ');
    this.listen = new URL(this.url).host;
    this.agentListen = new URL(this.agentUrl).host;
  }

  // `more` are further arguments of it.
  async startAgent(name, more = []) {
    const token = join(this.data, `${name}.token`);
    if (!this.joined?.has(name)) {
      this.joined = (this.joined ?? new Set()).add(name);
      writeFileSync(token, this.tool('join-token').stdout, { mode: 0o600 });
    }
    await this.startPart(name, 'vimana-agent', [
      ...['--server', this.agentUrl],
      ...['--join-token-file', token],
      ...['--data-dir', join(this.data, name)],
      ...['--name', name, '--zone', 'default'],
      ...['--vcpus', '24', '--memory-mib', '4096', '--disk-mib', '40960'],
      ...['--probe-image', image],
      ...more,
    ]);
  }

  // Starts a part; with `ready`, answers its lines up to the one that matches.
  async startPart(name, binary, args, ready) {
    const log = openSync(join(this.data, `${name}.log`), 'a');
    const child = spawn(join(bin, binary), args, {
      env: { ...process.env, VIMANA_ADMIN_PASSWORD: PASSWORD },
      stdio: ['ignore', ready ? 'pipe' : log, log],
    });
    child.over = new Promise((done) => child.once('exit', done));
    this.parts.set(name, child);
    if (!ready) return [];
    const lines = [];
    await new Promise((done, failed) => {
      createInterface({ input: child.stdout }).on('line', (line) => {
        lines.push(line);
        if (ready.test(line)) done();
      });
      child.over.then((code) => failed(new Error(`${name} ended with ${code}`)));
    });
    return lines;
  }

  // kill -9, and its end.
  async kill(name) {
    const child = this.parts.get(name);
    child.kill('SIGKILL');
    await child.over;
  }

  // Has the directory of a part that is not started yet be on a small disk, where
  // that may be done; answers the disk.
  onSmallDisk(name, mib) {
    const disk = SmallDisk.mount(join(this.data, name), mib);
    if (disk) this.disks = [...(this.disks ?? []), disk];
    return disk;
  }

  // A tool of the server's, beside it.
  tool(name, ...args) {
    const done = spawnSync(
      join(bin, 'vimana-server'),
      [name, '--data-dir', join(this.data, 'server'), ...args],
      { encoding: 'utf8' },
    );
    if (done.error) throw done.error;
    return done;
  }

  // Every rule is kept, as far as fsck can see, and every host answered it.
  isClean() {
    const { status, stdout, stderr } = this.tool('fsck', '--json');
    assert.equal(status, 0, `fsck: ${stderr}${stdout}`);
    assert.deepEqual(JSON.parse(stdout).breaches, []);
  }

  async destroy() {
    for (const child of this.parts.values()) {
      child.kill('SIGTERM');
      // A test that failed may have left it stopped.
      child.kill('SIGCONT');
      const patience = setTimeout(() => child.kill('SIGKILL'), 30_000);
      await child.over;
      clearTimeout(patience);
    }
    for (const name of this.joined ?? []) {
      spawnSync(join(bin, 'vimana-agent'), ['stop-machines', '--data-dir', join(this.data, name)]);
    }
    for (const disk of this.disks ?? []) disk.unmount();
    rmSync(this.data, { recursive: true, force: true });
  }
}
