insert into credits_data.chart_of_accounts (kind_id, kind, debit_account, credit_account)
select kind_id, kind, debit_account, credit_account
from credits.chart_of_accounts();

-- What fell due and is not settled yet is judged by the clock, so that nothing expired ever looks spendable.
create view credits.wallets as
select
    w.customer_id::text as customer_id,
    w.wallet::text as wallet,
    w.name,
    w.unit::text as unit,
    w.status::text as status,
    w.priority,
    trim_scale(w.balance - due.expired + due.activated) as balance,
    trim_scale(w.held) as held,
    trim_scale(w.scheduled - due.unscheduled) as scheduled,
    trim_scale(w.debt) as debt,
    trim_scale(w.overage) as overage,
    w.expires_after,
    w.overage_policy::text as overage_policy,
    w.overage_limit::numeric as overage_limit,
    w.overage_unit_price::numeric as overage_unit_price,
    w.overage_currency,
    w.late_usage_grace,
    w.metadata,
    w.last_seq,
    w.created_at,
    least(a.next_due_at, credits.clock()) as settled_until
from credits_data.wallets w
join credits_data.wallets a
    on a.customer_id = w.customer_id
   and a.is_anchor
cross join lateral (
    select
        coalesce(sum(case when g.grant_id = w.head_grant_id then w.head_remaining else g.remaining end)
            filter (where g.status = 'active'), 0) as expired,
        coalesce(sum(g.remaining) filter (where g.status = 'scheduled' and g.expires_at > credits.clock()), 0) as activated,
        coalesce(sum(g.remaining) filter (where g.status = 'scheduled'), 0) as unscheduled
    from credits_data.grants g
    where g.customer_id = w.customer_id
      and g.wallet = w.wallet
      and g.due_at <= credits.clock()
      and g.due_at < 'infinity'
) due;
comment on view credits.wallets is 'Wallets with their settings and totals. What expired or became effective by the clock counts, even if it is not settled yet; debt that such credits will repay is still shown. settled_until: everything before it is in the ledger.';

create view credits.grants as
select
    g.customer_id,
    g.wallet,
    g.grant_id,
    g.grant_type::text as grant_type,
    s.status,
    trim_scale(g.amount) as amount,
    case
        when s.status not in ('scheduled', 'active') then 0
        when g.grant_id = w.head_grant_id then trim_scale(w.head_remaining)
        else trim_scale(g.remaining)
    end as remaining,
    g.priority,
    g.effective_at,
    nullif(g.expires_at, 'infinity') as expires_at,
    g.unit_price::numeric as unit_price,
    g.currency,
    g.applies_to,
    g.recurring_grant,
    g.contract,
    g.rolled_over,
    g.metadata
from credits_data.grants g
join credits_data.wallets w
    on w.customer_id = g.customer_id
   and w.wallet = g.wallet
cross join lateral (
    select case
        when g.status in ('scheduled', 'active') and g.expires_at <= credits.clock() then 'expired'
        when g.status = 'scheduled' and g.effective_at <= credits.clock() then 'active'
        else g.status::text
    end as status
) s;
comment on view credits.grants is 'Grants with what is left of them. status: scheduled, active, exhausted, expired or voided, judged by the clock. expires_at null is never.';

create view credits.ledger as
select
    e.customer_id,
    e.wallet,
    e.seq,
    e.transaction_id,
    e.line,
    c.kind,
    trim_scale(case 'wallet' when c.credit_account then e.credits when c.debit_account then -e.credits else 0 end) as amount,
    trim_scale(e.credits) as credits,
    e.grant_id,
    trim_scale(e.balance_after) as balance_after,
    e.occurred_at,
    e.usage_at,
    e.recorded_at,
    e.event_name,
    e.refers_to,
    e.unit_price,
    e.currency,
    e.metadata,
    e.properties,
    e.metered::jsonb as metered
from credits_data.entries e
join credits_data.chart_of_accounts c
    on c.kind_id = e.kind;
comment on view credits.ledger is 'Every movement of credits, immutable. amount is its effect on the balance of the wallet; credits is what moved, as in credits.chart_of_accounts().';

create view credits.journal as
select
    e.customer_id,
    e.wallet,
    e.seq,
    e.transaction_id,
    e.line,
    c.kind,
    side.account,
    side.debit,
    side.credit,
    e.occurred_at
from credits_data.entries e
join credits_data.chart_of_accounts c
    on c.kind_id = e.kind
cross join lateral (
    values
        (c.debit_account, trim_scale(e.credits), 0::numeric),
        (c.credit_account, 0::numeric, trim_scale(e.credits))
) side (account, debit, credit);
comment on view credits.journal is 'The ledger as double entries: one debit and one credit line for each entry.';

create view credits.trial_balance as
select
    j.account,
    trim_scale(sum(j.debit)) as debit,
    trim_scale(sum(j.credit)) as credit,
    trim_scale(sum(j.debit) - sum(j.credit)) as balance
from credits.journal j
group by j.account;
comment on view credits.trial_balance is 'Debits and credits of each account over the whole ledger. The sum of all debits equals the sum of all credits; balance sums to zero.';

create view credits.expiring_grants as
select
    g.customer_id,
    g.wallet,
    g.grant_id,
    g.grant_type,
    g.remaining,
    g.expires_at,
    g.expires_at - credits.clock() as expires_in,
    g.unit_price,
    g.currency,
    g.metadata
from credits.grants g
where g.status = 'active'
  and g.expires_at is not null;
comment on view credits.expiring_grants is 'Live grants that will expire, with what would be lost. Order by expires_at, or filter expires_in.';

comment on column credits.wallets.settled_until is 'Everything that fell due before this instant is in the ledger.';
comment on column credits.wallets.balance is 'Credits that have not expired by the clock; all can be spent if the wallet is active.';
comment on column credits.wallets.scheduled is 'Credits of grants that are not effective yet by the clock.';
comment on column credits.grants.status is 'scheduled, active, exhausted, expired or voided, judged by the clock.';
comment on column credits.grants.remaining is 'Credits left, judged by the clock: nothing of an expired grant.';
comment on column credits.grants.expires_at is 'Live before this instant; null is never.';
comment on column credits.ledger.kind is 'What the entry records; see credits.chart_of_accounts().';
comment on column credits.ledger.amount is 'Effect on the balance of the wallet: positive, negative or zero.';
comment on column credits.journal.kind is 'What the entry records; see credits.chart_of_accounts().';
comment on column credits.journal.account is 'Account of this side of the entry.';
comment on column credits.journal.debit is 'Credits taken from the account.';
comment on column credits.journal.credit is 'Credits put to the account.';
comment on column credits.trial_balance.account is 'Account, over all customers.';
comment on column credits.trial_balance.debit is 'Credits taken from it.';
comment on column credits.trial_balance.credit is 'Credits put to it.';
comment on column credits.trial_balance.balance is 'Debit less credit; over all accounts it sums to zero.';
comment on column credits.expiring_grants.remaining is 'Credits that expire if nobody uses them.';
comment on column credits.expiring_grants.expires_at is 'When they expire.';
comment on column credits.expiring_grants.expires_in is 'How long until then.';
