// A stand-in for the part of Stripe's API that the examples use, to try and test them on one machine. No money, no network.
//
//   node server.mjs [--port 12111] [--state charges.json] [--delay-ms 0]
//
// What it takes from Stripe (https://docs.stripe.com/api): PaymentIntents that are created, confirmed, found and retrieved,
// payment methods, refunds, idempotency keys, signed events. What it adds, for tests:
//
//   GET  /charges      every attempt to take money, in order; the status is succeeded or failed
//   GET  /refunds      what was given back
//   GET  /requests     every request to /v1, in order, with its idempotency key and what became of it
//   POST /faults       {"fault": "lost_answer", "count": 3}: what befalls the next POSTs to /v1/payment_intents
//                        lost_answer   it is carried out, and the connection is dropped before the answer
//                        lost_request  the connection is dropped and nothing is carried out
//                        server_error  answered 500, which the idempotency key keeps, as Stripe does
//                        unavailable   answered 503, which it does not keep
//   POST /forget_keys  what Stripe does with idempotency keys after a day
//   POST /checkouts    {"url", "secret", "session": {…}, "deliveries": 1, "at_once": 1, "type"}: makes one event,
//                      checkout.session.completed unless told otherwise, and delivers it, signed; answers with the statuses
//
// Payment methods are called pm_card_NAME and belong to the customer cus_NAME, to whom pm_card_NAME_declined belongs too. One with
// "declined" in its name is declined, one with "authentication" wants its owner to be present.
import { createHmac, randomBytes } from "node:crypto";
import { existsSync, readFileSync, renameSync, writeFileSync } from "node:fs";
import { createServer } from "node:http";
import { parseArgs } from "node:util";

const { values: options } = parseArgs({
  options: {
    port: { type: "string", default: "12111" }, // 0: any free one
    state: { type: "string" }, // a file that keeps everything over a restart
    "delay-ms": { type: "string", default: "0" }, // between carrying out and answering
  },
});
const DELAY_MS = Number(options["delay-ms"]);
const KEY_LENGTH_MAX = 255;

// Everything this server knows.
const state = { intents: {}, charges: [], refunds: [], keys: {}, requests: [] };
if (options.state && existsSync(options.state)) Object.assign(state, JSON.parse(readFileSync(options.state, "utf8")));
const faults = [];
const keysInUse = new Set();

function save() {
  if (!options.state) return;
  writeFileSync(`${options.state}.new`, JSON.stringify(state));
  renameSync(`${options.state}.new`, options.state);
}

const id = (prefix) => `${prefix}_${randomBytes(12).toString("hex")}`;
const now = () => Math.floor(Date.now() / 1000);

/** An answer that is an error. Those thrown, not returned, were found before anything was carried out: no key keeps them. */
function refusal(status, type, message, more = {}) {
  return { status, body: { error: { type, message, ...more } } };
}
const invalid = (message, more) => refusal(400, "invalid_request_error", message, more);
const missing = (what, name) => refusal(404, "invalid_request_error", `No such ${what}: '${name}'`, { code: "resource_missing" });

// ---- The API

function paymentMethod(name) {
  if (!name?.startsWith("pm_card_")) throw missing("PaymentMethod", name);
  return { id: name, object: "payment_method", type: "card", customer: name.replace(/^pm_card_(.*?)(_declined)?$/, "cus_$1") };
}

function intentNamed(name) {
  if (!state.intents[name]) throw missing("payment_intent", name);
  return state.intents[name];
}

function checkPayer(method, customer) {
  if (paymentMethod(method).customer !== customer) {
    throw invalid("The payment method belongs to a customer. Please include this customer in the `customer` parameter.");
  }
}

/** Takes the money, or is declined. A PaymentIntent succeeds once. */
function confirm(intent, { payment_method: method = intent.payment_method, off_session: offSession }) {
  intent.payment_method = method;
  let error = null;
  if (/declined/i.test(method)) {
    error = { code: "card_declined", decline_code: "generic_decline", message: "Your card was declined." };
  } else if (/authentication/i.test(method) && offSession === "true") {
    error = { code: "authentication_required", decline_code: "authentication_required", message: "This needs authentication." };
  }
  const charge = { id: id("ch"), payment_intent: intent.id, status: error ? "failed" : "succeeded", amount: intent.amount };
  state.charges.push({ ...charge, currency: intent.currency, payment_method: method, metadata: intent.metadata });
  intent.latest_charge = charge.id;
  intent.status = error ? "requires_payment_method" : "succeeded";
  intent.amount_received = error ? 0 : intent.amount;
  intent.last_payment_error = error && { type: "card_error", ...error };
  if (!error) return { status: 200, body: intent };
  return refusal(402, "card_error", error.message, { ...error, charge: charge.id, payment_intent: intent });
}

