\set customer random(1, :customers)
\set tokens random(1, 4000)
select * from credits.record_usage('customer-' || :customer, 'chat', jsonb_build_object('input', :tokens::int, 'output', :tokens::int), gen_random_uuid()::text);
