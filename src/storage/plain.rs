//! The plain deduction: a customer with one wallet, nothing due, paid by the grant that rides on the wallet's row. And the plain
//! event: the same for a metered event whose meters only add to periods that have begun.
//!
//! One row updated, one inserted, no decision but those that a column or two make. Whatever is not plain (no grant rides, it is used
//! up, a refusal, a due event, a used key) is put back and left to the general path, which ends by letting the next grant ride.

use uuid::Uuid;

use super::codec::{Codec, text};
use super::statement::{Access, Parameter, Row, statements};
use super::{clock, meter_periods, metered, meters};
use crate::domain::amount::Amount;
use crate::domain::meter::{MeterPeriod, PeriodKey, Reading, readings};
use crate::domain::metering::{Event, PlainCharge, RecordUsage};
use crate::domain::names::{CustomerId, EventName, TransactionId, WalletCode};
use crate::domain::request::Fingerprint;
use crate::domain::time::Timestamp;
use crate::domain::usage::{DeductUsage, Scope};

statements! {
    /// Takes the lock and the credits in one. Index scan on wallets_anchor, one row, HOT. No row: not plain, nothing is locked.
    /// With its last credit a grant is exhausted, which is for its own row to say: hence more than $2. At low_at an alert fires.
    /// The clock of RETURNING is read under the lock; the one stored may have been read before waiting for it.
    TAKE(TEXTOID, NUMERICOID, TEXTOID, TEXTOID) = "
        update credits_data.wallets
        set balance = balance - $2,
            head_remaining = head_remaining - $2,
            last_seq = last_seq + 1,
            last_recorded_at = greatest(last_recorded_at, credits.clock())
        where customer_id = $1
          and is_anchor
          and wallet_count = 1
          and status = 'active'
          and head_remaining > $2
          and (low_at is null or balance + held - $2 > low_at)
          and case when $3 is null then unit = $4 else wallet = $3 end
        returning wallet, balance, last_seq, last_recorded_at, credits.clock(), next_due_at, late_usage_grace = '0', head_grant_id,
                  has_own_prices";

    /// The entry, and with it the probe of the key, which asks no planner: no row, the key is used.
    APPEND(
        INT8OID, TIMESTAMPTZOID, INT8OID, TEXTOID, TEXTOID, TEXTOID, NUMERICOID, NUMERICOID, UUIDOID, TEXTOID, TIMESTAMPTZOID, JSONBOID,
        JSONBOID, TEXTOID
    ) = "
        insert into credits_data.entries (
            seq, occurred_at, recorded_at, fingerprint, line, kind, customer_id, wallet,
            transaction_id, credits, balance_after, grant_id, event_name, usage_at, metadata, properties, metered
        )
        values ($1, $2, $2, $3, 1, 4, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14)
        on conflict (customer_id, transaction_id, line) do nothing";

    /// Undoes TAKE. With one wallet, the customer's last entry is that wallet's.
    PUT_BACK(TEXTOID, NUMERICOID) = "
        update credits_data.wallets w
        set balance = balance + $2,
            head_remaining = head_remaining + $2,
            last_seq = last_seq - 1,
            last_recorded_at = coalesce((
                select e.recorded_at
                from credits_data.entries e
                where e.customer_id = w.customer_id
                  and e.wallet = w.wallet
                  and e.seq = w.last_seq - 1
            ), '-infinity')
        where w.customer_id = $1
          and w.is_anchor";

    /// A period, with the catalogue's token. Primary key, one row; no row if nothing was counted in it yet.
    PERIOD(TEXTOID, TEXTOID, TIMESTAMPTZOID, TEXTOID) = "
        select (select token from credits_data.meter_catalog where is_one), aggregate, events, arrivals, paid, paid_by,
               paid_left
        from credits_data.meter_periods
        where customer_id = $1
          and meter = $2
          and period_start = $3
          and rate = $4";

    /// Undoes what [`count`] did. Primary key, one row, HOT.
    UNCOUNT(TEXTOID, TEXTOID, TIMESTAMPTZOID, TEXTOID, NUMERICOID, INT8OID, INT8OID, NUMERICOID, TEXTOID, NUMERICOID) = "
        update credits_data.meter_periods
        set aggregate = $5,
            events = $6,
            arrivals = $7,
            paid = $8,
            paid_by = $9,
            paid_left = $10
        where customer_id = $1
          and meter = $2
          and period_start = $3
          and rate = $4";
}

/// Two clock readings of one statement lie this close together, unless it waited for the lock in between.
const WAIT_TOLERANCE_MICROSECONDS: i64 = 100_000;

