-- What the benchmark runs on: :customers customers, each with a wallet and 3 grants that pay one after the other, and the floor.
\set ON_ERROR_STOP on
select count(*) as wallets
from generate_series(1, :customers) n
cross join lateral credits.create_wallet('customer-' || n);

select count(*) as grants
from generate_series(1, :customers) n
cross join generate_series(1, 3) g
cross join lateral credits.grant_credits('customer-' || n, 1000000, expires_at => credits.clock() + g * interval '100 days');

-- The floor: what any ledger must do at least, in one statement. One row found by a text key is updated, one is inserted into a
-- copy of the ledger's table with its two unique indexes.
create schema floor;
create table floor.wallets (
    customer_id text collate "C" primary key,
    balance numeric not null,
    last_seq bigint not null
) with (fillfactor = 50);
insert into floor.wallets
select 'customer-' || n, 3000000, 0
from generate_series(1, :customers) n;
create table floor.entries (like credits_data.entries including defaults including constraints);
alter table floor.entries add primary key (customer_id, wallet, seq);
alter table floor.entries add unique (customer_id, transaction_id, line);
vacuum analyze;
