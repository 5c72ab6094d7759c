"""Charging credits from Python with psycopg 3:  pip install "psycopg[binary]";  python client.py

Connects as libpq says (PGHOST, PGDATABASE, PGUSER, ... or a URL as first argument), to a database that has pg_credits.
It makes a customer of its own and can be run again.
"""

import sys
import uuid
from decimal import Decimal

import psycopg
from psycopg.rows import dict_row

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


if __name__ == "__main__":
    main()
