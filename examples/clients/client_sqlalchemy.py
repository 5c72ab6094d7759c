"""Charging credits from SQLAlchemy 2, together with the application's own work:  pip install sqlalchemy "psycopg[binary]"

    python client_sqlalchemy.py [postgresql+psycopg://user@host/database]      (default: as libpq says)

It makes a customer and a table of its own (the table is temporary) and can be run again.
"""

import sys
import uuid
from decimal import Decimal

from sqlalchemy import create_engine, func, select, text
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session


def deduct_usage(customer_id, credits, key):
    """The call as a selectable. Its arguments are positional: customer_id, amount, idempotency_key."""
    row = func.credits.deduct_usage(customer_id, credits, key).table_valued("status", "deducted", "balance", "replayed")
    return select(row)


def main():
    engine = create_engine(sys.argv[1] if len(sys.argv) > 1 else "postgresql+psycopg://")
    customer = f"sqlalchemy-{uuid.uuid4()}"
    with Session(engine) as session:
        session.execute(text("create temp table answers (id text primary key, answer text)"))
        session.execute(select(func.credits.create_wallet(customer)))
        session.execute(select(func.credits.grant_credits(customer, Decimal("60"))))
        session.commit()

        # One transaction: the answer is stored and charged, or neither.
        session.execute(text("insert into answers values ('call-1', 'forty-two')"))
        charged = session.execute(deduct_usage(customer, Decimal("25"), "call-1")).one()
        session.commit()
        print("charged:", charged.status, charged.deducted, "left", charged.balance)

        try:
            session.execute(text("insert into answers values ('call-2', 'too dear')"))
            session.execute(deduct_usage(customer, Decimal("1000"), "call-2"))
            session.commit()
        except IntegrityError as error:  # SQLSTATE class 23; what exactly, DETAIL says
            session.rollback()
            print("refused:", error.orig.diag.message_detail)
        print("answers:", session.execute(text("select string_agg(id, ', ') from answers")).scalar_one())


if __name__ == "__main__":
    main()
