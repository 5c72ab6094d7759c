-- :customers customers with a subscription each: credits every month, half of what is left rolls over up to a cap. A third of them
-- has used some. A procedure settles whatever is due as a scheduler would: call after call, each its own transaction.
\set ON_ERROR_STOP on
set credits.test_clock = '2026-01-15 00:00+00';
select count(*) as subscriptions
from generate_series(1, :customers) n
cross join lateral credits.create_wallet('subscriber-' || n) w
cross join lateral credits.create_recurring_grant(
    'subscriber-' || n, 'plan', 10000, '1 month', rollover_percent => case n % 2 when 0 then 50 else 0 end, rollover_cap => 20000) r;
select count(*) as usage
from generate_series(1, :customers, 3) n
cross join lateral credits.deduct_usage('subscriber-' || n, 7000, 'first usage');
create procedure settle_all() language plpgsql as $$
declare
    more boolean;
begin
    loop
        select bool_or(m.more_due) into more from credits.run_maintenance() m;
        commit;
        exit when not more;
    end loop;
end
$$;
vacuum analyze;
