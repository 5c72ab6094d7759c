create table credits_data.chart_of_accounts (
    kind_id smallint primary key,
    kind text collate "C" not null unique,
    debit_account text collate "C" not null,
    credit_account text collate "C" not null
);
comment on table credits_data.chart_of_accounts is 'Between which two accounts each kind of entry moves credits. Filled by the extension from its own chart, which also decides what an entry does to a balance.';
comment on column credits_data.chart_of_accounts.kind_id is 'As stored in entries.kind.';
comment on column credits_data.chart_of_accounts.kind is 'Name of the kind, as shown by credits.ledger.';
comment on column credits_data.chart_of_accounts.debit_account is 'Account the credits come from.';
comment on column credits_data.chart_of_accounts.credit_account is 'Account the credits go to.';

-- In every table the columns of fixed width come first: PostgreSQL finds those without walking the row.

-- One row a wallet. A customer's first wallet is its anchor: whatever writes anything of the customer first updates that row, and
-- so holds the customer's one lock. No index mentions a column that a deduction changes, so that deductions are HOT updates.
create table credits_data.wallets (
    last_seq bigint not null default 0,
    overage_closed_seq bigint not null default 0,
    next_due_at timestamptz not null default 'infinity',
    last_recorded_at timestamptz not null default '-infinity',
    created_at timestamptz not null,
    credit_count bigint not null default 0,
    wallet_count integer not null default 1,
    priority integer not null,
    status credits_data.wallet_status not null default 'active',
    overage_policy credits_data.overage_policy not null,
    late_usage_grace interval not null,
    is_anchor boolean not null,
    has_own_prices boolean not null default false,
    has_open_overage boolean not null default false,
    has_top_up boolean not null default false,
    customer_id credits_data.name not null,
    wallet credits_data.name not null,
    unit credits_data.name not null,
    balance credits_data.amount not null default 0,
    held credits_data.amount not null default 0,
    scheduled credits_data.amount not null default 0,
    debt credits_data.amount not null default 0,
    overage credits_data.total not null default 0,
    credited_level credits_data.amount not null default 0,
    low_at credits_data.amount,
    high_at credits_data.amount,
    head_grant_id uuid,
    head_remaining credits_data.amount,
    name text,
    expires_after interval,
    overage_limit credits_data.amount,
    overage_unit_price credits_data.amount,
    overage_currency text collate "C",
    metadata jsonb not null,
    primary key (customer_id, wallet)
) with (fillfactor = 50);
create unique index wallets_anchor on credits_data.wallets (customer_id) where is_anchor;
-- For close_overage: a column that no deduction of grants changes, and one of overage once.
create index wallets_open_overage on credits_data.wallets (customer_id, wallet) where has_open_overage;
-- For maintenance: customers with something due, the longest overdue first.
create index wallets_due on credits_data.wallets (next_due_at) where is_anchor;
comment on table credits_data.wallets is 'One row a wallet: settings, and totals as of its last entry. The row of a customer''s first wallet (is_anchor) is the customer''s lock.';
comment on column credits_data.wallets.customer_id is 'Whoever owns the credits: the application''s own id.';
comment on column credits_data.wallets.wallet is 'Short code of the wallet, unique for its customer.';
comment on column credits_data.wallets.is_anchor is 'The customer''s first wallet. Every call that writes anything of the customer begins by updating this row.';
comment on column credits_data.wallets.wallet_count is 'On the anchor: how many wallets the customer has.';
comment on column credits_data.wallets.has_own_prices is 'On the anchor: the customer has price lists of its own.';
comment on column credits_data.wallets.credit_count is 'On the anchor: how many calls brought the customer credits. An event in the inbox that found none is tried again when it has changed.';
comment on column credits_data.wallets.next_due_at is 'On the anchor: nothing of the customer falls due before this instant. It may be early, never late.';
comment on column credits_data.wallets.last_recorded_at is 'On the anchor: when the customer''s last entries were recorded. Time never runs backwards behind it.';
comment on column credits_data.wallets.balance is 'Credits of its active grants, as last settled.';
comment on column credits_data.wallets.held is 'Credits set aside by open holds.';
comment on column credits_data.wallets.scheduled is 'Credits of grants that are not effective yet.';
comment on column credits_data.wallets.debt is 'Overdraft that is not repaid.';
comment on column credits_data.wallets.overage is 'Overage that is not on an invoice line yet; negative if what was on a line has been refunded.';
comment on column credits_data.wallets.has_open_overage is 'Entries of overage, or of its refunds, are not on an invoice line yet.';
comment on column credits_data.wallets.overage_closed_seq is 'Entries of overage up to this number are on invoice lines.';
comment on column credits_data.wallets.has_top_up is 'It has an auto top-up that is enabled.';
comment on column credits_data.wallets.credited_level is 'balance + held right after the last credit came in: what alerts count percents of.';
comment on column credits_data.wallets.low_at is 'When balance + held falls to it, an alert fires or a top-up is requested; null if none waits.';
comment on column credits_data.wallets.high_at is 'When balance + held rises above it, an alert is armed again; null if none waits.';
comment on column credits_data.wallets.last_seq is 'Number of its last entry.';
comment on column credits_data.wallets.status is 'active, frozen (time goes on, nothing is spent) or closed (for good).';
comment on column credits_data.wallets.unit is 'What one credit of this wallet is.';
comment on column credits_data.wallets.priority is 'Lower is spent first.';
comment on column credits_data.wallets.head_grant_id is 'The grant that pays next, while it rides on this row: its remaining stands in head_remaining, not in its own row.';
comment on column credits_data.wallets.head_remaining is 'Credits left in the grant head_grant_id.';
comment on column credits_data.wallets.name is 'For people.';
comment on column credits_data.wallets.expires_after is 'Life of a grant that gives no expiry itself, counted from its effective_at.';
comment on column credits_data.wallets.overage_policy is 'What happens to usage beyond the grants: block, invoice or overdraft.';
comment on column credits_data.wallets.overage_limit is 'The most overage that may be open; null is no limit.';
comment on column credits_data.wallets.overage_unit_price is 'Price of one credit of overage.';
comment on column credits_data.wallets.overage_currency is 'ISO 4217 code of that price.';
comment on column credits_data.wallets.late_usage_grace is 'How long after its expiry a grant still pays usage that happened before.';
comment on column credits_data.wallets.metadata is 'The caller''s own references.';
comment on column credits_data.wallets.created_at is 'When it was created.';

