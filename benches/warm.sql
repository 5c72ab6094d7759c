-- The first deduction of each customer, after which its first grant rides on its wallet's row.
select count(*)
from generate_series(1, :customers) n
cross join lateral credits.deduct_usage('customer-' || n, 1) d;
vacuum analyze;
