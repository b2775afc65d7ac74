// What the sweeper costs when nothing is due: as many OrdersServices as it takes, each with a database.
'use strict';
const { execFileSync } = require('node:child_process');
const { MongoClient } = require('mongodb');
const { metrics, product, sleep, stop, until, usage } = require('./processes');

const NAMESPACE = 'bench-sweeper';
const PREFIX = 'orders-bench-idle-';

function kubectl(args, input) {
  return execFileSync('kubectl', args, { input, encoding: 'utf8', stdio: ['pipe', 'pipe', 'pipe'] });
}

function service(number) {
  return {
    apiVersion: 'ticketing.dev/v1alpha1', kind: 'OrdersService', metadata: { name: `orders-${number}`, namespace: NAMESPACE },
    spec: { auth: { jwtSecretRef: { name: 'jwt' } }, database: { uriSecretRef: { name: 'mongo' }, name: `${PREFIX}${number}` } },
  };
}

async function idle(settings, say) {
  const client = await MongoClient.connect(process.env.MONGO_URI);
  const most = Math.max(...settings.targets);
  const results = [];
  try {
    kubectl(['apply', '--server-side', '--force-conflicts', '-f', process.env.CRD]);
    const namespace = { apiVersion: 'v1', kind: 'Namespace', metadata: { name: NAMESPACE } };
    const secret = { apiVersion: 'v1', kind: 'Secret', metadata: { name: 'mongo', namespace: NAMESPACE }, stringData: { MONGO_URI: process.env.MONGO_URI } };
    kubectl(['apply', '-f', '-'], JSON.stringify({ apiVersion: 'v1', kind: 'List', items: [namespace, secret] }));
    let made = 0;
    for (const targets of settings.targets) {
      const items = [];
      for (; made < targets; made++) items.push(service(made));
      await until('the resource is served', async () => {
        try {
          return kubectl(['apply', '-f', '-'], JSON.stringify({ apiVersion: 'v1', kind: 'List', items })) || true;
        } catch (error) {
          return false;
        }
      }, 120, 1000);
      const process_ = await product('sweeper-idle', ['sweeper', '--namespace', NAMESPACE], { KUBECONFIG: process.env.KUBECONFIG });
      const looking = async () => (await metrics(process_)).sum('targets') === targets && (await metrics(process_)).sum('looks_total') >= 3 * targets;
      await until(`${targets} databases are swept`, looking, 900, 1000);
      await sleep(5000);
      const [before, looks] = [usage(process_.pid).cpu, (await metrics(process_)).sum('looks_total')];
      await sleep(settings.idleSeconds * 1000);
      const now = usage(process_.pid);
      const rate = ((await metrics(process_)).sum('looks_total') - looks) / settings.idleSeconds / targets;
      results.push({ targets, looks: rate, cpu: (now.cpu - before) / settings.idleSeconds, rss: now.rss });
      say(`${targets} idle targets: ${rate.toFixed(2)} looks/s each, ${now.rss.toFixed(1)} MB`);
      await stop(process_);
    }
  } finally {
    kubectl(['delete', 'namespace', NAMESPACE, '--ignore-not-found', '--wait=false']);
    for (let number = 0; number < most; number++) await client.db(`${PREFIX}${number}`).dropDatabase();
    await client.close();
  }
  return results;
}

module.exports = { idle };
