// A neighbour on JetStream, as copies of the course that were moved there: the tickets service, which keeps for each
// ticket the order that holds it. Prints what it does, and ends after a number of events.
// node listener.js URL STREAM DURABLE COUNT CREATED CANCELLED
const { connect } = require('@nats-io/transport-node');
const { jetstream, jetstreamManager, AckPolicy } = require('@nats-io/jetstream');

async function main([url, stream, durable, count, created, cancelled]) {
  const connection = await connect({ servers: url });
  const manager = await jetstreamManager(connection);
  await manager.consumers.add(stream, {
    durable_name: durable, ack_policy: AckPolicy.Explicit, filter_subjects: [created, cancelled],
  });
  const consumer = await jetstream(connection).consumers.get(stream, durable);
  const tickets = new Map();
  let left = Number(count);
  for await (const message of await consumer.consume()) {
    const { id, ticket } = message.json();
    if (message.subject === created) {
      tickets.set(ticket.id, id);
      console.log(`${ticket.id} is held by ${tickets.get(ticket.id)}`);
    } else {
      tickets.delete(ticket.id);
      console.log(`${ticket.id} is free`);
    }
    await message.ackAck();
    left -= 1;
    if (left === 0) break;
  }
  await connection.close();
}

main(process.argv.slice(2)).catch((error) => {
  console.error(error);
  process.exit(1);
});
