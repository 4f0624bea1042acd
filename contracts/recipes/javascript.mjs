// A producer for Node 18 and later: amqplib, a confirm channel, returns, and a request in a CloudEvents envelope.
//
//     npm install amqplib
//     node javascript.mjs [--rpc] '{"prompt": "a lighthouse at dawn", "num_frames": 49}' [REQUEST_ID]
//
// Without --rpc it follows the request's events; with it, it waits for the one answer that direct reply-to brings (best
// effort: lost with the connection; run it again with the same id, which is not paid twice).
import { randomUUID } from 'node:crypto';
import amqp from 'amqplib';

const URL = process.env.DROVER_AMQP_URL ?? 'amqp://guest:guest@127.0.0.1/';
const TERMINAL = ['succeeded', 'failed', 'cancelled', 'expired', 'rejected'];

const rpc = process.argv[2] === '--rpc';
const [input, givenId] = process.argv.slice(rpc ? 3 : 2);
if (input === undefined) fail("usage: node javascript.mjs [--rpc] '{\"prompt\": ...}' [REQUEST_ID]");
// Chosen before the first attempt, and kept: stored by a real service before it publishes.
const requestId = givenId ?? randomUUID();

function fail(text) {
  console.error(text);
  process.exit(1);
}

/** Publishes until the broker has confirmed it. Rejects when no queue took it, or the broker refuses it for good. */
async function publish(channel, key, body, properties) {
  let returned = false;
  const onReturn = (message) => {
    returned ||= message.properties.messageId === properties.messageId;
  };
  channel.on('return', onReturn); // `mandatory`: comes before the confirm, which says "ok" for a returned message, too
  try {
    await new Promise((resolve, reject) => {
      const timer = setTimeout(() => reject(new Error('the broker does not confirm')), 10_000);
      const onConfirm = (error) => {
        clearTimeout(timer);
        if (error) reject(error);
        else resolve();
      };
      const options = { persistent: true, mandatory: true, appId: 'my-team', ...properties };
      channel.publish('generation.commands', key, Buffer.from(JSON.stringify(body)), options, onConfirm);
    });
  } finally {
    channel.off('return', onReturn);
  }
  if (returned) throw new Error('no queue took the message: does drover run on this broker and virtual host?');
}

/** Sends the request and follows it to its end: the terminal event. */
async function run(connection, data) {
  const channel = await connection.createConfirmChannel();
  channel.on('error', () => {}); // what was called rejects, too
  await channel.checkExchange('generation.commands');
  const inbox = rpc ? 'amq.rabbitmq.reply-to' : (await channel.assertQueue('', { exclusive: true })).queue;
  if (!rpc) await channel.bindQueue(inbox, 'generation.events', 'generation.*');
  const handled = new Set();
  const ended = new Promise((resolve, reject) => {
    connection.on('close', (error) => reject(error ?? new Error('the connection was closed')));
    channel.on('close', () => reject(new Error('the channel was closed')));
    const onMessage = (message) => {
      if (message === null) return reject(new Error('the queue was deleted'));
      const event = JSON.parse(message.content.toString());
      const mine = event.subject === requestId || message.properties.correlationId === requestId;
      if (mine && !handled.has(event.id)) {
        handled.add(event.id); // the terminal event comes by both ways: the exchange, and reply_to
        const name = event.type.replace(/^drover\./, '').replace(/\.v1$/, '');
        console.log(name, ...event.data.outputs.map((output) => output.url).filter(Boolean));
        if (TERMINAL.includes(name.replace('generation.', ''))) resolve(event);
      }
      if (!rpc) channel.ack(message); // after the work
    };
    channel.consume(inbox, onMessage, { noAck: rpc }).catch(reject); // direct reply-to knows no acknowledgements
  });
  ended.catch(() => {}); // told by whoever awaits it below
  const envelope = {
    specversion: '1.0',
    id: requestId,
    source: 'my-team',
    type: 'generation.request',
    datacontenttype: 'application/json',
    data,
  };
  await publish(channel, 'generation.request', envelope, {
    contentType: 'application/cloudevents+json',
    messageId: requestId,
    correlationId: requestId,
    replyTo: inbox, // on the channel that consumes; a conflict with an earlier request of this id is told only there
  });
  console.log('request_id:', requestId);
  return ended;
}

/** Again with the same id while the connection breaks: that is not paid twice, and an end that was missed comes again. */
async function follow(data) {
  for (const pause of [1, 2, 5, 10, null]) {
    let connection;
    try {
      connection = await amqp.connect(URL, { timeout: 10_000, clientProperties: { connection_name: 'my-team' } });
      connection.on('error', () => {}); // `close` follows
      return await run(connection, data);
    } catch (error) {
      if (/no queue took|ACCESS_REFUSED/.test(error.message)) fail(error.message);
      if (/NOT_FOUND/.test(error.message)) fail(`${error.message}: has drover been started there?`);
      if (pause === null) fail(`the broker is away (${error.message}): run this again with the id ${requestId}`);
      await new Promise((resolve) => setTimeout(resolve, pause * 1000));
    } finally {
      await connection?.close().catch(() => {});
    }
  }
}

let parsed;
try {
  parsed = JSON.parse(input);
} catch (error) {
  fail(`the input is not JSON: ${error.message}`);
}
const end = await follow({ request_id: requestId, input: parsed });
const { error, status } = end.data;
if (error) {
  console.error(`${error.code}: ${error.message}`);
  for (const { path, message } of error.details ?? []) console.error(`  ${path}: ${message}`);
}
process.exit(['succeeded', 'partial'].includes(status) ? 0 : 1);
