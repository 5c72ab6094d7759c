\set customer random(1, :customers)
select * from credits.deduct_usage('watched-' || :customer, 1, gen_random_uuid()::text);
