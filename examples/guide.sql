-- A guided tour: the team behind an AI product sells credits. `make demo` runs it; so does  psql -f examples/guide.sql
-- as a superuser, in a database where `create extension pg_credits` was run.
--
-- The story takes from January to November 2026. Its clock is the setting credits.test_clock, which only a superuser may set, so
-- the months pass in seconds and every figure is the same in each run. An application never sets it: then the time is real.
-- The guide has customers of its own, 'acme', 'solo', 'vega', 'nova', 'globex', 'initech' and 'hooli', and stops at once if an earlier run
-- has left them here.
\set ECHO none
\set QUIET on
\set ON_ERROR_STOP on
\pset pager off
\pset footer off
\pset null '-'
set timezone = 'UTC';
set datestyle = 'ISO, YMD';
set client_min_messages = warning;
set credits.test_clock = '2026-01-05 09:00';
\set ECHO queries

\echo
\echo '=== 1. A customer and its wallets ====================================================='
\echo
\echo 'A customer is any id of yours; it exists once it has a wallet. Acme gets two wallets: one for'
\echo 'what it buys, and one for promotional credits. A lower priority is spent first.'
\echo
select credits.create_wallet('acme', name => 'Acme Inc.') as wallet;
select credits.create_wallet('acme', 'promo', priority => 10) as wallet;

\echo 'Two grants: 100 welcome credits for 14 days, and a purchase of 50,000 that expires in 90 days.'
\echo 'The idempotency key makes a retried payment webhook harmless; the price is kept with the grant.'
\echo
select credits.grant_credits('acme', 100, 'promo', 'promotional',
    expires_at => credits.clock() + interval '14 days',
    idempotency_key => 'welcome') is not null as granted;
select credits.grant_credits('acme', 50000,
    expires_at => credits.clock() + interval '90 days',
    unit_price => 0.002, currency => 'USD',
    metadata => '{"payment_intent": "pi_1001"}',
    idempotency_key => 'checkout-1001') is not null as granted;
select wallet, balance, next_expiry_at, next_expiry_credits from credits.balance('acme');

\echo '=== 2. Spending ======================================================================='
\echo
\echo 'A model call costs 25 credits. The promo wallet pays while it can.'
\echo
select status, deducted, balance
from credits.deduct_usage('acme', 25, 'call-1', event_name => 'model.call', metadata => '{"model": "large", "tokens": 812}');
select status, deducted, balance from credits.deduct_usage('acme', 25, 'call-2', event_name => 'model.call');

\echo 'API calls cost 1 or 5.'
\echo
select status, deducted, balance from credits.deduct_usage('acme', 1, 'api-1', event_name => 'api.read');
select status, deducted, balance from credits.deduct_usage('acme', 5, 'api-2', event_name => 'api.write');
select wallet, balance from credits.balance('acme');

\echo 'Two model calls more, in one request of 50: who would pay? A preview changes nothing.'
\echo
select wallet, credits from credits.preview_deduction('acme', 50, event_name => 'model.call');
select status, deducted, balance from credits.deduct_usage('acme', 50, 'call-3', event_name => 'model.call');
select wallet, kind, amount, balance_after from credits.ledger
where customer_id = 'acme' and transaction_id = 'call-3' order by line;

\echo '=== 3. The same key again ============================================================='
\echo
\echo 'The answer to call-3 was lost on the network, so the application retries. It gets the first'
\echo 'result with replayed = t, and nothing is charged.'
\echo
select status, deducted, balance, replayed from credits.deduct_usage('acme', 50, 'call-3', event_name => 'model.call');

\echo 'The same key for something else is a mistake, and is refused:'
\echo
\set ON_ERROR_STOP off
select * from credits.deduct_usage('acme', 75, 'call-3', event_name => 'model.call');
\set ON_ERROR_STOP on

