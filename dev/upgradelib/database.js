// What happens in a database without the orders API: another service of the system completes an order, as none could tell the version
// 0.1.0 of a payment; and when all is over, the databases go.
//
//   node database.js complete URI DATABASE ORDER
//   node database.js drop URI DATABASE...
'use strict';

const { mongo } = require('mongoose');

async function complete(client, [database, order]) {
  const orders = client.db(database).collection('orders');
  const done = await orders.updateOne(
    { _id: new mongo.ObjectId(order), status: 'created' },
    { $set: { status: 'complete' }, $inc: { version: 1 } },
  );
  if (done.modifiedCount !== 1) throw new Error(`order ${order} cannot be completed`);
}

async function drop(client, databases) {
  for (const database of databases) await client.db(database).dropDatabase();
}

async function main([action, uri, ...words]) {
  const client = await new mongo.MongoClient(uri).connect();
  try {
    await { complete, drop }[action](client, words);
  } finally {
    await client.close();
  }
}

main(process.argv.slice(2)).catch((error) => {
  console.error(error);
  process.exitCode = 1;
});
