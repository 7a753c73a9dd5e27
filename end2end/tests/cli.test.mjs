// The command line against a real server and real machines: every action word,
// how each ends, what each refuses, and what one reads when something is wrong.

import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { after, before, describe, test } from 'node:test';
import { Cli } from '../lib/cli.mjs';
import { Fleet } from '../lib/fleet.mjs';
import { PASSWORD } from '../lib/stack.mjs';

const HOST = 'host-a';
// Of no VM and no operation.
const NOBODY = '0'.repeat(31) + '1';
let fleet, cli, id;

before(async () => {
  fleet = await Fleet.open();
  await fleet.startAgent(HOST);
  cli = new Cli(fleet.data);
});

after(async () => {
  cli?.kill();
  await fleet?.destroy();
});

// What went well, and said nothing beside its answer.
async function good(line, options) {
  const ran = await cli.run(line, options);
  assert.deepEqual({ status: ran.status, err: ran.err }, { status: 0, err: '' }, line);
  return ran.out;
}

const json = async (line) => JSON.parse(await good(`${line} --json`));

// What was refused, in these words.
async function bad(line, sentence, { status = 1, ...options } = {}) {
  const ran = await cli.run(line, options);
  const said = { status: ran.status, out: ran.out, err: ran.err };
  assert.deepEqual(said, { status, out: '', err: `vimana: ${sentence}\n` }, line);
}

// What makes no sense, with something that helps.
async function nonsense(line, help, options) {
  const ran = await cli.run(line, options);
  assert.deepEqual({ status: ran.status, out: ran.out }, { status: 2, out: '' }, line);
  assert.match(ran.err, help, line);
}

// Asks for something, and finds the VM and its machine as they should be then.
async function brings(line, state, machines) {
  const { vm, operation } = await json(`vm ${line}`);
  assert.equal(vm.state, state, line);
  assert.equal(operation.state, 'succeeded', line);
  assert.equal(fleet.qemus(id).length, machines, `${line}: machines`);
}

// The table of the model: for each action word and state, the sentence that
// refuses it, or nothing.
const TABLE = new Map(
  readFileSync(
    new URL(
      '../../crates/model/src/snapshots/vimana_model__action__tests__every_state_and_action_has_its_answer.snap',
      import.meta.url,
    ),
    'utf8',
  )
    .split('\n')
    .map((line) => line.match(/^(\w+) +(\w+) +(?:accepted|refused: the VM (.*))$/))
    .filter((row) => row)
    .map(([, action, state, refusal]) => [`${action} ${state}`, refusal]),
);
// What is done with one snapshot, or with one volume, has commands of its own.
const OF_PIECES = ['revert', 'attach', 'detach', 'grow', 'move'];
const ACTIONS = [...new Set([...TABLE.keys()].map((key) => key.split(' ')[0]))].filter(
  (action) => !OF_PIECES.includes(action),
);
const nameOf = (slug) => slug.replace(/(^|_)(\w)/g, (_, _start, letter) => letter.toUpperCase());

// Every action word that the table refuses in this state is refused with its
// sentence, and nothing happens.
async function refusesTheRest(state) {
  let refused = 0;
  for (const action of ACTIONS) {
    const sentence = TABLE.get(`${action} ${nameOf(state)}`);
    if (!sentence) continue;
    const own = {
      snapshot: 'snapshot create web now',
      backup: 'backup create web',
      resize: 'vm resize web --vcpus 2',
      migrate: 'vm migrate web --to host-b',
    };
    const line = own[action] ?? `vm ${action} web`;
    await bad(line, `\`web\` ${sentence}`);
    refused += 1;
  }
  assert.ok(refused > 4, `${state} refuses only ${refused}`);
  assert.equal((await json('vm show web')).state, state);
}

