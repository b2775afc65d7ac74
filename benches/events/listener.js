// A listener as the course's orders service has it, on JetStream: each ticket is written by mongoose, then its event is
// acknowledged. Ends after a number of events.
// node listener.js URL STREAM SUBJECT COUNT, with MONGO_URI and MONGO_DATABASE set
const mongoose = require('mongoose');
const { connect } = require('@nats-io/transport-node');
const { jetstream, jetstreamManager, AckPolicy } = require('@nats-io/jetstream');

const schema = new mongoose.Schema({ title: String, price: Number, version: Number }, { versionKey: 'version' });
const Ticket = mongoose.model('Ticket', schema);

async function main([url, stream, subject, count]) {
  await mongoose.connect(process.env.MONGO_URI, { dbName: process.env.MONGO_DATABASE });
  const connection = await connect({ servers: url });
  const manager = await jetstreamManager(connection);
  await manager.consumers.add(stream, { durable_name: 'node', ack_policy: AckPolicy.Explicit, filter_subject: subject });
  const consumer = await jetstream(connection).consumers.get(stream, 'node');
  let left = Number(count);
  for await (const message of await consumer.consume()) {
    const { id, title, price } = message.json();
    await new Ticket({ _id: id, title, price }).save();
    message.ack();
    left -= 1;
    if (left === 0) break;
  }
  await connection.drain();
  await mongoose.disconnect();
}

main(process.argv.slice(2)).catch((error) => {
  console.error(error);
  process.exit(1);
});
