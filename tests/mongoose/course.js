// The services of the course around the orders, and the orders service itself: what one of them keeps is in the database, what it
// hears changes that, and what it cannot bear ends it, as an exception in a listener does there.
//
//   node course.js SERVICE CLUSTER URL CLIENT     with MONGO_URI and MONGO_DATABASE set
//
// SERVICE is tickets, payments, expiration or orders. CLUSTER is that of NATS Streaming, which is spoken to by the base classes of the
// course; `-` for JetStream. Each line of standard input is a command as JSON, `{NAME: {...}}`, and is answered by one line of JSON,
// `{"done": ...}` or `{"failed": ...}`. At the end of standard input it takes its leave of the broker.
'use strict';

const readline = require('readline');
const mongoose = require('mongoose');
const { updateIfCurrentPlugin } = require('mongoose-update-if-current');

const [service, cluster, url, client] = process.argv.slice(2);
const group = `${service}-service`;
const { Schema, Types } = mongoose;
const tell = (line) => process.stdout.write(`${JSON.stringify(line)}\n`);

function model(name, collection, fields) {
  const schema = new Schema(fields, { versionKey: 'version', autoIndex: false });
  schema.plugin(updateIfCurrentPlugin);
  return mongoose.model(name, schema, collection);
}

// The brokers, each with `publish(subject, data)`, `listen(subject, handle)` and `close()`. A message is acknowledged once it is
// handled.

function streaming() {
  const nats = require('node-nats-streaming');
  const { Listener, Publisher } = require('@sgtickets/common');
  // Only the answer to a subscription says where to acknowledge, and the first messages may come before it.
  const acknowledge = (message) => {
    if (message.subscription.ackInbox) message.ack();
    else message.subscription.once('ready', () => message.ack());
  };
  class Heard extends Listener {
    constructor(stan, subject, handle) {
      super(stan);
      Object.assign(this, { subject, handle, queueGroupName: group });
    }

    async onMessage(data, message) {
      await this.handle(data);
      acknowledge(message);
    }
  }
  class Told extends Publisher {
    constructor(stan, subject) {
      super(stan);
      this.subject = subject;
    }
  }
  return new Promise((resolve, reject) => {
    const stan = nats.connect(cluster, client, { url });
    stan.on('error', reject);
    stan.on('close', () => process.exit(0));
    stan.on('connect', () => resolve({
      publish: (subject, data) => new Told(stan, subject).publish(data),
      listen: (subject, handle) => new Heard(stan, subject, handle).listen(),
      close: () => stan.close(),
    }));
  });
}

async function jetStream() {
  const { connect } = require('@nats-io/transport-node');
  const { jetstream, jetstreamManager, AckPolicy } = require('@nats-io/jetstream');
  const connection = await connect({ servers: url, name: client });
  const [manager, stream] = [await jetstreamManager(connection), jetstream(connection)];
  const subjects = ['created', 'updated', 'cancelled', 'completed'].map((what) => `order:${what}`)
    .concat(['ticket:created', 'ticket:updated', 'payment:created', 'payment:refused', 'orders-operator.fence.order:created.*']);
  await manager.streams.add({ name: 'ticketing', subjects });
  return {
    publish: (subject, data) => stream.publish(subject, JSON.stringify(data)),
    async listen(subject, handle) {
      const durable = `${group}-${subject.replace(':', '-')}`;
      await manager.consumers.add('ticketing', {
        durable_name: durable, ack_policy: AckPolicy.Explicit, filter_subject: subject,
      });
      const consumer = await stream.consumers.get('ticketing', durable);
      for await (const message of await consumer.consume()) {
        await handle(message.json());
        await message.ackAck();
      }
    },
    close: () => connection.drain().then(() => process.exit(0)),
  };
}

// The services, each with what it listens to and its commands.

function tickets(broker) {
  const Ticket = model('Ticket', 'courseTickets', { title: String, price: Number, userId: String, orderId: String });
  const tellOf = (subject, { id, version, title, price, userId, orderId }) =>
    broker.publish(subject, { id, version, title, price, userId, ...(orderId ? { orderId } : {}) });
  // It compares neither versions nor orders.
  const hold = async (id, orderId) => {
    const ticket = await Ticket.findById(id);
    if (!ticket) throw new Error('Ticket not found');
    ticket.set({ orderId });
    await ticket.save();
    await tellOf('ticket:updated', ticket);
  };
  return {
    listeners: {
      'order:created': (order) => hold(order.ticket.id, order.id),
      'order:cancelled': (order) => hold(order.ticket.id, undefined),
    },
    commands: {
      async sell({ title, price }) {
        const ticket = await Ticket.create({ title, price, userId: 'seller' });
        await tellOf('ticket:created', ticket);
        return ticket.id;
      },
      async change({ id, price }) {
        const ticket = await Ticket.findById(id);
        if (ticket.orderId) throw new Error('Cannot edit a reserved ticket');
        ticket.set({ price });
        await ticket.save();
        await tellOf('ticket:updated', ticket);
        return ticket.version;
      },
    },
  };
}