\echo
\echo '=== 4. A long job, charged by the minute =============================================='
\echo
\echo 'A training job runs from 09:00 to 17:00 and costs 2 credits a minute: 480 heartbeats, each with'
\echo 'a key of its own. They arrive at 17:00, when a network failure is over; each tells when it happened.'
\echo
set credits.test_clock = '2026-01-05 17:00';
select count(*) as heartbeats, sum(deducted) as deducted, count(*) filter (where replayed) as replayed
from generate_series(1, 480) as minute
cross join lateral credits.deduct_usage('acme', 2, 'job-7/' || minute, event_name => 'job.minute',
    occurred_at => '2026-01-05 09:00+00'::timestamptz + minute * interval '1 minute') as charged;

\echo 'The sender is not sure they arrived and sends them all again, with 20 minutes more:'
\echo
set credits.test_clock = '2026-01-05 17:20';
select count(*) as heartbeats, sum(deducted) filter (where not replayed) as deducted, count(*) filter (where replayed) as replayed
from generate_series(1, 500) as minute
cross join lateral credits.deduct_usage('acme', 2, 'job-7/' || minute, event_name => 'job.minute',
    occurred_at => '2026-01-05 09:00+00'::timestamptz + minute * interval '1 minute') as charged;
select wallet, balance from credits.balance('acme');

\echo '=== 5. Blocked at zero ================================================================'
\echo
\echo 'Solo has bought only 60 credits. Two model calls leave 10, and the third is refused: nothing'
\echo 'changes, and its key is not used up.'
\echo
select credits.create_wallet('solo') as wallet;
select credits.grant_credits('solo', 60, idempotency_key => 'checkout-1002') is not null as granted;
select status, deducted, balance from credits.deduct_usage('solo', 25, 'call-1');
select status, deducted, balance from credits.deduct_usage('solo', 25, 'call-2');
\set ON_ERROR_STOP off
select * from credits.deduct_usage('solo', 25, 'call-3');
\set ON_ERROR_STOP on
\echo 'SQLSTATE:' :LAST_ERROR_SQLSTATE

\echo
\echo 'Who prefers an answer to an error asks for a report. Nothing is charged or recorded.'
\echo
select status, requested, deducted, balance from credits.deduct_usage('solo', 25, 'call-3', on_insufficient => 'report');

\echo 'Partial takes what there is; that is then the final answer for its key. The wallet is at zero.'
\echo
select status, requested, deducted, balance from credits.deduct_usage('solo', 25, 'call-4', on_insufficient => 'partial');
select status, requested, deducted, balance from credits.deduct_usage('solo', 1, 'api-1', on_insufficient => 'partial');

\echo 'Solo buys again, and the blocked call goes through under the key it had:'
\echo
select credits.grant_credits('solo', 40, idempotency_key => 'checkout-1003') is not null as granted;
select status, deducted, balance, replayed from credits.deduct_usage('solo', 25, 'call-3');

\echo '=== 6. Beyond zero, if you allow it ==================================================='
\echo
\echo 'With the policy overdraft usage goes on as debt, up to a limit. The next credits repay it.'
\echo
select credits.update_wallet('solo', 'default', overage_policy => 'overdraft', overage_limit => 100) as wallet;
select status, deducted, overage, balance from credits.deduct_usage('solo', 50, 'call-5');
select balance, debt from credits.balance('solo');
select credits.grant_credits('solo', 100, idempotency_key => 'checkout-1004') is not null as granted;
select balance, debt from credits.balance('solo');

\echo '=== 7. A refund ======================================================================='
\echo
\echo 'Call-3 of Acme, 50 credits over two wallets, gave half an answer. 40 go back to the grants that'
\echo 'paid, the last taken first.'
\echo
select refunded, balance from credits.refund_usage('acme', 'call-3', 40, 'half an answer', 'refund-call-3');
select wallet, kind, amount, balance_after from credits.ledger
where customer_id = 'acme' and transaction_id = 'refund-call-3' order by line;

