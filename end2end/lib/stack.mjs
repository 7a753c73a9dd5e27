// A whole Vimana as `make run` starts it, on a data directory of its own.

import { spawn, spawnSync } from 'node:child_process';
import { mkdtempSync, readdirSync, readFileSync, rmSync } from 'node:fs';
import { createServer } from 'node:net';
import { tmpdir } from 'node:os';
import { join, resolve } from 'node:path';
import { createInterface } from 'node:readline';
import { fileURLToPath } from 'node:url';

const checkout = resolve(fileURLToPath(import.meta.url), '../../..');
export const PASSWORD = 'correct horse battery staple';

export async function freePort() {
  const server = createServer();
  await new Promise((done) => server.listen(0, '127.0.0.1', done));
  const { port } = server.address();
  await new Promise((done) => server.close(done));
  return port;
}

export class Stack {
  // `environment` is added to what the scripts see.
  static async create(environment = {}) {
    const stack = new Stack();
    stack.data = mkdtempSync(join(tmpdir(), 'vimana-'));
    stack.url = `http://127.0.0.1:${await freePort()}`;
    stack.environment = {
      ...process.env,
      VIMANA_DATA_DIR: stack.data,
      VIMANA_LISTEN: new URL(stack.url).host,
      VIMANA_AGENT_LISTEN: '127.0.0.1:0',
      VIMANA_ADMIN_PASSWORD: PASSWORD,
      ...environment,
    };
    return stack;
  }

  // Runs until the printed address; answers the milliseconds that took.
  async start() {
    const begun = performance.now();
    this.process = spawn(join(checkout, 'tools/run.sh'), {
      env: this.environment,
      stdio: ['ignore', 'pipe', 'inherit'],
    });
    this.ended = new Promise((done) => this.process.once('exit', done));
    const lines = createInterface({ input: this.process.stdout });
    this.printed = [];
    await new Promise((ready, failed) => {
      lines.on('line', (line) => {
        this.printed.push(line);
        if (line.startsWith('Vimana is running at ')) ready();
      });
      this.ended.then((code) => failed(new Error(`tools/run.sh ended with ${code}`)));
    });
    return performance.now() - begun;
  }

  // As Ctrl-C: the VMs run on.
  async interrupt() {
    this.process.kill('SIGINT');
    await this.ended;
  }

  // As `make stop`.
  stop() {
    spawnSync(join(checkout, 'tools/stop.sh'), { env: this.environment, stdio: 'inherit' });
  }

  async destroy() {
    this.stop();
    await this.ended;
    rmSync(this.data, { recursive: true, force: true });
  }

  // Process ids of the QEMUs whose arguments name the VM.
  qemus(vmId) {
    return readdirSync('/proc')
      .filter((name) => /^\d+$/.test(name))
      .filter((pid) => {
        try {
          const argv = readFileSync(`/proc/${pid}/cmdline`, 'utf8').split('\0');
          return argv[0].includes('qemu-system') && argv.some((word) => word.includes(vmId));
        } catch {
          return false; // It ended while we looked.
        }
      })
      .map(Number);
  }

  // Files and directories on the hosts whose names have the VM's id.
  traces(vmId) {
    return readdirSync(this.data, { recursive: true }).filter((name) => name.includes(vmId));
  }
}

// The REST interface, as one user.
export class Api {
  static async signIn(url, user = 'admin') {
    const api = new Api();
    api.url = `${url}/api/v1`;
    const answer = await api.call('POST', '/tokens', { user_name: user, password: PASSWORD });
    api.token = answer.token;
    return api;
  }

  async call(method, path, body) {
    const response = await fetch(this.url + path, {
      method,
      headers: {
        ...(this.token && { authorization: `Bearer ${this.token}` }),
        ...(body && { 'content-type': 'application/json' }),
      },
      body: body && JSON.stringify(body),
    });
    const text = await response.text();
    const value = text ? JSON.parse(text) : null;
    if (!response.ok) throw new Error(`${method} ${path}: ${response.status} ${value?.detail}`);
    return value;
  }

  // Follows the event stream: `seen` gets each item and when it arrived, `told`
  // each word of how far an operation is. Answers a function that ends it, once
  // the stream is open.
  async follow(seen, told = () => {}) {
    const abort = new AbortController();
    const response = await fetch(`${this.url}/events`, {
      headers: { authorization: `Bearer ${this.token}` },
      signal: abort.signal,
    });
    const read = async () => {
      let rest = '';
      for await (const chunk of response.body.pipeThrough(new TextDecoderStream())) {
        const at = Date.now();
        const messages = (rest + chunk).split('\n\n');
        rest = messages.pop();
        for (const message of messages) {
          const data = message.split('\n').find((line) => line.startsWith('data:'));
          if (data && message.includes('event: item')) seen(JSON.parse(data.slice(5)), at);
          if (data && message.includes('event: progress')) told(JSON.parse(data.slice(5)));
        }
      }
    };
    read().catch((error) => {
      if (error.name !== 'AbortError') throw error;
    });
    return () => abort.abort();
  }
}
