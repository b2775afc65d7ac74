// The processes that are measured: started, asked for their metrics, ended with the benchmark.
'use strict';
const { spawn, spawnSync } = require('node:child_process');
const { readFileSync, mkdirSync, openSync } = require('node:fs');
const { createHmac } = require('node:crypto');
const net = require('node:net');
const path = require('node:path');
const { NAME } = require('./database');

const FOLDER = path.join(process.env.ORDERS_CACHE, 'bench');
mkdirSync(FOLDER, { recursive: true });
const JWT_KEY = 'benchmark';
const sleep = (ms) => new Promise((done) => setTimeout(done, ms));
const running = new Set();

function freePort() {
  return new Promise((done) => {
    const server = net.createServer().listen(0, '127.0.0.1', () => {
      const { port } = server.address();
      server.close(() => done(port));
    });
  });
}

// Ends with this process, however that ends.
function start(name, command, args, env = {}, options = {}) {
  const log = openSync(path.join(FOLDER, `${name}.log`), 'w');
  const child = spawn('setpriv', ['--pdeathsig', 'KILL', '--', command, ...args], {
    env: { PATH: process.env.PATH, ...env }, stdio: ['ignore', options.stdout ?? log, log, ...(options.ipc ? ['ipc'] : [])],
  });
  running.add(child);
  child.ended = new Promise((done) => child.on('exit', (code) => { running.delete(child); done(code); }));
  return child;
}

async function stop(child, signal = 'SIGTERM') {
  child.kill(signal);
  await child.ended;
}

function killAll() {
  for (const child of running) child.kill('SIGKILL');
}

async function page(port, what) {
  const response = await fetch(`http://127.0.0.1:${port}/${what}`);
  return { ok: response.ok, text: await response.text() };
}

async function until(what, probe, seconds = 60, every = 50) {
  const deadline = Date.now() + seconds * 1000;
  for (;;) {
    const found = await probe().catch((error) => { if (error.name !== 'TypeError') throw error; });
    if (found) return found;
    if (Date.now() > deadline) throw new Error(`not within ${seconds} s: ${what}`);
    await sleep(every);
  }
}

async function product(name, args, env) {
  const port = await freePort();
  const child = start(name, process.env.BINARY, args, { ADMIN_PORT: port, LOG_LEVEL: 'warn', ...env });
  child.port = port;
  await until(`${name} is ready; see ${FOLDER}/${name}.log`, async () => (await page(port, 'readyz')).ok);
  return child;
}

const target = { SWEEPER_URI: `${process.env.MONGO_URI.replace(/\/?$/, '/')}${NAME}` };

const sweeper = (args = []) => product('sweeper', ['sweeper', ...args], target);

function makeIndexes() {
  const { status, stderr } = spawnSync(process.env.BINARY, ['sweeper', '--once'], { env: { PATH: process.env.PATH, ...target }, encoding: 'utf8' });
  if (status !== 0) throw new Error(`sweeper --once: ${stderr}`);
}

async function serve() {
  const port = await freePort();
  const child = await product('serve', ['serve'], {
    JWT_KEY, PORT: port, LISTEN_ADDRESS: '127.0.0.1', MONGO_URI: process.env.MONGO_URI, MONGO_DATABASE: NAME,
  });
  return Object.assign(child, { api: port });
}

function cookie(user) {
  const part = (value) => Buffer.from(JSON.stringify(value)).toString('base64url');
  const head = `${part({ alg: 'HS256', typ: 'JWT' })}.${part({ id: user, email: `${user}@example.com`, iat: 1_700_000_000 })}`;
  const jwt = `${head}.${createHmac('sha256', JWT_KEY).update(head).digest('base64url')}`;
  return `session=${Buffer.from(JSON.stringify({ jwt })).toString('base64')}`;
}

// The sum of the metrics of this name, labels aside.
async function metrics(child) {
  const { text } = await page(child.port, 'metrics');
  const samples = text.split('\n').filter((line) => line && !line.startsWith('#')).map((line) => {
    const [, name, labels, value] = line.match(/^([^{ ]+)(\{.*\})? (\S+)/);
    return { name: name.replace('orders_operator_sweeper_', ''), labels: labels ?? '', value: Number(value) };
  });
  return {
    sum: (name) => samples.filter((sample) => sample.name === name).reduce((sum, { value }) => sum + value, 0),
    buckets: (name) => samples.filter((sample) => sample.name === `${name}_bucket`).map(({ labels, value }) => {
      const bound = labels.match(/le="([^"]+)"/)[1];
      return { bound: bound === '+Inf' ? Infinity : Number(bound), count: value };
    }),
  };
}

// Seconds of CPU so far, and megabytes of memory now and at the peak.
function usage(pid) {
  const fields = readFileSync(`/proc/${pid}/stat`, 'utf8').split(')').at(-1).trim().split(' ');
  const status = readFileSync(`/proc/${pid}/status`, 'utf8');
  const megabytes = (name) => Number(status.match(new RegExp(`${name}:\\s+(\\d+)`))[1]) / 1000;
  return { cpu: (Number(fields[11]) + Number(fields[12])) / 100, rss: megabytes('VmRSS'), peak: megabytes('VmHWM') };
}

module.exports = { FOLDER, cookie, freePort, killAll, makeIndexes, metrics, product, serve, sleep, start, stop, sweeper, until, usage };
