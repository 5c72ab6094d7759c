\set customer random(1, :customers)
select * from credits.deduct_usage('customer-' || :customer, 1, gen_random_uuid()::text);
