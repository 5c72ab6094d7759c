-- Charging credits from psql:  psql -f client.sql   in a database that has pg_credits.
-- It makes a customer of its own and can be run again.
\set ON_ERROR_STOP on
\set QUIET on
\pset footer off
select 'psql-' || gen_random_uuid() as customer \gset
select credits.create_wallet(:'customer') as wallet;
select credits.grant_credits(:'customer', 60, expires_at => now() + interval '90 days', idempotency_key => 'checkout-1001') is not null as granted;

select status, deducted, balance, replayed
from credits.deduct_usage(:'customer', 25, 'call-1', event_name => 'model.call');
select status, deducted, balance, replayed
from credits.deduct_usage(:'customer', 25, 'call-1', event_name => 'model.call');

-- Refused: the program that calls psql sees the SQLSTATE in the variable LAST_ERROR_SQLSTATE.
\set ON_ERROR_STOP off
\set VERBOSITY sqlstate
select * from credits.deduct_usage(:'customer', 1000, 'call-2');
\set ON_ERROR_STOP on
select status, balance from credits.deduct_usage(:'customer', 1000, 'call-2', on_insufficient => 'report');
