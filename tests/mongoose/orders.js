// The Node.js service's side of the database: its models, and what it does with them.
//
//   node orders.js KIND COMMAND [ARGUMENT...]     with MONGO_URI and MONGO_DATABASE set
//
// KIND is the major version of mongoose, with `-own` where mongoose keeps the versions itself and not the plug-in. What a command found or did is printed as JSON, one line each.
"use strict";

const [kind, command, ...rest] = process.argv.slice(2);
const [version, own] = kind.split("-");
const mongoose = require(version === "5" ? "mongoose-5" : "mongoose");
const { updateIfCurrentPlugin } = require("mongoose-update-if-current");
const { Types, Schema } = mongoose;

const toJSON = {
  transform(_document, ret) {
    ret.id = ret._id;
    delete ret._id;
  },
};

function versioned(fields) {
  const schema = new Schema(fields, { toJSON, ...(own ? { optimisticConcurrency: true } : {}) });
  schema.set("versionKey", "version");
  if (!own) schema.plugin(updateIfCurrentPlugin);
  return schema;
}

const ticketFields = { title: { type: String, required: true }, price: { type: Number, required: true, min: 0 } };
const orderFields = {
  userId: { type: String, required: true },
  status: { type: String, required: true, enum: ["created", "awaiting:payment", "complete", "cancelled"], default: "created" },
  expiresAt: { type: Date },
  ticket: { type: Schema.Types.ObjectId, ref: "Ticket" },
};
const Ticket = mongoose.model("Ticket", versioned(ticketFields));
const Order = mongoose.model("Order", versioned(orderFields));
// From before versions were cared for: they are in `__v`, and stay 0. And a field of that copy's own.
const oldFields = { ...orderFields, seats: [{ row: String, number: Number }] };
const OldOrder = mongoose.model("OldOrder", new Schema(oldFields, { toJSON, collection: "orders" }));

const print = (value) => process.stdout.write(JSON.stringify(value) + "\n");
const line = () => new Promise((resolve) => process.stdin.once("data", resolve));

// What became of a save: the new state, or the name of the error.
async function saved(document) {
  try {
    print((await document.save()).toJSON());
  } catch (error) {
    print({ error: error.name });
  }
}

const commands = {
  // Writes orders of `user` of every kind, and prints them as the Node service would answer.
  async write(user) {
    const expiresAt = new Date(Date.now() + 900_000);
    const ticket = (price) => Ticket.create({ title: "concert", price });
    for (const [status, price] of [["created", 20], ["awaiting:payment", 20.5], ["complete", 5_000_000_000], ["cancelled", 0]]) {
      await Order.create({ userId: user, status, expiresAt, ticket: await ticket(price) });
    }
    const moved = await Order.create({ userId: user, status: "created", expiresAt, ticket: await ticket(1) });
    moved.status = "awaiting:payment";
    await moved.save();
    await Order.create({ userId: user, status: "cancelled", expiresAt, ticket: new Types.ObjectId() });
    const imported = await ticket(7);
    // mongoose writes no int64, but reads those of a program that was here before it.
    await Ticket.collection.updateOne({ _id: imported._id }, { $set: { price: mongoose.mongo.Long.fromNumber(7) } });
    await OldOrder.create({ userId: user, status: "created", expiresAt, ticket: imported, seats: [{ row: "B", number: 12 }] });
    print(await Order.find({ userId: user }).sort({ _id: 1 }).populate("ticket"));
  },

  async read(user) {
    print(await Order.find({ userId: user }).sort({ _id: 1 }).populate("ticket"));
  },

  // Loads an order, and saves it with another status once a line comes in.
  async move(id, status) {
    const order = await Order.findById(id).populate("ticket");
    print(order);
    await line();
    order.status = status;
    await saved(order);
  },

  // What the listener for updated tickets does: only the next version is taken.
  async update(id, next, title) {
    const ticket = await Ticket.findOne({ _id: id, version: next - 1 });
    if (!ticket) return print({ error: "Ticket not found" });
    ticket.set({ title, price: 99.5 });
    await saved(ticket);
  },
};

async function main() {
  const options = version === "5" ? { useNewUrlParser: true, useUnifiedTopology: true, useCreateIndex: true } : {};
  await mongoose.connect(process.env.MONGO_URI, { ...options, dbName: process.env.MONGO_DATABASE, autoIndex: false });
  await commands[command](...rest);
  await mongoose.disconnect();
  // A line that nobody waits for any more must not keep the process.
  process.stdin.destroy();
}

main().catch((error) => {
  console.error(error);
  process.exit(1);
});
