// Charging credits from Node with pg:  npm install pg;  node client.mjs
//
// Connects as libpq says (PGHOST, PGDATABASE, PGUSER, ... or a URL as first argument), to a database that has pg_credits.
// It makes a customer of its own and can be run again.
import { randomUUID } from "node:crypto";
import pg from "pg";

const RETRIES_MAX = 5;
const RETRY = new Set(["40001", "40P01"]); // serialization failure, deadlock

/** The stable name of an error of pg_credits, such as insufficient_credits; "" for any other error. */
function symbol(error) {
  return error.detail?.startsWith("code=") ? error.detail.slice("code=".length) : "";
}

/** Deducts once for the key, however often it is called; retries what a retry can mend. Amounts are strings: numeric is exact. */
async function charge(pool, customerId, credits, key, { eventName = null, onInsufficient = "error" } = {}) {
  for (let attempt = 1; ; attempt += 1) {
    try {
      const { rows } = await pool.query(
        `select * from credits.deduct_usage($1, $2, idempotency_key => $3, event_name => $4, on_insufficient => $5)`,
        [customerId, credits, key, eventName, onInsufficient],
      );
      return rows[0];
    } catch (error) {
      if (!RETRY.has(error.code) || attempt === RETRIES_MAX) throw error;
    }
  }
}

const pool = new pg.Pool({ connectionString: process.argv[2] });
try {
  const customer = `node-${randomUUID()}`;
  await pool.query("select credits.create_wallet($1)", [customer]);
  await pool.query(
    "select credits.grant_credits($1, $2, expires_at => now() + interval '90 days', idempotency_key => $3)",
    [customer, "60", "checkout-1001"],
  );

  const first = await charge(pool, customer, "25", "call-1", { eventName: "model.call" });
  console.log("first: ", first.status, first.deducted, "left", first.balance, "replayed", first.replayed);
  const again = await charge(pool, customer, "25", "call-1", { eventName: "model.call" });
  console.log("again: ", again.status, again.deducted, "left", again.balance, "replayed", again.replayed);

  try {
    await charge(pool, customer, "1000", "call-2");
  } catch (error) {
    if (symbol(error) !== "insufficient_credits") throw error;
    console.log("refused:", error.message.replace(customer, "..."));
  }

  const asked = await charge(pool, customer, "1000", "call-2", { onInsufficient: "report" });
  console.log("asked: ", asked.status, "left", asked.balance);
} finally {
  await pool.end();
}
