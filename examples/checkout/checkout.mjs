// Credits bought through Stripe Checkout: the webhook that turns a paid session into an order and a grant, in one transaction.
//
//   npm install stripe pg
//   psql -v role=shop -f schema.sql
//   STRIPE_WEBHOOK_SECRET=whsec_... PGUSER=shop PGHOST=... PGDATABASE=... PORT=4242 node checkout.mjs
//
// Whoever makes the Checkout session says who buys what, and for how much a credit:
//   client_reference_id: "acme", metadata: { credits: "1000", unit_price: "0.01" }
//
// Stripe delivers an event at least once, now and then twice at the same time. Here that makes no difference: the id of the
// session is the key of the order and of the grant, and both are committed together or not at all.
import { createServer } from "node:http";
import pg from "pg";
import Stripe from "stripe";

const BODY_BYTES_MAX = 1_000_000;
const SECRET = process.env.STRIPE_WEBHOOK_SECRET;
if (!SECRET) throw new Error("STRIPE_WEBHOOK_SECRET is not set");

const pool = new pg.Pool();
pool.on("error", (error) => console.error(`lost a connection: ${error.message}`)); // an idle one: the next query opens another

const ORDER = `
  insert into orders (session_id, customer_id, credits, amount_total, currency, payment_intent)
  values ($1, $2, $3, $4, $5, $6)
  on conflict (session_id) do nothing`; // waits for another delivery that is doing the same
// What a repeated key is compared by is the amount and the wallet, so that the expiry may be counted from now.
const GRANT = `
  select credits.grant_credits($1, $2, expires_at => now() + interval '90 days', unit_price => $3, currency => $4,
    metadata => $5, idempotency_key => $6) as grant_id`;

async function fulfil({ id, client_reference_id, metadata, amount_total, currency, payment_intent }) {
  const customerId = client_reference_id ?? metadata.customer_id;
  const client = await pool.connect();
  try {
    await client.query("begin");
    await client.query(ORDER, [id, customerId, metadata.credits, amount_total, currency, payment_intent]);
    await client.query("select credits.create_wallet($1, if_not_exists => true)", [customerId]); // the first time they buy
    const unitPrice = metadata.unit_price ?? null;
    const priced = [unitPrice, unitPrice && currency.toUpperCase()]; // both or neither
    const { rows } = await client.query(GRANT, [customerId, metadata.credits, ...priced, { payment_intent }, id]);
    await client.query("commit");
    client.release();
    console.log(`${id}: ${metadata.credits} credits for ${customerId}, grant ${rows[0].grant_id}`);
  } catch (error) {
    client.release(true); // closed, and what it had begun is rolled back
    throw error;
  }
}

/** A session of this shop that is paid for. One that a bank pays later comes a second time, as async_payment_succeeded. */
function isPaidCredits({ type, data: { object } }) {
  const isCheckout = ["checkout.session.completed", "checkout.session.async_payment_succeeded"].includes(type);
  return isCheckout && object.payment_status !== "unpaid" && object.metadata?.credits !== undefined;
}

async function readBody(request) {
  const chunks = [];
  let size = 0;
  for await (const chunk of request) {
    size += chunk.length;
    if (size > BODY_BYTES_MAX) return null;
    chunks.push(chunk);
  }
  return Buffer.concat(chunks); // the very bytes: the signature is over them
}

/** The status to answer with. 2xx: Stripe is done with this event. Anything else: it comes again, for up to three days. */
async function webhook(request) {
  const body = await readBody(request);
  if (body === null) return 413;
  let event;
  try {
    event = Stripe.webhooks.constructEvent(body, request.headers["stripe-signature"], SECRET);
  } catch (error) {
    console.error(`refused: ${error.message}`);
    return 400;
  }
  try {
    if (isPaidCredits(event)) await fulfil(event.data.object);
    return 200;
  } catch (error) {
    console.error(`${event.id}: ${error.message}`);
    return 500;
  }
}

async function healthz() {
  try {
    await pool.query("select 1");
    return 200;
  } catch {
    return 503;
  }
}

const routes = { "POST /webhook": webhook, "GET /healthz": healthz };
const server = createServer(async (request, response) => {
  try {
    const route = routes[`${request.method} ${request.url}`];
    response.writeHead(route ? await route(request) : 404).end();
  } catch (error) {
    console.error(error.message); // the connection broke off in the middle of the body
    response.destroy();
  }
});
server.listen(Number(process.env.PORT ?? 4242), "127.0.0.1", () => {
  console.log(`listening on http://127.0.0.1:${server.address().port}`);
});
process.on("SIGTERM", () => server.close(() => pool.end())); // answers what it has begun