\echo '=== 8. Meters: the price is the ledger''s affair ======================================'
\echo
\echo 'So far the application has known what a call costs. With a meter it reports what was used, and the'
\echo 'meter knows the price: here 2 credits for 1,000 tokens, and 1 from the 100,001st of a month on.'
\echo
select credits.create_meter('answer-tokens', 'model.answer', 'sum', 'tokens',
    pricing => '{"model": "graduated", "tiers": [{"up_to": 100000, "credits": "0.002"}, {"credits": "0.001"}]}') as meter;
select credits.create_wallet('vega') as wallet;
select credits.grant_credits('vega', 300, idempotency_key => 'checkout-1005') is not null as granted;

\echo 'What would an answer of 60,000 tokens cost? Asking changes nothing.'
\echo
select meter, quantity, credits from credits.price_usage('model.answer', '{"tokens": 60000}', 'vega');
select status, deducted, balance
from credits.record_usage('vega', 'model.answer', '{"tokens": 60000, "model": "large"}', 'answer-1');

\echo 'The next one reaches the second tier: 40,000 tokens cost 80, and 20,000 cost 20.'
\echo
select status, deducted, balance
from credits.record_usage('vega', 'model.answer', '{"tokens": 60000, "model": "large"}', 'answer-2');
select meter, period_start, aggregate, events from credits.meter_usage where customer_id = 'vega';

\echo 'Volume prices hold for the whole quantity: up to three images of a month cost 10 each, more of them 6'
\echo 'each. The fourth makes four times 6 of three times 10, so it gives 6 credits back.'
\echo
select credits.create_meter('images', 'image.made', 'count',
    pricing => '{"model": "volume", "tiers": [{"up_to": 3, "credits": 10}, {"credits": 6}]}') as meter;
select image, charged.deducted, charged.balance
from generate_series(1, 4) as image
cross join lateral credits.record_usage('vega', 'image.made', idempotency_key => 'image-' || image) as charged;
select transaction_id, kind, amount, refers_to from credits.ledger
where customer_id = 'vega' and event_name = 'image.made' order by seq;

\echo 'May it happen? The answer names the error that charging would raise. Nothing is reserved by asking.'
\echo
select allowed, reason, required, available
from credits.check_entitlement('vega', event_name => 'model.answer', properties => '{"tokens": 30000}');
select allowed, reason, required, available
from credits.check_entitlement('vega', event_name => 'model.answer', properties => '{"tokens": 90000}');

\echo '=== 9. Three more doors for events ===================================================='
\echo
\echo 'A view for whoever has an ORM: what is inserted is recorded, and RETURNING tells the result. The'
\echo 'event''s id is the idempotency key, so the second insert charges nothing.'
\echo
insert into credits.usage_events (customer_id, event_id, event_name, properties)
values ('vega', 'answer-3', 'model.answer', '{"tokens": 2500}')
returning event_id, status, deducted, balance, replayed;
insert into credits.usage_events (customer_id, event_id, event_name, properties)
values ('vega', 'answer-3', 'model.answer', '{"tokens": 2500}')
returning event_id, status, deducted, balance, replayed;

\echo 'Many events in one call. One that is wrong fails alone, and says why.'
\echo
select line, transaction_id, status, deducted, balance, error
from credits.record_usage_batch('[
    {"customer_id": "vega", "event_id": "answer-4", "event_name": "model.answer", "properties": {"tokens": 1000}},
    {"customer_id": "vega", "event_id": "answer-5", "event_name": "model.answer", "properties": {"tokens": "many"}},
    {"customer_id": "vega", "event_id": "image-5", "event_name": "image.made"}
]');

\echo 'A table for volume: events are put into it with INSERT or COPY, and charged later, in batches. Nobody'
\echo 'has said yet what a minute of audio costs, and answer-6 costs more than there is.'
\echo
insert into credits.usage_inbox (customer_id, event_id, event_name, properties)
values
    ('vega', 'answer-6', 'model.answer', '{"tokens": 60000}'),
    ('vega', 'image-6', 'image.made', '{}'),
    ('vega', 'audio-1', 'audio.made', '{"minutes": 2.5}');
select * from credits.process_inbox();
select event_id, error, waits_for_credit is not null as waits_for_credit from credits.usage_inbox order by inbox_id;

