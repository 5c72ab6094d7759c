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

create type credits_data.grant_type as enum ('promotional', 'committed', 'prepaid');
comment on type credits_data.grant_type is 'Why credits were given; the order is the order of spending on a tie.';
