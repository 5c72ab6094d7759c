-- What gives and takes credits by itself: each row knows the next instant at which settling has something to do with it.
create table credits_data.recurring_grants (
    anchor timestamptz not null,
    starts_at timestamptz not null,
    ends_at timestamptz not null,
    period_starts_at timestamptz,
    next_starts_at timestamptz not null,
    due_at timestamptz not null,
    created_at timestamptz not null,
    every interval not null,
    priority integer not null,
    rollover_periods integer,
    period_rollover_periods integer,
    grant_type credits_data.grant_type not null,
    prorate boolean not null,
    customer_id credits_data.name not null,
    recurring_grant credits_data.name not null,
    wallet credits_data.name not null,
    time_zone text collate "C" not null,
    amount credits_data.amount not null,
    expires_after interval,
    rollover_percent credits_data.amount not null,
    rollover_cap credits_data.amount,
    period_rollover_percent credits_data.amount,
    period_rollover_cap credits_data.amount,
    unit_price credits_data.amount,
    currency text collate "C",
    applies_to text[],
    metadata jsonb not null,
    primary key (customer_id, recurring_grant)
) with (fillfactor = 80);
create index recurring_grants_due on credits_data.recurring_grants (customer_id, due_at) where due_at < 'infinity';
comment on table credits_data.recurring_grants is 'Credits given anew each period: period n starts at anchor plus n times every, in the time zone.';
comment on column credits_data.recurring_grants.customer_id is 'Whoever gets the credits.';
comment on column credits_data.recurring_grants.recurring_grant is 'Its code, unique for the customer.';
comment on column credits_data.recurring_grants.wallet is 'The wallet that gets them.';
comment on column credits_data.recurring_grants.amount is 'Credits a period, from the next period on.';
comment on column credits_data.recurring_grants.grant_type is 'promotional (free), committed (part of a contract) or prepaid (bought).';
comment on column credits_data.recurring_grants.every is 'Length of a period: months, days or hours.';
comment on column credits_data.recurring_grants.anchor is 'Start of period 0.';
comment on column credits_data.recurring_grants.time_zone is 'The zone whose calendar counts months and days.';
comment on column credits_data.recurring_grants.starts_at is 'When the first period starts.';
comment on column credits_data.recurring_grants.ends_at is 'No period starts at or after it; infinity for no end.';
comment on column credits_data.recurring_grants.period_starts_at is 'When the last period started; null before the first.';
comment on column credits_data.recurring_grants.next_starts_at is 'When the next period starts, if it does so before ends_at.';
comment on column credits_data.recurring_grants.due_at is 'The next instant at which settling has something to do with it; infinity if never.';
comment on column credits_data.recurring_grants.prorate is 'A first period entered late is given its share only.';
comment on column credits_data.recurring_grants.expires_after is 'Life of a period''s grant; null is the period.';
comment on column credits_data.recurring_grants.rollover_percent is 'How much of the unused credits of a period rolls over, from 0 to 100.';
comment on column credits_data.recurring_grants.rollover_cap is 'The most credits that may be rolled over and unspent; null is no limit.';
comment on column credits_data.recurring_grants.rollover_periods is 'How many more periods they live; null is for ever.';
comment on column credits_data.recurring_grants.period_rollover_percent is 'rollover_percent as agreed when the running period started.';
comment on column credits_data.recurring_grants.period_rollover_cap is 'rollover_cap as agreed when the running period started.';
comment on column credits_data.recurring_grants.period_rollover_periods is 'rollover_periods as agreed when the running period started.';
comment on column credits_data.recurring_grants.priority is 'Priority of its grants: lower is spent first.';
comment on column credits_data.recurring_grants.unit_price is 'Price paid for one credit.';
comment on column credits_data.recurring_grants.currency is 'ISO 4217 code of that price.';
comment on column credits_data.recurring_grants.applies_to is 'Names of the events whose usage its grants pay; null is any.';
comment on column credits_data.recurring_grants.metadata is 'The caller''s own references; its grants carry them.';
comment on column credits_data.recurring_grants.created_at is 'When it was defined.';

