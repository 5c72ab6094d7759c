// Automatic top-ups, paid through Stripe: claims what is due, charges the customer's saved card, and has the credits granted.
//
//   npm install stripe pg
//   STRIPE_API_KEY=sk_... PGHOST=... PGDATABASE=... node worker.mjs [--once]
//
// Connects as libpq says (PGHOST, PGDATABASE, PGUSER, ...), as a writer of pg_credits. With --once it ends when nothing is left
// to claim. Any number of workers may run. It can be killed at any moment, and it ends on any error of the database: let
// whatever runs your programs start it again. Why nobody pays twice, or pays and gets nothing, wherever it stops:
//
// - A claim is a lease. What a dead worker had claimed is claimed again when the lease has run out.
// - The id of the top-up is the idempotency key of its payment: Stripe makes it once, and then repeats what it answered.
// - Stripe forgets that after a day, and until then repeats a decline too. So every attempt first searches for the payment of
//   an earlier one and goes on with that: a PaymentIntent succeeds once, with whatever card. What is too new to be found, within
//   minutes, the key still covers.
// - complete_top_up grants once, however often it is called.
import { setTimeout as sleep } from "node:timers/promises";
import pg from "pg";
import Stripe from "stripe";

const BATCH_SIZE = 5;
const LEASE = process.env.TOP_UP_LEASE ?? "5 minutes"; // longer than a batch takes; if not, work is done twice, to no effect
const POLL_MS = 1000 * Number(process.env.TOP_UP_POLL_SECONDS ?? 5);

const PAID_MEANWHILE = "payment_intent_unexpected_state"; // by another worker, whose lease had run out

// How Stripe counts money (https://docs.stripe.com/currencies): in units of 10^-digits, and what can be charged has so many
// decimals.
const USUAL = { digits: 2, decimals: 2 };
const UNUSUAL = new Map([
  ..."BIF CLP DJF GNF JPY KMF KRW MGA PYG RWF VND VUV XAF XOF XPF".split(" ").map((code) => [code, { digits: 0, decimals: 0 }]),
  ..."BHD JOD KWD OMR TND".split(" ").map((code) => [code, { digits: 3, decimals: 2 }]),
  ..."ISK UGX".split(" ").map((code) => [code, { digits: 2, decimals: 0 }]),
]);

/** A top-up that nobody can be charged for as it is. */
class NotChargeable extends Error {}

/** A decimal number as an integer and its number of decimals: "1.25" is [125n, 2]. */
function parseDecimal(text) {
  const [whole, fraction = ""] = text.split(".");
  return [BigInt(whole + fraction), fraction.length];
}

/** What to charge, in the currency's units: amount times price, exactly, rounded half to even as the ledger rounds money. */
function amountToCharge({ amount, unit_price: unitPrice, currency }) {
  if (unitPrice === null || currency === null) throw new NotChargeable("the top-up has no unit_price and currency");
  const { digits, decimals } = UNUSUAL.get(currency.toUpperCase()) ?? USUAL;
  const [credits, creditsDecimals] = parseDecimal(amount);
  const [price, priceDecimals] = parseDecimal(unitPrice);
  const dividend = credits * price * 10n ** BigInt(decimals);
  const divisor = 10n ** BigInt(creditsDecimals + priceDecimals);
  let rounded = dividend / divisor;
  const twiceTheRest = 2n * (dividend % divisor);
  if (twiceTheRest > divisor || (twiceTheRest === divisor && rounded % 2n === 1n)) rounded += 1n;
  const units = rounded * 10n ** BigInt(digits - decimals);
  if (units === 0n) throw new NotChargeable(`${amount} credits cost less than can be charged in ${currency}`);
  return Number(units);
}

function connectToStripe() {
  const base = process.env.STRIPE_API_BASE && new URL(process.env.STRIPE_API_BASE); // for tests
  const place = base ? { protocol: base.protocol.slice(0, -1), host: base.hostname, port: base.port } : {};
  return new Stripe(process.env.STRIPE_API_KEY, { maxNetworkRetries: 2, ...place });
}

