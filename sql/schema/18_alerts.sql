-- What watches a wallet's level, which is balance + held: alerts, and top-ups by themselves.
create type credits_data.top_up_status as enum ('open', 'succeeded', 'failed', 'cancelled');
comment on type credits_data.top_up_status is 'What became of a requested top-up.';

create table credits_data.alerts (
    created_at timestamptz not null,
    fired_at timestamptz,
    dropped_at timestamptz,
    is_armed boolean not null,
    alert_id uuid not null,
    customer_id credits_data.name not null,
    wallet credits_data.name not null,
    threshold_percent credits_data.amount,
    threshold_credits credits_data.amount,
    rearm credits_data.amount,
    primary key (customer_id, alert_id)
) with (fillfactor = 80);
create index alerts_wallet on credits_data.alerts (customer_id, wallet) where dropped_at is null;
comment on table credits_data.alerts is 'Thresholds of a wallet. An alert fires once when the level falls to or below its threshold, and is armed again when it is above.';
comment on column credits_data.alerts.customer_id is 'Whose wallet.';
comment on column credits_data.alerts.alert_id is 'UUIDv7.';
comment on column credits_data.alerts.wallet is 'The wallet.';
comment on column credits_data.alerts.threshold_percent is 'Percent of wallets.credited_level; null if the threshold is in credits.';
comment on column credits_data.alerts.threshold_credits is 'Credits; null if the threshold is in percent.';
comment on column credits_data.alerts.rearm is 'Above it the alert is armed again, in the measure of the threshold; null is the threshold.';
comment on column credits_data.alerts.is_armed is 'It fires when the level falls to its threshold; else it has fired.';
comment on column credits_data.alerts.fired_at is 'When it fired last; null if never.';
comment on column credits_data.alerts.dropped_at is 'When it was dropped; null while it is in use.';
comment on column credits_data.alerts.created_at is 'When it was created.';

create table credits_data.top_up_rules (
    due_at timestamptz not null,
    created_at timestamptz not null,
    cooldown interval not null,
    period interval not null,
    max_per_period integer,
    failures integer not null,
    enabled boolean not null,
    customer_id credits_data.name not null,
    wallet credits_data.name not null,
    threshold credits_data.amount not null,
    amount credits_data.amount,
    target_balance credits_data.amount,
    wanted credits_data.amount,
    unit_price credits_data.amount,
    expires_after interval,
    currency text collate "C",
    payment_method_id text,
    primary key (customer_id, wallet)
) with (fillfactor = 80);
create index top_up_rules_due on credits_data.top_up_rules (customer_id, due_at) where due_at < 'infinity';
comment on table credits_data.top_up_rules is 'Auto top-up of a wallet: when to request one, and how much.';
comment on column credits_data.top_up_rules.customer_id is 'Whose wallet.';
comment on column credits_data.top_up_rules.wallet is 'The wallet.';
comment on column credits_data.top_up_rules.threshold is 'A top-up is requested when the level is at or below it.';
comment on column credits_data.top_up_rules.amount is 'Credits of a top-up; null if it fills up to target_balance.';
comment on column credits_data.top_up_rules.target_balance is 'Balance after a top-up; null if amount is given.';
comment on column credits_data.top_up_rules.payment_method_id is 'The payment provider''s reference.';
comment on column credits_data.top_up_rules.cooldown is 'Least time from one top-up to the next.';
comment on column credits_data.top_up_rules.max_per_period is 'Most top-ups within any period; null is no limit.';
comment on column credits_data.top_up_rules.period is 'Length of that period.';
comment on column credits_data.top_up_rules.expires_after is 'Life of the credits; null is the wallet''s.';
comment on column credits_data.top_up_rules.unit_price is 'Price of one credit.';
comment on column credits_data.top_up_rules.currency is 'ISO 4217 code of that price.';
comment on column credits_data.top_up_rules.enabled is 'Whether it requests top-ups.';
comment on column credits_data.top_up_rules.failures is 'Failed payments in a row.';
comment on column credits_data.top_up_rules.wanted is 'What usage asked for in vain while a top-up was held back.';
comment on column credits_data.top_up_rules.due_at is 'When what holds a wanted top-up back ends; infinity if none is held back.';
comment on column credits_data.top_up_rules.created_at is 'When it was defined.';

