-- Tables live in their own schema, on which nobody but the owner has a right; `credits` holds functions and views.
create schema credits_data;
comment on schema credits_data is 'Tables of pg_credits. Read them through the views of schema credits; only its functions write them.';
comment on schema credits is 'pg_credits: wallets, grants and usage of prepaid credits, with an immutable double-entry ledger.';

do $$
begin
    if pg_catalog.current_setting('server_encoding') <> 'UTF8' then
        raise exception using
            errcode = 'feature_not_supported',
            message = pg_catalog.format('pg_credits needs a database in UTF8, this one is in %s',
                pg_catalog.current_setting('server_encoding')),
            hint = 'Create the database with: create database ... encoding ''UTF8'' template template0.';
    end if;
end
$$;

-- Closed sets and ranges are types, not check constraints: PostgreSQL parses every check of a table anew in every statement that
-- writes it, which cost a deduction half of its time; a type is checked only where a column is assigned, from a cache.
create type credits_data.grant_type as enum ('promotional', 'committed', 'prepaid');
comment on type credits_data.grant_type is 'Why credits were given; the order is the order of spending on a tie.';

create type credits_data.grant_status as enum ('scheduled', 'active', 'exhausted', 'expired', 'voided');
comment on type credits_data.grant_status is 'State of a grant, as last settled.';

create type credits_data.wallet_status as enum ('active', 'frozen', 'closed');
comment on type credits_data.wallet_status is 'Whether a wallet can be used.';

create type credits_data.overage_policy as enum ('block', 'invoice', 'overdraft');
comment on type credits_data.overage_policy is 'What happens to usage that the grants do not cover.';

create type credits_data.hold_status as enum ('open', 'captured', 'released', 'lapsed');
comment on type credits_data.hold_status is 'What became of a hold.';

create type credits_data.on_end as enum ('expire', 'rollover');
comment on type credits_data.on_end is 'What happens to the unused part of a contract at its end.';

create type credits_data.invoice_line_kind as enum ('overage', 'true_up');
comment on type credits_data.invoice_line_kind is 'Usage beyond the grants, or what was missing from a minimum spend.';

create type credits_data.invoice_line_status as enum ('open', 'invoiced');
comment on type credits_data.invoice_line_status is 'Whether a line stands on an invoice.';

create type credits_data.aggregation as enum ('sum', 'count', 'max', 'unique', 'latest');
comment on type credits_data.aggregation is 'How the events of a period make the aggregate of a meter.';

create domain credits_data.amount as numeric check (value >= 0 and value < 1e16 and scale(value) <= 12);
comment on domain credits_data.amount is 'Credits or a price: never negative, below 10^16, exact to 12 decimals.';

create domain credits_data.total as numeric check (abs(value) < 1e16 and scale(value) <= 12);
comment on domain credits_data.total is 'Credits, or less than none: between -10^16 and 10^16, exact to 12 decimals.';
comment on constraint total_check on domain credits_data.total is 'Between -10^16 and 10^16, at most 12 decimals.';

create domain credits_data.name as text collate "C" check (octet_length(value) between 1 and 255);
comment on domain credits_data.name is 'An id, code or name: 1 to 255 bytes, compared byte by byte.';
comment on constraint amount_check on domain credits_data.amount is 'From zero to below 10^16, at most 12 decimals.';
comment on constraint name_check on domain credits_data.name is '1 to 255 bytes.';
