// What a guest counts on its serial line, as it leaves QEMU: the line is copied
// into a pipe, and a pipe knows no reader's and no agent's haste. The same for
// machines of Vimana's and for those that a script runs.

import { spawnSync } from 'node:child_process';
import { constants, openSync, writeFileSync } from 'node:fs';
import { Worker } from 'node:worker_threads';

// The smallest guest that counts: 512 bytes of 16-bit code. Each tick is one
// byte, one more than the one before, every millisecond.
// prettier-ignore
const SECTOR = [
  0xfa, 0x31, 0xc0, 0x8e, 0xd8, 0x8e, 0xd0, 0xbc, 0x00, 0x7c, // no interrupts; segments 0, a stack
  0xc7, 0x06, 0x20, 0x00, 0x2b, 0x7c, // interrupt 8, the timer's, is ours
  0xc7, 0x06, 0x22, 0x00, 0x00, 0x00,
  0xb0, 0x34, 0xe6, 0x43, // timer: again and again,
  0xb0, 0xa9, 0xe6, 0x40, 0xb0, 0x04, 0xe6, 0x40, //   after 1193 of its 1193182 beats a second
  0xb0, 0xfe, 0xe6, 0x21, // and nothing but that is let through
  0xfb, 0xf4, 0xeb, 0xfd, // sleep for ever
  0x00, // the counter, at 7c2a
  0xfe, 0x06, 0x2a, 0x7c, 0xa0, 0x2a, 0x7c, // timer: one more,
  0xba, 0xf8, 0x03, 0xee, // on the serial line
  0xb0, 0x20, 0xe6, 0x20, 0xcf, // acknowledged
];

// As a raw image.
export function sector() {
  const bytes = Buffer.alloc(512);
  Buffer.from(SECTOR).copy(bytes);
  bytes.set([0x55, 0xaa], 510);
  return bytes;
}

// How a guest's ticks look: `read` answers those in a piece of what it says,
// `next` the one after. A new reader begins in the middle.
export const BYTES = {
  reader: () => (piece) => [...piece],
  next: (tick) => (tick + 1) % 256,
};
// As `tick` of the demo image prints them, among other things.
export const LINES = {
  reader: () => {
    let rest = '';
    return (piece) => {
      const lines = (rest + piece.toString('latin1')).split('\n');
      rest = lines.pop();
      return lines.flatMap((line) => line.match(/^tick (\d+)\r?$/)?.slice(1).map(Number) ?? []);
    };
  },
  next: (tick) => tick + 1,
};

// A pipe into which QEMU copies a serial line.
export class Pipe {
  constructor(path) {
    this.path = path;
    const made = spawnSync('mkfifo', ['-m', '600', path]);
    if (made.status !== 0) throw new Error(`mkfifo ${path}: ${made.stderr}`);
    // To be written as well: it never ends, whoever comes and goes.
    const fd = openSync(path, constants.O_RDWR | constants.O_NONBLOCK);
    const script = new URL('./listener.mjs', import.meta.url);
    this.listener = new Worker(script, { workerData: { fd } });
    this.listener.on('message', ({ piece, at }) => this.told?.(Buffer.from(piece), at));
  }

  // The argument of QEMU's with which `option` is copied here.
  copying(option) {
    return `${option},logfile=${this.path},logappend=on`;
  }

  // A program at `path` that is QEMU, but for copying its serial line here.
  wrap(qemu, path) {
    const lines = [
      '#!/bin/sh',
      'for word; do',
      '  shift',
      `  case $word in socket,id=serial,*) word=${this.copying('$word')} ;; esac`,
      '  set -- "$@" "$word"',
      'done',
      `exec ${qemu} "$@"`,
    ];
    writeFileSync(path, `${lines.join('\n')}\n`, { mode: 0o700 });
    return path;
  }

  close() {
    return this.listener.terminate();
  }
}

// The ticks that two lines show, of which a guest leaves the one for the other.
export class Ticks {
  constructor(kind, from, to) {
    this.kind = kind;
    this.said = { from: [], to: [] };
    this.seen = { from: 0, to: 0 };
    this.waiting = new Set();
    for (const [side, pipe] of Object.entries({ from, to })) {
      const read = kind.reader();
      pipe.told = (piece, at) => {
        this.said[side].push({ piece, at });
        this.seen[side] += read(piece).length;
        for (const look of this.waiting) look();
      };
    }
  }

  // Once so many were seen on that side.
  hears(side, count) {
    return new Promise((done, failed) => {
      const patience = setTimeout(() => {
        this.waiting.delete(look);
        failed(new Error(`${count} ticks were waited for in vain`));
      }, 60_000);
      const look = () => {
        if (this.seen[side] < count) return;
        clearTimeout(patience);
        this.waiting.delete(look);
        done();
      };
      this.waiting.add(look);
      look();
    });
  }

  // From the last tick on the one line to the first on the other: the blackout.
  // The longest time without a tick, wherever it was; how far apart they usually
  // are; and how many are not followed by the next.
  gap() {
    // A guest may go in the middle of a line.
    const read = this.kind.reader();
    const said = [...this.said.from, ...this.said.to];
    const all = said.flatMap(({ piece, at }) => read(piece).map((tick) => ({ tick, at })));
    const pairs = all.slice(1).map((after, index) => [all[index], after]);
    return {
      blackout: this.said.to[0].at - this.said.from.at(-1).at,
      longest: Math.max(...pairs.map(([before, after]) => after.at - before.at)),
      usual: (all.at(-1).at - all[0].at) / pairs.length,
      missed: pairs.filter(([before, after]) => after.tick !== this.kind.next(before.tick)).length,
    };
  }
}