create table credits_data.top_ups (
    requested_at timestamptz not null,
    available_at timestamptz not null,
    claimed_at timestamptz,
    finished_at timestamptz,
    failures integer not null,
    status credits_data.top_up_status not null,
    top_up_id uuid not null,
    grant_id uuid,
    customer_id credits_data.name not null,
    wallet credits_data.name not null,
    amount credits_data.amount not null,
    cancel_above credits_data.amount,
    unit_price credits_data.amount,
    expires_after interval,
    currency text collate "C",
    payment_method_id text,
    payment_reference text collate "C",
    reason text,
    primary key (customer_id, top_up_id)
) with (fillfactor = 70);
create unique index top_ups_open on credits_data.top_ups (customer_id, wallet) where status = 'open';
create index top_ups_claimable on credits_data.top_ups (available_at, top_up_id) where status = 'open';
create index top_ups_recent on credits_data.top_ups (customer_id, wallet, requested_at);
comment on table credits_data.top_ups is 'Requested top-ups: claimed by a worker, which has the money collected, and completed with exactly one grant.';
comment on column credits_data.top_ups.customer_id is 'Whose wallet.';
comment on column credits_data.top_ups.top_up_id is 'UUIDv7; the idempotency key for the payment provider.';
comment on column credits_data.top_ups.wallet is 'The wallet.';
comment on column credits_data.top_ups.status is 'open, succeeded, failed or cancelled.';
comment on column credits_data.top_ups.amount is 'Credits, fixed when it was requested.';
comment on column credits_data.top_ups.cancel_above is 'Before a payment was attempted, it is cancelled if the level is above it; null is never.';
comment on column credits_data.top_ups.payment_method_id is 'The payment provider''s reference.';
comment on column credits_data.top_ups.unit_price is 'Price of one credit.';
comment on column credits_data.top_ups.currency is 'ISO 4217 code of that price.';
comment on column credits_data.top_ups.expires_after is 'Life of the credits; null is the wallet''s.';
comment on column credits_data.top_ups.requested_at is 'When it was requested.';
comment on column credits_data.top_ups.available_at is 'From when it can be claimed: after a backoff, or the end of a lease.';
comment on column credits_data.top_ups.claimed_at is 'When it was claimed, as long as the outcome of that attempt is not known.';
comment on column credits_data.top_ups.finished_at is 'When it succeeded, failed or was cancelled.';
comment on column credits_data.top_ups.failures is 'Failed attempts.';
comment on column credits_data.top_ups.payment_reference is 'The payment, as passed to complete_top_up.';
comment on column credits_data.top_ups.grant_id is 'The grant it led to.';
comment on column credits_data.top_ups.reason is 'Why the last attempt failed, or why it was cancelled.';

comment on index credits_data.alerts_pkey is 'An alert of a customer by its id.';
comment on index credits_data.alerts_wallet is 'The alerts of a wallet.';
comment on index credits_data.top_up_rules_pkey is 'The auto top-up of a wallet.';
comment on index credits_data.top_up_rules_due is 'What settling has to do next.';
comment on index credits_data.top_ups_pkey is 'A top-up of a customer by its id.';
comment on index credits_data.top_ups_open is 'A wallet has at most one open top-up.';
comment on index credits_data.top_ups_claimable is 'What workers claim next.';
comment on index credits_data.top_ups_recent is 'The last top-ups of a wallet, for its cooldown and cap.';
comment on constraint alerts_pkey on credits_data.alerts is 'An alert of a customer by its id.';
comment on constraint top_up_rules_pkey on credits_data.top_up_rules is 'The auto top-up of a wallet.';
comment on constraint top_ups_pkey on credits_data.top_ups is 'A top-up of a customer by its id.';

select pg_catalog.pg_extension_config_dump('credits_data.alerts', '');
select pg_catalog.pg_extension_config_dump('credits_data.top_up_rules', '');
select pg_catalog.pg_extension_config_dump('credits_data.top_ups', '');
