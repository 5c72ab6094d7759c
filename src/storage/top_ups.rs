//! Auto top-ups: the rules, and what they requested.

use uuid::Uuid;

use super::codec::{Codec, text};
use super::columns::{Columns, due_until, of_customers};
use super::statement::{Access, Row, statements};
use super::wallets::stored_code;
use crate::domain::amount::Amount;
use crate::domain::book::Book;
use crate::domain::names::{CustomerId, WalletCode};
use crate::domain::time::Timestamp;
use crate::domain::top_up::{Size, TopUp, TopUpRule, TopUpStatus};

macro_rules! rule_columns {
    () => {
        "select wallet, threshold, amount, target_balance, payment_method_id, cooldown, max_per_period, period, expires_after,
                unit_price, currency, enabled, failures, wanted, due_at
         from credits_data.top_up_rules "
    };
}

macro_rules! columns {
    () => {
        "select top_up_id, wallet, status::text, amount, unit_price, currency, expires_after, payment_method_id, cancel_above,
                requested_at, available_at, claimed_at, finished_at, failures, payment_reference, grant_id, reason
         from credits_data.top_ups "
    };
}

statements! {
    /// What is due of many customers, until an instant of each. Index scan on top_up_rules_due for each.
    DUE_UNTIL(TEXTARRAYOID, TIMESTAMPTZARRAYOID) = due_until!(rule_columns!());

    /// Primary key, one row.
    RULE(TEXTOID, TEXTOID) = concat!(rule_columns!(), "
        where customer_id = $1
          and wallet = $2");

    /// Index scan on top_ups_open, one row.
    OPEN(TEXTOID, TEXTOID) = concat!(columns!(), "
        where customer_id = $1
          and wallet = $2
          and status = 'open'");

    /// Primary key, one row.
    BY_ID(TEXTOID, UUIDOID) = concat!(columns!(), "
        where customer_id = $1
          and top_up_id = $2");

    /// Index scan on top_ups_recent, backwards.
    RECENT(TEXTOID, TEXTOID, INT8OID) = concat!(columns!(), "
        where customer_id = $1
          and wallet = $2
          and status in ('open', 'succeeded')
        order by requested_at desc
        limit $3");

    /// Customers with something to be claimed after a place, what waits longest first. Index scan on top_ups_claimable.
    CLAIMABLE(TIMESTAMPTZOID, INT8OID, TIMESTAMPTZOID, UUIDOID) = "
        select customer_id, available_at, top_up_id
        from credits_data.top_ups
        where status = 'open'
          and available_at <= $1
          and (available_at, top_up_id) > ($3, $4)
        order by available_at, top_up_id
        limit $2";

    /// Stores new and changed rules of many customers.
    STORE_RULES(
        TEXTARRAYOID, TEXTARRAYOID, NUMERICARRAYOID, NUMERICARRAYOID, NUMERICARRAYOID, TEXTARRAYOID, INTERVALARRAYOID, INT4ARRAYOID,
        INTERVALARRAYOID, INTERVALARRAYOID, NUMERICARRAYOID, TEXTARRAYOID, BOOLARRAYOID, INT4ARRAYOID, NUMERICARRAYOID,
        TIMESTAMPTZARRAYOID, TIMESTAMPTZARRAYOID
    ) = "
        insert into credits_data.top_up_rules (
            customer_id, wallet, threshold, amount, target_balance, payment_method_id, cooldown, max_per_period, period, expires_after,
            unit_price, currency, enabled, failures, wanted, due_at, created_at
        )
        select unnest($1), unnest($2), unnest($3), unnest($4), unnest($5), unnest($6), unnest($7), unnest($8), unnest($9), unnest($10),
               unnest($11), unnest($12), unnest($13), unnest($14), unnest($15), unnest($16), unnest($17)
        on conflict (customer_id, wallet) do update
        set threshold = excluded.threshold,
            amount = excluded.amount,
            target_balance = excluded.target_balance,
            payment_method_id = excluded.payment_method_id,
            cooldown = excluded.cooldown,
            max_per_period = excluded.max_per_period,
            period = excluded.period,
            expires_after = excluded.expires_after,
            unit_price = excluded.unit_price,
            currency = excluded.currency,
            enabled = excluded.enabled,
            failures = excluded.failures,
            wanted = excluded.wanted,
            due_at = excluded.due_at";

    /// Stores new and changed top-ups of many customers.
    STORE(
        TEXTARRAYOID, UUIDARRAYOID, TEXTARRAYOID, TEXTARRAYOID, NUMERICARRAYOID, NUMERICARRAYOID, TEXTARRAYOID, INTERVALARRAYOID,
        TEXTARRAYOID, NUMERICARRAYOID, TIMESTAMPTZARRAYOID, TIMESTAMPTZARRAYOID, TIMESTAMPTZARRAYOID, TIMESTAMPTZARRAYOID, INT4ARRAYOID,
        TEXTARRAYOID, UUIDARRAYOID, TEXTARRAYOID
    ) = "
        insert into credits_data.top_ups (
            customer_id, top_up_id, wallet, status, amount, unit_price, currency, expires_after, payment_method_id, cancel_above,
            requested_at, available_at, claimed_at, finished_at, failures, payment_reference, grant_id, reason
        )
        select customer_id, top_up_id, wallet, status::credits_data.top_up_status, amount, unit_price, currency, expires_after,
               payment_method_id, cancel_above, requested_at, available_at, claimed_at, finished_at, failures, payment_reference,
               grant_id, reason
        from (
            select unnest($1) as customer_id, unnest($2) as top_up_id, unnest($3) as wallet, unnest($4) as status,
                   unnest($5) as amount, unnest($6) as unit_price, unnest($7) as currency, unnest($8) as expires_after,
                   unnest($9) as payment_method_id, unnest($10) as cancel_above, unnest($11) as requested_at,
                   unnest($12) as available_at, unnest($13) as claimed_at, unnest($14) as finished_at, unnest($15) as failures,
                   unnest($16) as payment_reference, unnest($17) as grant_id, unnest($18) as reason
        ) n
        on conflict (customer_id, top_up_id) do update
        set status = excluded.status,
            payment_method_id = excluded.payment_method_id,
            available_at = excluded.available_at,
            claimed_at = excluded.claimed_at,
            finished_at = excluded.finished_at,
            failures = excluded.failures,
            payment_reference = excluded.payment_reference,
            grant_id = excluded.grant_id,
            reason = excluded.reason";
}

fn rule_of(mut row: Row<'_>) -> TopUpRule {
    let (wallet, threshold) = (WalletCode::stored(row.take()), row.take());
    let (amount, target): (Option<Amount>, Option<Amount>) = (row.optional(), row.optional());
    TopUpRule {
        wallet,
        threshold,
        size: amount.map_or(Size::Target(target.unwrap_or_default()), Size::Amount),
        payment_method_id: row.optional(),
        cooldown: row.take(),
        max_per_period: row.optional(),
        period: row.take(),
        expires_after: row.optional(),
        price: row.optional().zip(row.optional()),
        enabled: row.take(),
        failures: row.take(),
        wanted: row.optional(),
        due_at: row.take(),
    }
}

fn top_up(mut row: Row<'_>) -> TopUp {
    TopUp {
        id: row.take(),
        wallet: WalletCode::stored(row.take()),
        status: stored_code(row.take(), TopUpStatus::from_code),
        amount: row.take(),
        price: row.optional().zip(row.optional()),
        expires_after: row.optional(),
        payment_method_id: row.optional(),
        cancel_above: row.optional(),
        requested_at: row.take(),
        available_at: row.take(),
        claimed_at: row.optional(),
        finished_at: row.optional(),
        failures: row.take(),
        payment_reference: row.optional(),
        grant: row.optional(),
        reason: row.optional(),
    }
}

/// What is held back of some customers, until an instant of each.
pub fn due_until(access: Access, customers: &[(&CustomerId, Timestamp)]) -> Vec<(CustomerId, TopUpRule)> {
    of_customers(&DUE_UNTIL, access, customers, rule_of)
}

/// The auto top-up of a wallet.
pub fn rule(access: Access, customer_id: &CustomerId, wallet: &WalletCode) -> Option<TopUpRule> {
    let parameters = [Some(text(customer_id.as_str())), Some(text(wallet.as_str()))];
    RULE.with(|statement| statement.run(access, &parameters)).first().map(rule_of)
}

/// The open top-up of a wallet.
pub fn open(access: Access, customer_id: &CustomerId, wallet: &WalletCode) -> Option<TopUp> {
    let parameters = [Some(text(customer_id.as_str())), Some(text(wallet.as_str()))];
    OPEN.with(|statement| statement.run(access, &parameters)).first().map(top_up)
}

pub fn by_id(access: Access, customer_id: &CustomerId, id: Uuid) -> Option<TopUp> {
    let parameters = [Some(text(customer_id.as_str())), Some(id.encode())];
    BY_ID.with(|statement| statement.run(access, &parameters)).first().map(top_up)
}

/// The open and succeeded ones of a wallet, the last first.
pub fn recent(access: Access, customer_id: &CustomerId, wallet: &WalletCode, top_ups_max: i64) -> Vec<TopUp> {
    let parameters = [Some(text(customer_id.as_str())), Some(text(wallet.as_str())), Some(top_ups_max.encode())];
    RECENT.with(|statement| statement.run(access, &parameters)).iter().map(top_up).collect()
}

/// When a top-up can be claimed, and its id: the order of claiming.
pub type Place = (Timestamp, Uuid);

/// The customers of up to `top_ups_max` top-ups that can be claimed at an instant, after a place in the order of claiming.
pub fn claimable(at: Timestamp, top_ups_max: i64, after: Place) -> Vec<(CustomerId, Place)> {
    let parameters = [Some(at.encode()), Some(top_ups_max.encode()), Some(after.0.encode()), Some(after.1.encode())];
    let rows = CLAIMABLE.with(|statement| statement.run(Access::Write, &parameters));
    rows.iter().map(|mut row| (CustomerId::stored(row.take()), (row.take(), row.take()))).collect()
}

/// Stores the rules and top-ups that some books created and changed.
pub fn store(books: &[&Book<'_>]) {
    store_rules(&Columns::of(books, |book| book.top_up_rules.created().chain(book.top_up_rules.changed())));
    // What has ended makes room for another one of its wallet.
    store_top_ups(&Columns::of(books, |book| book.top_ups.changed()));
    store_top_ups(&Columns::of(books, |book| book.top_ups.created()));
}

fn store_rules(rules: &Columns<'_, '_, TopUpRule>) {
    if rules.is_empty() {
        return;
    }
    let parameters = [
        rules.customers(),
        rules.texts(|rule| Some(rule.wallet.as_str())),
        rules.column(|rule| Some(rule.threshold)),
        rules.column(|rule| rule.size.parts().0),
        rules.column(|rule| rule.size.parts().1),
        rules.texts(|rule| rule.payment_method_id.as_deref()),
        rules.column(|rule| Some(rule.cooldown)),
        rules.column(|rule| rule.max_per_period),
        rules.column(|rule| Some(rule.period)),
        rules.column(|rule| rule.expires_after),
        rules.column(|rule| rule.price.as_ref().map(|(unit_price, _)| *unit_price)),
        rules.texts(|rule| rule.price.as_ref().map(|(_, currency)| currency.as_str())),
        rules.column(|rule| Some(rule.enabled)),
        rules.column(|rule| Some(rule.failures)),
        rules.column(|rule| rule.wanted),
        rules.column(|rule| Some(rule.due_at)),
        rules.now(),
    ];
    STORE_RULES.with(|statement| statement.run(Access::Write, &parameters));
}

fn store_top_ups(top_ups: &Columns<'_, '_, TopUp>) {
    if top_ups.is_empty() {
        return;
    }
    let parameters = [
        top_ups.customers(),
        top_ups.column(|top_up| Some(top_up.id)),
        top_ups.texts(|top_up| Some(top_up.wallet.as_str())),
        top_ups.texts(|top_up| Some(top_up.status.code())),
        top_ups.column(|top_up| Some(top_up.amount)),
        top_ups.column(|top_up| top_up.price.as_ref().map(|(unit_price, _)| *unit_price)),
        top_ups.texts(|top_up| top_up.price.as_ref().map(|(_, currency)| currency.as_str())),
        top_ups.column(|top_up| top_up.expires_after),
        top_ups.texts(|top_up| top_up.payment_method_id.as_deref()),
        top_ups.column(|top_up| top_up.cancel_above),
        top_ups.column(|top_up| Some(top_up.requested_at)),
        top_ups.column(|top_up| Some(top_up.available_at)),
        top_ups.column(|top_up| top_up.claimed_at),
        top_ups.column(|top_up| top_up.finished_at),
        top_ups.column(|top_up| Some(top_up.failures)),
        top_ups.texts(|top_up| top_up.payment_reference.as_deref()),
        top_ups.column(|top_up| top_up.grant),
        top_ups.texts(|top_up| top_up.reason.as_deref()),
    ];
    STORE.with(|statement| statement.run(Access::Write, &parameters));
}
