select * from credits.deduct_usage(:customer, 0.001, gen_random_uuid()::text);
