\set customer random(1, :customers)
\set tokens random(1, 4000)
select * from credits.record_usage('customer-' || :customer, 'call', jsonb_build_object('tokens', :tokens::int), gen_random_uuid()::text);
