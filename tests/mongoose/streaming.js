// A neighbour on NATS Streaming, with the base classes of the course as they are: hears of some subjects as the members of
// its queue group, and publishes what it is told to. Each line that begins with a brace is for the test.
// node streaming.js URL CLUSTER CLIENT QUEUE [SUBJECT...], and {"subject", "data" or "base64"} by line on standard input
const readline = require('readline');
const nats = require('node-nats-streaming');
const { Listener, Publisher } = require('@sgtickets/common');

const [url, cluster, client, queue, ...subjects] = process.argv.slice(2);
const tell = (line) => process.stdout.write(`${JSON.stringify(line)}\n`);

// The server may send the first messages before it answers the subscription, and only that answer says where to acknowledge:
// before it the client throws.
const acknowledge = (message) => {
  if (message.subscription.ackInbox) message.ack();
  else message.subscription.once('ready', () => message.ack());
};

class Heard extends Listener {
  constructor(stan, subject) {
    super(stan);
    this.subject = subject;
    this.queueGroupName = queue;
  }

  onMessage(data, message) {
    const [sequence, published] = [message.getSequence(), message.getTimestampRaw()];
    tell({ heard: this.subject, data, sequence, published });
    acknowledge(message);
  }
}

class Told extends Publisher {
  constructor(stan, subject) {
    super(stan);
    this.subject = subject;
  }
}

// What is no JSON cannot be published by the class of the course.
const publishBytes = (stan, subject, bytes) => new Promise((resolve, reject) => {
  stan.publish(subject, bytes, (error) => (error ? reject(error) : resolve()));
});

// As natsWrapper of the course connects.
const stan = nats.connect(cluster, client, { url });
stan.on('connect', async () => {
  for (const subject of subjects) new Heard(stan, subject).listen();
  tell({ connected: client });
  for await (const line of readline.createInterface({ input: process.stdin })) {
    const { subject, data, base64 } = JSON.parse(line);
    await (base64 === undefined
      ? new Told(stan, subject).publish(data)
      : publishBytes(stan, subject, Buffer.from(base64, 'base64')));
    tell({ published: subject });
  }
  stan.close();
});
stan.on('error', (error) => {
  console.error(error);
  process.exit(1);
});
stan.on('close', () => process.exit(0));