\echo 'Vega buys again: what waits for credits is tried again by itself.'
\echo
select credits.grant_credits('vega', 100, idempotency_key => 'checkout-1006') is not null as granted;
select * from credits.process_inbox();

\echo 'The price of audio is set, each started minute 4 credits. What was wrong is tried again when asked.'
\echo
select credits.create_meter('audio', 'audio.made', 'sum', 'minutes',
    pricing => '{"model": "package", "size": 1, "credits": 4}') as meter;
select credits.retry_inbox() as events_to_be_tried;
select * from credits.process_inbox();
select count(*) as events_left_in_the_inbox from credits.usage_inbox;

\echo 'Every door leads to the same ledger, and the day''s usage is:'
\echo
select day, event_name, events, deducted, refunded from credits.usage_daily where customer_id = 'vega' order by event_name;
select wallet, balance from credits.balance('vega');

\echo '=== 10. A grant for later ============================================================='
\echo
\echo '5,000 committed credits become spendable on February 1st. Until then they are scheduled.'
\echo
select credits.grant_credits('acme', 5000, grant_type => 'committed',
    effective_at => '2026-02-01 00:00+00', expires_at => '2026-03-01 00:00+00',
    idempotency_key => 'contract-9/february') is not null as granted;
select wallet, balance, scheduled from credits.balance('acme');

\echo '=== 11. Time passes ==================================================================='
\echo
\echo 'February 2nd. The promo credits have expired on January 19th and the 5,000 have become'
\echo 'effective, though nothing has run since. Reading is right at any moment:'
\echo
set credits.test_clock = '2026-02-02 12:00';
select wallet, balance, scheduled, next_expiry_at, next_expiry_credits from credits.balance('acme');

\echo 'The 5,000 expire before the purchase does, so they are spent first:'
\echo
select g.grant_type, p.credits, g.expires_at
from credits.preview_deduction('acme', 6000) as p
join credits.grants as g on g.customer_id = 'acme' and g.grant_id = p.grant_id
order by g.expires_at;

\echo 'Maintenance writes what fell due into the ledger, dated at the instant it was due. pg_cron runs'
\echo 'it every minute after  select * from credits.schedule_jobs();  and so does any call on the customer.'
\echo
select task, items, credits from credits.run_maintenance();
select wallet, kind, amount, occurred_at, recorded_at from credits.ledger
where customer_id = 'acme' and recorded_at = credits.clock() order by occurred_at, wallet, seq;

\echo '=== 12. The purchase expires =========================================================='
\echo
\echo 'April 5th, 09:00: the 90 days are over to the second. At this instant the credits are gone.'
\echo
set credits.test_clock = '2026-04-05 08:59:59';
select wallet, balance from credits.balance('acme');
set credits.test_clock = '2026-04-05 09:00:00';
select wallet, balance from credits.balance('acme');
select customers_settled, grants_expired, credits_expired, more_due from credits.expire_grants();
select wallet, grant_type, status, amount, remaining, expires_at from credits.grants
where customer_id = 'acme' order by expires_at;

\echo '=== 13. A subscription ================================================================'
\echo
\echo 'Back to January 31st, with another customer. Nova subscribes to 10,000 credits a month. Half of what'
\echo 'a month leaves unused rolls over into the next one, at most 3,000.'
\echo
set credits.test_clock = '2026-01-31 09:00';
select credits.create_wallet('nova') as wallet;
select credits.create_recurring_grant('nova', 'pro-plan', 10000, every => '1 month',
    rollover_percent => 50, rollover_cap => 3000) as recurring_grant;
set credits.test_clock = '2026-02-14 12:00';
select status, deducted, balance from credits.deduct_usage('nova', 6500, 'calls-of-february', event_name => 'model.call');

\echo 'A month after January 31st is February 28th. Of the 3,500 left by then half, 1,750, has rolled over.'
\echo 'It is March 2nd, nothing has run since, and reading is right:'
\echo
set credits.test_clock = '2026-03-02 12:00';
select wallet, balance, next_expiry_at, next_expiry_credits from credits.balance('nova');