const endpoints = {
  "POST /v1/payment_intents": (_, form) => {
    const { currency, customer = null, metadata = {} } = form;
    if (!/^[1-9][0-9]{0,7}$/.test(form.amount ?? "")) throw invalid("Invalid positive integer", { param: "amount" });
    if (!/^[a-z]{3}$/.test(currency ?? "")) throw invalid(`Invalid currency: ${currency}`, { param: "currency" });
    if (form.off_session && form.confirm !== "true") throw invalid("off_session is for confirming", { param: "off_session" });
    if (form.payment_method || form.confirm) checkPayer(form.payment_method, customer);
    const intent = {
      id: id("pi"),
      object: "payment_intent",
      amount: Number(form.amount),
      amount_received: 0,
      created: now(),
      currency,
      customer,
      last_payment_error: null,
      latest_charge: null,
      livemode: false,
      metadata,
      payment_method: form.payment_method ?? null,
      status: form.payment_method ? "requires_confirmation" : "requires_payment_method",
    };
    state.intents[intent.id] = intent;
    return form.confirm === "true" ? confirm(intent, form) : { status: 200, body: intent };
  },
  "GET /v1/payment_intents/search": (_, { query }) => {
    const [, field, value] = /^metadata\["(\w+)"\]:"([^"]+)"$/.exec(query ?? "") ?? [];
    if (field === undefined) throw invalid("This stand-in searches by one field of the metadata only.", { param: "query" });
    const data = Object.values(state.intents).filter((intent) => intent.metadata[field] === value);
    return { status: 200, body: { object: "search_result", url: "/v1/payment_intents/search", has_more: false, data } };
  },
  "GET /v1/payment_intents/:id": (name) => ({ status: 200, body: intentNamed(name) }),
  "POST /v1/payment_intents/:id/confirm": (name, form) => {
    const intent = intentNamed(name);
    if (!["requires_payment_method", "requires_confirmation"].includes(intent.status)) {
      const code = "payment_intent_unexpected_state";
      throw invalid(`This PaymentIntent's status is ${intent.status}.`, { code, payment_intent: intent });
    }
    checkPayer(form.payment_method ?? intent.payment_method, intent.customer);
    return confirm(intent, form);
  },
  "GET /v1/payment_methods/:id": (name) => ({ status: 200, body: paymentMethod(name) }),
  "POST /v1/refunds": (_, { payment_intent: name }) => {
    const intent = intentNamed(name);
    if (intent.status !== "succeeded") throw invalid("This PaymentIntent has no successful charge to refund.");
    if (state.refunds.some((refund) => refund.payment_intent === name)) {
      throw invalid(`Charge ${intent.latest_charge} has already been refunded.`, { code: "charge_already_refunded" });
    }
    const refund = { id: id("re"), object: "refund", payment_intent: name, amount: intent.amount, status: "succeeded" };
    state.refunds.push(refund);
    return { status: 200, body: refund };
  },
};

/** An answer to one request to /v1: by its endpoint, or by its idempotency key if that has been used. */
function answer(method, path, text, key, fault) {
  const [, , resource, name, action] = path.split("/");
  const generic = `${method} /v1/${resource}${name ? "/:id" : ""}${action ? `/${action}` : ""}`;
  const endpoint = endpoints[`${method} ${path}`] ?? endpoints[generic];
  if (!endpoint) throw refusal(404, "invalid_request_error", `Unrecognized request URL (${method}: ${path}).`);
  const fields = new URLSearchParams(text);
  const carryOut = () =>
    fault === "server_error" ? refusal(500, "api_error", "Something went wrong.") : endpoint(name, parseForm(fields));
  if (method !== "POST" || key === undefined) return carryOut();
  if (key.length > KEY_LENGTH_MAX) throw invalid(`Idempotency keys have at most ${KEY_LENGTH_MAX} characters.`);
  if (keysInUse.has(key)) {
    const message = `There is another request in progress with the key ${key}.`;
    throw refusal(409, "idempotency_error", message, { code: "idempotency_key_in_use" });
  }
  fields.sort();
  const request = fields.toString();
  const used = state.keys[key];
  if (used && used.path !== path) {
    const message = "Keys for idempotent requests can only be used for the same endpoint they were first used for";
    throw refusal(400, "idempotency_error", `${message} (${used.path}).`);
  }
  if (used && used.request !== request) {
    const message = "Keys for idempotent requests can only be used with the same parameters they were first used with.";
    throw refusal(400, "idempotency_error", `${message} Try using a key other than '${key}'.`);
  }
  if (used) return { ...used.answer, replayed: true };
  const first = carryOut();
  // As it is now: what is replayed later is what was, not what has become of it.
  state.keys[key] = { path, request, answer: JSON.parse(JSON.stringify(first)) };
  return first;
}

