// How late the sweeper is, how fast, and what it costs when nothing is due. See docs/benchmarks.md.
'use strict';
const { writeFileSync } = require('node:fs');
const path = require('node:path');
const { Orders, NAME } = require('./database');
const processes = require('./processes');
const { FOLDER, cookie, killAll, makeIndexes, metrics, serve, sleep, stop, sweeper, until, usage } = processes;
const { comparison } = require('./queues');
const { idle } = require('./idle');

const number = (name, fallback) => Number(process.env[name] || fallback);
const list = (name, fallback) => (process.env[name] || fallback).split(',');
const SETTINGS = {
  parts: list('PARTS', 'lateness,backlog,comparison,idle'),
  events: process.env.EVENTS === 'on',
  rates: list('RATES', '100,1000').map(Number),
  highest: number('HIGHEST', 20000),
  seconds: number('SECONDS', 15),
  backlog: number('BACKLOG', 1_000_000),
  targets: list('TARGETS', '1,100,1000').map(Number),
  idleSeconds: number('IDLE_SECONDS', 20),
};

function say(text) {
  console.error(`bench: ${text}`);
}

// Within a bucket, as if its values were spread evenly.
function quantile(buckets, share) {
  const wanted = buckets.at(-1).count * share;
  let [bound, count] = [0, 0];
  for (const bucket of buckets) {
    if (bucket.count >= wanted) {
      return bucket.bound === Infinity ? bound : bound + ((bucket.bound - bound) * (wanted - count)) / Math.max(1, bucket.count - count);
    }
    ({ bound, count } = bucket);
  }
  return bound;
}

const percentile = (sorted, share) => sorted[Math.min(sorted.length - 1, Math.floor(sorted.length * share))];
const ms = (seconds) => `${Math.round(seconds * 1000)} ms`;

async function fresh(orders) {
  await orders.drop();
  makeIndexes();
  if (SETTINGS.events) await orders.noteEvents();
}

// Every cancellation is in the outbox, or what was measured is something else.
async function checkNoted(orders, count) {
  const noted = await orders.noted();
  if (noted !== (SETTINGS.events ? count : 0)) throw new Error(`${noted} of ${count} cancelled orders are in the outbox, with EVENTS=${process.env.EVENTS || 'off'}`);
}

// Orders due at a steady rate, all of them stored before the first is.
async function lateness(orders, rate) {
  await fresh(orders);
  const count = rate * SETTINGS.seconds;
  const process = await sweeper();
  const start = Date.now() + 3000 + count / 5;
  await orders.store(count, (i) => new Date(start + (i * 1000) / rate));
  const spare = start - Date.now();
  if (spare < 0) throw new Error(`storing ${count} orders took ${-spare} ms longer than it was given`);
  await sleep(spare);
  const before = usage(process.pid).cpu;
  const done = async () => (await metrics(process)).sum('expired_total') >= count;
  await until('all are cancelled', done, SETTINGS.seconds * 3 + 30, 200);
  const cpu = usage(process.pid).cpu - before;
  const found = await metrics(process);
  const buckets = found.buckets('lateness_seconds');
  await stop(process);
  const result = { rate, orders: count, p50: quantile(buckets, 0.5), p99: quantile(buckets, 0.99), p999: quantile(buckets, 0.999), cpu: cpu / SETTINGS.seconds, wrong: await orders.wrong() };
  if (result.wrong) throw new Error(`${result.wrong} orders have a wrong version`);
  await checkNoted(orders, count);
  say(`${rate}/s: p50 ${ms(result.p50)}, p99 ${ms(result.p99)}, p99.9 ${ms(result.p999)}`);
  return result;
}

async function latenesses(orders) {
  const results = [];
  for (const rate of SETTINGS.rates) results.push(await lateness(orders, rate));
  // The highest rate that is kept up with: upwards by a quarter.
  let rate = SETTINGS.rates.at(-1);
  while ((rate = Math.round(rate * 1.25)) <= SETTINGS.highest) {
    const result = await lateness(orders, rate);
    results.push(result);
    if (result.p99 > 0.25) break;
  }
  return results;
}

// A quarter of all will be due much later, a quarter is final.
async function backlogged(orders) {
  await fresh(orders);
  const count = SETTINGS.backlog;
  say(`storing ${2 * count} orders`);
  const now = Date.now();
  const all = await orders.store(
    2 * count,
    (i) => new Date(i % 2 === 0 ? now - 3_600_000 + i : now + 3_600_000),
    (i) => (i % 4 === 3 ? 'cancelled' : 'created'),
  );
  return all.filter((_, i) => i % 2 === 0);
}

async function drained(count) {
  const started = Date.now();
  const process = await sweeper();
  await until('the backlog is gone', async () => (await metrics(process)).sum('expired_total') >= count, 3600, 100);
  const took = (Date.now() - started) / 1000;
  const found = await metrics(process);
  const result = { took, rate: count / took, batch: Math.round(found.sum('batch_orders_sum') / found.sum('batch_orders_count')), peak: usage(process.pid).peak };
  await stop(process);
  return result;
}

