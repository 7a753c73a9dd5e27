// Machines that go to another host while they run, through Vimana and by a bare
// QMP script in the same run: the same guests with the same devices, of which
// each counts on its serial line. How long a guest stood still is seen there, from
// outside: from its last tick on one host to its first on the other. Run alone it
// prints what it measures.

import { execFile, execFileSync } from 'node:child_process';
import {
  mkdirSync,
  mkdtempSync,
  readFileSync,
  readlinkSync,
  renameSync,
  rmSync,
  statSync,
  writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { promisify } from 'node:util';
import { Cli } from '../lib/cli.mjs';
import { Fleet } from '../lib/fleet.mjs';
import { Api, PASSWORD } from '../lib/stack.mjs';
import { Vms } from '../lib/vms.mjs';
import { figure, quantile, show } from './figures.mjs';
import { Bare } from './qmp.mjs';
import { BYTES, LINES, Pipe, Ticks, sector } from './ticks.mjs';

// Hosts that encrypt what they send, and two that do not.
const PAIRS = { tls: ['host-a', 'host-b'], plain: ['host-c', 'host-d'] };
const HOSTS = Object.values(PAIRS).flat();
// Where a guest's disk is, and whether what is sent is encrypted.
const WAYS = [
  { title: 'disk mirrored, TLS', pair: 'tls', datastore: 'local' },
  { title: 'disk mirrored, no TLS', pair: 'plain', datastore: 'local' },
  { title: 'disk shared, TLS', pair: 'tls', datastore: 'shared' },
  { title: 'disk shared, no TLS', pair: 'plain', datastore: 'shared' },
];
const QEMU = '/usr/bin/qemu-system-x86_64';
// How long a guest may stand still: the limit that Vimana has.
const DOWNTIME_MS = 300;
const DISK_MIB = 512;
const GUESTS = {
  sector: { title: 'idle boot sector', image: 'ticks', flavor: 'speck', ticks: BYTES, rounds: 15 },
  demo: { title: 'idle demo, 256 MB', image: 'demo', flavor: 'demo', ticks: LINES, rounds: 7 },
};
const BUSY_ROUNDS = 3;
const MIRROR_ROUNDS = 3;
// Dirties memory evenly: 5 MB at a time of 60, none of it zero.
const DIRTY = [
  "tr '\\0' v </dev/zero | dd of=/run/block bs=1M count=5 iflag=fullblock 2>/dev/null",
  'mkfifo /run/pause; exec 4<>/run/pause; at=0; n=0; cat /proc/uptime >/run/since',
  'while :; do dd if=/run/block of=/run/busy bs=1M seek=$at conv=notrunc 2>/dev/null;' +
    ' at=$(((at+5)%60)); n=$((n+1)); echo $n >/run/count; read -r -t 0.07 _ <&4; done &',
];
const DIRTIED = 'kill %1; echo dirtied $(cat /run/count /run/since /proc/uptime)=';
const FILL =
  `at=600; while [ $at -lt ${600 + DISK_MIB} ]; do` +
  ' dd if=/run/block of=/dev/vda bs=1M seek=$at conv=notrunc 2>/dev/null; at=$((at+5)); done; sync';
const FILL_VOLUME =
  'until [ -b /dev/sda ]; do usleep 20000; done; at=0;' +
  ` while [ $at -lt ${DISK_MIB - 5} ]; do` +
  ' dd if=/run/block of=/dev/sda bs=1M seek=$at conv=notrunc 2>/dev/null; at=$((at+5)); done; sync';

// Answers the table of blackouts; the figures are noted.
export async function measureMigration() {
  const bench = await Migrations.open();
  try {
    return await bench.measure();
  } finally {
    await bench.close();
  }
}

class Migrations {
  static async open() {
    const bench = new Migrations();
    bench.data = mkdtempSync(join(tmpdir(), 'vimana-bench-'));
    bench.rows = [];
    bench.pipes = [];
    // Of what is asked to end its machines are ended, too.
    bench.stop = () => bench.close().finally(() => process.exit(130));
    for (const signal of ['SIGINT', 'SIGTERM']) process.once(signal, bench.stop);
    try {
      await bench.start();
    } catch (error) {
      await bench.close();
      throw error;
    }
    return bench;
  }

  async start() {
    const image = join(this.data, 'ticks.img');
    writeFileSync(image, sector());
    this.shared = join(this.data, 'shared');
    mkdirSync(this.shared);
    this.fleet = await Fleet.open(['--import-image', `ticks=${image}`]);
    for (const host of HOSTS) {
      const pipe = new Pipe(join(this.data, `${host}.serial`));
      this.pipes.push(pipe);
      const qemu = pipe.wrap(QEMU, join(this.data, `${host}.qemu`));
      const plain = PAIRS.plain.includes(host) ? ['--migration-plaintext'] : [];
      const shared = ['--datastore', `shared=${this.shared}`];
      await this.fleet.startAgent(host, ['--qemu', qemu, ...shared, ...plain]);
    }
    this.api = await Api.signIn(this.fleet.url);
    this.vms = new Vms(this.fleet, this.api);
    this.cli = new Cli(this.data);
    const login = `login --url ${this.fleet.url} --user admin --password-stdin`;
    await this.told(this.cli.run(login, { input: PASSWORD }));
    for (const [name, memory_mib, disk_mib] of [
      ['speck', 32, 1],
      ['demo', 256, 2048],
    ]) {
      await this.api.call('POST', '/flavors', { name, vcpus: 1, memory_mib, disk_mib });
    }
    await this.vms.eventually('all hosts', async () => {
      const hosts = await this.vms.hosts();
      return hosts.length === HOSTS.length && hosts.every((host) => host.connected);
    });
    this.hosts = HOSTS.map((name) => {
      const read = (file) => JSON.parse(readFileSync(join(this.fleet.data, name, file), 'utf8'));
      return { id: read('host.json').host_id, ...read('certificate.json') };
    });
  }

  close() {
    this.closing ??= this.end();
    return this.closing;
  }

  async end() {
    for (const signal of ['SIGINT', 'SIGTERM']) process.off(signal, this.stop);
    try {
      await this.bare?.end();
    } finally {
      this.cli?.kill();
      await this.fleet?.destroy();
      for (const pipe of this.pipes) await pipe.close();
      rmSync(this.data, { recursive: true, force: true });
    }
  }

  async told(run) {
    const done = await run;
    if (done.status !== 0) throw new Error(done.err);
    return done.out;
  }

  async measure() {
    for (const guest of [GUESTS.sector, GUESTS.demo]) await this.measureGuest(guest);
    this.tellFigures();
    return this.table();
  }

  async measureGuest(guest) {
    for (const way of WAYS) {
      const vm = await this.create(guest, way);
      const bare = this.imitation(vm);
      const vimana = await this.rounds(vm, guest.rounds);
      if (guest === GUESTS.demo && way === WAYS[0]) {
        await this.measureBusy(vm);
        await this.measureMirror(vm, bare);
        await this.measureMove(vm);
      }
      await this.api.call('POST', `/vms/${vm.id}/poweroff`, { force: true });
      await this.vms.removed(vm.id);
      const hosts = way.pair === 'tls' ? this.hosts : undefined;
      const shared = way.datastore === 'shared' ? join(this.data, `${vm.name}.qcow2`) : undefined;
      const script = await this.bareRounds({ ...bare, hosts, shared }, guest);
      this.rows.push({ title: `${guest.title}, ${way.title}`, guest, vimana, script });
    }
  }

  // A machine of Vimana's that counts.
  async create({ title, image, flavor, ticks }, { pair, datastore }) {
    const name = `bench-${image}-${pair}-${datastore}`;
    // On one of the two hosts that it is to go between.
    for (const { id, name: host } of await this.vms.hosts()) {
      const takes = PAIRS[pair].includes(host);
      await this.api.call('POST', `/hosts/${id}/${takes ? 'enable' : 'cordon'}`);
    }
    const form = { name, image, flavor, datastore };
    const { id } = (await this.api.call('POST', '/vms', form)).vm;
    const { state, host } = await this.vms.rest(id);
    if (state !== 'running') throw new Error(`${title} is ${state}`);
    const names = PAIRS[pair];
    const pipes = names.map((host) => this.pipes[HOSTS.indexOf(host)]);
    const vm = { id, name, ticks, names, pipes, at: names.indexOf(host.name) };
    if (ticks === LINES) await this.shell(vm);
    return vm;
  }

  // Types lines at its console, each when the one before is through; from then
  // on it counts. Answers what was said meanwhile.
  async shell(vm, ...lines) {
    const console = this.cli.talk(`vm console ${vm.name}`);
    let said = '';
    console.listen((piece) => (said += piece));
    if (vm.counts) console.write('\x03');
    await console.hears(vm.counts ? /\^C[^]*~# $/ : /~# $/);
    for (const line of [...lines, 'tick 1']) {
      // What was said before is said again to whoever comes.
      this.marks = (this.marks ?? 100) + 1;
      const [mark, heard] = [`echo mark=$((${this.marks}+0))=`, `mark=${this.marks}=`];
      console.write(line === 'tick 1' ? `${mark}; ${line}\n` : `${line}\n${mark}\n`);
      await console.hears(new RegExp(heard));
    }
    // It would listen for as long as the guest counts.
    this.cli.kill();
    vm.counts = true;
    return said;
  }

  // What a bare script needs for the same machine: where it runs, QEMU tells.
  imitation(vm) {
    const [pid] = this.fleet.qemus(vm.id);
    const args = readFileSync(`/proc/${pid}/cmdline`, 'utf8').split('\0').slice(0, -1);
    const dir = readlinkSync(`/proc/${pid}/cwd`);
    const disk = JSON.parse(args.find((word) => word.includes('"node-name":"disk"')));
    const of = ['info', '--output=json', '-U', join(dir, 'disk.qcow2')];
    const { 'virtual-size': bytes } = JSON.parse(execFileSync('qemu-img', of));
    const { driver: format, file } = disk.backing;
    const seed = join(this.data, `${vm.name}.iso`);
    writeFileSync(seed, readFileSync(join(dir, 'seed.iso')));
    return {
      ...{ data: join(this.data, vm.name), args, seed, pipes: vm.pipes },
      disk: { backing: file.filename, format, bytes },
    };
  }

  async rounds(vm, count, mayAbort = false) {
    const seen = [];
    for (let round = 0; round < count; round += 1) {
      const went = await this.migrate(vm);
      if (went.aborted && !mayAbort) throw new Error(went.aborted);
      seen.push(went);
    }
    return seen;
  }

  // To the other host, through Vimana.
  async migrate(vm) {
    const to = 1 - vm.at;
    const ticks = new Ticks(vm.ticks, vm.pipes[vm.at], vm.pipes[to]);
    await ticks.hears('from', 50);
    const done = await this.cli.run(`vm migrate ${vm.name} --to ${vm.names[to]} --wait --json`);
    const { state, host } = await this.vms.rest(vm.id);
    if (state !== 'running') throw new Error(`it is ${state}: ${done.err}`);
    if (host.name !== vm.names[to]) {
      // What was refused was never begun.
      if (!done.err.includes('the machine was not sent')) throw new Error(done.err);
      return { aborted: done.err };
    }
    vm.at = to;
    await ticks.hears('to', 50);
    const { downtime_ms: downtime } = JSON.parse(done.out);
    return { ...ticks.gap(), downtime };
  }

  async bareRounds(how, guest) {
    const bare = new Bare(how);
    this.bare = bare;
    await bare.boot();
    if (guest.ticks === LINES) {
      await bare.says(/~# $/);
      bare.type('tick 1\n');
    }
    const seen = [];
    for (let round = 0; round < guest.rounds; round += 1) {
      const ticks = new Ticks(guest.ticks, how.pipes[bare.at], how.pipes[1 - bare.at]);
      await ticks.hears('from', 50);
      const downtime = await bare.migrate();
      await ticks.hears('to', 50);
      seen.push({ ...ticks.gap(), downtime });
    }
    await bare.end();
    return seen;
  }

  // While its guest dirties its memory: it stands still for no longer than is
  // allowed, or stays where it is.
  async measureBusy(vm) {
    await this.shell(vm, ...DIRTY);
    const seen = await this.rounds(vm, BUSY_ROUNDS, true);
    const said = await this.shell(vm, DIRTIED);
    // Times of the guest's, in which it stood still for nothing.
    const [, times, since, until] = said.match(/dirtied (\d+) (\S+) \S+ (\S+) \S+=/);
    this.busy = { seen, rate: (times * 5 * 1.048576) / (until - since) };
  }

  // How fast a full disk gets to the other host's directory: through Vimana, by
  // a bare script, and by `qemu-img convert`, straight and over the same line, in turns.
  async measureMirror(vm, bare) {
    await this.shell(vm, FILL);
    this.mirror = { vimana: [], tls: [], plain: [], convert: [], over: { tls: [], plain: [] } };
    const content = join(this.data, 'content.qcow2');
    for (let round = 0; round < MIRROR_ROUNDS; round += 1) {
      const [from, to] = [vm.names[vm.at], vm.names[1 - vm.at]];
      const [pid] = this.fleet.qemus(vm.id);
      const disk = join(readlinkSync(`/proc/${pid}/cwd`), 'disk.qcow2');
      const there = disk.replace(`/${from}/`, `/${to}/`);
      const mib = allocated(disk) / 2 ** 20;
      rmSync(content, { force: true });
      const { backing, format } = bare.disk;
      const over = ['-U', '-f', 'qcow2', '-O', 'qcow2', '-B', backing, '-F', format];
      const begun = performance.now();
      const written = join(dirname(dirname(there)), 'by-convert.qcow2');
      await promisify(execFile)('qemu-img', ['convert', ...over, disk, written]);
      this.mirror.convert.push((mib / (performance.now() - begun)) * 1000);
      renameSync(written, content);
      for (const [how, hosts] of [['tls', this.hosts], ['plain', undefined]]) {
        const script = () => new Bare({ ...bare, hosts, disk: { ...bare.disk, content } });
        this.mirror[how].push((mib / (await script().copy())) * 1000);
        this.mirror.over[how].push((mib / (await script().convert())) * 1000);
      }
      const growth = new Growth(there);
      const { aborted } = await this.migrate(vm);
      if (aborted) throw new Error(aborted);
      this.mirror.vimana.push(growth.rate() / 2 ** 20);
    }
  }

  // How fast what is on a volume gets from one datastore to another of its host,
  // and by `qemu-img convert` between the same two places, in turns.
  async measureMove(vm) {
    const volume = 'bench-volume';
    await this.told(this.cli.run(`volume create ${volume} --size-mib ${DISK_MIB}`));
    await this.told(this.cli.run(`volume attach ${volume} ${vm.name} --wait`));
    await this.shell(vm, FILL_VOLUME);
    this.moves = { vimana: [], convert: [] };
    const { id } = (await this.api.call('GET', '/volumes')).items.find(({ name }) => name === volume);
    for (let round = 0; round < 2 * MIRROR_ROUNDS; round += 1) {
      const [pid] = this.fleet.qemus(vm.id);
      const dirs = [dirname(readlinkSync(`/proc/${pid}/cwd`)), this.shared];
      if (round % 2 === 1) dirs.reverse();
      const [from, to] = dirs.map((dir) => join(dir, id, 'volume.qcow2'));
      const mib = allocated(from) / 2 ** 20;
      const written = join(dirs[1], 'by-convert.qcow2');
      const begun = performance.now();
      const how = ['convert', '-U', '-f', 'qcow2', '-O', 'qcow2', from, written];
      await promisify(execFile)('qemu-img', how);
      this.moves.convert.push((mib / (performance.now() - begun)) * 1000);
      rmSync(written);
      const growth = new Growth(to);
      const there = round % 2 === 1 ? 'local' : 'shared';
      await this.told(this.cli.run(`volume move ${volume} --to ${there} --wait`));
      this.moves.vimana.push(growth.rate() / 2 ** 20);
    }
    await this.told(this.cli.run(`volume detach ${volume} --wait`));
    await this.told(this.cli.run(`volume delete ${volume} --yes`));
  }

  tellFigures() {
    for (const { title, guest, vimana, script } of this.rows) {
      const p50 = (rounds) => quantile(blackouts(rounds), 0.5);
      const goal = guest === GUESTS.sector ? '< 10' : '< 50';
      figure(`${title}: p50`, p50(vimana), 'ms', goal);
      figure(`${title}: p99`, quantile(blackouts(vimana), 0.99), 'ms', '');
      figure(`${title}: bare QMP, p50`, p50(script), 'ms', '');
      figure(`${title}: beyond 1.2 x that`, p50(vimana) - 1.2 * p50(script), 'ms', '< 10');
    }
    const { seen, rate } = this.busy;
    const through = seen.filter(({ aborted }) => !aborted);
    figure('busy demo: dirties', rate, 'MB/s', '50');
    const worst = Math.max(0, ...blackouts(through));
    figure('busy demo: blackout, worst', worst, 'ms', `< ${DOWNTIME_MS}, or aborted`);
    figure('busy demo: aborted', seen.length - through.length, '', '');
    const { vimana, tls, plain, convert, over } = this.mirror;
    const rates = (values) => quantile(values, 0.5);
    const against = (of) => rates(vimana.map((value, round) => (value / of[round]) * 100));
    figure('disk mirror, p50', rates(vimana), 'MiB/s', '');
    figure('disk mirror by bare QMP with TLS, p50', rates(tls), 'MiB/s', '');
    figure('disk mirror by bare QMP, no TLS, p50', rates(plain), 'MiB/s', '');
    figure('qemu-img convert, p50', rates(convert), 'MiB/s', '');
    figure('qemu-img convert over NBD with TLS, p50', rates(over.tls), 'MiB/s', '');
    figure('qemu-img convert over NBD, no TLS, p50', rates(over.plain), 'MiB/s', '');
    figure('disk mirror against qemu-img convert, p50', against(convert), '%', '>= 80');
    figure('disk mirror against the same over NBD with TLS, p50', against(over.tls), '%', '>= 80');
    figure('volume between datastores, p50', rates(this.moves.vimana), 'MiB/s', '');
    figure('qemu-img convert between them, p50', rates(this.moves.convert), 'MiB/s', '');
    const ratios = this.moves.vimana.map((rate, round) => (rate / this.moves.convert[round]) * 100);
    figure('volume against qemu-img convert, p50', rates(ratios), '%', '>= 80');
  }

  // QEMU's word beside what was seen.
  table() {
    const heads = ['n', 'p50', 'p99', 'QEMU p50', 'QEMU p99', 'longest', 'missed', 'ratio'];
    const lines = [['blackout in ms', ...heads]];
    const add = (title, rounds, bare) => {
      const seen = blackouts(rounds);
      const words = rounds.flatMap(({ downtime }) => downtime ?? []);
      if (seen.length === 0) return void lines.push([title, '0']);
      const two = (values) => [0.5, 0.99].map((share) => quantile(values, share).toFixed(0));
      const ratio = bare ? (quantile(seen, 0.5) / quantile(blackouts(bare), 0.5)).toFixed(2) : '';
      const longest = Math.max(...rounds.map(({ longest = 0 }) => longest)).toFixed(0);
      const cells = [...two(seen), ...two(words), longest, `${missed(rounds)}`, ratio];
      lines.push([title, `${seen.length}`, ...cells]);
    };
    for (const { title, vimana, script } of this.rows) {
      add(`${title}: Vimana`, vimana, script);
      add(`${title}: bare QMP`, script);
    }
    add('busy demo, Vimana', this.busy.seen);
    const shown = lines.map(([title, ...cells]) =>
      [title.padEnd(52), ...cells.map((cell) => cell.padStart(9))].join(''),
    );
    const usual = this.rows.slice(0, 1).concat(this.rows.slice(-1)).map(({ guest, vimana }) => {
      const apart = quantile(vimana.flatMap(({ usual }) => usual ?? []), 0.5);
      return `${guest.title} ${apart.toFixed(1)} ms`;
    });
    return [
      ...shown,
      'longest: time without a tick, wherever in a migration; missed: ticks that do not follow',
      'the one before; ratio: of p50, to the same by bare QMP.',
      `A tick comes every: ${usual.join(', ')}.`,
    ].join('\n');
  }
}

const blackouts = (rounds) => rounds.flatMap(({ blackout }) => blackout ?? []);

const missed = (rounds) => rounds.reduce((sum, { missed = 0 }) => sum + missed, 0);

const allocated = (file) => statSync(file).blocks * 512;

// How a file grows, while it is watched.
class Growth {
  constructor(file) {
    this.seen = [];
    const look = () => {
      const bytes = statSync(file, { throwIfNoEntry: false })?.blocks * 512;
      if (bytes >= 0) this.seen.push({ bytes, at: performance.now() });
    };
    this.timer = setInterval(look, 5);
  }

  // Bytes a second, from its first to its last growth.
  rate() {
    clearInterval(this.timer);
    const last = this.seen.at(-1).bytes;
    const first = this.seen[0].bytes;
    const begun = this.seen.findLast(({ bytes }) => bytes === first);
    const ended = this.seen.find(({ bytes }) => bytes >= last);
    return ((ended.bytes - begun.bytes) / (ended.at - begun.at)) * 1000;
  }
}

if (import.meta.filename === process.argv[1]) {
  const table = await measureMigration();
  show();
  console.log(`\n${table}`);
}
