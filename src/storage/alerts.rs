//! Alerts.

use uuid::Uuid;

use super::codec::{Codec, text};
use super::columns::Columns;
use super::statement::{Access, Row, statements};
use crate::domain::book::Book;
use crate::domain::names::{CustomerId, WalletCode};
use crate::domain::watch::{Alert, Threshold};

macro_rules! columns {
    () => {
        "select alert_id, wallet, threshold_percent, threshold_credits, rearm, is_armed, fired_at, dropped_at
         from credits_data.alerts "
    };
}

statements! {
    /// Index scan on alerts_wallet.
    OF_WALLET(TEXTOID, TEXTOID) = concat!(columns!(), "
        where customer_id = $1
          and wallet = $2
          and dropped_at is null");

    /// Primary key, one row.
    BY_ID(TEXTOID, UUIDOID) = concat!(columns!(), "
        where customer_id = $1
          and alert_id = $2");

    /// Stores new and changed ones of many customers.
    STORE(
        TEXTARRAYOID, UUIDARRAYOID, TEXTARRAYOID, NUMERICARRAYOID, NUMERICARRAYOID, NUMERICARRAYOID, BOOLARRAYOID, TIMESTAMPTZARRAYOID,
        TIMESTAMPTZARRAYOID, TIMESTAMPTZARRAYOID
    ) = "
        insert into credits_data.alerts (
            customer_id, alert_id, wallet, threshold_percent, threshold_credits, rearm, is_armed, fired_at, dropped_at, created_at
        )
        select unnest($1), unnest($2), unnest($3), unnest($4), unnest($5), unnest($6), unnest($7), unnest($8), unnest($9), unnest($10)
        on conflict (customer_id, alert_id) do update
        set is_armed = excluded.is_armed,
            fired_at = excluded.fired_at,
            dropped_at = excluded.dropped_at";
}

fn alert(mut row: Row<'_>) -> Alert {
    let (id, wallet) = (row.take(), WalletCode::stored(row.take()));
    let (percent, credits) = (row.optional(), row.optional());
    let threshold = match (percent, credits) {
        (Some(percent), _) => Threshold::Percent(percent),
        (None, credits) => Threshold::Credits(credits.unwrap_or_default()),
    };
    Alert {
        id,
        wallet,
        threshold,
        rearm: row.optional(),
        is_armed: row.take(),
        fired_at: row.optional(),
        dropped_at: row.optional(),
    }
}

/// Those of a wallet that are in use.
pub fn of_wallet(access: Access, customer_id: &CustomerId, wallet: &WalletCode) -> Vec<Alert> {
    let parameters = [Some(text(customer_id.as_str())), Some(text(wallet.as_str()))];
    OF_WALLET.with(|statement| statement.run(access, &parameters)).iter().map(alert).collect()
}

pub fn by_id(access: Access, customer_id: &CustomerId, id: Uuid) -> Option<Alert> {
    let parameters = [Some(text(customer_id.as_str())), Some(id.encode())];
    BY_ID.with(|statement| statement.run(access, &parameters)).first().map(alert)
}

/// Stores the alerts that some books created and changed.
pub fn store(books: &[&Book<'_>]) {
    let alerts = Columns::of(books, |book| book.alerts.created().chain(book.alerts.changed()));
    if alerts.is_empty() {
        return;
    }
    let parameters = [
        alerts.customers(),
        alerts.column(|alert: &Alert| Some(alert.id)),
        alerts.texts(|alert| Some(alert.wallet.as_str())),
        alerts.column(|alert| alert.threshold.parts().0),
        alerts.column(|alert| alert.threshold.parts().1),
        alerts.column(|alert| alert.rearm),
        alerts.column(|alert| Some(alert.is_armed)),
        alerts.column(|alert| alert.fired_at),
        alerts.column(|alert| alert.dropped_at),
        alerts.now(),
    ];
    STORE.with(|statement| statement.run(Access::Write, &parameters));
}
