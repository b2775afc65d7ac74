// The Node.js service itself: the routes and the error handler of the course, on Express 4, to compare answers with.
//
//   node express.js KIND     with MONGO_URI, MONGO_DATABASE and JWT_KEY set
//
// KIND is the major version of mongoose. It prints its port as JSON, and listens until it is killed.
"use strict";

const version = process.argv[2];
const mongoose = require(version === "5" ? "mongoose-5" : "mongoose");
const express = require("express");
require("express-async-errors");
const cookieSession = require("cookie-session");
const jwt = require("jsonwebtoken");
const http = require("http");
const { body, validationResult } = require("express-validator");
const { updateIfCurrentPlugin } = require("mongoose-update-if-current");
const { Schema } = mongoose;

class CustomError extends Error {
  constructor(statusCode, errors) {
    super(errors[0].message);
    Object.assign(this, { statusCode, errors });
  }
}
const notFound = () => new CustomError(404, [{ message: "Not Found" }]);
const notAuthorized = () => new CustomError(401, [{ message: "Not authorized" }]);

const toJSON = {
  transform(_document, ret) {
    ret.id = ret._id;
    delete ret._id;
  },
};

function model(name, fields) {
  const schema = new Schema(fields, { toJSON });
  schema.set("versionKey", "version");
  schema.plugin(updateIfCurrentPlugin);
  return mongoose.model(name, schema);
}

const statuses = ["created", "cancelled", "awaiting:payment", "complete"];
const Ticket = model("Ticket", { title: { type: String, required: true }, price: { type: Number, required: true, min: 0 } });
const Order = model("Order", {
  userId: { type: String, required: true },
  status: { type: String, required: true, enum: statuses, default: "created" },
  expiresAt: { type: Schema.Types.Date },
  ticket: { type: Schema.Types.ObjectId, ref: "Ticket" },
});

function currentUser(req, _res, next) {
  if (!req.session || !req.session.jwt) return next();
  try {
    req.currentUser = jwt.verify(req.session.jwt, process.env.JWT_KEY);
  } catch (_error) {
    // Nobody is signed in.
  }
  next();
}

function requireAuth(req, _res, next) {
  if (!req.currentUser) throw notAuthorized();
  next();
}

function validateRequest(req, _res, next) {
  const errors = validationResult(req);
  if (!errors.isEmpty()) {
    throw new CustomError(400, errors.array().map((error) => ({ message: error.msg, field: error.param })));
  }
  next();
}

async function ownOrder(req) {
  const order = await Order.findById(req.params.orderId).populate("ticket");
  if (!order) throw notFound();
  if (order.userId !== req.currentUser.id) throw notAuthorized();
  return order;
}

const app = express();
app.set("trust proxy", true);
app.use(express.json());
app.use(cookieSession({ signed: false, secure: true }));
app.use(currentUser);

// A router for each route, as in the course.
const router = (build) => {
  const one = express.Router();
  build(one);
  app.use(one);
};

router((one) =>
  one.delete("/api/orders/:orderId", requireAuth, async (req, res) => {
    const order = await ownOrder(req);
    order.status = "cancelled";
    await order.save();
    res.status(204).send(order);
  }),
);
router((one) =>
  one.get("/api/orders", requireAuth, async (req, res) => {
    res.send(await Order.find({ userId: req.currentUser.id }).populate("ticket"));
  }),
);
router((one) =>
  one.post(
    "/api/orders",
    requireAuth,
    [
      body("ticketId")
        .not()
        .isEmpty()
        .custom((input) => mongoose.Types.ObjectId.isValid(input))
        .withMessage("TicketId must be provided"),
    ],
    validateRequest,
    async (req, res) => {
      const ticket = await Ticket.findById(req.body.ticketId);
      if (!ticket) throw notFound();
      const held = await Order.findOne({ ticket, status: { $in: ["created", "awaiting:payment", "complete"] } });
      if (held) throw new CustomError(400, [{ message: "Ticket is already reserved" }]);
      const expiresAt = new Date();
      expiresAt.setSeconds(expiresAt.getSeconds() + 15 * 60);
      const order = new Order({ userId: req.currentUser.id, status: "created", expiresAt, ticket });
      await order.save();
      res.status(201).send(order);
    },
  ),
);
router((one) => one.get("/api/orders/:orderId", requireAuth, async (req, res) => res.send(await ownOrder(req))));

app.all("*", async () => {
  throw notFound();
});
app.use((error, _req, res, _next) => {
  if (error instanceof CustomError) return res.status(error.statusCode).send({ errors: error.errors });
  res.status(400).send({ errors: [{ message: "Something went wrong" }] });
});

async function main() {
  const options = version === "5" ? { useNewUrlParser: true, useUnifiedTopology: true, useCreateIndex: true } : {};
  await mongoose.connect(process.env.MONGO_URI, { ...options, dbName: process.env.MONGO_DATABASE, autoIndex: false });
  // Node waits 300 s for a request, and looks every 30 s: a test cannot.
  const server = http.createServer({ connectionsCheckingInterval: 100 }, app);
  server.headersTimeout = 1000;
  server.requestTimeout = 2000;
  server.listen(0, "127.0.0.1", () => process.stdout.write(JSON.stringify({ port: server.address().port }) + "\n"));
}

main().catch((error) => {
  console.error(error);
  process.exit(1);
});
