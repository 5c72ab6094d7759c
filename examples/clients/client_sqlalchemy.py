"""Charging credits from SQLAlchemy 2, together with the application's own work:  pip install sqlalchemy "psycopg[binary]"

    python client_sqlalchemy.py [postgresql+psycopg://user@host/database]      (default: as libpq says)

It makes a customer and a table of its own (the table is temporary) and can be run again.
"""

import sys
import uuid
from decimal import Decimal

from sqlalchemy import FetchedValue, create_engine, func, select, text
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column


class Base(DeclarativeBase):
    pass


class UsageEvent(Base):
    """A metered event. Adding one charges it; the last four columns are the result, from RETURNING."""

    __tablename__ = "usage_events"
    __table_args__ = {"schema": "credits"}
    __mapper_args__ = {"eager_defaults": True}

    customer_id: Mapped[str] = mapped_column(primary_key=True)
    event_id: Mapped[str] = mapped_column(primary_key=True)
    event_name: Mapped[str]
    properties: Mapped[dict] = mapped_column(JSONB)
    status: Mapped[str] = mapped_column(server_default=FetchedValue())
    deducted: Mapped[Decimal] = mapped_column(server_default=FetchedValue())
    balance: Mapped[Decimal] = mapped_column(server_default=FetchedValue())
    replayed: Mapped[bool] = mapped_column(server_default=FetchedValue())


def deduct_usage(customer_id, credits, key):
    """The call as a selectable. Its arguments are positional: customer_id, amount, idempotency_key."""
    row = func.credits.deduct_usage(customer_id, credits, key).table_valued("status", "deducted", "balance", "replayed")
    return select(row)


def define_meter(session):
    """Once, by whoever sets the prices (level admin): 2 credits for 1,000 tokens."""
    define = """
        select credits.create_meter('sqlalchemy-tokens', 'sqlalchemy.answer', 'sum', 'tokens', pricing => cast(:pricing as jsonb))
        where not exists (select from credits.meters where meter = 'sqlalchemy-tokens')
    """
    session.execute(text(define), {"pricing": '{"model": "per_unit", "credits": "0.002"}'})


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
        # A metered event is an object like any other; it is charged with the rest of the transaction.
        define_meter(session)
        event = UsageEvent(
            customer_id=customer, event_id="answer-3", event_name="sqlalchemy.answer", properties={"tokens": 1500}
        )
        session.add(event)
        session.execute(text("insert into answers values ('call-3', 'metered')"))
        session.flush()
        print("metered:", event.status, event.deducted, "left", event.balance, "replayed", event.replayed)
        session.commit()

        print("answers:", session.execute(text("select string_agg(id, ', ') from answers")).scalar_one())


if __name__ == "__main__":
    main()