create table credits_data.grants (
    created_seq bigint not null,
    effective_at timestamptz not null,
    expires_at timestamptz not null,
    due_at timestamptz not null,
    priority integer not null,
    grant_type credits_data.grant_type not null,
    status credits_data.grant_status not null,
    unlimited boolean not null,
    rolled_over boolean not null,
    expiring_noticed boolean not null default false,
    grant_id uuid not null,
    customer_id text collate "C" not null,
    wallet text collate "C" not null,
    amount credits_data.amount not null,
    remaining credits_data.amount not null,
    expired credits_data.amount not null,
    unit_price credits_data.amount,
    currency text collate "C",
    applies_to text[],
    recurring_grant text collate "C",
    contract text collate "C",
    metadata jsonb not null,
    primary key (customer_id, grant_id)
) with (fillfactor = 80);
-- The grants that can be spent, in the order of spending. A grant enters and leaves it once; a deduction changes no column of it.
create index grants_live on credits_data.grants
    (customer_id, wallet, priority, expires_at, unlimited, grant_type, effective_at, created_seq)
    where status = 'active';
-- What settling has to do next.
create index grants_due on credits_data.grants (customer_id, due_at) where due_at < 'infinity';
-- For late usage under a wallet's grace.
create index grants_expired on credits_data.grants (customer_id, wallet, expires_at) where status = 'expired';
-- What is to be told of before it expires.
create index grants_expiring on credits_data.grants (expires_at)
    where status = 'active' and not expiring_noticed and expires_at < 'infinity';
-- What counts against the cap of a rollover.
create index grants_rolled_over on credits_data.grants (customer_id, recurring_grant)
    where rolled_over and status = 'active' and recurring_grant is not null;
