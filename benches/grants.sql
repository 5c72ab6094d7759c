-- A customer with 100,000 live grants, and one with 3 that pay for as long. Granted in batches, since the versions of one row pile
-- up within a transaction.
select credits.create_wallet('many');
select credits.create_wallet('few');
select count(*)
from generate_series(1, 3) g
cross join lateral credits.grant_credits('few', 1000000, expires_at => credits.clock() + g * interval '100 days');
create procedure grant_many() language plpgsql as $$
begin
    for batch in 1..1000 loop
        perform credits.grant_credits('many', 1000, expires_at => credits.clock() + (batch * 100 + g) * interval '1 hour')
        from generate_series(1, 100) g;
        commit;
    end loop;
end
$$;
call grant_many();
vacuum analyze;
