"""Charging credits from Python with psycopg 3:  pip install "psycopg[binary]";  python client.py

Connects as libpq says (PGHOST, PGDATABASE, PGUSER, ... or a URL as first argument), to a database that has pg_credits.
It makes a customer of its own and can be run again.
"""

import json
import sys
import uuid
from decimal import Decimal

import psycopg
from psycopg.rows import dict_row
from psycopg.types.json import Jsonb

RETRIES_MAX = 5


def symbol(error):
    """The stable name of an error of pg_credits, such as insufficient_credits; "" for any other error."""
    detail = error.diag.message_detail or ""
    return detail.removeprefix("code=") if detail.startswith("code=") else ""


def charge(connection, customer_id, credits, key, **options):
    """Deducts once for the key, however often it is called; retries what a retry can mend."""
    arguments = {"customer_id": customer_id, "amount": credits, "idempotency_key": key, **options}
    named = ", ".join(f"{name} => %({name})s" for name in arguments)
    for attempt in range(1, RETRIES_MAX + 1):
        try:
            with connection.transaction():
                return connection.execute(f"select * from credits.deduct_usage({named})", arguments).fetchone()
        except (psycopg.errors.SerializationFailure, psycopg.errors.DeadlockDetected):
            if attempt == RETRIES_MAX:
                raise


def define_meter(connection):
    """Once, by whoever sets the prices (level admin): 2 credits for 1,000 tokens."""
    connection.execute(
        """
        select credits.create_meter('python-tokens', 'python.answer', 'sum', 'tokens', pricing => %s)
        where not exists (select from credits.meters where meter = 'python-tokens')
        """,
        [Jsonb({"model": "per_unit", "credits": "0.002"})],
    )


def put_into_inbox(connection, events):
    """Events to be charged later, by credits.process_inbox. Each event_id is charged once, so this can be repeated."""
    with (
        connection.cursor() as cursor,
        cursor.copy("copy credits.usage_inbox (customer_id, event_id, event_name, properties) from stdin") as copy,
    ):
        for event in events:
            copy.write_row([event["customer_id"], event["event_id"], event["event_name"], json.dumps(event["properties"])])


def main():
    url = sys.argv[1] if len(sys.argv) > 1 else ""
    with psycopg.connect(url, autocommit=True, row_factory=dict_row) as connection:
        customer = f"python-{uuid.uuid4()}"
        connection.execute("select credits.create_wallet(%s)", [customer])
        # Decimal, not float: amounts are exact.
        connection.execute(
            "select credits.grant_credits(%s, %s, expires_at => now() + interval '90 days', idempotency_key => %s)",
            [customer, Decimal("60"), "checkout-1001"],
        )

        first = charge(connection, customer, Decimal("25"), "call-1", event_name="model.call")
        print("first: ", first["status"], first["deducted"], "left", first["balance"], "replayed", first["replayed"])
        again = charge(connection, customer, Decimal("25"), "call-1", event_name="model.call")
        print("again: ", again["status"], again["deducted"], "left", again["balance"], "replayed", again["replayed"])

        try:
            charge(connection, customer, Decimal("1000"), "call-2")
        except psycopg.errors.CheckViolation as error:
            if symbol(error) != "insufficient_credits":
                raise
            print("refused:", error.diag.message_primary.replace(customer, "..."))

        asked = charge(connection, customer, Decimal("1000"), "call-2", on_insufficient="report")
        print("asked: ", asked["status"], "left", asked["balance"])

        # Many events at once: into the inbox, again if need be, and charged by maintenance, or now.
        define_meter(connection)
        events = [
            {"customer_id": customer, "event_id": f"answer-{number}", "event_name": "python.answer", "properties": {"tokens": 50}}
            for number in range(1, 101)
        ]
        put_into_inbox(connection, events)
        put_into_inbox(connection, events)
        connection.execute("select * from credits.process_inbox()")
        answers = connection.execute(
            "select events, deducted from credits.usage_daily where customer_id = %s and event_name = 'python.answer'", [customer]
        ).fetchone()
        print("inbox: ", answers["events"], "events charged,", answers["deducted"], "credits")


if __name__ == "__main__":
    main()