/// Credits that were taken, with the lock.
struct Taken {
    wallet: WalletCode,
    balance: Amount,
    seq: i64,
    now: Timestamp,
    grant: Uuid,
    has_own_prices: bool,
}

/// The JSON of a call as it came: stored like that, it need not be made of its text again.
#[derive(Debug, Clone, Copy)]
pub struct Documents {
    pub metadata: Parameter,
    pub properties: Parameter,
}

/// Makes the deduction if it is plain, and returns the balance after it; none if it is not, with everything as before but for the lock.
pub fn deduct(customer_id: &CustomerId, id: &TransactionId, request: &DeductUsage, documents: Documents) -> Option<Amount> {
    let taken = take(customer_id, request.amount, &request.scope, request.occurred_at)?;
    let entry = Entry {
        id,
        fingerprint: request.fingerprint(),
        credits: request.amount,
        event_name: request.event_name.as_ref(),
        usage_at: request.occurred_at,
        documents,
        metered: None,
    };
    if !append(customer_id, &taken, &entry) {
        put_back(customer_id, request.amount);
        return None;
    }
    Some(taken.balance)
}

fn take(customer_id: &CustomerId, amount: Amount, scope: &Scope, occurred_at: Option<Timestamp>) -> Option<Taken> {
    let parameters = [
        Some(text(customer_id.as_str())),
        Some(amount.encode()),
        scope.wallet.as_ref().map(|wallet| text(wallet.as_str())),
        Some(text(&scope.unit)),
    ];
    let rows = TAKE.with(|statement| statement.run(Access::Write, &parameters));
    let mut row = rows.first()?;
    let wallet = WalletCode::stored(row.take());
    let (balance, seq, now) = (row.take(), row.take(), row.take());
    let clock: Timestamp = row.take();
    let next_due_at: Timestamp = row.take();
    let has_no_grace: bool = row.take();
    let taken = Taken { wallet, balance, seq, now, grant: row.take(), has_own_prices: row.take() };
    let waited = clock > taken.now.plus_microseconds(WAIT_TOLERANCE_MICROSECONDS);
    let is_due = next_due_at <= clock.max(taken.now);
    let may_be_late = occurred_at.is_some_and(|at| !has_no_grace || at > taken.now);
    if waited || is_due || may_be_late {
        put_back(customer_id, amount);
        return None;
    }
    Some(taken)
}

fn put_back(customer_id: &CustomerId, amount: Amount) {
    let parameters = [Some(text(customer_id.as_str())), Some(amount.encode())];
    PUT_BACK.with(|statement| statement.run(Access::Write, &parameters));
}

/// What the one entry of a plain call says.
struct Entry<'a> {
    id: &'a TransactionId,
    fingerprint: Fingerprint,
    credits: Amount,
    event_name: Option<&'a EventName>,
    usage_at: Option<Timestamp>,
    documents: Documents,
    metered: Option<&'a str>,
}

/// False if the key is used.
fn append(customer_id: &CustomerId, taken: &Taken, entry: &Entry<'_>) -> bool {
    let parameters = [
        Some(taken.seq.encode()),
        Some(taken.now.encode()),
        Some(entry.fingerprint.0.encode()),
        Some(text(customer_id.as_str())),
        Some(text(taken.wallet.as_str())),
        Some(text(entry.id.as_str())),
        Some(entry.credits.encode()),
        Some(taken.balance.encode()),
        entry.credits.is_positive().then(|| taken.grant.encode()),
        entry.event_name.map(|event| text(event.as_str())),
        entry.usage_at.map(|at| at.encode()),
        entry.documents.metadata,
        entry.documents.properties,
        entry.metered.map(text),
    ];
    APPEND.with(|statement| statement.run(Access::Write, &parameters)).count() > 0
}

