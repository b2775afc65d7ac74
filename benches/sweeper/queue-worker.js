// What people use today: a delayed job for each order. `bullmq` keeps them in Redis, `agenda` beside the orders.
//
// It is told to add jobs, and says how late each order was cancelled.
'use strict';
const { Orders, NAME } = require('./database');

const [kind, port] = process.argv.slice(2);
const late = [];

async function expire(orders, id, due) {
  if (await orders.cancel(id)) late.push(Date.now() - due);
}

async function bullmq(orders) {
  const { Queue, Worker } = require('bullmq');
  const connection = { host: '127.0.0.1', port: Number(port), maxRetriesPerRequest: null };
  const queue = new Queue('expiration', { connection, defaultJobOptions: { removeOnComplete: true } });
  const worker = new Worker('expiration', ({ data }) => expire(orders, data.id, data.due), { connection, concurrency: 32 });
  // Its Redis is killed on purpose.
  queue.on('error', () => {});
  worker.on('error', () => {});
  await worker.waitUntilReady();
  return (jobs) => queue.addBulk(jobs.map((data) => ({ name: 'expire', data, opts: { delay: Math.max(0, data.due - Date.now()) } })));
}

async function agenda(orders) {
  const { Agenda } = require('agenda');
  const agenda = new Agenda({
    db: { address: `${process.env.MONGO_URI.replace(/\/?$/, '/')}${NAME}` },
    // As often as it can look without being told of a job by its own process, and no limits in its way.
    processEvery: '1 second', maxConcurrency: 1000, defaultConcurrency: 1000, defaultLockLimit: 0,
  });
  agenda.define('expire', ({ attrs: { data } }) => expire(orders, data.id, data.due));
  await agenda.start();
  return async (jobs) => {
    for (let from = 0; from < jobs.length; from += 50) {
      await Promise.all(jobs.slice(from, from + 50).map((data) => agenda.schedule(new Date(data.due), 'expire', data)));
    }
  };
}

async function main() {
  const orders = await Orders.open();
  const add = await { bullmq, agenda }[kind](orders);
  process.on('message', async (message) => {
    if (message.add) {
      await add(message.add);
      process.send({ added: message.add.length });
    } else {
      process.send({ late: late.splice(0) });
    }
  });
  process.send({ ready: true });
}

main().catch((error) => { console.error(error); process.exit(1); });