function payments(broker) {
  const Order = model('Order', 'courseOrders', { userId: String, price: Number, status: String });
  return {
    listeners: {
      async 'order:created'({ id, version, status, userId, ticket }) {
        await Order.create({ _id: id, version, status, userId, price: ticket.price });
      },
      async 'order:cancelled'({ id, version }) {
        const order = await Order.findOne({ _id: id, version: version - 1 });
        if (!order) throw new Error('Order not found');
        order.set({ status: 'cancelled' });
        await order.save();
      },
    },
    commands: {
      async pay({ order }) {
        const found = await Order.findById(order);
        if (!found || found.status === 'cancelled') throw new Error('Cannot pay for this order');
        const id = new Types.ObjectId().toHexString();
        await broker.publish('payment:created', { id, orderId: order, stripeId: 'ch_1' });
        return id;
      },
    },
  };
}

function expiration(broker) {
  return {
    listeners: {
      async 'order:created'({ id, expiresAt }) {
        const delay = new Date(expiresAt).getTime() - Date.now();
        setTimeout(() => broker.publish('expiration:complete', { orderId: id }), Math.max(delay, 0)).unref();
      },
    },
    commands: {},
  };
}

function orders(broker) {
  const Ticket = model('Ticket', 'tickets', { title: String, price: Number });
  const Order = model('Order', 'orders', {
    userId: String, status: { type: String, default: 'created' }, expiresAt: Date,
    ticket: { type: Schema.Types.ObjectId, ref: 'Ticket' },
  });
  const cancel = async (id) => {
    const order = await Order.findById(id).populate('ticket');
    if (!order) throw new Error('Order not found');
    if (order.status === 'complete') return;
    order.set({ status: 'cancelled' });
    await order.save();
    await broker.publish('order:cancelled', { id: order.id, version: order.version, ticket: { id: order.ticket.id } });
  };
  return {
    listeners: {
      async 'ticket:created'({ id, title, price }) {
        await Ticket.create({ _id: id, title, price });
      },
      async 'ticket:updated'({ id, version, title, price }) {
        const ticket = await Ticket.findOne({ _id: id, version: version - 1 });
        if (!ticket) throw new Error('Ticket not found');
        ticket.set({ title, price });
        await ticket.save();
      },
      async 'payment:created'({ orderId }) {
        const order = await Order.findById(orderId);
        if (!order) throw new Error('Order not found');
        order.set({ status: 'complete' });
        await order.save();
      },
      'expiration:complete': ({ orderId }) => cancel(orderId),
    },
    commands: {
      async reserve({ user, ticket, seconds }) {
        const found = await Ticket.findById(ticket);
        if (!found) throw new Error('Ticket not found');
        const held = { ticket: found, status: { $in: ['created', 'awaiting:payment', 'complete'] } };
        if (await Order.findOne(held)) throw new Error('Ticket is already reserved');
        const expiresAt = new Date(Date.now() + seconds * 1000);
        const order = await Order.create({ userId: user, expiresAt, ticket: found });
        const { id, version, status } = order;
        await broker.publish('order:created', {
          id, version, status, userId: user, expiresAt: expiresAt.toISOString(),
          ticket: { id: found.id, price: found.price },
        });
        return id;
      },
      cancel: ({ order }) => cancel(order),
    },
  };
}

async function main() {
  await mongoose.connect(process.env.MONGO_URI, { dbName: process.env.MONGO_DATABASE });
  const broker = await (cluster === '-' ? jetStream() : streaming());
  const { listeners, commands } = { tickets, payments, expiration, orders }[service](broker);
  const fail = (error) => {
    console.error(`${service}:`, error);
    process.exit(1);
  };
  for (const [subject, handle] of Object.entries(listeners)) Promise.resolve(broker.listen(subject, handle)).catch(fail);
  tell({ connected: client });
  for await (const line of readline.createInterface({ input: process.stdin })) {
    const [[name, values]] = Object.entries(JSON.parse(line));
    try {
      tell({ done: (await commands[name](values)) ?? null });
    } catch (error) {
      tell({ failed: error.message });
    }
  }
  broker.close();
}

main().catch((error) => {
  console.error(`${service}:`, error);
  process.exit(1);
});
