// A directory that is a file system of its own, and can be made full.

import { spawnSync } from 'node:child_process';
import { closeSync, mkdirSync, openSync, rmSync, statfsSync, writeSync } from 'node:fs';
import { join } from 'node:path';

export class SmallDisk {
  // Undefined where nothing may be mounted.
  static mount(directory, mib) {
    const disk = new SmallDisk();
    mkdirSync(directory, { recursive: true });
    const options = ['-t', 'tmpfs', '-o', `size=${mib}m,mode=700`];
    if (spawnSync('mount', [...options, 'tmpfs', directory]).status !== 0) return undefined;
    disk.directory = directory;
    disk.filling = join(directory, 'filling');
    return disk;
  }

  // Nothing is left then.
  fill() {
    const file = openSync(this.filling, 'a');
    try {
      for (let bytes = 2 ** 24; bytes > 0; ) {
        const { bavail, bsize } = statfsSync(this.directory);
        bytes = Math.min(bytes, bavail * bsize);
        if (bytes > 0) writeSync(file, Buffer.alloc(bytes));
      }
    } catch (error) {
      // Somebody else has written meanwhile.
      if (error.code !== 'ENOSPC') throw error;
    } finally {
      closeSync(file);
    }
  }

  free() {
    rmSync(this.filling, { force: true });
  }

  unmount() {
    spawnSync('umount', [this.directory]);
  }
}
