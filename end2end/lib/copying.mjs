// What the event stream tells of copies under way.

const PATIENCE_MS = 120_000;

export class Copying {
  // Of those of one VM, from now on.
  static async follow(api, vmId) {
    const copying = new Copying();
    Object.assign(copying, { told: [], waiting: new Set() });
    copying.end = await api.follow(
      () => {},
      ({ operation: { vm_id, progress } }) => {
        if (vm_id !== vmId || !progress?.copy) return;
        const { copy, ...bar } = progress;
        copying.told.push({ at: Date.now(), ...bar, ...copy });
        for (const look of copying.waiting) look();
      },
    );
    return copying;
  }

  // Waits until that is told, if it was not already; answers it.
  until(what, holds) {
    return new Promise((done, failed) => {
      const over = () => {
        clearTimeout(patience);
        this.waiting.delete(look);
      };
      const look = () => {
        const found = this.told.find(holds);
        if (!found) return;
        over();
        done(found);
      };
      const patience = setTimeout(() => {
        over();
        const last = JSON.stringify(this.told.at(-1));
        failed(new Error(`waited in vain for ${what}; the last that was told is ${last}`));
      }, PATIENCE_MS);
      this.waiting.add(look);
      look();
    });
  }

  // What was told of each round through the memory, in their order.
  rounds() {
    const rounds = [];
    for (const report of this.told.filter(({ phase }) => phase === 'memory')) {
      if (report.rounds !== rounds.at(-1)?.[0].rounds) rounds.push([]);
      rounds.at(-1).push(report);
    }
    return rounds;
  }
}
