// What a host's agent has on its disk about the commands it was given: a
// record before each has an effect, and one when it has ended.

import { readFileSync } from 'node:fs';
import { join } from 'node:path';

export class Ledger {
  // `directory` is the agent's.
  constructor(directory) {
    this.path = join(directory, 'ledger');
  }

  // How far the last command of this kind came with the VM: 'begun', 'ended',
  // or not at all.
  stage(vmId, work) {
    let stage;
    let command;
    for (const line of readFileSync(this.path, 'utf8').split('\n')) {
      if (!line.includes(vmId)) continue;
      const record = parsed(line);
      if (record?.record === 'begun' && record.work === work) {
        stage = 'begun';
        command = JSON.stringify(record.command);
      }
      if (record?.record === 'ended' && JSON.stringify(record.command) === command) {
        stage = 'ended';
      }
    }
    return stage;
  }
}

// A line is a checksum and a record; the last may be half written.
function parsed(line) {
  try {
    return JSON.parse(line.slice(line.indexOf(' ') + 1));
  } catch {
    return undefined;
  }
}
