-- Scheduling by pg_cron. With the caller's rights, so that the jobs run as that role.
create function credits.cron_jobs(action text, wanted_schedule text)
returns table (job_name text, schedule text, command text)
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
#variable_conflict use_column
declare
    name constant text := 'pg_credits maintenance of ' || current_database();
    -- Batch after batch, each its own transaction, until nothing is due that another session does not hold.
    work constant text := 'do $do$ begin for batch in 1..1000 loop exit when (select sum(items) = 0 or not bool_or(more_due) '
        'from credits.run_maintenance()); commit; end loop; end $do$';
begin
    if action is null then
        raise exception using
            errcode = 'null_value_not_allowed',
            message = 'action must not be null',
            detail = 'code=null_argument',
            hint = 'Call credits.schedule_jobs or credits.unschedule_jobs, which pass it.';
    end if;
    if action not in ('schedule', 'unschedule') then
        raise exception using
            errcode = 'invalid_parameter_value',
            message = format('invalid action: "%s" is not known', left(action, 60)),
            detail = 'code=invalid_argument',
            hint = 'It is one of: schedule, unschedule. Call credits.schedule_jobs or credits.unschedule_jobs, which pass it.';
    end if;
    if wanted_schedule is null then
        raise exception using
            errcode = 'null_value_not_allowed',
            message = 'schedule must not be null',
            detail = 'code=null_argument',
            hint = 'Pass a cron schedule such as ''* * * * *''.';
    end if;
    if not exists (select from pg_extension where extname = 'pg_cron') then
        raise exception using
            errcode = 'object_not_in_prerequisite_state',
            message = format('pg_cron is not installed in database "%s"', current_database()),
            detail = 'code=wrong_state',
            hint = case action
                when 'schedule' then 'In the database that has pg_cron (show cron.database_name), run: '
                    || format('select cron.schedule_in_database(%L, %L, %L, %L);', name, wanted_schedule, work, current_database())
                else 'What cron.schedule_in_database has scheduled is removed in the database that has pg_cron by: '
                    || format('select cron.unschedule(%L);', name)
            end;
    end if;
    if action = 'schedule' then
        execute 'select cron.schedule($1, $2, $3)' using name, wanted_schedule, work;
        return query select name, wanted_schedule, work;
    else
        return query execute
            'select jobname::text, schedule, command from cron.job where jobname = $1 and username = current_user' using name;
        if found then
            execute 'select cron.unschedule($1)' using name;
        end if;
    end if;
end
$$;
comment on function credits.cron_jobs(text, text) is 'What schedule_jobs and unschedule_jobs have in common; call those.';

create function credits.schedule_jobs(schedule text default '* * * * *')
returns table (job_name text, schedule text, command text)
language sql
set search_path = pg_catalog, pg_temp
as $$ select j.job_name, j.schedule, j.command from credits.cron_jobs('schedule', $1) j $$;
comment on function credits.schedule_jobs(text) is 'Schedules run_maintenance with pg_cron, batch after batch until nothing is due, as the calling role; calling it again changes the schedule. schedule is a cron expression. Without pg_cron in this database: 55000 with the command to run instead as HINT.';

create function credits.unschedule_jobs()
returns table (job_name text, schedule text, command text)
language sql
set search_path = pg_catalog, pg_temp
as $$ select j.job_name, j.schedule, j.command from credits.cron_jobs('unschedule', '') j $$;
comment on function credits.unschedule_jobs() is 'Removes what schedule_jobs scheduled for the calling role, and returns it. Without pg_cron in this database: 55000 with the command to run instead as HINT.';
