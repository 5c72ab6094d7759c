-- What the checkout examples need, once, by the owner of the database:
--   psql -v role=shop -f schema.sql
-- The role belongs to the application; of pg_credits it is a writer.
create table if not exists orders (
    session_id text primary key,
    customer_id text not null,
    credits numeric not null,
    amount_total bigint, -- in the currency's minor unit, as Stripe has it
    currency text,
    payment_intent text,
    ordered_at timestamptz not null default now()
);
grant select, insert on orders to :"role";
select credits.grant_access(:'role', 'writer') as access;
