// What `mongodump` and `mongorestore` do for one database, for machines that have neither: no package registry has them.
//
//   node dump.js mongodump    --uri URI --gzip --archive=FILE
//   node dump.js mongorestore --uri URI --gzip --archive=FILE --drop
//
// The archive has every collection with its indexes and its documents, in an encoding of its own.
'use strict';

const fs = require('fs');
const zlib = require('zlib');
const { parseArgs } = require('util');
const { mongo } = require('mongoose');

const { EJSON } = mongo.BSON;

const [action, ...rest] = process.argv.slice(2);
const { values } = parseArgs({
  args: rest,
  options: { uri: { type: 'string' }, gzip: { type: 'boolean' }, archive: { type: 'string' }, drop: { type: 'boolean' } },
});

async function dump(database) {
  const collections = [];
  for (const { name } of await database.listCollections().toArray()) {
    const collection = database.collection(name);
    collections.push({ name, indexes: await collection.indexes(), documents: await collection.find().toArray() });
  }
  fs.writeFileSync(values.archive, zlib.gzipSync(EJSON.stringify(collections, { relaxed: false })));
}

async function restore(database) {
  const text = zlib.gunzipSync(fs.readFileSync(values.archive)).toString();
  for (const { name, indexes, documents } of EJSON.parse(text, { relaxed: false })) {
    const collection = database.collection(name);
    await collection.drop();
    if (documents.length > 0) await collection.insertMany(documents);
    const made = indexes.filter((index) => index.name !== '_id_').map(({ v, ns, ...index }) => index);
    if (made.length > 0) await collection.createIndexes(made);
  }
}

(async () => {
  const client = await mongo.MongoClient.connect(values.uri);
  try {
    const act = { mongodump: dump, mongorestore: restore }[action];
    if (action === 'mongorestore' && !values.drop) throw new Error('only with --drop');
    await act(client.db());
  } finally {
    await client.close();
  }
})().catch((error) => {
  console.error(`${action}: ${error.message}`);
  process.exit(1);
});
