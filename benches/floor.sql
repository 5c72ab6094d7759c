\set customer random(1, :customers)
with taken as (
    update floor.wallets
    set balance = balance - 1,
        last_seq = last_seq + 1
    where customer_id = 'customer-' || :customer
    returning customer_id, balance, last_seq
)
insert into floor.entries (
    seq, occurred_at, recorded_at, fingerprint, line, kind, customer_id, wallet, transaction_id, credits, balance_after, grant_id
)
select last_seq, clock_timestamp(), clock_timestamp(), 0, 1, 4, customer_id, 'default', gen_random_uuid()::text, 1, balance,
       '00000000-0000-7000-8000-000000000000'
from taken;