-- What a contract that ends early takes with it, and what its progress is made of.
create index grants_contract on credits_data.grants (customer_id, contract) where contract is not null;
comment on table credits_data.grants is 'One row a block of credits. What it was given stands in amount, what is left as last settled in remaining.';
comment on column credits_data.grants.customer_id is 'Whoever owns the credits.';
comment on column credits_data.grants.grant_id is 'UUIDv7.';
comment on column credits_data.grants.wallet is 'The wallet it lies in.';
comment on column credits_data.grants.created_seq is 'Number of the wallet''s entry that created it: the order of creation.';
comment on column credits_data.grants.priority is 'Lower is spent first.';
comment on column credits_data.grants.grant_type is 'promotional (free), committed (part of a contract) or prepaid (bought).';
comment on column credits_data.grants.effective_at is 'Live from this instant.';
comment on column credits_data.grants.expires_at is 'Live before this instant; infinity is never.';
comment on column credits_data.grants.due_at is 'The next instant at which settling has something to do with it; infinity if never.';
comment on column credits_data.grants.unlimited is 'It pays any usage: applies_to is null.';
comment on column credits_data.grants.status is 'As last settled: scheduled, active, exhausted, expired or voided.';
comment on column credits_data.grants.amount is 'Credits given.';
comment on column credits_data.grants.remaining is 'Credits left, as last settled: the sum of its entries. Of a grant that rides on its wallet''s row (wallets.head_grant_id) it stands there.';
comment on column credits_data.grants.expired is 'Net credits that expired.';
comment on column credits_data.grants.unit_price is 'Price paid for one credit.';
comment on column credits_data.grants.currency is 'ISO 4217 code of that price.';
comment on column credits_data.grants.applies_to is 'Names of the events whose usage it pays; null is any.';
comment on column credits_data.grants.recurring_grant is 'The recurring grant that gave it, if one did.';
comment on column credits_data.grants.contract is 'The contract that gave it, if one did.';
comment on column credits_data.grants.rolled_over is 'It holds what was left of an earlier period or contract, and does not roll over again.';
comment on column credits_data.grants.expiring_noticed is 'Event grant.expiring was written for it.';
comment on column credits_data.grants.metadata is 'The caller''s own references, such as a payment intent or a contract number.';

-- The ledger. Two unique indexes are all it has for a plain deduction; the partial ones hold refunds and repayments only.
create table credits_data.entries (
    seq bigint not null,
    occurred_at timestamptz not null,
    recorded_at timestamptz not null,
    fingerprint bigint,
    line integer not null,
    kind smallint not null,
    customer_id text collate "C" not null,
    wallet text collate "C" not null,
    transaction_id text collate "C" not null,
    credits numeric not null,
    balance_after numeric not null,
    grant_id uuid,
    event_name text collate "C",
    usage_at timestamptz,
    requested numeric,
    unit_price numeric,
    currency text collate "C",
    refers_to text collate "C",
    reverses_seq bigint,
    metadata jsonb,
    properties jsonb,
    metered text,
    primary key (customer_id, wallet, seq),
    constraint entries_transaction unique (customer_id, transaction_id, line)
);
create index entries_refers_to on credits_data.entries (customer_id, refers_to) where refers_to is not null;
create index entries_reverses on credits_data.entries (customer_id, wallet, reverses_seq) where reverses_seq is not null;
create index entries_repaid on credits_data.entries (customer_id, wallet, seq) where kind = 22;
create index entries_overage on credits_data.entries (customer_id, wallet, occurred_at) where kind in (18, 19);
create index entries_voided on credits_data.entries (customer_id, grant_id) where kind = 8;
comment on table credits_data.entries is 'The ledger: one immutable row a movement of credits. Never updated, deleted or truncated.';
comment on column credits_data.entries.seq is 'Number within the wallet: 1, 2, 3, ... without a gap.';
comment on column credits_data.entries.occurred_at is 'When the movement took effect: the due instant for what settling wrote, else the call''s now.';
comment on column credits_data.entries.recorded_at is 'The now of the call that wrote it.';
comment on column credits_data.entries.fingerprint is 'On the first line of a transaction: 64 bits of the SHA-256 of what makes two requests the same.';
comment on column credits_data.entries.line is 'Number within the transaction: 1, 2, 3, ...';
comment on column credits_data.entries.kind is 'See chart_of_accounts.';
comment on column credits_data.entries.customer_id is 'Whoever owns the credits.';
comment on column credits_data.entries.wallet is 'The wallet whose books it belongs to.';
comment on column credits_data.entries.transaction_id is 'Id of the call''s transaction: the caller''s idempotency key, or a UUIDv7.';
comment on column credits_data.entries.credits is 'Amount moved, never negative.';
comment on column credits_data.entries.balance_after is 'Balance of the wallet after the entry.';
comment on column credits_data.entries.grant_id is 'The grant whose credits moved, if of a grant.';
comment on column credits_data.entries.event_name is 'Name of the usage event.';
comment on column credits_data.entries.usage_at is 'When the usage happened, as told by the caller.';
comment on column credits_data.entries.requested is 'On the first line: the amount asked for, if the entries do not add up to it.';
comment on column credits_data.entries.unit_price is 'Of overage: price of one credit when it was charged.';
comment on column credits_data.entries.currency is 'Of overage: ISO 4217 code of that price.';
comment on column credits_data.entries.refers_to is 'Of a refund: the transaction refunded. Of the capture, release or lapse of a hold: the hold.';
comment on column credits_data.entries.reverses_seq is 'Of a refund: the entry of the same wallet that it takes back.';
comment on column credits_data.entries.metadata is 'The caller''s own references, and the reason of a correction.';
comment on column credits_data.entries.properties is 'On the first line of a metered event: its properties.';
comment on column credits_data.entries.metered is 'On the first line of a metered event: what each meter counted and charged; of a refund that takes an event out of what meters count: the same, with taken_out. A JSON object by meter, as text since it is written for every event and read for few.';

