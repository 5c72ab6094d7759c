-- As many customers again, each with the same grants and, far below them, two alerts and an auto top-up.
\set ON_ERROR_STOP on
select count(*)
from generate_series(1, :customers) n
cross join lateral credits.create_wallet('watched-' || n);

select count(*)
from generate_series(1, :customers) n
cross join generate_series(1, 3) g
cross join lateral credits.grant_credits('watched-' || n, 1000000, expires_at => credits.clock() + g * interval '100 days');

select count(*)
from generate_series(1, :customers) n
cross join lateral credits.create_alert('watched-' || n, 'default', threshold_percent => 20) at_20
cross join lateral credits.create_alert('watched-' || n, 'default', threshold_percent => 5) at_5
cross join lateral credits.set_auto_top_up('watched-' || n, 'default', 1000, 10000) top_up;

-- The first deduction, after which the first grant rides on the wallet's row.
select count(*)
from generate_series(1, :customers) n
cross join lateral credits.deduct_usage('watched-' || n, 1) d;
vacuum analyze;