create table credits_data.contracts (
    starts_at timestamptz not null,
    ends_at timestamptz not null,
    cancelled_at timestamptz,
    due_at timestamptz not null,
    created_at timestamptz not null,
    installments integer not null,
    granted integer not null,
    on_end credits_data.on_end not null,
    minimum_spend boolean not null,
    has_ended boolean not null,
    customer_id credits_data.name not null,
    contract credits_data.name not null,
    wallet credits_data.name not null,
    committed credits_data.amount not null,
    granted_credits credits_data.amount not null,
    rolled_over_credits credits_data.amount not null,
    installment_every interval,
    rollover_percent credits_data.amount not null,
    rollover_cap credits_data.amount,
    rollover_expires_after interval,
    unit_price credits_data.amount,
    currency text collate "C",
    metadata jsonb not null,
    primary key (customer_id, contract)
) with (fillfactor = 80);
create index contracts_due on credits_data.contracts (customer_id, due_at) where due_at < 'infinity';
comment on table credits_data.contracts is 'Committed spend: granted in instalments, or charged at the end as far as it was not used.';
comment on column credits_data.contracts.customer_id is 'Whoever committed to it.';
comment on column credits_data.contracts.contract is 'Its code, unique for the customer.';
comment on column credits_data.contracts.wallet is 'The wallet it is for.';
comment on column credits_data.contracts.committed is 'Credits of the whole term.';
comment on column credits_data.contracts.starts_at is 'When the term starts.';
comment on column credits_data.contracts.ends_at is 'When the term ends, as agreed.';
comment on column credits_data.contracts.cancelled_at is 'When it ends early; null if it does not.';
comment on column credits_data.contracts.due_at is 'The next instant at which settling has something to do with it; infinity if never.';
comment on column credits_data.contracts.installments is 'In how many equal parts the commitment is granted.';
comment on column credits_data.contracts.installment_every is 'Time from one instalment to the next; null divides the term into equal parts.';
comment on column credits_data.contracts.granted is 'How many instalments have been granted.';
comment on column credits_data.contracts.granted_credits is 'Credits of the instalments that have been granted.';
comment on column credits_data.contracts.rolled_over_credits is 'Credits that rolled over at the end.';
comment on column credits_data.contracts.on_end is 'What happens to the unused part at the end: expire or rollover.';
comment on column credits_data.contracts.rollover_percent is 'How much of the unused part rolls over, from 0 to 100.';
comment on column credits_data.contracts.rollover_cap is 'The most credits that roll over; null is no limit.';
comment on column credits_data.contracts.rollover_expires_after is 'Life of what rolled over; null is for ever.';
comment on column credits_data.contracts.minimum_spend is 'Nothing is granted: usage is invoiced, and what is missing from the commitment is charged at the end.';
comment on column credits_data.contracts.has_ended is 'Its end is settled.';
comment on column credits_data.contracts.unit_price is 'Price of one credit.';
comment on column credits_data.contracts.currency is 'ISO 4217 code of that price.';
comment on column credits_data.contracts.metadata is 'The caller''s own references; its grants carry them.';
comment on column credits_data.contracts.created_at is 'When it was concluded.';

create table credits_data.holds (
    expires_at timestamptz not null,
    due_at timestamptz not null,
    created_at timestamptz not null,
    status credits_data.hold_status not null,
    customer_id credits_data.name not null,
    hold_id credits_data.name not null,
    wallet text collate "C",
    unit text collate "C" not null,
    event_name text collate "C",
    primary key (customer_id, hold_id)
) with (fillfactor = 80);
create index holds_due on credits_data.holds (customer_id, due_at) where due_at < 'infinity';
comment on table credits_data.holds is 'Credits set aside for work whose cost is not known yet. How many, and of which grants, the entries under its id say.';
comment on column credits_data.holds.customer_id is 'Whoever owns the credits.';
comment on column credits_data.holds.hold_id is 'Id of the transaction that set them aside.';
comment on column credits_data.holds.status is 'open, captured, released or lapsed, as last settled.';
comment on column credits_data.holds.expires_at is 'It lapses at this instant.';
comment on column credits_data.holds.due_at is 'The same while it is open, else infinity.';
comment on column credits_data.holds.wallet is 'The wallet it considered; null is all of the unit.';
comment on column credits_data.holds.unit is 'The unit of the wallets it considered.';
comment on column credits_data.holds.event_name is 'Name of the usage event.';
comment on column credits_data.holds.created_at is 'When the credits were set aside.';

