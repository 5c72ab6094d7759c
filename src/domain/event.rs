//! Events: what the world outside is told of, in the transaction of what they tell (SPEC 9, webhooks).

use serde_json::{Map, Value, json};
use uuid::Uuid;

use super::amount::Amount;
use super::book::Book;
use super::entry::Entry;
use super::names::TransactionId;
use super::time::Timestamp;
use super::top_up::TopUp;
use super::wallet::codes;
use super::watch::Alert;

codes! {
    /// What an event tells.
    EventType {
        BalanceLow = "wallet.balance_low",
        BalanceRecovered = "wallet.balance_recovered",
        Depleted = "wallet.depleted",
        GrantCreated = "grant.created",
        GrantExpired = "grant.expired",
        GrantExpiring = "grant.expiring",
        TopUpRequested = "top_up.requested",
        TopUpSucceeded = "top_up.succeeded",
        TopUpFailed = "top_up.failed",
        OverageStarted = "overage.started",
    }
}

/// An event of one wallet.
#[derive(Debug, Clone, PartialEq)]
pub struct Event {
    pub event_type: EventType,
    /// Index in the customer's book.
    pub wallet: usize,
    /// By `credits.clock()`.
    pub at: Timestamp,
    /// The alert it is of, whose endpoint gets it too.
    pub alert: Option<Uuid>,
    /// It is written even if no endpoint subscribes: an alert or a top-up is a subscription of its own.
    pub is_subscribed: bool,
    /// How many entries of the call came before it.
    pub after_entries: usize,
    /// What it tells besides customer, wallet and unit.
    data: Map<String, Value>,
}

impl Event {
    /// The body: type, timestamp and data, as Standard Webhooks advises. Amounts are decimal texts, since a JSON number loses digits in most
    /// languages.
    pub fn payload(&self, book: &Book<'_>) -> String {
        let wallet = &book.wallets[self.wallet];
        let mut data = self.data.clone();
        data.insert("customer_id".into(), book.customer_id.as_str().into());
        data.insert("wallet".into(), wallet.code.as_str().into());
        data.insert("unit".into(), wallet.unit.as_str().into());
        json!({ "type": self.event_type.code(), "timestamp": self.at.to_rfc3339(), "data": data }).to_string()
    }
}

fn amount(credits: Amount) -> Value {
    Value::String(credits.to_string())
}

fn optional(credits: Option<Amount>) -> Value {
    credits.map_or(Value::Null, amount)
}

fn instant(at: Timestamp) -> Value {
    if at.is_never() { Value::Null } else { Value::String(at.to_rfc3339()) }
}

fn members<const N: usize>(members: [(&str, Value); N]) -> Map<String, Value> {
    members.into_iter().map(|(name, value)| (name.to_owned(), value)).collect()
}

impl Book<'_> {
    fn event<const N: usize>(&self, event_type: EventType, wallet: usize, data: [(&str, Value); N]) -> Event {
        Event {
            event_type,
            wallet,
            at: self.now,
            alert: None,
            is_subscribed: false,
            after_entries: self.entries.len(),
            data: members(data),
        }
    }

    /// An alert fired, or is armed again.
    pub fn tell_of_alert(&mut self, event_type: EventType, wallet: usize, alert: &Alert, threshold: Amount) {
        let totals = &self.wallets[wallet];
        let (percent, credits) = alert.threshold.parts();
        let data = [
            ("alert_id", Value::String(alert.id.to_string())),
            ("threshold_percent", optional(percent)),
            ("threshold_credits", optional(credits)),
            ("threshold", amount(threshold)),
            ("balance", amount(totals.balance)),
            ("held", amount(totals.held)),
        ];
        let event = self.event(event_type, wallet, data);
        self.events.push(Event { alert: Some(alert.id), is_subscribed: true, ..event });
    }

    /// Nothing is left in a wallet. `is_watched`: it has an alert or an auto top-up.
    pub fn tell_of_depletion(&mut self, wallet: usize, is_watched: bool) {
        let totals = &self.wallets[wallet];
        let data = [("balance", amount(totals.balance)), ("held", amount(totals.held)), ("debt", amount(totals.debt))];
        let event = self.event(EventType::Depleted, wallet, data);
        self.events.push(Event { is_subscribed: is_watched, ..event });
    }

    /// A wallet without open overage or debt is charged beyond its grants.
    pub fn tell_of_overage(&mut self, wallet: usize, transaction: usize, credits: Amount) {
        let settings = &self.wallets[wallet].settings;
        let data = [
            ("policy", settings.overage_policy.code().into()),
            ("transaction_id", self.transactions[transaction].id.as_str().into()),
            ("credits", amount(credits)),
            ("unit_price", optional(settings.overage_unit_price)),
            ("currency", settings.overage_currency.clone().into()),
        ];
        let event = self.event(EventType::OverageStarted, wallet, data);
        self.events.push(event);
    }

    /// What became of a top-up.
    pub fn tell_of_top_up<const N: usize>(
        &mut self,
        event_type: EventType,
        wallet: usize,
        top_up: &TopUp,
        more: [(&str, Value); N],
    ) {
        let data = [
            ("top_up_id", Value::String(top_up.id.to_string())),
            ("amount", amount(top_up.amount)),
            ("unit_price", optional(top_up.price.as_ref().map(|(price, _)| *price))),
            ("currency", top_up.price.as_ref().map(|(_, currency)| currency.clone()).into()),
        ];
        let mut event = self.event(event_type, wallet, data);
        event.data.extend(members(more));
        self.events.push(Event { is_subscribed: true, ..event });
    }

    /// A grant will expire.
    pub fn tell_of_expiry_to_come(&mut self, grant: Uuid) {
        let grant = self.grant(grant);
        let data = [
            ("grant_id", Value::String(grant.id.to_string())),
            ("remaining", amount(grant.remaining)),
            ("expires_at", instant(grant.terms.expires_at)),
        ];
        let event = self.event(EventType::GrantExpiring, grant.wallet, data);
        self.events.push(event);
    }

    /// Credits were given: the event of the entry that gave them.
    pub fn grant_created(&self, entry: &Entry) -> Option<Event> {
        let grant = self.grant(entry.movement.grant?);
        let data = [
            ("grant_id", Value::String(grant.id.to_string())),
            ("grant_type", grant.terms.grant_type.code().into()),
            ("amount", amount(entry.movement.credits)),
            ("effective_at", instant(grant.terms.effective_at)),
            ("expires_at", instant(grant.terms.expires_at)),
            ("transaction_id", self.transaction_of(entry).as_str().into()),
            ("metadata", serde_json::from_str(&grant.terms.metadata).unwrap_or_default()),
        ];
        Some(self.of_entry(EventType::GrantCreated, entry, data))
    }

    /// Credits expired: the event of the entry that took them.
    pub fn grant_expired(&self, entry: &Entry) -> Option<Event> {
        let data = [
            ("grant_id", Value::String(entry.movement.grant?.to_string())),
            ("credits", amount(entry.movement.credits)),
            ("transaction_id", self.transaction_of(entry).as_str().into()),
        ];
        Some(self.of_entry(EventType::GrantExpired, entry, data))
    }

    fn of_entry<const N: usize>(&self, event_type: EventType, entry: &Entry, data: [(&str, Value); N]) -> Event {
        Event { at: entry.movement.occurred_at, ..self.event(event_type, entry.wallet, data) }
    }

    fn transaction_of(&self, entry: &Entry) -> &TransactionId {
        &self.transactions[entry.transaction].id
    }
}