\echo 'Maintenance writes it down. What rolled over is spent before the credits of the new month.'
\echo
select task, items, credits from credits.run_maintenance() where items > 0;
select p.credits, g.rolled_over, g.expires_at
from credits.preview_deduction('nova', 2000) as p
join credits.grants as g on g.customer_id = 'nova' and g.grant_id = p.grant_id
order by g.rolled_over desc;
select status, deducted, balance from credits.deduct_usage('nova', 1000, 'calls-of-march', event_name => 'model.call');

\echo 'March 31st: the day is the 31st again. First the old rollover ends, with 750 unspent. Half of what'
\echo 'March leaves would be 5,000; the cap lets 3,000 go on.'
\echo
set credits.test_clock = '2026-03-31 09:00';
select * from credits.renew_grants();
select seq, occurred_at, kind, amount, balance
from credits.statement('nova', 'default', '2026-01-31 00:00+00', '2026-04-01 00:00+00');

\echo 'Nova cancels. The running month goes on to its end, April 30th, and nothing rolls over then.'
\echo
select credits.cancel_recurring_grant('nova', 'pro-plan') as recurring_grant;
select recurring_grant, status, period_starts_at, next_period_at from credits.recurring_grants where customer_id = 'nova';
select at, credits.balance_at('nova', 'default', at) as balance
from unnest(array['2026-04-30 08:59:59', '2026-04-30 09:00:00']::timestamptz[]) as at;

\echo '=== 14. A call whose price is not known yet ==========================================='
\echo
\echo 'What a streamed answer costs is known when it ends. So 500 credits are set aside before it begins,'
\echo 'for ten minutes at most, and nobody else can spend them meanwhile.'
\echo
set credits.test_clock = '2026-04-01 10:00';
select hold_id, held, balance, expires_at
from credits.hold_credits('nova', 500, '10 minutes', event_name => 'model.stream', idempotency_key => 'stream-1');

\echo 'Four minutes later it ends, at 320 credits. They become usage, and the rest goes back.'
\echo
set credits.test_clock = '2026-04-01 10:04';
select status, deducted, balance from credits.capture_hold('nova', 'stream-1', 320, idempotency_key => 'stream-1/end');
select transaction_id, kind, credits, amount, balance_after from credits.ledger
where customer_id = 'nova' and transaction_id like 'stream-1%' order by seq;

\echo 'The next stream never ends: its server crashes. After ten minutes the hold lapses by itself.'
\echo
select hold_id, held, balance, expires_at
from credits.hold_credits('nova', 500, '10 minutes', event_name => 'model.stream', idempotency_key => 'stream-2');
set credits.test_clock = '2026-04-01 10:14';
select hold_id, status, held from credits.holds where customer_id = 'nova' order by hold_id;
select wallet, balance, held from credits.balance('nova');

\echo 'Who comes back with a bill after that is refused: the credits may be spent already.'
\echo
\set ON_ERROR_STOP off
select * from credits.capture_hold('nova', 'stream-2', 410);
\set ON_ERROR_STOP on

\echo
\echo '=== 15. Contracts ====================================================================='
\echo
\echo 'Two companies commit for the half year from April to September. Globex buys 60,000 credits in two'
\echo 'instalments; of what it has not used at the end, up to 10,000 live on for three months.'
\echo
set credits.test_clock = '2026-04-01 12:00';
select credits.create_wallet('globex') as wallet;
select credits.create_contract('globex', 'half-year', 60000, '2026-04-01 00:00+00', '2026-10-01 00:00+00',
    installments => 2, on_end => 'rollover', rollover_cap => 10000, rollover_expires_after => '3 months',
    unit_price => 0.0015, currency => 'USD') as contract;

\echo 'Initech pays by usage, 0.002 dollars a credit, and commits to spend at least 50,000.'
\echo
select credits.create_wallet('initech', overage_policy => 'invoice',
    overage_unit_price => 0.002, overage_currency => 'USD') as wallet;
