-- Every function written in Rust runs with the owner's rights and a pinned search path. Its statements are planned once, generic,
-- and kept, so they must not depend on the statistics of that moment: no sequential or bitmap scan, no sort (they read by index).
do $$
declare
    rust_function regprocedure;
begin
    for rust_function in
        select p.oid
        from pg_catalog.pg_proc p
        join pg_catalog.pg_language l
            on l.oid = p.prolang
        where p.pronamespace = 'credits'::regnamespace
          and l.lanname = 'c'
          and p.proname not in ('clock', 'chart_of_accounts')
    loop
        execute pg_catalog.format(
            'alter function %s security definer set search_path = pg_catalog, pg_temp set enable_seqscan = off set enable_bitmapscan = off set enable_sort = off',
            rust_function);
    end loop;
end
$$;

revoke all on all functions in schema credits, credits_data from public;
revoke all on schema credits, credits_data from public;
