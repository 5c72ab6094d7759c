-- A past of :history entries, spread over the customers: usage of 1 credit each, written in bulk as deduct_usage would have.
\set ON_ERROR_STOP on
begin;
create temporary table past as
select w.customer_id, w.last_seq, w.balance, g.grant_id
from credits_data.wallets w
join lateral (
    select grant_id
    from credits_data.grants g
    where g.customer_id = w.customer_id
    order by g.expires_at
    limit 1
) g on true;
insert into credits_data.entries (
    seq, occurred_at, recorded_at, fingerprint, line, kind, customer_id, wallet, transaction_id, credits, balance_after, grant_id
)
select past.last_seq + n, clock_timestamp(), clock_timestamp(), n, 1, 4, past.customer_id, 'default', gen_random_uuid()::text, 1,
       past.balance - n, past.grant_id
from generate_series(1, :history / :customers) n
cross join past;
update credits_data.wallets
set balance = balance - :history / :customers,
    last_seq = last_seq + :history / :customers;
update credits_data.grants g
set remaining = remaining - :history / :customers
from past
where g.customer_id = past.customer_id
  and g.grant_id = past.grant_id;
-- The floor's table is as long.
insert into floor.entries (
    seq, occurred_at, recorded_at, fingerprint, line, kind, customer_id, wallet, transaction_id, credits, balance_after, grant_id
)
select n - 1000000000, clock_timestamp(), clock_timestamp(), n, 1, 4, past.customer_id, 'default', gen_random_uuid()::text, 1,
       past.balance - n, past.grant_id
from generate_series(1, :history / :customers) n
cross join past;
commit;
vacuum analyze;
