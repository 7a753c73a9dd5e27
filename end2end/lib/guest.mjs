// The demo guest, as somebody sees it who sits at its serial line.

import assert from 'node:assert/strict';

export class Guest {
  // Starts a VM, and waits until its shell takes what is typed; `more` is what else
  // is said of it.
  static async start(vms, cli, name, more = {}) {
    const guest = new Guest();
    Object.assign(guest, { cli, name, asked: 0 });
    guest.id = await vms.make(name, more);
    const vm = await vms.rest(guest.id);
    assert.equal(vm.state, 'running', vm.operation.error);
    guest.host = vm.host.name;
    guest.open();
    await guest.hears(/~# $/);
    guest.boot = await guest.bootId();
    return guest;
  }

  // Sits down at its line, anew if that was done before.
  open() {
    const console = this.cli.talk(`vm console ${this.name}`);
    Object.assign(this, { console, said: '' });
    // What one says that was left is not heard any more.
    console.listen((piece) => {
      if (this.console === console) this.said += piece;
    });
  }

  hears(pattern) {
    return this.console.hears(pattern);
  }

  type(line) {
    this.console.write(`${line}\n`);
  }

  // The word that a shell command prints. It is typed once the shell listens: what comes
  // sooner is echoed by the line itself, in the middle of what others write.
  async word(command) {
    this.asked += 1;
    const tag = `q${this.asked}`;
    this.type(`echo ${tag}=$(${command})=`);
    const answer = new RegExp(`${tag}=([\\w-]+)=[^]*?~# `);
    await this.hears(answer);
    return this.said.match(answer)[1];
  }

  // Which of its boots this is: another one has another word.
  bootId() {
    return this.word('cat /proc/sys/kernel/random/boot_id');
  }

  // Writes so many MiB to its disk, and remembers what that was.
  async write(name, mib) {
    this.files ??= new Map();
    const written = `dd if=/dev/urandom of=/data/${name} bs=1M count=${mib} 2>/dev/null; sync`;
    this.files.set(name, await this.word(`${written}; ${sum(name)}`));
  }

  // All of that is on its disk.
  async hasAll() {
    for (const [name, sums] of this.files) {
      assert.equal(await this.word(sum(name)), sums, `what was written to ${name}`);
    }
  }

  // From now on it counts on its serial line.
  async count() {
    this.type('tick 20 &');
    await this.hears(/tick 20\r?\n/);
  }

  // What it has counted, as far as that was heard.
  ticks() {
    return [...this.said.matchAll(/tick (\d+)\r?\n/g)].map(([, n]) => Number(n));
  }

  // It counts on in the boot that it was in, and never missed a tick or went back.
  async countsOn() {
    const last = this.ticks().at(-1);
    await this.hears(new RegExp(`tick ${last + 60}\\r?\\n`));
    const ticks = this.ticks();
    const all = ticks.map((_, index) => index + 1);
    const first = ticks.findIndex((tick, index) => tick !== index + 1);
    const around = this.said.indexOf(`tick ${first}\r\n`);
    const said = JSON.stringify(this.said.slice(around, around + 400));
    assert.deepEqual(ticks, all, `no tick is missing, and none comes twice: ${said}`);
    await this.isSameBoot();
  }

  // The same, seen by somebody who was away: what was said meanwhile may be lost.
  async countsOnAnew() {
    const last = this.ticks().at(-1);
    this.open();
    await this.hears(/tick \d+\r?\n[^]*tick \d+\r?\n[^]*tick \d+\r?\n/);
    await this.isSameBoot();
    // The first may be cut.
    const ticks = this.ticks().slice(1);
    assert.ok(ticks.every((tick, index) => index === 0 || tick > ticks[index - 1]), `${ticks}`);
    assert.ok(ticks.at(-1) > last, 'it counts on');
  }

  async isSameBoot() {
    assert.equal(await this.bootId(), this.boot, 'it is the same boot');
  }
}

const sum = (name) => `md5sum </data/${name} | cut -c-32`;
