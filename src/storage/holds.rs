//! Holds: their state. What they set aside stands in the ledger, under their id.

use super::codec::text;
use super::columns::{Columns, due_until, of_customers};
use super::statement::{Access, Row, statements};
use super::wallets::stored_code;
use crate::domain::book::Book;
use crate::domain::hold::{Hold, HoldStatus};
use crate::domain::names::{CustomerId, EventName, TransactionId, WalletCode};
use crate::domain::time::Timestamp;
use crate::domain::usage::Scope;

macro_rules! columns {
    () => {
        "select hold_id, status::text, expires_at, wallet, unit, event_name
         from credits_data.holds "
    };
}

statements! {
    /// What is due of many customers, until an instant of each. Index scan on holds_due for each.
    DUE_UNTIL(TEXTARRAYOID, TIMESTAMPTZARRAYOID) = due_until!(columns!());

    /// Primary key, one row.
    BY_ID(TEXTOID, TEXTOID) = concat!(columns!(), "
        where customer_id = $1
          and hold_id = $2");

    /// Stores new and changed ones of many customers.
    STORE(
        TEXTARRAYOID, TEXTARRAYOID, TEXTARRAYOID, TIMESTAMPTZARRAYOID, TIMESTAMPTZARRAYOID, TEXTARRAYOID, TEXTARRAYOID, TEXTARRAYOID,
        TIMESTAMPTZARRAYOID
    ) = "
        insert into credits_data.holds (customer_id, hold_id, status, expires_at, due_at, wallet, unit, event_name, created_at)
        select customer_id, hold_id, status::credits_data.hold_status, expires_at, due_at, wallet, unit, event_name, created_at
        from (
            select unnest($1) as customer_id, unnest($2) as hold_id, unnest($3) as status, unnest($4) as expires_at,
                   unnest($5) as due_at, unnest($6) as wallet, unnest($7) as unit, unnest($8) as event_name,
                   unnest($9) as created_at
        ) n
        on conflict (customer_id, hold_id) do update
        set status = excluded.status,
            due_at = excluded.due_at";
}

fn hold(mut row: Row<'_>) -> Hold {
    Hold {
        id: TransactionId::stored(row.take()),
        status: stored_code(row.take(), HoldStatus::from_code),
        expires_at: row.take(),
        scope: Scope { wallet: row.optional().map(WalletCode::stored), unit: row.take() },
        event_name: row.optional().map(EventName::stored),
    }
}

/// What is due of some customers, until an instant of each.
pub fn due_until(access: Access, customers: &[(&CustomerId, Timestamp)]) -> Vec<(CustomerId, Hold)> {
    of_customers(&DUE_UNTIL, access, customers, hold)
}

pub fn by_id(access: Access, customer_id: &CustomerId, id: &TransactionId) -> Option<Hold> {
    let parameters = [Some(text(customer_id.as_str())), Some(text(id.as_str()))];
    BY_ID.with(|statement| statement.run(access, &parameters)).first().map(hold)
}

/// Stores the holds that some books created and changed.
pub fn store(books: &[&Book<'_>]) {
    let rows = Columns::of(books, |book| book.holds.created().chain(book.holds.changed()));
    if rows.is_empty() {
        return;
    }
    let parameters = [
        rows.customers(),
        rows.column(|hold| Some(hold.id.to_string())),
        rows.column(|hold| Some(hold.status.code().to_owned())),
        rows.column(|hold| Some(hold.expires_at)),
        rows.column(|hold| Some(hold.due_at())),
        rows.column(|hold| hold.scope.wallet.as_ref().map(WalletCode::to_string)),
        rows.column(|hold| Some(hold.scope.unit.clone())),
        rows.column(|hold| hold.event_name.as_ref().map(EventName::to_string)),
        rows.now(),
    ];
    STORE.with(|statement| statement.run(Access::Write, &parameters));
}
