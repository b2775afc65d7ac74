// A listener as the course's orders service has it, on JetStream: each ticket is written by mongoose, then its event is
// acknowledged. Ends after a number of events, and prints how many seconds they took from the first one on.
// node listener.js URL STREAM SUBJECT COUNT together|"one by one", with MONGO_URI and MONGO_DATABASE set
const mongoose = require('mongoose');
const { connect } = require('@nats-io/transport-node');
const { jetstream, jetstreamManager, AckPolicy } = require('@nats-io/jetstream');

const schema = new mongoose.Schema({ title: String, price: Number, version: Number }, { versionKey: 'version' });
const Ticket = mongoose.model('Ticket', schema);

async function main([url, stream, subject, count, how]) {
  await mongoose.connect(process.env.MONGO_URI, { dbName: process.env.MONGO_DATABASE });
  const connection = await connect({ servers: url });
  const manager = await jetstreamManager(connection);
  await manager.consumers.add(stream, { durable_name: 'node', ack_policy: AckPolicy.Explicit, filter_subject: subject });
  const consumer = await jetstream(connection).consumers.get(stream, 'node');
  const handle = async (message) => {
    const { id, title, price } = message.json();
    await new Ticket({ _id: id, title, price }).save();
    message.ack();
  };
  const under = new Set();
  let [left, started] = [Number(count), undefined];
  // Together: a thousand, since the broker sends no more that are not acknowledged.
  for await (const message of await consumer.consume()) {
    started ??= performance.now();
    const handling = handle(message).finally(() => under.delete(handling));
    under.add(handling);
    if (how === 'one by one') await handling;
    left -= 1;
    if (left === 0) break;
  }
  await Promise.all(under);
  await connection.flush();
  console.log((performance.now() - started) / 1000);
  await connection.drain();
  await mongoose.disconnect();
}

main(process.argv.slice(2)).catch((error) => {
  console.error(error);
  process.exit(1);
});
