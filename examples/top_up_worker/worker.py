"""Automatic top-ups, paid through Stripe: claims what is due, charges the customer's saved card, and has the credits granted.

    pip install stripe "psycopg[binary]"
    STRIPE_API_KEY=sk_... PGHOST=... PGDATABASE=... python worker.py [--once]

Connects as libpq says (PGHOST, PGDATABASE, PGUSER, ...), as a writer of pg_credits. With --once it ends when nothing is left
to claim. Any number of workers may run. It can be killed at any moment, and it ends on any error of the database: let
whatever runs your programs start it again. Why nobody pays twice, or pays and gets nothing, wherever it stops:

- A claim is a lease. What a dead worker had claimed is claimed again when the lease has run out.
- The id of the top-up is the idempotency key of its payment: Stripe makes it once, and then repeats what it answered.
- Stripe forgets that after a day, and until then repeats a decline too. So every attempt first searches for the payment of
  an earlier one and goes on with that: a PaymentIntent succeeds once, with whatever card. What is too new to be found, within
  minutes, the key still covers.
- complete_top_up grants once, however often it is called.
"""

import os
import signal
import sys
import threading
from decimal import ROUND_HALF_EVEN, Context, Decimal

import psycopg
import stripe
from psycopg.rows import namedtuple_row

BATCH_SIZE = 5
LEASE = os.environ.get("TOP_UP_LEASE", "5 minutes")  # longer than a batch takes; if not, work is done twice, to no effect
POLL_SECONDS = float(os.environ.get("TOP_UP_POLL_SECONDS", "5"))
PAID_MEANWHILE = "payment_intent_unexpected_state"  # by another worker, whose lease had run out

# How Stripe counts money (https://docs.stripe.com/currencies): in units of 10^-digits, and what can be charged has so many
# decimals. Here: (digits, decimals).
USUAL = (2, 2)
UNUSUAL = {
    **dict.fromkeys("BIF CLP DJF GNF JPY KMF KRW MGA PYG RWF VND VUV XAF XOF XPF".split(), (0, 0)),
    **dict.fromkeys("BHD JOD KWD OMR TND".split(), (3, 2)),
    **dict.fromkeys("ISK UGX".split(), (2, 0)),
}
EXACT = Context(prec=100, rounding=ROUND_HALF_EVEN)  # wide enough for the product of any two amounts of the ledger


class NotChargeable(Exception):
    """A top-up that nobody can be charged for as it is."""


def amount_to_charge(top_up):
    """What to charge, in the currency's units: amount times price, exactly, rounded half to even as the ledger rounds money."""
    if top_up.unit_price is None or top_up.currency is None:
        raise NotChargeable("the top-up has no unit_price and currency")
    digits, decimals = UNUSUAL.get(top_up.currency.upper(), USUAL)
    money = EXACT.multiply(top_up.amount, top_up.unit_price).quantize(Decimal(1).scaleb(-decimals), context=EXACT)
    if money == 0:
        raise NotChargeable(f"{top_up.amount} credits cost less than can be charged in {top_up.currency}")
    return int(money.scaleb(digits, EXACT))


def connect_to_stripe():
    base = os.environ.get("STRIPE_API_BASE")  # for tests
    place = {"base_addresses": {"api": base}} if base else {}
    return stripe.StripeClient(os.environ["STRIPE_API_KEY"], max_network_retries=2, **place).v1


def find_payment(api, top_up_id):
    """The payment that an earlier attempt began, as it is now, if there is one."""
    found = api.payment_intents.search({"query": f'metadata["top_up_id"]:"{top_up_id}"'}).data
    return api.payment_intents.retrieve(found[0].id) if found else None


def pay(api, top_up):
    """Charges the saved card, or finds that it has been charged."""
    method, top_up_id = top_up.payment_method_id, str(top_up.top_up_id)
    begun = find_payment(api, top_up_id)
    if begun and begun.status != "requires_payment_method":
        return begun
    amount = amount_to_charge(top_up)
    if method is None:
        raise NotChargeable("the top-up has no payment_method_id")
    if begun:
        return api.payment_intents.confirm(begun.id, {"payment_method": method, "off_session": True})
    customer = api.payment_methods.retrieve(method).customer
    if customer is None:
        raise NotChargeable(f"{method} is not saved for a customer")
    payment = {
        "amount": amount,
        "currency": top_up.currency.lower(),
        "customer": customer,
        "payment_method": method,
        "off_session": True,  # the customer is not there to answer questions
        "confirm": True,
        "metadata": {"top_up_id": top_up_id, "customer_id": top_up.customer_id},
    }
    return api.payment_intents.create(payment, {"idempotency_key": top_up_id})


def complete(database, api, top_up, payment):
    try:
        database.execute("select credits.complete_top_up(%s, %s, %s)", [top_up.customer_id, top_up.top_up_id, payment.id])
        log("paid", top_up, payment.id)
    except psycopg.Error as error:
        # Cancelled while we were charging, or completed by another payment: no credits for this one, so it is given back.
        if error.sqlstate not in ("55000", "23505", "P0002", "22003"):
            raise
        api.refunds.create({"payment_intent": payment.id}, {"idempotency_key": f"refund-{payment.id}"})
        log("refunded", top_up, error.diag.message_primary)


def fail(database, top_up, reason):
    database.execute("select credits.fail_top_up(%s, %s, %s)", [top_up.customer_id, top_up.top_up_id, reason[:250]])
    log("failed", top_up, reason)


def work(database, api, top_up):
    try:
        payment = pay(api, top_up)
    except NotChargeable as error:
        return fail(database, top_up, str(error))
    except (stripe.CardError, stripe.InvalidRequestError) as error:
        if error.code == PAID_MEANWHILE:
            return log("left", top_up, error)
        code = getattr(error.error, "decline_code", None) or error.code
        return fail(database, top_up, ": ".join(filter(None, [code, error.user_message])))
    except stripe.StripeError as error:
        # No answer, or one that does not say what became of the charge: found out when the lease has run out.
        return log("left", top_up, error)
    if payment.status == "succeeded":
        return complete(database, api, top_up, payment)
    if payment.status == "processing":
        return log("left", top_up, "in progress")
    return fail(database, top_up, f"the payment is {payment.status}")


def log(what, top_up, more):
    print(f"{what} {top_up.top_up_id} of {top_up.customer_id}: {' '.join(str(more).split())}", flush=True)


def main():
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())  # ends what was claimed first
    once = "--once" in sys.argv
    api = connect_to_stripe()
    # autocommit: every call is a transaction of its own
    with psycopg.connect(autocommit=True, row_factory=namedtuple_row) as database:
        while not stop.is_set():
            top_ups = database.execute("select * from credits.claim_top_ups(%s, %s::interval)", [BATCH_SIZE, LEASE]).fetchall()
            for top_up in top_ups:
                work(database, api, top_up)
            if not top_ups and once:
                break
            if not top_ups:
                stop.wait(POLL_SECONDS)


if __name__ == "__main__":
    main()
