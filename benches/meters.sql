-- Meters for the benchmark: an event of one meter at a price a unit, and one of two meters, one of them with tiers. Each customer
-- has used both, so that its periods have begun.
\set ON_ERROR_STOP on
select credits.create_meter('tokens', 'call', 'sum', 'tokens', pricing => '{"model":"per_unit","credits":"0.001"}');
select credits.create_meter('input', 'chat', 'sum', 'input', pricing => '{"model":"per_unit","credits":"0.001"}');
select credits.create_meter('output', 'chat', 'sum', 'output',
    pricing => '{"model":"graduated","tiers":[{"up_to":"1000000","credits":"0.003"},{"credits":"0.002"}]}');
select count(*)
from generate_series(1, :customers) n
cross join lateral credits.record_usage('customer-' || n, 'call', '{"tokens":1}') call
cross join lateral credits.record_usage('customer-' || n, 'chat', '{"input":1,"output":1}') chat;
vacuum analyze;
