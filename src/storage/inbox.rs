//! The inbox: `credits.usage_inbox`, a queue of events to be charged.

use super::codec::{Codec, JsonbText, array, text, texts};
use super::statement::{Access, Row, statements};
use crate::domain::names::CustomerId;
use crate::domain::time::Timestamp;
use crate::error::Error;

/// Whether the event `i` waits for credits and its customer has got some since.
macro_rules! has_credits_since {
    () => {
        "i.waits_for_credit <> (
             select a.credit_count from credits_data.wallets a where a.customer_id = i.customer_id and a.is_anchor)"
    };
}

/// The customers of waiting events, each once: a walk over usage_inbox_waiting that takes one step a customer.
macro_rules! waiting_customers {
    () => {
        "with recursive waiting as (
             (select i.customer_id
              from credits.usage_inbox i
              where i.waits_for_credit is not null
              order by i.customer_id
              limit 1)
             union all
             select (select i.customer_id
                     from credits.usage_inbox i
                     where i.waits_for_credit is not null
                       and i.customer_id > w.customer_id
                     order by i.customer_id
                     limit 1)
             from waiting w
             where w.customer_id is not null
         )"
    };
}

statements! {
    /// Takes the next events that nobody else has taken, but for those of some customers. Index scan on usage_inbox_ready.
    TAKE(INT8OID, INT8OID, TEXTARRAYOID) = "
        select inbox_id, customer_id, event_id, event_name, properties, occurred_at, received_at
        from credits.usage_inbox
        where error is null
          and inbox_id > $1
          and coalesce(customer_id, '') <> all ($3)
        order by inbox_id
        limit $2
        for update skip locked";

    /// Makes events ready again that waited for credits which have come.
    REARM(INT8OID) = concat!("
        update credits.usage_inbox u
        set error = null,
            failed_at = null,
            waits_for_credit = null
        where u.inbox_id = any (array(", waiting_customers!(), "
            select n.inbox_id
            from waiting w
            cross join lateral (
                select i.inbox_id
                from credits.usage_inbox i
                where i.customer_id = w.customer_id
                  and i.waits_for_credit is not null
                  and ", has_credits_since!(), "
                order by i.customer_id, i.inbox_id
                limit $1
                for update skip locked
            ) n
            limit $1
        ))");

    /// Whether an event can be charged now.
    ANY_READY() = concat!(waiting_customers!(), "
        select 1
        where exists (select from credits.usage_inbox where error is null)
           or exists (
               select
               from waiting w
               cross join lateral (
                   select
                   from credits.usage_inbox i
                   where i.customer_id = w.customer_id
                     and i.waits_for_credit is not null
                     and ", has_credits_since!(), "
                   limit 1
               ) n
           )");

    LEAVE(INT8ARRAYOID) = "delete from credits.usage_inbox where inbox_id = any ($1)";

    FAIL(INT8ARRAYOID, TEXTARRAYOID, INT8ARRAYOID) = "
        update credits.usage_inbox i
        set error = n.error,
            failed_at = credits.clock(),
            waits_for_credit = n.waits_for_credit
        from (
            select unnest($1) as inbox_id, unnest($2) as error, unnest($3) as waits_for_credit
        ) n
        where i.inbox_id = n.inbox_id";

    /// Makes failed events ready again, of one customer or of all.
    RETRY(TEXTOID) = "
        update credits.usage_inbox
        set error = null,
            failed_at = null,
            waits_for_credit = null
        where error is not null
          and ($1 is null or customer_id = $1)";
}

/// An event as somebody put it into the inbox, unchecked.
pub struct Waiting {
    pub inbox_id: i64,
    pub customer_id: Option<String>,
    pub event_id: Option<String>,
    pub event_name: Option<String>,
    pub properties: Option<JsonbText>,
    pub occurred_at: Option<Timestamp>,
    pub received_at: Timestamp,
}

/// Takes up to `events_max` events after one, in the order of their arrival, leaving out those of some customers and those that
/// another session has taken.
pub fn take(after: i64, events_max: i64, without: &[CustomerId]) -> Vec<Waiting> {
    let parameters = [
        Some(after.encode()),
        Some(events_max.encode()),
        Some(texts(without.iter().map(|customer_id| Some(customer_id.as_str())))),
    ];
    let read = |mut row: Row<'_>| Waiting {
        inbox_id: row.take(),
        customer_id: row.optional(),
        event_id: row.optional(),
        event_name: row.optional(),
        // SAFETY: the column is a jsonb.
        properties: row.datum().map(|datum| unsafe { JsonbText::of(datum) }),
        occurred_at: row.optional(),
        received_at: row.take(),
    };
    TAKE.with(|statement| statement.run(Access::Write, &parameters)).iter().map(read).collect()
}

/// Makes up to `events_max` events ready again that waited for credits which have come.
pub fn rearm(events_max: i64) {
    REARM.with(|statement| statement.run(Access::Write, &[Some(events_max.encode())]));
}

/// Whether an event can be charged now.
pub fn is_any_ready() -> bool {
    ANY_READY.with(|statement| statement.run(Access::Write, &[])).count() > 0
}

/// Removes events that are charged.
pub fn leave(ids: &[i64]) {
    if !ids.is_empty() {
        LEAVE.with(|statement| statement.run(Access::Write, &[Some(array(ids.iter().map(|id| Some(*id))))]));
    }
}

/// Why an event could not be charged.
pub struct Failure {
    inbox_id: i64,
    error: String,
    /// Of an event without credits: the customer's count of credits when it was tried.
    waits_for_credit: Option<i64>,
}

impl Failure {
    pub fn of(inbox_id: i64, error: &Error, credit_count: i64) -> Self {
        let waits = matches!(error, Error::InsufficientCredits { .. });
        Self { inbox_id, error: error.in_a_line(), waits_for_credit: waits.then_some(credit_count) }
    }
}

/// Marks events that could not be charged.
pub fn fail(failures: &[Failure]) {
    if failures.is_empty() {
        return;
    }
    let parameters = [
        Some(array(failures.iter().map(|failure| Some(failure.inbox_id)))),
        Some(texts(failures.iter().map(|failure| Some(failure.error.as_str())))),
        Some(array(failures.iter().map(|failure| failure.waits_for_credit))),
    ];
    FAIL.with(|statement| statement.run(Access::Write, &parameters));
}

/// Makes failed events ready again, of one customer or of all; returns how many.
pub fn retry(customer_id: Option<&CustomerId>) -> i64 {
    let parameters = [customer_id.map(|customer_id| text(customer_id.as_str()))];
    RETRY.with(|statement| statement.run(Access::Write, &parameters)).count() as i64
}
