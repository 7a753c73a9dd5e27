// Servers of somebody else's on this machine: what images are fetched from.

import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { writeFileSync } from 'node:fs';
import { createConnection, createServer } from 'node:net';
import { join } from 'node:path';

const freePort = () =>
  new Promise((done) => {
    const server = createServer().listen(0, '127.0.0.1', () => {
      const { port } = server.address();
      server.close(() => done(port));
    });
  });

export class Peers {
  // They serve what is in `files`, and keep their own things in `directory`.
  constructor(directory, files) {
    Object.assign(this, { directory, files, children: [] });
  }

  kill() {
    for (const child of this.children) child.kill();
  }

  // Starts a server, and waits until it takes connections; answers its address.
  async start(port, program, args) {
    const child = spawn(program, args, { stdio: 'ignore' });
    this.children.push(child);
    const takes = () =>
      new Promise((done) => {
        const socket = createConnection(port, '127.0.0.1');
        socket.once('connect', () => done(true)).once('error', () => done(false));
        socket.once('connect', () => socket.destroy());
      });
    while (!(await takes())) {
      assert.equal(child.exitCode, null, `${program} ended`);
      await new Promise((done) => setTimeout(done, 20));
    }
    return `127.0.0.1:${port}`;
  }

  // With /old/ as a place that demo.qcow2 has moved from.
  async nginx() {
    const [port, at] = [await freePort(), this.directory];
    const temporary = ['client_body', 'proxy', 'fastcgi', 'scgi', 'uwsgi']
      .map((kind) => `${kind}_temp_path ${at}/nginx-${kind};`)
      .join(' ');
    writeFileSync(
      join(at, 'nginx.conf'),
      `daemon off; master_process off; pid ${at}/nginx.pid; events { }
       http { access_log off; sendfile on; ${temporary}
         server { listen 127.0.0.1:${port}; root ${this.files};
                  location /old/ { return 302 /demo.qcow2; } } }`,
    );
    return this.start(port, 'nginx', ['-c', join(at, 'nginx.conf'), '-e', join(at, 'nginx.log')]);
  }

  // For `ann`, whose password is `hunter2`.
  async pyftpdlib() {
    const port = await freePort();
    const args = ['-m', 'pyftpdlib', '-i', '127.0.0.1', '-p', `${port}`, '-d', this.files];
    return this.start(port, '/usr/bin/python3', [...args, '-u', 'ann', '-P', 'hunter2']);
  }
}
