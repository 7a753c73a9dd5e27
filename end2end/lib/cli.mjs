// The command line as somebody at a shell has it: the real binary, with a
// place for its token that is nobody else's.

import { execFile, spawn } from 'node:child_process';
import { mkdtempSync } from 'node:fs';
import { join } from 'node:path';
import { bin } from './fleet.mjs';

export class Cli {
  // `directory` is where its place is made.
  constructor(directory) {
    this.environment = {
      PATH: process.env.PATH,
      VIMANA_CONFIG_DIR: mkdtempSync(join(directory, 'cli-')),
    };
    this.children = new Set();
  }

  // Ends what a test that failed left waiting.
  kill() {
    for (const child of this.children) child.kill('SIGKILL');
  }

  track(child) {
    this.children.add(child);
    child.once('exit', () => this.children.delete(child));
    return child;
  }

  // Runs one command line; answers how it ended and what it said.
  run(line, { input = '', ...environment } = {}) {
    const words = line.split(' ').filter((word) => word !== '');
    return this.execute(join(bin, 'vimana'), words, input, environment);
  }

  // The same at a terminal, where a person types `input`.
  runAtTerminal(line, { input = '', ...environment } = {}) {
    const command = `${join(bin, 'vimana')} ${line}`;
    const words = ['--quiet', '--return', '--command', command, '/dev/null'];
    return this.execute('script', words, input, environment);
  }

  // Starts one that is talked to. `hears` resolves when it has said something,
  // `end` ends its input and answers its exit status.
  talk(line) {
    const env = this.environment;
    const stdio = ['pipe', 'pipe', 'inherit'];
    const child = this.track(spawn(join(bin, 'vimana'), line.split(' '), { env, stdio }));
    const over = new Promise((done) => child.once('exit', done));
    let said = '';
    let heard = () => {};
    child.stdout.setEncoding('utf8').on('data', (piece) => {
      said += piece;
      heard();
    });
    return {
      over,
      write: (text) => child.stdin.write(text),
      // Is told all that comes from now on.
      listen: (told) => child.stdout.on('data', told),
      hears: (pattern) =>
        new Promise((done, failed) => {
          heard = () => pattern.test(said) && done();
          over.then(() => failed(new Error(`it ended, having said ${said}`)));
          heard();
        }),
      end: () => {
        child.stdin.end();
        return over;
      },
    };
  }

  execute(program, words, input, environment) {
    return new Promise((done, failed) => {
      const env = { ...this.environment, ...environment };
      const child = execFile(program, words, { env }, (error, out, err) => {
        if (error && typeof error.code !== 'number') failed(error);
        else done({ status: error?.code ?? 0, out, err });
      });
      this.track(child);
      // What ends at once reads nothing.
      child.stdin.on('error', () => {}).end(input);
    });
  }
}