comment on index credits_data.chart_of_accounts_pkey is 'One row a kind.';
comment on index credits_data.chart_of_accounts_kind_key is 'Names of kinds are unique.';
comment on index credits_data.wallets_pkey is 'A customer has one wallet of a code; all of a customer stand together.';
comment on index credits_data.wallets_anchor is 'A customer has one anchor, found by the customer alone: the lock.';
comment on index credits_data.wallets_open_overage is 'Wallets with overage that is not on an invoice line yet.';
comment on index credits_data.wallets_due is 'Customers with something due, the longest overdue first, for maintenance.';
comment on index credits_data.grants_pkey is 'A grant of a customer by its id.';
comment on index credits_data.grants_live is 'The grants that can be spent, in the order of spending.';
comment on index credits_data.grants_due is 'What settling has to do next for a customer.';
comment on index credits_data.grants_rolled_over is 'What a recurring grant rolled over and is not spent, for its cap.';
comment on index credits_data.grants_contract is 'The grants of a contract.';
comment on index credits_data.grants_expiring is 'Grants of which nobody has been told that they will expire, the next first.';
comment on index credits_data.grants_expired is 'Expired grants of a wallet, for late usage under its grace.';
comment on index credits_data.entries_pkey is 'Entries of a wallet by number, without a gap.';
comment on index credits_data.entries_transaction is 'A transaction id stands for one transaction of a customer: the idempotency key.';
comment on index credits_data.entries_refers_to is 'The refunds of a transaction, and what became of a hold.';
comment on index credits_data.entries_reverses is 'What took an entry back.';
comment on index credits_data.entries_repaid is 'Repayments of a wallet''s debt (kind 22), for refunds of overdraft.';
comment on index credits_data.entries_overage is 'Overage of a wallet and its refunds (kinds 18 and 19), for invoice lines and for what is left of a minimum spend.';
comment on index credits_data.entries_voided is 'What was voided of a grant (kind 8), for the progress of a contract.';
comment on constraint chart_of_accounts_pkey on credits_data.chart_of_accounts is 'One row a kind.';
comment on constraint chart_of_accounts_kind_key on credits_data.chart_of_accounts is 'Names of kinds are unique.';
comment on constraint wallets_pkey on credits_data.wallets is 'A customer has one wallet of a code; all of a customer stand together.';
comment on constraint grants_pkey on credits_data.grants is 'A grant of a customer by its id.';
comment on constraint entries_pkey on credits_data.entries is 'Entries of a wallet by number, without a gap.';
comment on constraint entries_transaction on credits_data.entries is 'A transaction id stands for one transaction of a customer: the idempotency key.';

create function credits_data.refuse_change() returns trigger
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
begin
    raise exception using
        errcode = 'insufficient_privilege',
        message = pg_catalog.format('the ledger is append-only: %s of %I.%I is refused', tg_op, tg_table_schema, tg_table_name),
        detail = 'code=append_only',
        hint = 'Correct a mistake with a new movement: credits.refund_usage, credits.void_grant or credits.adjust_credits.';
end
$$;
comment on function credits_data.refuse_change() is 'Refuses every change of what stands in the ledger, for its owner too.';

create trigger entries_append_only
    before update or delete or truncate on credits_data.entries
    for each statement execute function credits_data.refuse_change();
alter table credits_data.entries enable always trigger entries_append_only;
comment on trigger entries_append_only on credits_data.entries is 'Entries are never updated, deleted or truncated.';

select pg_catalog.pg_extension_config_dump('credits_data.chart_of_accounts', 'where false');
select pg_catalog.pg_extension_config_dump('credits_data.wallets', '');
select pg_catalog.pg_extension_config_dump('credits_data.grants', '');
select pg_catalog.pg_extension_config_dump('credits_data.entries', '');