/** The payment that an earlier attempt began, as it is now, if there is one. */
async function findPayment(topUpId) {
  const { data } = await stripe.paymentIntents.search({ query: `metadata["top_up_id"]:"${topUpId}"` });
  return data.length === 0 ? undefined : stripe.paymentIntents.retrieve(data[0].id);
}

/** Charges the saved card, or finds that it has been charged. */
async function pay(topUp) {
  const { payment_method_id: method, top_up_id: topUpId } = topUp;
  const begun = await findPayment(topUpId);
  if (begun && begun.status !== "requires_payment_method") return begun;
  const amount = amountToCharge(topUp);
  if (method === null) throw new NotChargeable("the top-up has no payment_method_id");
  if (begun) return stripe.paymentIntents.confirm(begun.id, { payment_method: method, off_session: true });
  const { customer } = await stripe.paymentMethods.retrieve(method);
  if (customer === null) throw new NotChargeable(`${method} is not saved for a customer`);
  const payment = {
    amount,
    currency: topUp.currency.toLowerCase(),
    customer,
    payment_method: method,
    off_session: true, // the customer is not there to answer questions
    confirm: true,
    metadata: { top_up_id: topUpId, customer_id: topUp.customer_id },
  };
  return stripe.paymentIntents.create(payment, { idempotencyKey: topUpId });
}

async function complete({ customer_id: customerId, top_up_id: topUpId }, payment) {
  try {
    await database.query("select credits.complete_top_up($1, $2, $3)", [customerId, topUpId, payment.id]);
    console.log(`paid ${topUpId} of ${customerId}: ${payment.id}`);
  } catch (error) {
    // Cancelled while we were charging, or completed by another payment: no credits for this one, so it is given back.
    if (!["55000", "23505", "P0002", "22003"].includes(error.code)) throw error;
    await stripe.refunds.create({ payment_intent: payment.id }, { idempotencyKey: `refund-${payment.id}` });
    console.log(`refunded ${topUpId} of ${customerId}: ${error.message}`);
  }
}

async function fail({ customer_id: customerId, top_up_id: topUpId }, reason) {
  await database.query("select credits.fail_top_up($1, $2, $3)", [customerId, topUpId, reason.slice(0, 250)]);
  console.log(`failed ${topUpId} of ${customerId}: ${reason}`);
}

async function work(topUp) {
  const { StripeCardError, StripeInvalidRequestError, StripeError } = Stripe.errors;
  let payment;
  try {
    payment = await pay(topUp);
  } catch (error) {
    const isRefusal = [NotChargeable, StripeCardError, StripeInvalidRequestError].some((kind) => error instanceof kind);
    if (isRefusal && error.code !== PAID_MEANWHILE) {
      return fail(topUp, [error.decline_code ?? error.code, error.message].filter(Boolean).join(": "));
    }
    if (!(error instanceof StripeError)) throw error;
    // No answer, or one that does not say what became of the charge: found out when the lease has run out.
    return console.log(`left ${topUp.top_up_id} of ${topUp.customer_id}: ${error.message}`);
  }
  if (payment.status === "succeeded") return complete(topUp, payment);
  if (payment.status === "processing") return console.log(`left ${topUp.top_up_id} of ${topUp.customer_id}: in progress`);
  return fail(topUp, `the payment is ${payment.status}`);
}

const stripe = connectToStripe();
const database = new pg.Pool({ max: 1 }); // every call is a transaction of its own
database.on("error", (error) => console.error(`lost a connection: ${error.message}`)); // an idle one: the next call opens another
const stop = new AbortController();
for (const signal of ["SIGTERM", "SIGINT"]) process.on(signal, () => stop.abort()); // ends what was claimed first
const once = process.argv.includes("--once");

while (!stop.signal.aborted) {
  const { rows: topUps } = await database.query("select * from credits.claim_top_ups($1, $2::interval)", [BATCH_SIZE, LEASE]);
  for (const topUp of topUps) await work(topUp);
  if (topUps.length === 0 && once) break;
  if (topUps.length === 0) await sleep(POLL_MS, undefined, { signal: stop.signal }).catch(() => {});
}
await database.end();