/// Records the event if it is plain: what it cost, and the balance after it; none if it is not, with everything as before but for the
/// lock.
///
/// What it costs is known only under the lock, and the lock is taken with the credits. So they are foretold: exactly, if the price is
/// one of a unit, else from what has been counted so far. Under the lock it is reckoned again; if the event falls into another period
/// or under another price list then, or costs something else than was taken, the call is not plain.
pub fn record(
    customer_id: &CustomerId,
    id: &TransactionId,
    request: &RecordUsage,
    documents: Documents,
) -> Option<(Amount, Amount)> {
    let Event { event_name, properties, .. } = &request.event;
    let meters = meters::kept(event_name)?;
    let scope = &meters.first()?.scope;
    if !meters.iter().all(|meter| meter.aggregation.is_additive() && meter.scope == *scope) {
        return None;
    }
    // What is wrong with the event, or with the clock, is for the general path to say.
    let usage_at = |now: Timestamp| request.occurred_at.unwrap_or(now);
    let foretold = readings(&meters, event_name, properties, usage_at(clock::now().ok()?)).ok()?;
    if foretold.is_empty() {
        return None;
    }
    let shares = match foretold.iter().map(Reading::price_by_unit).collect::<Option<Vec<Amount>>>() {
        Some(shares) => shares,
        None => {
            let before = foretold.iter().map(|reading| period(customer_id, &reading.key)).collect::<Option<Vec<_>>>()?;
            PlainCharge::of(&foretold, &before).ok()??.shares()
        }
    };
    let credits = shares.iter().copied().sum();
    let taken = take(customer_id, credits, scope, request.occurred_at)?;
    let mut counted = Vec::with_capacity(shares.len());
    let is_as_foretold = !taken.has_own_prices && foretold.iter().all(|reading| reading.holds_at(usage_at(taken.now)));
    let is_recorded =
        is_as_foretold && record_taken(customer_id, id, request, documents, &taken, &foretold, &shares, &mut counted).is_some();
    if !is_recorded {
        counted.iter().for_each(|before| uncount(customer_id, before));
        put_back(customer_id, credits);
    }
    is_recorded.then_some((credits, taken.balance))
}

/// Counts the event and appends its entry, if each meter charges the share that was taken for it. `counted` gets the periods as they
/// were.
fn record_taken(
    customer_id: &CustomerId,
    id: &TransactionId,
    request: &RecordUsage,
    documents: Documents,
    taken: &Taken,
    readings: &[Reading<'_>],
    shares: &[Amount],
    counted: &mut Vec<MeterPeriod>,
) -> Option<()> {
    for (reading, share) in readings.iter().zip(shares) {
        let (before, is_current) = count(customer_id, reading, *share, id)?;
        counted.push(before);
        if !is_current {
            return None;
        }
    }
    let charge = PlainCharge::of(readings, counted).ok()?.filter(|charge| charge.shares() == shares)?;
    let entry = Entry {
        id,
        fingerprint: request.fingerprint(),
        credits: shares.iter().copied().sum(),
        event_name: Some(&request.event.event_name),
        usage_at: request.occurred_at,
        documents,
        metered: Some(&metered::counted(&charge.counts)),
    };
    append(customer_id, taken, &entry).then_some(())
}

fn key_parameters(customer_id: &CustomerId, key: &PeriodKey) -> [Parameter; 4] {
    [Some(text(customer_id.as_str())), Some(text(key.meter.as_str())), Some(key.starts_at.encode()), Some(text(&key.rate))]
}

/// A period as it is; none if it has not begun, or other meters are kept than there are now.
fn period(customer_id: &CustomerId, key: &PeriodKey) -> Option<MeterPeriod> {
    let rows = PERIOD.with(|statement| statement.run(Access::Write, &key_parameters(customer_id, key)));
    let (period, is_current) = read_period(key, rows.first()?);
    is_current.then_some(period)
}

/// Counts what a meter reads, and what it is paid by a transaction. Returns the period as it was, and whether the meters that
/// are kept are those there are now; none if the period has not begun.
fn count(customer_id: &CustomerId, reading: &Reading<'_>, paid: Amount, id: &TransactionId) -> Option<(MeterPeriod, bool)> {
    let (token, before) = meter_periods::change_one(customer_id, &reading.key, |period| {
        period.aggregate += reading.quantity();
        period.events += 1;
        period.arrivals += 1;
        period.paid += paid;
        if paid.is_positive() {
            period.paid_by = Some(id.clone());
            period.paid_left = None;
        }
    })?;
    Some((before, meters::is_current(token)))
}

fn read_period(key: &PeriodKey, mut row: Row<'_>) -> (MeterPeriod, bool) {
    let is_current = meters::is_current(row.take());
    let period = MeterPeriod {
        key: key.clone(),
        aggregate: row.take(),
        events: row.take(),
        arrivals: row.take(),
        latest_at: None,
        paid: row.take(),
        paid_by: row.optional().map(TransactionId::stored),
        paid_left: row.optional(),
    };
    (period, is_current)
}

fn uncount(customer_id: &CustomerId, before: &MeterPeriod) {
    let [customer, meter, starts_at, rate] = key_parameters(customer_id, &before.key);
    let parameters = [
        customer,
        meter,
        starts_at,
        rate,
        Some(before.aggregate.encode()),
        Some(before.events.encode()),
        Some(before.arrivals.encode()),
        Some(before.paid.encode()),
        before.paid_by.as_ref().map(|id| text(id.as_str())),
        before.paid_left.map(|left| left.encode()),
    ];
    UNCOUNT.with(|statement| statement.run(Access::Write, &parameters));
}