select credits.create_contract('initech', 'minimum', 50000, '2026-04-01 00:00+00', '2026-10-01 00:00+00',
    minimum_spend => true, unit_price => 0.002, currency => 'USD') as contract;

\echo 'May: both work. What Initech uses is overage, to be invoiced.'
\echo
set credits.test_clock = '2026-05-15 12:00';
select status, deducted, overage, balance from credits.deduct_usage('globex', 22000, 'calls-of-may', event_name => 'model.call');
select status, deducted, overage, balance from credits.deduct_usage('initech', 30000, 'calls-of-may', event_name => 'model.call');

\echo 'July 1st, halfway: the second instalment is due. Nobody has touched Nova since April, so maintenance'
\echo 'also writes the hold that lapsed then and the end of the last month, each dated when it was due.'
\echo
set credits.test_clock = '2026-07-01 00:00';
select task, items, credits from credits.run_maintenance() where items > 0;
select status, deducted, overage, balance from credits.deduct_usage('globex', 12000, 'calls-of-july', event_name => 'model.call');
select contract, status, committed, granted, consumed, remaining, round(elapsed, 3) as elapsed
from credits.contract_progress where customer_id in ('globex', 'initech') order by contract;

\echo 'October 1st: both contracts have ended. Globex had 26,000 left. 10,000 roll over, 16,000 expire.'
\echo
set credits.test_clock = '2026-10-01 00:00';
select task, items, credits from credits.run_maintenance() where items > 0;
select contract, status, granted, consumed, expired, rolled_over, true_up
from credits.contract_progress where customer_id in ('globex', 'initech') order by contract;
select rolled_over, status, amount, remaining, effective_at, expires_at from credits.grants
where customer_id = 'globex' order by effective_at;

\echo 'Initech used 30,000 of 50,000. The rest is one line for the invoice, the true-up.'
\echo
select kind, contract, quantity, unit_price, amount, currency, status from credits.invoice_lines where customer_id = 'initech';

\echo '=== 16. Running low, and running out =================================================='
\echo
\echo 'Hooli buys 10,000 credits. Alerts at 20 and at 5 percent of what it has after a purchase; below'
\echo '1,000 a top-up fills the wallet up to 10,000, paid by the card on file; beyond that, usage is'
\echo 'invoiced at 0.003 dollars a credit.'
\echo
set credits.test_clock = '2026-10-05 09:00';
select credits.create_wallet('hooli', overage_policy => 'invoice', overage_unit_price => 0.003, overage_currency => 'USD') as wallet;
select credits.grant_credits('hooli', 10000, unit_price => 0.002, currency => 'USD', idempotency_key => 'first-purchase') is not null as granted;
select credits.create_alert('hooli', 'default', threshold_percent => 20) is not null as at_20,
       credits.create_alert('hooli', 'default', threshold_percent => 5) is not null as at_5;
select credits.set_auto_top_up('hooli', 'default', threshold => 1000, target_balance => 10000, payment_method_id => 'pm_card',
    unit_price => 0.002, currency => 'USD', max_per_period => 2) as wallet;

