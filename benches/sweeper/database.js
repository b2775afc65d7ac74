// The orders of the benchmark: stored with the times at which they are due, cancelled bare, counted.
'use strict';
const { MongoClient, ObjectId } = require('mongodb');

const NAME = 'orders-bench-sweeper';
const OPEN = ['created', 'awaiting:payment'];
const CANCEL = { $set: { status: 'cancelled' }, $inc: { version: 1 } };
const CHUNK = 2000;

class Orders {
  static async open() {
    const client = new MongoClient(process.env.MONGO_URI, { maxPoolSize: 32, writeConcern: { w: 'majority' } });
    await client.connect();
    const database = client.db(NAME);
    return Object.assign(new Orders(), { client, database, orders: database.collection('orders') });
  }

  // Inserts so many orders; `due(i)` gives a Date, `status(i)` a status. Gives their ids.
  async store(count, due, status = () => 'created') {
    const ids = [];
    for (let from = 0; from < count; from += CHUNK) {
      const documents = [];
      for (let i = from; i < Math.min(count, from + CHUNK); i++) {
        documents.push({ _id: new ObjectId(), userId: `u${i % 1000}`, status: status(i), expiresAt: due(i), ticket: new ObjectId(), version: 0 });
        ids.push(documents.at(-1)._id);
      }
      await this.orders.insertMany(documents, { ordered: false });
      if (from % 200000 === 0 && from > 0) console.error(`bench: stored ${from} of ${count}`);
    }
    return ids;
  }

  async tickets(count) {
    const ids = Array.from({ length: count }, () => new ObjectId());
    for (let from = 0; from < count; from += CHUNK) {
      const ticket = (_id) => ({ _id, title: 'concert', price: 20, version: 0 });
      await this.database.collection('tickets').insertMany(ids.slice(from, from + CHUNK).map(ticket), { ordered: false });
    }
    return ids.map(String);
  }

  // One order as a worker of a queue cancels it: the same conditional write. Gives whether it did.
  async cancel(id) {
    const filter = { _id: new ObjectId(id), status: { $in: OPEN }, expiresAt: { $lte: new Date() } };
    return (await this.orders.updateOne(filter, CANCEL)).modifiedCount === 1;
  }

  // All of these, in batches, by the sweeper's own statement without what is around it.
  async cancelBare(ids, batch) {
    const cutoff = new Date();
    for (let from = 0; from < ids.length; from += batch) {
      const filter = { _id: { $in: ids.slice(from, from + batch) }, status: { $in: OPEN }, expiresAt: { $lte: cutoff } };
      await this.orders.updateMany(filter, CANCEL);
    }
  }

  // Has every change put in the outbox for pods to publish: the index says so, as a pod with a broker makes it (src/store/own_indexes.rs).
  noteEvents() {
    return this.orders.createIndex({ ticket: 1, _id: 1 }, { name: 'untold_orders', partialFilterExpression: { outbox: { $exists: true } } });
  }

  // How many orders have their cancellation in the outbox.
  noted() {
    return this.orders.countDocuments({ status: 'cancelled', outbox: { $exists: true } });
  }

  overdue() {
    return this.orders.countDocuments({ status: { $in: OPEN }, expiresAt: { $lte: new Date() } });
  }

  async wrong() {
    return this.orders.countDocuments({ status: 'cancelled', version: { $ne: 1 } });
  }

  drop() {
    return this.database.dropDatabase();
  }
}

module.exports = { Orders, NAME };
