-- Every function written in Rust runs with the owner's rights and a pinned search path.
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
            'alter function %s security definer set search_path = pg_catalog, pg_temp', rust_function);
    end loop;
end
$$;

revoke all on all functions in schema credits, credits_data from public;
revoke all on schema credits, credits_data from public;