/** Form fields as an object; a[b]=c becomes {a: {b: c}}. */
function parseForm(fields) {
  const form = {};
  for (const [name, value] of fields) {
    const [, outer, inner] = /^([^[]+)(?:\[([^\]]*)\])?$/.exec(name) ?? [null, name];
    if (inner === undefined) form[outer] = value;
    else form[outer] = { ...form[outer], [inner]: value };
  }
  return form;
}

async function serveApi(request, response, url, body) {
  const key = request.headers["idempotency-key"];
  const isPayment = request.method === "POST" && url.pathname.startsWith("/v1/payment_intents");
  const fault = isPayment ? faults.shift() : undefined;
  const note = { method: request.method, path: url.pathname, idempotency_key: key ?? null, fault: fault ?? null };
  state.requests.push(note);
  if (fault === "lost_request") return request.socket.destroy();
  let result;
  try {
    if (!/^(Bearer|Basic) ./.test(request.headers.authorization ?? "")) {
      throw refusal(401, "invalid_request_error", "You did not provide an API key.");
    }
    if (fault === "unavailable") throw refusal(503, "api_error", "Try again later.");
    result = answer(request.method, url.pathname, body || url.search, key, fault);
  } catch (error) {
    if (!error.status) throw error;
    result = error;
  }
  Object.assign(note, { status: result.status, replayed: result.replayed ?? false });
  const text = JSON.stringify(result.body);
  save();
  if (DELAY_MS > 0 && request.method === "POST" && result.status !== 409) {
    keysInUse.add(key);
    await new Promise((resolve) => setTimeout(resolve, DELAY_MS));
    keysInUse.delete(key);
  }
  if (fault === "lost_answer") return request.socket.destroy();
  const headers = { "content-type": "application/json", "request-id": id("req") };
  if (key !== undefined) headers["idempotency-key"] = key;
  if (result.replayed) headers["idempotent-replayed"] = "true";
  // Asking again what the key has kept is no use.
  if (result.status === 500) headers["stripe-should-retry"] = "false";
  response.writeHead(result.status, headers).end(text);
}

// ---- Events, signed as https://docs.stripe.com/webhooks#verify-manually says

async function deliver(url, secret, text) {
  const time = now();
  const signature = createHmac("sha256", secret).update(`${time}.${text}`).digest("hex");
  const headers = { "content-type": "application/json; charset=utf-8", "stripe-signature": `t=${time},v1=${signature}` };
  const response = await fetch(url, { method: "POST", headers, body: text });
  await response.arrayBuffer();
  return response.status;
}

async function checkout({ url, secret, session = {}, deliveries = 1, at_once: atOnce = 1, type = "checkout.session.completed" }) {
  const paid = { object: "checkout.session", mode: "payment", status: "complete", payment_status: "paid" };
  const object = { id: id("cs_test"), ...paid, created: now(), payment_intent: id("pi"), ...session };
  const named = { id: id("evt"), object: "event", api_version: "2026-09-30", created: now(), livemode: false };
  const event = { ...named, type, data: { object } };
  const text = JSON.stringify(event);
  const statuses = [];
  while (statuses.length < deliveries) {
    const together = Math.min(atOnce, deliveries - statuses.length);
    statuses.push(...(await Promise.all(Array.from({ length: together }, () => deliver(url, secret, text)))));
  }
  return { event, statuses };
}

const controls = {
  "GET /charges": () => state.charges,
  "GET /requests": () => state.requests,
  "GET /refunds": () => state.refunds,
  "POST /faults": ({ fault, count = 1 }) => {
    faults.push(...Array(count).fill(fault));
    return { faults };
  },
  "POST /forget_keys": () => {
    state.keys = {};
    save();
    return {};
  },
  "POST /checkouts": checkout,
};

const server = createServer(async (request, response) => {
  try {
    const url = new URL(request.url, "http://stand-in");
    const chunks = [];
    for await (const chunk of request) chunks.push(chunk);
    const body = Buffer.concat(chunks).toString("utf8");
    if (url.pathname.startsWith("/v1/")) return await serveApi(request, response, url, body);
    const control = controls[`${request.method} ${url.pathname}`];
    if (!control) return response.writeHead(404).end();
    const result = JSON.stringify(await control(body ? JSON.parse(body) : {}));
    response.writeHead(200, { "content-type": "application/json" }).end(result);
  } catch (error) {
    console.error(error);
    if (!response.headersSent) response.writeHead(500).end();
  }
});
server.listen(Number(options.port), "127.0.0.1", () => console.log(`listening on http://127.0.0.1:${server.address().port}`));
