// QEMU as a script has it, without Vimana: machines with the arguments of one
// of Vimana's, that go from process to process.

import { execFile, spawn } from 'node:child_process';
import { EventEmitter } from 'node:events';
import {
  closeSync,
  copyFileSync,
  mkdirSync,
  openSync,
  rmSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs';
import { createConnection } from 'node:net';
import { join } from 'node:path';
import { promisify } from 'node:util';
import { freePort } from '../lib/stack.mjs';

// Ended with this process, whatever becomes of it.
const children = new Set();
process.on('exit', () => children.forEach((child) => child.kill('SIGKILL')));

const PATIENCE_MS = 60_000;
const UNLIMITED = 2 ** 50;
// What Vimana allows a guest to stand still at first.
const DOWNTIME_MS = 5;

// Resolves with the connection as soon as somebody listens there.
async function reach(path, child) {
  for (;;) {
    const socket = createConnection(path);
    const connected = await new Promise((done) => {
      socket.once('connect', () => done(true)).once('error', () => done(false));
    });
    if (connected) return socket;
    if (child.exitCode !== null) throw new Error(`QEMU ended with ${child.exitCode}`);
    await new Promise((done) => setTimeout(done, 5));
  }
}

class Qmp {
  constructor(socket) {
    this.socket = socket;
    this.answers = [];
    this.events = new EventEmitter().setMaxListeners(0);
    let rest = '';
    socket.setEncoding('utf8').on('data', (piece) => {
      const lines = (rest + piece).split('\n');
      rest = lines.pop();
      for (const line of lines) this.take(JSON.parse(line));
    });
    socket.on('error', () => {}).on('close', () => {
      for (const { failed } of this.answers) failed(new Error('QEMU hung up'));
    });
  }

  take(message) {
    if (message.event) return void this.events.emit(message.event, message.data);
    if (message.QMP) return;
    const { done, failed, command } = this.answers.shift();
    if (message.error) failed(new Error(`${command}: ${message.error.desc}`));
    else done(message.return);
  }

  execute(command, args) {
    return new Promise((done, failed) => {
      this.answers.push({ done, failed, command });
      this.socket.write(JSON.stringify({ execute: command, arguments: args }));
    });
  }

  // Resolves with the first event from now on that is the one; `isIt` throws
  // where it never comes.
  hears(event, isIt) {
    const heard = new Promise((done, failed) => {
      const over = (end, value) => {
        clearTimeout(patience);
        this.events.off(event, look);
        end(value);
      };
      const look = (data) => {
        try {
          if (isIt(data)) over(done, data);
        } catch (error) {
          over(failed, error);
        }
      };
      const vain = new Error(`${event} was waited for in vain`);
      const patience = setTimeout(() => over(failed, vain), PATIENCE_MS);
      this.events.on(event, look);
    });
    // Whoever waits for it may have failed before.
    heard.catch(() => {});
    return heard;
  }
}

// What a host proves with who it is, as a client or as a server, where QEMU looks
// for it.
function credentialsOf(host, role, dir) {
  const at = join(dir, role);
  mkdirSync(at);
  writeFileSync(join(at, 'ca-cert.pem'), host.authority);
  writeFileSync(join(at, `${role}-cert.pem`), host.certificate);
  writeFileSync(join(at, `${role}-key.pem`), host.key, { mode: 0o600 });
}

// One process with a machine.
class Machine {
  static async start(dir, args, pipe, certificates) {
    const machine = Object.assign(new Machine(), { dir, pipe });
    const [qemu, ...words] = args;
    for (const [role, host] of Object.entries(certificates)) credentialsOf(host, role, dir);
    const copied = words.map((word) =>
      word.startsWith('socket,id=serial,') ? pipe.copying(word) : word,
    );
    const log = openSync(join(dir, 'qemu.log'), 'a');
    const options = { cwd: dir, env: {}, stdio: ['ignore', log, log] };
    machine.child = spawn(qemu, copied, options);
    closeSync(log);
    children.add(machine.child);
    machine.over = new Promise((done) => machine.child.once('exit', done));
    try {
      machine.qmp = new Qmp(await reach(join(dir, 'qmp.sock'), machine.child));
      await machine.qmp.execute('qmp_capabilities');
      machine.serial = await reach(join(dir, 'serial.sock'), machine.child);
      // Nobody reads it here, and it never fills.
      machine.serial.on('error', () => {}).resume();
      return machine;
    } catch (error) {
      await machine.kill();
      throw error;
    }
  }

  async kill() {
    this.child.kill('SIGKILL');
    await this.over;
    children.delete(this.child);
    this.serial?.destroy();
    this.qmp?.socket.destroy();
    rmSync(this.dir, { recursive: true, force: true });
  }
}

const capabilities = (...names) => ({
  capabilities: names.map((capability) => ({ capability, state: true })),
});

// A guest that a script moves.
export class Bare {
  // `args` are the arguments of a machine of Vimana's that runs, `disk` says how
  // large it is, over what, and maybe a file that it begins with; `seed` is a
  // file; `hosts` are ids and certificates of two hosts, or absent for no TLS;
  // where the disk is `shared`, both ends have the same file.
  constructor({ data, args, disk, seed, pipes, hosts, shared }) {
    Object.assign(this, { data, disk, seed, pipes, hosts, shared, turns: 0 });
    const clean = [];
    for (let at = 0; at < args.length; at += 1) {
      if (args[at] === '-incoming') at += 1;
      else clean.push(args[at].replace(/,logfile=.*$/, ''));
    }
    this.args = clean;
  }

  // A process in a directory of its own.
  async process(...extra) {
    const { turns: turn, hosts } = this;
    this.turns += 1;
    const dir = join(this.data, `bare-${turn}`);
    mkdirSync(dir, { recursive: true });
    copyFileSync(this.seed, join(dir, 'seed.iso'));
    const disk = join(dir, 'disk.qcow2');
    const { backing, format, bytes, content } = this.disk;
    if (content && turn === 0) copyFileSync(content, disk);
    else if (this.shared && turn > 0) symlinkSync(this.shared, disk);
    else {
      const over = ['-q', '-f', 'qcow2', '-b', backing, '-F', format];
      // Nothing here may wait while guests are listened to.
      const made = this.shared ?? disk;
      await promisify(execFile)('qemu-img', ['create', ...over, made, `${bytes}`]);
      if (this.shared) symlinkSync(made, disk);
    }
    // It comes as a server, and goes as a client of the next.
    const host = hosts?.[turn % 2];
    const certificates = host ? { server: host, client: host } : {};
    return Machine.start(dir, [...this.args, ...extra], this.pipes[turn % 2], certificates);
  }

  async boot() {
    this.machine = await this.process();
    await this.machine.qmp.execute('cont');
    this.at = 0;
  }

  // Types at the serial line.
  type(text) {
    this.machine.serial.write(text);
  }

  // Once the serial line has said so, from now on.
  says(pattern) {
    const { serial } = this.machine;
    let said = '';
    return new Promise((done, failed) => {
      const over = (end, value) => {
        clearTimeout(patience);
        serial.off('data', look);
        end(value);
      };
      const look = (piece) => {
        said += piece;
        if (pattern.test(said)) over(done);
      };
      const vain = () => over(failed, new Error(`the guest has only said ${said}`));
      const patience = setTimeout(vain, PATIENCE_MS);
      serial.on('data', look);
    });
  }

  // To the next process; answers what QEMU says of the downtime.
  async migrate() {
    const { machine: source, at: from } = this;
    const target = await this.process('-incoming', 'defer');
    try {
      const ports = await this.await(target, from);
      await this.mirror(source, ports, from);
      const downtime = await this.send(source, target, ports, from);
      this.machine = target;
      this.at = 1 - from;
      await source.kill();
      return downtime;
    } catch (error) {
      await target.kill();
      throw error;
    }
  }

  // Copies the disk alone to the next process; answers the milliseconds.
  async copy() {
    const source = await this.process();
    try {
      const target = await this.process('-incoming', 'defer');
      try {
        const ports = await this.await(target, 0);
        const begun = performance.now();
        await this.mirror(source, ports, 0);
        return performance.now() - begun;
      } finally {
        await target.kill();
      }
    } finally {
      await source.kill();
    }
  }

  // The same disk to the same place by `qemu-img convert`, which has no guest that
  // could write meanwhile; answers the milliseconds.
  async convert() {
    const { backing, format, content } = this.disk;
    // The disk comes from no process, and goes to the second.
    this.turns = 1;
    const target = await this.process('-incoming', 'defer');
    try {
      const ports = await this.await(target, 0);
      const node = { driver: 'nbd', export: 'disk', discard: 'unmap' };
      Object.assign(node, { 'server.type': 'inet', 'server.host': '127.0.0.1' });
      node['server.port'] = ports.disk;
      const objects = [];
      if (this.hosts) {
        credentialsOf(this.hosts[0], 'client', this.data);
        Object.assign(node, { 'tls-creds': 'client', 'tls-hostname': this.hosts[1].id });
        const { 'qom-type': type, ...rest } = { ...credentials('client'), 'verify-peer': 'on' };
        objects.push('--object', `${type},${options({ ...rest, dir: join(this.data, 'client') })}`);
      }
      const over = ['-U', '-n', '-f', 'qcow2', '-B', backing, '-F', format];
      const words = ['convert', ...objects, ...over, '--target-image-opts', content, options(node)];
      const begun = performance.now();
      await promisify(execFile)('qemu-img', words);
      return performance.now() - begun;
    } finally {
      await target.kill();
      rmSync(join(this.data, 'client'), { recursive: true, force: true });
    }
  }

  // Has the target wait for the memory, and serve its disk.
  async await({ qmp }, from) {
    const tls = this.hosts && { 'tls-creds': 'server', 'tls-authz': 'peer' };
    if (tls) {
      await qmp.execute('object-add', credentials('server'));
      const identity = `CN=${this.hosts[from].id}`;
      await qmp.execute('object-add', { 'qom-type': 'authz-simple', id: 'peer', identity });
    }
    await qmp.execute(
      'migrate-set-capabilities',
      capabilities('events', 'return-path', 'late-block-activate'),
    );
    await qmp.execute('migrate-set-parameters', { 'max-bandwidth': UNLIMITED, ...tls });
    const ports = { memory: await freePort(), disk: await freePort() };
    await qmp.execute('migrate-incoming', { channels: channels(ports.memory) });
    if (this.shared) return ports;
    const data = { host: '127.0.0.1', port: `${ports.disk}` };
    await qmp.execute('nbd-server-start', { addr: { type: 'inet', data }, ...tls });
    await qmp.execute('block-export-add', {
      ...{ type: 'nbd', id: 'disk', 'node-name': 'disk', name: 'disk', writable: true },
    });
    return ports;
  }

  // Copies the disk, and keeps both in step.
  async mirror({ qmp }, ports, from) {
    const tls = this.hosts && {
      'tls-creds': 'client',
      'tls-hostname': this.hosts[1 - from].id,
    };
    if (tls) await qmp.execute('object-add', credentials('client'));
    if (this.shared) return;
    await qmp.execute('blockdev-add', {
      ...{ driver: 'nbd', 'node-name': 'target', export: 'disk', discard: 'unmap', ...tls },
      server: { type: 'inet', host: '127.0.0.1', port: `${ports.disk}` },
    });
    const ready = qmp.hears('JOB_STATUS_CHANGE', ({ status }) => status === 'ready');
    await qmp.execute('blockdev-mirror', {
      ...{ 'job-id': 'mirror', device: 'disk', target: 'target', sync: 'top' },
      'copy-mode': 'write-blocking',
    });
    await ready;
  }

  // From there on as fast as QEMU says how far it is.
  async send({ qmp }, target, ports, from) {
    await qmp.execute(
      'migrate-set-capabilities',
      capabilities(
        ...['events', 'return-path', 'auto-converge'],
        ...(this.shared ? [] : ['pause-before-switchover']),
      ),
    );
    await qmp.execute('migrate-set-parameters', {
      ...{ 'max-bandwidth': UNLIMITED, 'downtime-limit': DOWNTIME_MS },
      ...(this.hosts && { 'tls-creds': 'client', 'tls-hostname': this.hosts[1 - from].id }),
      'tls-authz': '',
    });
    const status = (of, wanted) =>
      of.hears('MIGRATION', ({ status }) => {
        if (status === 'failed') throw new Error('the migration failed');
        return status === wanted;
      });
    const waits = status(qmp, 'pre-switchover');
    const left = status(qmp, 'completed');
    const arrived = status(target.qmp, 'completed');
    await qmp.execute('migrate', { channels: channels(ports.memory) });
    if (!this.shared) await this.switchOver(qmp, waits);
    await Promise.all([left, arrived]);
    if (!this.shared) await target.qmp.execute('nbd-server-stop');
    await target.qmp.execute('cont');
    return (await qmp.execute('query-migrate')).downtime;
  }

  // Ends the mirror while the guest stands still.
  async switchOver(qmp, waits) {
    await waits;
    const ended = qmp.hears('JOB_STATUS_CHANGE', ({ status }) => status === 'null');
    await qmp.execute('block-job-cancel', { device: 'mirror' });
    await ended;
    await qmp.execute('migrate-continue', { state: 'pre-switchover' });
  }

  async end() {
    await this.machine?.kill();
  }
}

const credentials = (endpoint) => ({
  ...{ 'qom-type': 'tls-creds-x509', id: endpoint, dir: endpoint, endpoint, 'verify-peer': true },
});

// As QEMU's command lines have them.
const options = (of) =>
  Object.entries(of)
    .map(([key, value]) => `${key}=${`${value}`.replaceAll(',', ',,')}`)
    .join(',');

const channels = (port) => [
  {
    'channel-type': 'main',
    addr: { transport: 'socket', type: 'inet', host: '127.0.0.1', port: `${port}` },
  },
];
