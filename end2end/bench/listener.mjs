// A thread that only listens: when something comes out of a pipe it says so, and
// when that was. Whoever starts processes stands still meanwhile.

import { Socket } from 'node:net';
import { parentPort, workerData } from 'node:worker_threads';

const socket = new Socket({ fd: workerData.fd, readable: true, writable: false });
socket.on('data', (piece) => {
  // The same clock for all threads.
  const at = Number(process.hrtime.bigint()) / 1e6;
  parentPort.postMessage({ piece, at });
});