// Eight buyers, each reserving as soon as it has its answer, while `work` runs.
async function reserving(api, tickets, work) {
  const latencies = [];
  let over = false;
  const buyer = async (name) => {
    const headers = { cookie: cookie(name), 'content-type': 'application/json' };
    while (!over && tickets.length) {
      const asked = performance.now();
      const body = JSON.stringify({ ticketId: tickets.pop() });
      const response = await fetch(`http://127.0.0.1:${api.api}/api/orders`, { method: 'POST', headers, body });
      if (response.status !== 201) throw new Error(`${response.status}: ${await response.text()}`);
      await response.arrayBuffer();
      latencies.push(performance.now() - asked);
    }
  };
  const buyers = Array.from({ length: 8 }, (_, i) => buyer(`buyer${i}`));
  const started = performance.now();
  const result = await work();
  over = true;
  const seconds = (performance.now() - started) / 1000;
  await Promise.all(buyers);
  latencies.sort((a, b) => a - b);
  return { result, rate: latencies.length / seconds, p50: percentile(latencies, 0.5) / 1000, p99: percentile(latencies, 0.99) / 1000 };
}

async function backlog(orders) {
  const count = SETTINGS.backlog;
  await backlogged(orders);
  const alone = await drained(count);
  await checkNoted(orders, count);
  say(`a backlog of ${count}: ${Math.round(alone.rate)}/s`);
  const ids = await backlogged(orders);
  const started = Date.now();
  await orders.cancelBare(ids, alone.batch);
  const bare = { took: (Date.now() - started) / 1000 };
  bare.rate = count / bare.took;
  say(`the same in bare batches of ${alone.batch}: ${Math.round(bare.rate)}/s`);

  await backlogged(orders);
  const api = await serve();
  const tickets = await orders.tickets(Math.min(400_000, 3000 * (20 + Math.round(2 * alone.took))));
  const without = await reserving(api, tickets, () => sleep(10_000));
  const beside = await reserving(api, tickets, () => drained(count));
  await stop(api);
  say(`reservations: p99 ${ms(without.p99)} without, ${ms(beside.p99)} beside a backlog that goes by ${Math.round(beside.result.rate)}/s`);
  return { count, alone, bare, share: alone.rate / bare.rate, without, beside };
}

function table(head, rows) {
  console.log(`\n| ${head.join(' | ')} |\n|${head.map(() => '---|').join('')}`);
  for (const row of rows) console.log(`| ${row.join(' | ')} |`);
}

function report(results) {
  if (results.lateness) {
    const row = (r) => [r.rate.toLocaleString('en'), ms(r.p50), ms(r.p99), ms(r.p999), `${(r.cpu * 100).toFixed(1)} %`];
    table(['orders due per second', 'p50', 'p99', 'p99.9', 'CPU of the sweeper'], results.lateness.map(row));
  }
  if (results.backlog) {
    const { count, alone, bare, share, without, beside } = results.backlog;
    const rate = (r) => `${Math.round(r).toLocaleString('en')}/s`;
    table([`${count.toLocaleString('en')} overdue of ${(2 * count).toLocaleString('en')}`, 'took', 'rate'], [
      ['the sweeper', `${alone.took.toFixed(1)} s`, rate(alone.rate)],
      [`bare updateMany, batches of ${alone.batch}`, `${bare.took.toFixed(1)} s`, rate(bare.rate)],
      ['share', '', `${(share * 100).toFixed(0)} %`],
      ['the sweeper, beside reservations', `${beside.result.took.toFixed(1)} s`, rate(beside.result.rate)],
    ]);
    table(['reservations by 8 buyers', 'rate', 'p50', 'p99'], [
      ['no sweeper', rate(without.rate), ms(without.p50), ms(without.p99)],
      ['beside the backlog', rate(beside.rate), ms(beside.p50), ms(beside.p99)],
    ]);
    console.log(`\nMemory of the sweeper at its peak: ${alone.peak.toFixed(1)} MB`);
  }
  if (results.comparison) {
    table(['', 'orders due per second', 'p50', 'p99', 'cancelled', 'memory'], results.comparison.steady.map((r) => [
      r.name, r.rate, r.p50 === undefined ? '-' : ms(r.p50), r.p99 === undefined ? '-' : ms(r.p99), `${r.cancelled} of ${r.orders}`, `${r.memory.toFixed(0)} MB`,
    ]));
    table(['all due at once', 'orders', 'took', 'rate'], results.comparison.burst.map((r) => [r.name, r.orders, `${r.took.toFixed(1)} s`, `${Math.round(r.rate)}/s`]));
    table(['kill -9 in the middle', 'still open after 30 s', 'after 90 s', 'of'], results.comparison.killed.map((r) => [r.name, r.after30, r.after90, r.orders]));
  }
  if (results.idle) {
    const row = (r) => [r.targets, r.looks.toFixed(2), `${(r.cpu * 100).toFixed(2)} %`, `${r.rss.toFixed(1)} MB`];
    table(['targets', 'looks per second and target', 'CPU', 'memory'], results.idle.map(row));
  }
}

async function main() {
  const orders = await Orders.open();
  const results = { settings: SETTINGS };
  const parts = { lateness: latenesses, backlog, comparison: (all) => comparison(all, { fresh, say, percentile, quantile }), idle: () => idle(SETTINGS, say) };
  try {
    for (const part of SETTINGS.parts) results[part] = await parts[part](orders);
    report(results);
    const file = path.join(FOLDER, `sweeper-${Math.round(Date.now() / 1000)}.json`);
    writeFileSync(file, JSON.stringify(results, null, 2));
    console.log(`\nAll of it, for programs: ${file}`);
  } finally {
    killAll();
    await orders.drop();
    await orders.client.close();
  }
}

// Leaves nothing, also when it is interrupted.
for (const signal of ['SIGINT', 'SIGTERM']) {
  process.on(signal, async () => {
    killAll();
    const orders = await Orders.open();
    await orders.drop();
    process.exit(130);
  });
}
main().catch((error) => { console.error(`bench: failed: ${error.stack}`); process.exitCode = 1; });
