// What `nats consumer rm` does, for machines that do not have that program.
//
//   NATS_URL=URL node nats.js consumer rm STREAM CONSUMER --force
'use strict';

const { connect } = require('@nats-io/transport-node');
const { jetstreamManager } = require('@nats-io/jetstream');

const [kind, action, stream, consumer, force] = process.argv.slice(2);

(async () => {
  // Without --force it asks.
  if (kind !== 'consumer' || action !== 'rm' || force !== '--force') throw new Error('only: consumer rm STREAM CONSUMER --force');
  const connection = await connect({ servers: process.env.NATS_URL });
  try {
    await (await jetstreamManager(connection)).consumers.delete(stream, consumer);
  } finally {
    await connection.close();
  }
})().catch((error) => {
  console.error(`nats: ${error.message}`);
  process.exit(1);
});