\echo 'The first 8,500 credits pass 20 percent, which the wallet''s events tell: written in the same transaction,'
\echo 'delivered to webhook endpoints by the background worker, or pulled, as here. Pulled events are leased'
\echo 'until they are acknowledged.'
\echo
select status, balance from credits.deduct_usage('hooli', 8500, 'october-5', event_name => 'model.call');
create temporary table pulled as select * from credits.claim_events() where customer_id = 'hooli';
select type, jsonb_pretty(payload #- '{data, alert_id}') as payload from pulled where type = 'wallet.balance_low';
select credits.ack_events(array(select event_id from pulled)) as acknowledged;

\echo 'The next 1,200 pass 5 percent and the threshold of the top-up: 9,700 credits are requested. A worker'
\echo 'claims the request, has the payment provider charge the card under top_up_id as its idempotency key,'
\echo 'and completes it: one grant, however often it is told. Balance and alerts recover.'
\echo
select status, balance from credits.deduct_usage('hooli', 1200, 'october-6', event_name => 'model.call');
create temporary table claimed as select * from credits.claim_top_ups();
select customer_id, amount, payment_method_id, trim_scale(amount * unit_price) as to_charge, currency, attempt from claimed;
select credits.complete_top_up(customer_id, top_up_id, 'pi_2001') = credits.complete_top_up(customer_id, top_up_id, 'pi_2001') as same_grant
from claimed;
select status, amount, payment_reference, failures from credits.top_ups where customer_id = 'hooli';
select threshold_percent, status from credits.alerts where customer_id = 'hooli' order by 1 desc;
select type, payload -> 'data' ->> 'balance' as balance, payload -> 'data' ->> 'threshold' as threshold from credits.claim_events()
where customer_id = 'hooli';

\echo 'A night of batch work takes 12,500: 10,000 from the grants, 2,500 as overage. It is on no invoice yet.'
\echo
set credits.test_clock = '2026-10-20 03:00';
select status, deducted, overage, balance from credits.deduct_usage('hooli', 12500, 'october-20', event_name => 'model.batch');
select balance, overage from credits.balance('hooli');

\echo 'At the end of the month overage becomes lines for invoices: Hooli''s 2,500 at 0.003 dollars, and what'
\echo 'Initech used under its minimum spend.'
\echo
set credits.test_clock = '2026-11-01 00:00';
create temporary table lines as select * from credits.close_overage();
select customer_id, wallet, kind, quantity, unit_price, amount, currency, period_end from lines;
select credits.mark_invoiced(customer_id, line_id, 'INV-2026-10') = line_id as invoiced from lines;

\echo 'What is given back later is a negative line at the next closing.'
\echo
select refunded from credits.refund_usage('hooli', 'october-20', 500, 'outage');
set credits.test_clock = '2026-11-15 00:00';
select quantity, amount, currency from credits.close_overage('hooli');
select kind, quantity, amount, currency, status, invoice_reference from credits.invoice_lines where customer_id = 'hooli' order by created_at;

\echo '=== 17. The books ====================================================================='
\echo
\echo 'A statement of the paid wallet: opening and closing balance, and the entries from one instant'
\echo 'until just before another. This one leaves out the heartbeats.'
\echo
select seq, occurred_at, kind, amount, balance, event_name
from credits.statement('acme', 'default', '2026-01-05 00:00+00', '2026-05-01 00:00+00')
where event_name is distinct from 'job.minute';

\echo 'The balance of any instant, from the same ledger:'
\echo
select at::date as day, credits.balance_at('acme', 'promo', at) as promo, credits.balance_at('acme', 'default', at) as paid
from unnest(array['2026-01-05', '2026-01-06', '2026-02-01', '2026-03-01', '2026-04-06']::timestamptz[]) as at
order by at;

\echo 'The ledger is double entry: what one account loses another gets, and all balances sum to zero.'
\echo
select account, debit, credit, balance from credits.trial_balance order by account;
select trim_scale(sum(balance)) as sum_of_balances from credits.trial_balance;

\echo 'It is append-only, for its owner too:'
\echo
\set ON_ERROR_STOP off
update credits_data.entries set credits = 0 where customer_id = 'solo';
\set ON_ERROR_STOP on

\echo
\echo 'And it can be proved: every total is recomputed from the entries. No row means no violation.'
\echo
select invariant, customer_id, wallet, detail from credits.verify_ledger();

\echo '=== 18. Your turn ====================================================================='
\echo
\echo 'The clock is real again, and Acme has 1,000 credits that never expire. Try:'
\echo
\echo '    select * from credits.deduct_usage(\'acme\', 25, \'my-first-call\');'
\echo '    select * from credits.balance(\'acme\');'
\echo '    select * from credits.ledger where customer_id = \'acme\' order by recorded_at desc limit 5;'
\echo
set credits.test_clock = '';
select credits.grant_credits('acme', 1000, idempotency_key => 'your-turn') is not null as granted;
select wallet, balance from credits.balance('acme');
