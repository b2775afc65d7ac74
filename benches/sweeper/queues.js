// The sweeper beside a delayed job for each order: BullMQ, with its jobs in Redis, and Agenda.
'use strict';
const { mkdtempSync, rmSync } = require('node:fs');
const os = require('node:os');
const path = require('node:path');
const { freePort, metrics, sleep, start, stop, sweeper, until, usage } = require('./processes');

const STEADY = (process.env.QUEUE_RATES || '100,1000').split(',').map(Number);
const SECONDS = 10;
const BURST = Number(process.env.BURST || 20_000);

// One way to expire orders: `begin`, be told of orders, be killed and begun again, `end`.
class Queue {
  constructor(kind) {
    this.name = { bullmq: 'BullMQ', agenda: 'Agenda' }[kind];
    // What storing an order and adding its job takes at most.
    this.milliseconds = { bullmq: 1, agenda: 4 }[kind];
    this.kind = kind;
  }

  async begin() {
    if (this.kind === 'bullmq') {
      this.folder = mkdtempSync(path.join(os.tmpdir(), 'orders-bench-redis-'));
      this.port = await freePort();
      await this.redis();
    }
    await this.work();
  }

  // With what Debian's package saves by default: snapshots.
  async redis() {
    const args = ['--port', this.port, '--dir', this.folder, '--bind', '127.0.0.1', '--save', '3600 1 300 100 60 10000'];
    this.server = start('redis', process.env.REDIS_SERVER, args.map(String), { LD_LIBRARY_PATH: process.env.REDIS_LIBRARIES });
    await until('Redis answers', () => new Promise((done) => {
      const socket = require('node:net').connect(this.port, '127.0.0.1', () => { socket.end(); done(true); });
      socket.on('error', () => done(false));
    }));
  }

  async work() {
    const env = { MONGO_URI: process.env.MONGO_URI, NODE_PATH: process.env.NODE_PATH };
    this.worker = start(this.kind, process.execPath, [path.join(__dirname, 'queue-worker.js'), this.kind, String(this.port)], env, { ipc: true });
    // Each answer is also listened for by way of the end.
    this.worker.setMaxListeners(0);
    await this.answer('ready');
  }

  answer(what) {
    return new Promise((done, fail) => {
      const listen = (message) => {
        if (message[what] === undefined) return;
        this.worker.off('message', listen);
        done(message[what]);
      };
      this.worker.on('message', listen);
      this.worker.once('exit', () => fail(new Error(`${this.name}: the worker ended`)));
    });
  }

  async add(jobs) {
    for (let from = 0; from < jobs.length; from += 1000) {
      this.worker.send({ add: jobs.slice(from, from + 1000) });
      await this.answer('added');
    }
  }

  async late() {
    this.worker.send({ late: true });
    return this.answer('late');
  }

  memory() {
    return [this.worker, this.server].filter(Boolean).reduce((sum, child) => sum + usage(child.pid).rss, 0);
  }

  // What holds the jobs, where that is not the database itself; else the worker.
  async kill(whom) {
    if (whom === 'redis') {
      await stop(this.server, 'SIGKILL');
      await this.redis();
    } else {
      await stop(this.worker, 'SIGKILL');
      await this.work();
    }
  }

  async end() {
    await stop(this.worker, 'SIGKILL');
    if (this.server) {
      await stop(this.server, 'SIGKILL');
      rmSync(this.folder, { recursive: true });
    }
    this.server = undefined;
  }
}

class Sweeper {
  name = 'the sweeper';

  milliseconds = 0.3;

  async begin() {
    this.child = await sweeper();
  }

  async add() {}

  async buckets() {
    return (await metrics(this.child)).buckets('lateness_seconds');
  }

  memory() {
    return usage(this.child.pid).rss;
  }

  async kill() {
    await stop(this.child, 'SIGKILL');
    this.child = await sweeper();
  }

  async end() {
    await stop(this.child);
  }
}

async function comparison(orders, { fresh, say, percentile, quantile }) {
  const systems = [new Sweeper(), new Queue('bullmq'), new Queue('agenda')];
  const stored = async (system, count, due) => {
    const times = Array.from({ length: count }, (_, i) => due(i));
    const ids = await orders.store(count, (i) => new Date(times[i]));
    await system.add(ids.map((id, i) => ({ id: String(id), due: times[i] })));
  };
  const settled = async (seconds) => {
    await until('all are cancelled', async () => (await orders.overdue()) === 0, seconds, 100).catch(() => {});
    return orders.overdue();
  };

  const steady = [];
  for (const rate of STEADY) {
    for (const system of systems) {
      await fresh(orders);
      await system.begin();
      const count = rate * SECONDS;
      // All are stored, and their jobs added, before the first is due.
      const first = Date.now() + 4000 + system.milliseconds * count;
      await stored(system, count, (i) => first + (i * 1000) / rate);
      const memory = system.memory();
      await sleep(Math.max(0, first - Date.now()) + SECONDS * 1000);
      const left = await settled(30);
      const result = { name: system.name, rate, orders: count, cancelled: count - left, memory: Math.max(memory, system.memory()) };
      if (system.buckets) {
        const buckets = await system.buckets();
        Object.assign(result, { p50: quantile(buckets, 0.5), p99: quantile(buckets, 0.99) });
      } else {
        const late = (await system.late()).sort((a, b) => a - b);
        if (late.length) Object.assign(result, { p50: percentile(late, 0.5) / 1000, p99: percentile(late, 0.99) / 1000 });
      }
      await system.end();
      say(`${rate}/s, ${system.name}: p50 ${result.p50} s, p99 ${result.p99} s, ${left} left`);
      steady.push(result);
    }
  }

  const burst = [];
  for (const system of systems) {
    await fresh(orders);
    await system.begin();
    const due = Date.now() + 4000 + system.milliseconds * BURST;
    await stored(system, BURST, () => due);
    await sleep(Math.max(0, due - Date.now()));
    const started = Date.now();
    const left = await settled(180);
    const took = (Date.now() - started) / 1000;
    await system.end();
    say(`${BURST} at once, ${system.name}: ${took.toFixed(1)} s, ${left} left`);
    burst.push({ name: system.name, orders: BURST - left, took, rate: (BURST - left) / took });
  }

  const killed = [];
  const victims = [[systems[0], 'sweeper'], [systems[1], 'redis'], [systems[1], 'worker'], [systems[2], 'worker']];
  for (const [system, whom] of victims) {
    await fresh(orders);
    await system.begin();
    const count = 500 * SECONDS;
    const first = Date.now() + 4000 + system.milliseconds * count;
    await stored(system, count, (i) => first + (i * 1000) / 500);
    await sleep(Math.max(0, first - Date.now()) + (SECONDS * 1000) / 2);
    await system.kill(whom);
    await sleep((SECONDS * 1000) / 2);
    const after30 = await settled(30);
    const after90 = after30 === 0 ? 0 : await settled(60);
    await system.end();
    const name = whom === 'sweeper' ? system.name : `${system.name}, its ${whom === 'redis' ? 'Redis' : 'worker'}`;
    say(`kill -9 of ${name}: ${after30} of ${count} open after 30 s, ${after90} after 90 s`);
    killed.push({ name, orders: count, after30, after90 });
  }
  return { steady, burst, killed };
}

module.exports = { comparison };
