"""Credits bought through Stripe Checkout: the webhook that turns a paid session into an order and a grant, in one transaction.

    pip install stripe "psycopg[binary]"
    psql -v role=shop -f schema.sql
    STRIPE_WEBHOOK_SECRET=whsec_... PGUSER=shop PGHOST=... PGDATABASE=... PORT=4242 python checkout.py

Whoever makes the Checkout session says who buys what, and for how much a credit:
    client_reference_id="acme", metadata={"credits": "1000", "unit_price": "0.01"}

Stripe delivers an event at least once, now and then twice at the same time. Here that makes no difference: the id of the
session is the key of the order and of the grant, and both are committed together or not at all.
"""

import os
import signal
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import psycopg
import stripe
from psycopg.types.json import Jsonb

BODY_BYTES_MAX = 1_000_000
SECRET = os.environ["STRIPE_WEBHOOK_SECRET"]

ORDER = """
    insert into orders (session_id, customer_id, credits, amount_total, currency, payment_intent)
    values (%(session_id)s, %(customer_id)s, %(credits)s, %(amount_total)s, %(currency)s, %(payment_intent)s)
    on conflict (session_id) do nothing
"""  # waits for another delivery that is doing the same
WALLET = "select credits.create_wallet(%(customer_id)s, if_not_exists => true)"  # the first time they buy
# What a repeated key is compared by is the amount and the wallet, so that the expiry may be counted from now.
GRANT = """
    select credits.grant_credits(%(customer_id)s, %(credits)s, expires_at => now() + interval '90 days',
        unit_price => %(unit_price)s, currency => %(price_currency)s, metadata => %(metadata)s, idempotency_key => %(session_id)s)
"""


def fulfil(session):
    metadata = session["metadata"]
    unit_price, currency = metadata.get("unit_price"), session.get("currency")
    sold = {
        "session_id": session["id"],
        "customer_id": session.get("client_reference_id") or metadata.get("customer_id"),
        "credits": metadata["credits"],
        "amount_total": session.get("amount_total"),
        "currency": currency,
        "payment_intent": session.get("payment_intent"),
        "unit_price": unit_price,
        "price_currency": currency.upper() if unit_price else None,  # both or neither
        "metadata": Jsonb({"payment_intent": session.get("payment_intent")}),
    }
    # A connection for each sale is enough for an example; it commits at the end, or rolls back.
    with psycopg.connect() as connection:
        connection.execute(ORDER, sold)
        connection.execute(WALLET, sold)
        grant_id = connection.execute(GRANT, sold).fetchone()[0]
    print(f"{sold['session_id']}: {sold['credits']} credits for {sold['customer_id']}, grant {grant_id}", flush=True)


def is_paid_credits(event_type, session):
    """A session of this shop that is paid for. One that a bank pays later comes a second time, as async_payment_succeeded."""
    is_checkout = event_type in ("checkout.session.completed", "checkout.session.async_payment_succeeded")
    return is_checkout and session.get("payment_status") != "unpaid" and "credits" in (session.get("metadata") or {})


def webhook(body, signature):
    """The status to answer with. 2xx: Stripe is done with this event. Anything else: it comes again, for up to three days."""
    try:
        event = stripe.Webhook.construct_event(body, signature, SECRET)
    except (ValueError, stripe.SignatureVerificationError) as error:
        print(f"refused: {error}", file=sys.stderr)
        return 400
    session = event.data.object.to_dict()
    try:
        if is_paid_credits(event.type, session):
            fulfil(session)
        return 200
    except psycopg.Error as error:
        print(f"{event.id}: {error}", file=sys.stderr)
        return 500


def healthz():
    try:
        with psycopg.connect() as connection:
            connection.execute("select 1")
        return 200
    except psycopg.Error:
        return 503


class Handler(BaseHTTPRequestHandler):
    def do_POST(self):
        size = int(self.headers.get("content-length", 0))
        if self.path != "/webhook":
            return self.answer(404)
        if not 0 <= size <= BODY_BYTES_MAX:
            return self.answer(413)
        body = self.rfile.read(size)  # the very bytes: the signature is over them
        return self.answer(webhook(body, self.headers.get("stripe-signature")))

    def do_GET(self):
        self.answer(healthz() if self.path == "/healthz" else 404)

    def answer(self, status):
        self.send_response(status)
        self.send_header("content-length", "0")
        self.end_headers()

    def log_message(self, *_):
        pass


class Server(ThreadingHTTPServer):
    daemon_threads = False  # server_close waits for what has been begun


def main():
    server = Server(("127.0.0.1", int(os.environ.get("PORT", "4242"))), Handler)
    signal.signal(signal.SIGTERM, lambda *_: threading.Thread(target=server.shutdown).start())
    print(f"listening on http://127.0.0.1:{server.server_port}", flush=True)
    with server:
        server.serve_forever()


if __name__ == "__main__":
    main()