describe('command line', { concurrency: false, timeout: 600_000 }, () => {
  test('nobody is signed in, and somebody signs in', async () => {
    await bad('vm list', 'nobody is signed in; use `vimana login --url URL --user NAME`');
    const login = `login --url ${fleet.url} --user admin --password-stdin`;
    await bad(login, 'wrong user name or password', { input: 'wrong\n' });
    await bad('vm list', 'nobody is signed in; use `vimana login --url URL --user NAME`');
    assert.match(await good(login, { input: PASSWORD }), /^signed in at \S+ as admin until /);
    assert.equal((await json('whoami')).user_name, 'admin');
  });

  test('a VM is asked for, held, and let go', async () => {
    assert.deepEqual(await json('vm list'), []);
    const create = 'vm create web --image demo --flavor tiny';
    const { vm } = await json(`${create} --hold --wait hold`);
    id = vm.id;
    assert.equal(vm.state, 'hold');
    await refusesTheRest('hold');
    await bad(create, 'there is already a VM named `web`');
    const released = await good('vm release web --wait running');
    assert.equal(released, `web (${id}) is running on ${HOST}\n`);
    assert.equal(fleet.qemus(id).length, 1);
    await refusesTheRest('running');
  });

  test('suspended and stopped it is no machine, resumed it is one again', async () => {
    await brings('suspend web --wait suspended', 'suspended', 0);
    await refusesTheRest('suspended');
    await brings('resume web --wait', 'running', 1);
    await brings('stop web --wait', 'stopped', 0);
    await refusesTheRest('stopped');
    await brings('resume web --wait', 'running', 1);
    await brings('suspend web --wait suspended', 'suspended', 0);
    await brings('stop web --wait', 'stopped', 0);
    await brings('resume web --wait', 'running', 1);
  });

  test('rebooted and reset it is the same machine', async () => {
    const [qemu] = fleet.qemus(id);
    await brings('reboot web --wait running', 'running', 1);
    await brings('reset web --wait', 'running', 1);
    assert.deepEqual(fleet.qemus(id), [qemu]);
  });

  test('switched off it gets another size, and is switched on with it', async () => {
    await brings('poweroff web --wait powered-off', 'powered_off', 0);
    await refusesTheRest('powered_off');
    const { vm } = await json('vm resize web --vcpus 2 --memory-mib 192 --wait');
    const { vcpus, memory_mib } = vm.resources;
    assert.deepEqual({ vcpus, memory_mib }, { vcpus: 2, memory_mib: 192 });
    await bad('vm resize web --disk-mib 100', 'disk_mib: a disk never shrinks; it has 1 GiB');
    await brings('start web --wait', 'running', 1);
    await brings('poweroff web --force --wait PoweredOff', 'powered_off', 0);
    await brings('start web --wait running', 'running', 1);
  });

  test('a machine that broke is tried again', async () => {
    // A reboot that cannot come to its end says so, whoever waits for it.
    fleet.parts.get(HOST).kill('SIGSTOP');
    const waits = cli.run('vm reboot web --wait');
    await eventually(async () => (await json('vm show web')).operation.kind === 'reboot');
    process.kill(fleet.qemus(id)[0], 'SIGKILL');
    fleet.parts.get(HOST).kill('SIGCONT');
    const ran = await waits;
    assert.equal(ran.status, 1);
    assert.match(ran.err, /^vimana: the reboot of `web` failed: /);
    await good('vm list --state failed');
    await refusesTheRest('failed');
    assert.match(await good('vm show web'), /^failed +during running: /m);
    await brings('retry web --wait', 'running', 1);
  });

  test('what is under way refuses the rest, and is cancelled', async () => {
    await bad('vm cancel web', 'nothing is under way for `web`');
    const [qemu] = fleet.qemus(id);
    fleet.parts.get(HOST).kill('SIGSTOP');
    const { operation } = await json('vm stop web');
    assert.equal(operation.state, 'running');
    await bad('vm suspend web', '`web` is being stopped; wait for it, or cancel it');
    const waits = json('vm cancel web --wait');
    await eventually(async () => (await json('vm show web')).operation.state === 'undoing');
    assert.match(await good('vm show web'), /^operation +stop undoing, .* cancelled by admin$/m);
    fleet.parts.get(HOST).kill('SIGCONT');
    assert.equal((await waits).state, 'cancelled');
    assert.equal((await json('vm show web')).state, 'running');
    assert.deepEqual(fleet.qemus(id), [qemu]);
    await bad(`operation cancel ${operation.id}`, 'the stop is over');
  });

  test('waiting outlasts a server that is killed', async () => {
    fleet.parts.get(HOST).kill('SIGSTOP');
    const waits = good('vm stop web --wait stopped');
    await eventually(async () => (await json('vm show web')).operation.kind === 'stop');
    await fleet.kill('server');
    await bad('vm show web', `cannot reach ${fleet.url}: Connection refused (os error 111)`);
    fleet.parts.get(HOST).kill('SIGCONT');
    await fleet.startServer();
    assert.equal(await waits, `web (${id}) is stopped\n`);
    await brings('resume web --wait', 'running', 1);
  });

  test('patience ends, with what is in the way', async () => {
    const ran = await cli.run('vm create vast --image demo --flavor huge --wait --timeout 1');
    assert.equal(ran.status, 1);
    assert.match(
      ran.err,
      /^vimana: the create of `vast` is not through after 1 s and goes on; the VM is pending: .*needs 64 GiB/,
    );
    assert.equal(await good('vm hold vast --wait hold'), `vast (${await idOf('vast')}) is hold\n`);
    await good('vm release vast');
  });

  test('of several VMs one that refuses does not keep the others', async () => {
    const ran = await cli.run('vm hold vast web');
    assert.deepEqual(ran, {
      status: 1,
      out: `vast (${await idOf('vast')}) is hold\n`,
      err: `vimana: \`web\` ${TABLE.get('hold Running')}\n`,
    });
    await bad('vm hold vast nobody', 'vm `nobody` not found');
  });

  test('the console carries what is typed and what is answered', async () => {
    const console = cli.talk('vm console web --linger 1');
    // A guest that is up shows its prompt once more, one that boots will.
    console.write('\n');
    await console.hears(/~#/);
    console.write('echo alive-$((40+2))\n');
    await console.hears(/alive-42/);
    assert.equal(await console.end(), 0);
  });

  test('what there is not is said to be missing', async () => {
    await bad('vm show nobody', 'vm `nobody` not found');
    await bad(`vm show vm_${NOBODY}`, `vm \`vm_${NOBODY}\` not found`);
    await bad(`vm suspend vm_${NOBODY}`, `vm \`vm_${NOBODY}\` not found`);
    await bad(`operation show op_${NOBODY}`, `operation \`op_${NOBODY}\` not found`);
    await bad('vm create x --image nope --flavor tiny', 'image: there is no image `nope`');
    await bad('vm create x --image demo --flavor nope', 'flavor: there is no flavor `nope`');
  });

  test('what makes no sense is explained', async () => {
    await nonsense('vm suspen web', /a similar subcommand exists: 'suspend'/);
    await nonsense('vm frobnicate web', /unrecognized subcommand 'frobnicate'/);
    await nonsense('vm suspend', /<NAME\|ID>/);
    await nonsense('vm suspend web --wait gone', /the states are pending, hold, /);
    await nonsense('vm suspend --wait web', /names stand before --wait/);
    await nonsense('vm suspend web --timeout 5', /--wait/);
    await nonsense('vm resize web', /--flavor/);
    await nonsense('operation cancel web', /not an operation id/);
    await nonsense('login --url 127.0.0.1:8700 --user admin', /expected something like http:/);
  });

  test('a server that is not the right one is told apart', async () => {
    const { url } = fleet;
    const at = (VIMANA_URL) => ({ VIMANA_URL, VIMANA_TOKEN: 'wrong' });
    const spent = 'the token is unknown, revoked or expired; sign in again';
    await bad('vm list', `${spent} (the token is the one in VIMANA_TOKEN)`, at(url));
    const nothing = 'cannot reach http://127.0.0.1:1: Connection refused (os error 111)';
    await bad('vm list', nothing, at('http://127.0.0.1:1'));
    await bad('vm stop web --wait', nothing, at('http://127.0.0.1:1'));
    const secure = url.replace('http:', 'https:');
    const clear = `cannot reach ${secure}: it does not speak TLS; try http:// in place of https://`;
    await bad('vm list', clear, at(secure));
    const elsewhere = `${url}/elsewhere`;
    await bad('vm list', `${elsewhere} answered 404 Not Found`, at(elsewhere));
    await bad('vm list', 'VIMANA_TOKEN is set without VIMANA_URL; set both or neither', {
      ...{ status: 2, VIMANA_TOKEN: 'wrong' },
    });
    const { out, err } = await cli.run(`login --url ${url} --user admin --password-stdin`, {
      ...{ ...at(url), input: PASSWORD },
    });
    assert.match(out, /^signed in /);
    assert.equal(err, 'vimana: VIMANA_URL and VIMANA_TOKEN are set and are used instead\n');
  });

  test('a person is asked before anything is removed', async () => {
    const asks = /Remove vast with everything on the disk\? \[y\/N\]/;
    const no = await cli.runAtTerminal('vm delete vast', { input: 'n\n' });
    assert.equal(no.status, 1);
    assert.match(no.out, asks);
    assert.match(no.out, /vimana: nothing was removed/);
    assert.equal((await json('vm show vast')).state, 'hold');
    const yes = await cli.runAtTerminal('vm delete vast --wait done', { input: 'y\n' });
    assert.equal(yes.status, 0, yes.out);
    assert.match(yes.out, /vast \(vm_\w+\) is done/);
    const unasked = await cli.runAtTerminal('vm delete vast --yes');
    assert.doesNotMatch(unasked.out, asks);
    assert.match(unasked.out, /vimana: `vast` is done/);
  });

  test('shut down or deleted, nothing is left of it', async () => {
    await brings('shutdown web --wait done', 'done', 0);
    await refusesTheRest('done');
    assert.deepEqual(fleet.traces(id), []);
    const { vm } = await json('vm create web --image demo --flavor tiny --wait running');
    id = vm.id;
    assert.equal(await good('vm delete web --wait'), `web (${id}) is done\n`);
    assert.deepEqual(fleet.qemus(id), []);
    assert.deepEqual(fleet.traces(id), []);
    assert.deepEqual(await json('vm list'), []);
    assert.deepEqual(
      (await json('vm list --all')).map((done) => done.name),
      ['web', 'vast', 'web'],
    );
    fleet.isClean();
  });

  test('signed out, nobody is signed in', async () => {
    assert.equal(await good('logout'), `signed out of ${fleet.url}\n`);
    await bad('vm list', 'nobody is signed in; use `vimana login --url URL --user NAME`');
  });
});

const idOf = async (name) => (await json(`vm show ${name}`)).id;

async function eventually(so) {
  const end = Date.now() + 60_000;
  while (!(await so())) {
    assert.ok(Date.now() < end, 'waited in vain');
    await new Promise((soon) => setTimeout(soon, 50));
  }
}
