// Measures a whole Vimana on this machine; prints a table and writes one JSON
// object per figure to bench.jsonl in the build directory. A benchmark, not a
// test: it fails only when something does not work.

import { execFileSync } from 'node:child_process';
import { mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { figure, figures, quantile, show } from './bench/figures.mjs';
import { measureMigration } from './bench/migration.mjs';
import { image } from './lib/fleet.mjs';
import { Peers } from './lib/peers.mjs';
import { Api, Stack } from './lib/stack.mjs';

const ROUNDS = 10;
const IMPORTS = 5;

// Creates a VM and watches it to Running; answers what took how long.
async function createOnce(api, name) {
  const begun = Date.now();
  let vmId;
  const early = [];
  const delays = [];
  let running;
  const times = {};
  const take = (item, at) => {
    if (item.event.vm_id !== vmId) return;
    delays.push(at - Date.parse(item.event.at));
    const { kind, to } = item.event.event;
    if (kind === 'requested') times.requested = Date.parse(item.event.at);
    if (kind === 'placed') times.placed = Date.parse(item.event.at);
    if (kind === 'state' && to === 'running') {
      times.running = Date.parse(item.event.at);
      running();
    }
  };
  const reached = new Promise((done) => (running = done));
  const hangUp = await api.follow((item, at) => (vmId ? take(item, at) : early.push([item, at])));
  const clicked = Date.now();
  const accepted = await api.call('POST', '/vms', { name, image: 'demo', flavor: 'tiny' });
  vmId = accepted.vm.id;
  const answered = Date.now() - clicked;
  for (const [item, at] of early) take(item, at);
  await reached;
  hangUp();
  return {
    vmId,
    answered,
    delays,
    total: times.running - clicked,
    scheduler: times.placed - times.requested,
    preparation: clicked - begun,
  };
}

async function remove(api, vmId) {
  let gone;
  const done = new Promise((resolve) => (gone = resolve));
  const hangUp = await api.follow((item) => {
    if (item.event.vm_id === vmId && item.event.event.to === 'done') gone();
  });
  const begun = Date.now();
  await api.call('DELETE', `/vms/${vmId}`);
  await done;
  hangUp();
  return Date.now() - begun;
}

async function hostsConnected(api) {
  const count = async () =>
    (await api.call('GET', '/hosts')).items.filter((host) => host.connected).length;
  let connected;
  const both = new Promise((resolve) => (connected = resolve));
  const hangUp = await api.follow(async () => {
    if ((await count()) === 2) connected();
  });
  if ((await count()) === 2) connected();
  await both;
  hangUp();
}

async function measureLife(api) {
  // The first VM on each host fetches the image; from then on it is warm.
  const warm = [await createOnce(api, 'warm-1'), await createOnce(api, 'warm-2')];
  for (const { vmId } of warm) await remove(api, vmId);
  const rounds = [];
  const removals = [];
  for (let round = 0; round < ROUNDS; round += 1) {
    const created = await createOnce(api, `bench-${round}`);
    rounds.push(created);
    removals.push(await remove(api, created.vmId));
  }
  const totals = rounds.map(({ total }) => total);
  const delays = rounds.flatMap((round) => round.delays);
  figure('click to QEMU started, warm image, p50', quantile(totals, 0.5), 'ms', '< 500');
  figure('click to QEMU started, warm image, worst', Math.max(...totals), 'ms', '< 500');
  figure('scheduler share, worst', Math.max(...rounds.map((r) => r.scheduler)), 'ms', '< 20');
  figure('POST /vms answered, p50', quantile(rounds.map((r) => r.answered), 0.5), 'ms', '');
  figure('fact to event at the reader, p50', quantile(delays, 0.5), 'ms', '< 200');
  figure('fact to event at the reader, worst', Math.max(...delays), 'ms', '< 200');
  figure('delete to nothing left, p50', quantile(removals, 0.5), 'ms', '');
}

function measureSite() {
  const site = join(process.env.VIMANA_CACHE, 'site');
  const manifest = JSON.parse(readFileSync(join(site, 'manifest.json'), 'utf8'));
  const brotli = (name) => manifest.files[name].brotli / 1000;
  const sizeOf = (role) => brotli(manifest.entry[role]);
  figure('wasm that every page needs, brotli', sizeOf('wasm'), 'kB', '<= 450');
  for (const [chunk, parts] of Object.entries(manifest.entry.chunks)) {
    const size = parts.map(brotli).reduce((sum, part) => sum + part, 0);
    figure(`wasm of the pages ${chunk}, brotli`, Math.round(size), 'kB', '<= 150');
  }
  figure('CSS, brotli', sizeOf('css'), 'kB', '<= 30');
}

// The same binaries under 2,500 hosts with simulated machines and 20,000 VMs:
// server and scheduler are processes of their own, all hosts are in another.
function measureScale() {
  const load = join(process.env.CARGO_TARGET_DIR, 'release/vimana-load');
  const bin = join(process.env.VIMANA_CACHE, 'bin/release');
  const printed = execFileSync(load, ['--bin', bin], { encoding: 'utf8' });
  for (const line of printed.trim().split('\n')) figures.push(JSON.parse(line));
}

// The same file from the same server: by `curl -o`, and as an image, which is
// unpacked, hashed, checked and on the disk when it is ready. In turns.
async function measureImport(api, data) {
  const files = join(data, 'files');
  mkdirSync(files);
  const file = join(files, 'disk.img');
  execFileSync('dd', ['if=/dev/urandom', `of=${file}`, 'bs=1M', 'count=2048'], { stdio: 'ignore' });
  const peers = new Peers(data, files);
  try {
    const url = `http://${await peers.nginx()}/disk.img`;
    const shares = [];
    const rates = [];
    for (let round = 0; round < IMPORTS; round += 1) {
      let begun = performance.now();
      execFileSync('curl', ['--silent', '--fail', '-o', join(data, 'by-curl'), url]);
      const curl = performance.now() - begun;
      rmSync(join(data, 'by-curl'));
      begun = performance.now();
      const ms = await importOnce(api, { name: `import-${round}`, url }, begun);
      shares.push((curl / ms) * 100);
      rates.push(2048 / (ms / 1000));
    }
    figure('import of 2 GiB, p50', quantile(rates, 0.5), 'MiB/s', '');
    figure('import against curl -o, p50', quantile(shares, 0.5), '%', '>= 80');
  } finally {
    peers.kill();
  }
}

// Answers the milliseconds until it is ready; removes it.
async function importOnce(api, form, begun) {
  let ended;
  const over = new Promise((done) => (ended = done));
  const hangUp = await api.follow(({ event }) => {
    if (event.event.kind === 'image' && event.event.to !== 'importing') ended(event.event.to);
  });
  const { image } = await api.call('POST', '/images', form);
  const state = await over;
  const ms = performance.now() - begun;
  hangUp();
  if (state !== 'ready') throw new Error(`the image is ${state}`);
  await api.call('DELETE', `/images/${image.id}`);
  await api.call('POST', `/images/${image.id}/purge`);
  return ms;
}

// The driver alone, a thousand times, on the disk that the build is on.
function measureDisks() {
  const target = process.env.CARGO_TARGET_DIR;
  const dir = mkdtempSync(join(target, 'overlays-'));
  try {
    const overlays = join(target, 'release/examples/overlays');
    const printed = execFileSync(overlays, [dir, image], { encoding: 'utf8' });
    for (const line of printed.trim().split('\n')) figures.push(JSON.parse(line));
  } finally {
    rmSync(dir, { recursive: true });
  }
}

const stack = await Stack.create({ VIMANA_IMPORT_ALLOW: '127.0.0.1/32' });
try {
  await stack.start();
  await stack.interrupt();
  figure('make run again, nothing changed', (await stack.start()) / 1000, 's', '< 20');
  const api = await Api.signIn(stack.url);
  await hostsConnected(api);
  await measureLife(api);
  await measureImport(api, stack.data);
  measureSite();
} finally {
  await stack.destroy();
}
measureDisks();
console.log('machines that migrate: four minutes at most');
const table = await measureMigration();
console.log('2,500 hosts, 20,000 VMs: two minutes');
measureScale();

console.log();
show();
console.log(`\n${table}`);
const file = join(process.env.CARGO_TARGET_DIR, 'bench.jsonl');
writeFileSync(file, figures.map((f) => `${JSON.stringify(f)}\n`).join(''));
console.log(`\nwritten to bench.jsonl in the build directory`);
