//! Recurring grants: reading what is due, and storing.

use super::codec::{Codec, json_array, text};
use super::columns::{Columns, due_until, of_customers};
use super::statement::{Access, Row, statements};
use super::wallets::stored_code;
use crate::domain::book::Book;
use crate::domain::calendar::Calendar;
use crate::domain::grant::GrantType;
use crate::domain::names::{CustomerId, RecurringCode, WalletCode};
use crate::domain::recurring::{Period, RecurringGrant, RecurringTerms, Rollover};
use crate::domain::time::{TimeZone, Timestamp};

macro_rules! columns {
    () => {
        "select recurring_grant, wallet, amount, grant_type::text, priority, expires_after, rollover_percent, rollover_cap,
                rollover_periods, unit_price, currency, applies_to, metadata::text, anchor, every, time_zone, starts_at, ends_at,
                prorate, next_starts_at, period_starts_at, period_rollover_percent, period_rollover_cap, period_rollover_periods
         from credits_data.recurring_grants "
    };
}

statements! {
    /// What is due of many customers, until an instant of each. Index scan on recurring_grants_due for each.
    DUE_UNTIL(TEXTARRAYOID, TIMESTAMPTZARRAYOID) = due_until!(columns!());

    /// Primary key, one row.
    BY_CODE(TEXTOID, TEXTOID) = concat!(columns!(), "
        where customer_id = $1
          and recurring_grant = $2");

    /// All of a wallet; a handful by the primary key.
    OF_WALLET(TEXTOID, TEXTOID) = concat!(columns!(), "
        where customer_id = $1
          and wallet = $2");

    /// Stores a new one, or new terms: one row. `applies_to` crosses as text.
    STORE(
        TEXTOID, TEXTOID, TEXTOID, NUMERICOID, TEXTOID, INT4OID, INTERVALOID, NUMERICOID, NUMERICOID, INT4OID, NUMERICOID, TEXTOID,
        TEXTOID, TEXTOID, TIMESTAMPTZOID, INTERVALOID, TEXTOID, TIMESTAMPTZOID, TIMESTAMPTZOID, BOOLOID, TIMESTAMPTZOID, TIMESTAMPTZOID,
        TIMESTAMPTZOID, NUMERICOID, NUMERICOID, INT4OID, TIMESTAMPTZOID
    ) = "
        insert into credits_data.recurring_grants (
            customer_id, recurring_grant, wallet, amount, grant_type, priority, expires_after, rollover_percent,
            rollover_cap, rollover_periods, unit_price, currency, applies_to, metadata, anchor, every,
            time_zone, starts_at, ends_at, prorate, next_starts_at, due_at, period_starts_at,
            period_rollover_percent, period_rollover_cap, period_rollover_periods, created_at
        )
        values (
            $1, $2, $3, $4, $5::credits_data.grant_type, $6, $7, $8,
            $9, $10, $11, $12, (select array_agg(name) from jsonb_array_elements_text($13::jsonb) name), $14::jsonb, $15, $16,
            $17, $18, $19, $20, $21, $22, $23,
            $24, $25, $26, $27
        )
        on conflict (customer_id, recurring_grant) do update
        set amount = excluded.amount,
            grant_type = excluded.grant_type,
            priority = excluded.priority,
            expires_after = excluded.expires_after,
            rollover_percent = excluded.rollover_percent,
            rollover_cap = excluded.rollover_cap,
            rollover_periods = excluded.rollover_periods,
            unit_price = excluded.unit_price,
            currency = excluded.currency,
            applies_to = excluded.applies_to,
            metadata = excluded.metadata";

    /// Stores the periods of many: primary key, one row each.
    ADVANCE(
        TEXTARRAYOID, TEXTARRAYOID, TIMESTAMPTZARRAYOID, TIMESTAMPTZARRAYOID, TIMESTAMPTZARRAYOID, TIMESTAMPTZARRAYOID, NUMERICARRAYOID,
        NUMERICARRAYOID, INT4ARRAYOID
    ) = "
        update credits_data.recurring_grants r
        set ends_at = n.ends_at,
            next_starts_at = n.next_starts_at,
            due_at = n.due_at,
            period_starts_at = n.period_starts_at,
            period_rollover_percent = n.rollover_percent,
            period_rollover_cap = n.rollover_cap,
            period_rollover_periods = n.rollover_periods
        from (
            select unnest($1) as customer_id, unnest($2) as recurring_grant, unnest($3) as ends_at, unnest($4) as next_starts_at,
                   unnest($5) as due_at, unnest($6) as period_starts_at, unnest($7) as rollover_percent, unnest($8) as rollover_cap,
                   unnest($9) as rollover_periods
        ) n
        where r.customer_id = n.customer_id
          and r.recurring_grant = n.recurring_grant";
}

/// A number of periods that is checked to be positive when it is written.
fn periods(stored: Option<i32>) -> Option<u32> {
    stored.and_then(|periods| u32::try_from(periods).ok())
}

fn recurring_grant(mut row: Row<'_>) -> RecurringGrant {
    let code = RecurringCode::stored(row.take());
    let wallet = WalletCode::stored(row.take());
    let terms = RecurringTerms {
        amount: row.take(),
        grant_type: stored_code(row.take(), GrantType::from_code),
        priority: row.take(),
        expires_after: row.optional(),
        rollover: Rollover { percent: row.take(), cap: row.optional(), periods: periods(row.optional()) },
        unit_price: row.optional(),
        currency: row.optional(),
        applies_to: row.optional(),
        metadata: row.take(),
    };
    let anchor = row.take();
    let every = row.take();
    let calendar = Calendar { anchor, every, zone: stored_code(row.take(), TimeZone::from_name) };
    let (starts_at, ends_at, prorate, next_starts_at) = (row.take(), row.take(), row.take(), row.take());
    let period = row.optional().map(|starts_at| Period {
        starts_at,
        rollover: Rollover { percent: row.take(), cap: row.optional(), periods: periods(row.optional()) },
    });
    RecurringGrant { code, wallet, terms, calendar, starts_at, ends_at, prorate, period, next_starts_at }
}

/// What is due of some customers, until an instant of each.
pub fn due_until(access: Access, customers: &[(&CustomerId, Timestamp)]) -> Vec<(CustomerId, RecurringGrant)> {
    of_customers(&DUE_UNTIL, access, customers, recurring_grant)
}

pub fn by_code(access: Access, customer_id: &CustomerId, code: &RecurringCode) -> Option<RecurringGrant> {
    let parameters = [Some(text(customer_id.as_str())), Some(text(code.as_str()))];
    BY_CODE.with(|statement| statement.run(access, &parameters)).first().map(recurring_grant)
}

pub fn of_wallet(access: Access, customer_id: &CustomerId, wallet: &WalletCode) -> Vec<RecurringGrant> {
    let parameters = [Some(text(customer_id.as_str())), Some(text(wallet.as_str()))];
    OF_WALLET.with(|statement| statement.run(access, &parameters)).iter().map(recurring_grant).collect()
}

fn stored(periods: Option<u32>) -> Option<i32> {
    periods.and_then(|periods| i32::try_from(periods).ok())
}

/// Stores the recurring grants that some books created and changed.
pub fn store(books: &[&Book<'_>]) {
    for book in books {
        for recurring in book.recurring.created().chain(book.recurring.changed_in(|recurring| &recurring.terms)) {
            store_terms(book, recurring);
        }
    }
    advance(&Columns::of(books, |book| book.recurring.changed()));
}

fn store_terms(book: &Book<'_>, recurring: &RecurringGrant) {
    let RecurringGrant { code, wallet, terms, calendar, starts_at, ends_at, prorate, period, next_starts_at } = recurring;
    let rollover = period.map(|period| period.rollover);
    let parameters = [
        Some(text(book.customer_id.as_str())),
        Some(text(code.as_str())),
        Some(text(wallet.as_str())),
        Some(terms.amount.encode()),
        Some(text(terms.grant_type.code())),
        Some(terms.priority.encode()),
        terms.expires_after.map(|life| life.encode()),
        Some(terms.rollover.percent.encode()),
        terms.rollover.cap.map(|cap| cap.encode()),
        stored(terms.rollover.periods).map(|periods| periods.encode()),
        terms.unit_price.map(|price| price.encode()),
        terms.currency.as_deref().map(text),
        terms.applies_to.as_deref().map(|names| text(&json_array(names))),
        Some(text(&terms.metadata)),
        Some(calendar.anchor.encode()),
        Some(calendar.every.encode()),
        Some(text(calendar.zone.name())),
        Some(starts_at.encode()),
        Some(ends_at.encode()),
        Some(prorate.encode()),
        Some(next_starts_at.encode()),
        Some(recurring.due_at().encode()),
        period.map(|period| period.starts_at.encode()),
        rollover.map(|rollover| rollover.percent.encode()),
        rollover.and_then(|rollover| rollover.cap).map(|cap| cap.encode()),
        rollover.and_then(|rollover| stored(rollover.periods)).map(|periods| periods.encode()),
        Some(book.now.encode()),
    ];
    STORE.with(|statement| statement.run(Access::Write, &parameters));
}

fn advance(rows: &Columns<'_, '_, RecurringGrant>) {
    if rows.is_empty() {
        return;
    }
    let parameters = [
        rows.customers(),
        rows.column(|recurring| Some(recurring.code.to_string())),
        rows.column(|recurring| Some(recurring.ends_at)),
        rows.column(|recurring| Some(recurring.next_starts_at)),
        rows.column(|recurring| Some(recurring.due_at())),
        rows.column(|recurring| recurring.period.map(|period| period.starts_at)),
        rows.column(|recurring| recurring.period.map(|period| period.rollover.percent)),
        rows.column(|recurring| recurring.period.and_then(|period| period.rollover.cap)),
        rows.column(|recurring| recurring.period.and_then(|period| stored(period.rollover.periods))),
    ];
    ADVANCE.with(|statement| statement.run(Access::Write, &parameters));
}