create table credits_data.invoice_lines (
    period_start timestamptz not null,
    period_end timestamptz not null,
    created_at timestamptz not null,
    kind credits_data.invoice_line_kind not null,
    status credits_data.invoice_line_status not null default 'open',
    line_id uuid not null,
    customer_id credits_data.name not null,
    wallet credits_data.name not null,
    contract text collate "C",
    quantity numeric not null,
    unit_price credits_data.amount not null,
    amount numeric not null,
    currency text collate "C" not null,
    invoice_reference text collate "C",
    primary key (customer_id, line_id)
);
comment on table credits_data.invoice_lines is 'What is to be invoiced: credits at a price, as money.';
comment on column credits_data.invoice_lines.customer_id is 'Whoever is invoiced.';
comment on column credits_data.invoice_lines.line_id is 'UUIDv7.';
comment on column credits_data.invoice_lines.wallet is 'The wallet whose usage it is for.';
comment on column credits_data.invoice_lines.kind is 'overage, or true_up: what was missing from a minimum spend.';
comment on column credits_data.invoice_lines.contract is 'Of a true_up: the contract.';
comment on column credits_data.invoice_lines.quantity is 'Credits.';
comment on column credits_data.invoice_lines.unit_price is 'Price of one credit.';
comment on column credits_data.invoice_lines.amount is 'Money: quantity times unit price, half to even to the currency''s minor unit.';
comment on column credits_data.invoice_lines.currency is 'ISO 4217 code.';
comment on column credits_data.invoice_lines.period_start is 'Start of the time it is for.';
comment on column credits_data.invoice_lines.period_end is 'End of that time.';
comment on column credits_data.invoice_lines.status is 'open, or invoiced.';
comment on column credits_data.invoice_lines.invoice_reference is 'The caller''s invoice.';
comment on column credits_data.invoice_lines.created_at is 'When it was made.';

create table credits_data.jobs (
    last_run_at timestamptz,
    last_items bigint,
    task text collate "C" primary key
);
insert into credits_data.jobs (task)
values ('lapse_holds'), ('expire_grants'), ('renew_grants'), ('run_contracts'), ('activate_grants'), ('repay_debt'), ('queue_top_ups'),
    ('process_inbox'), ('notice_expiring'), ('purge_events');
comment on table credits_data.jobs is 'When each task of maintenance ran last.';
comment on column credits_data.jobs.task is 'As in credits.run_maintenance().';
comment on column credits_data.jobs.last_run_at is 'When it ran last; null if never.';
comment on column credits_data.jobs.last_items is 'How many items that run did.';

comment on index credits_data.recurring_grants_pkey is 'A recurring grant of a customer by its code.';
comment on index credits_data.recurring_grants_due is 'What settling has to do next.';
comment on index credits_data.contracts_pkey is 'A contract of a customer by its code.';
comment on index credits_data.contracts_due is 'What settling has to do next.';
comment on index credits_data.holds_pkey is 'A hold of a customer by its id.';
comment on index credits_data.holds_due is 'Open holds by the instant at which they lapse.';
comment on index credits_data.invoice_lines_pkey is 'A line of a customer by its id.';
comment on index credits_data.jobs_pkey is 'One row a task.';
comment on constraint recurring_grants_pkey on credits_data.recurring_grants is 'A recurring grant of a customer by its code.';
comment on constraint contracts_pkey on credits_data.contracts is 'A contract of a customer by its code.';
comment on constraint holds_pkey on credits_data.holds is 'A hold of a customer by its id.';
comment on constraint invoice_lines_pkey on credits_data.invoice_lines is 'A line of a customer by its id.';
comment on constraint jobs_pkey on credits_data.jobs is 'One row a task.';

select pg_catalog.pg_extension_config_dump('credits_data.recurring_grants', '');
select pg_catalog.pg_extension_config_dump('credits_data.contracts', '');
select pg_catalog.pg_extension_config_dump('credits_data.holds', '');
select pg_catalog.pg_extension_config_dump('credits_data.invoice_lines', '');
select pg_catalog.pg_extension_config_dump('credits_data.jobs', 'where false');
