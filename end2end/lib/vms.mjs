// VMs through the REST interface, over restarts of everything.

import assert from 'node:assert/strict';

const MOVING = ['pending', 'prolog', 'boot', 'shutdown', 'epilog', 'migrate'];
const PATIENCE_MS = 60_000;

export const soon = (ms = 20) => new Promise((over) => setTimeout(over, ms));

export class Vms {
  constructor(fleet, api) {
    this.fleet = fleet;
    this.api = api;
  }

  // Asks until the answer is one: the server may be away for a moment.
  async eventually(what, ask) {
    const end = Date.now() + PATIENCE_MS;
    for (;;) {
      try {
        const answer = await ask();
        if (answer) return answer;
      } catch (error) {
        // What `fetch` throws when nobody answers.
        if (!(error instanceof TypeError)) throw error;
      }
      assert.ok(Date.now() < end, `waited in vain for ${what}`);
      await soon();
    }
  }

  look(id) {
    return this.api.call('GET', `/vms/${id}`);
  }

  // Asks for a VM; answers its id.
  async make(name, more = {}) {
    const form = { name, image: 'demo', flavor: 'tiny', ...more };
    return (await this.api.call('POST', '/vms', form)).vm.id;
  }

  ask(action, id) {
    return action === 'delete'
      ? this.api.call('DELETE', `/vms/${id}`)
      : this.api.call('POST', `/vms/${id}/${action}`);
  }

  // Waits until nothing is under way for the VM; answers how it is then.
  rest(id) {
    return this.eventually('what is under way to end', async () => {
      const vm = await this.look(id);
      const moves = MOVING.includes(vm.state);
      return !moves && !['running', 'undoing'].includes(vm.operation?.state) && vm;
    });
  }

  // Every host has a session with the server.
  connected() {
    return this.eventually('the hosts to come back', async () =>
      (await this.hosts()).every((host) => host.connected),
    );
  }

  // No host has one.
  disconnected() {
    return this.eventually('the hosts to go', async () =>
      (await this.hosts()).every((host) => !host.connected),
    );
  }

  async hosts() {
    return (await this.api.call('GET', '/hosts')).items;
  }

  // Deletes it where that was not done; nothing of it is left.
  async removed(id) {
    const vm = await this.rest(id);
    if (vm.state !== 'done') await this.ask('delete', id);
    assert.equal((await this.rest(id)).state, 'done');
    assert.deepEqual(this.fleet.qemus(id), []);
    assert.deepEqual(this.fleet.traces(id), []);
  }
}
