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

comment on function credits.create_wallet(text, text, text, text, integer, interval, text, numeric, numeric, text, interval, jsonb, boolean) is 'Creates a wallet, and with the first one the customer; returns the wallet''s code. expires_after is the life of a grant that gives no expiry itself (null: it never expires), priority says which wallet is spent first (lower first), and late_usage_grace how long after its expiry a grant still pays usage that happened while it was live. overage_policy says what happens to usage beyond the grants: block refuses it, invoice records it at overage_unit_price per credit in overage_currency (both required), overdraft records it as debt that the next credits repay; overage_limit is the most credits of it that may be open, null is no limit. Error already_exists if the wallet exists, unless if_not_exists, which leaves it unchanged.';

comment on function credits.update_wallet(text, text, text, integer, interval, text, numeric, numeric, text, interval, jsonb, text[]) is 'Changes settings of a wallet from now on and returns its code; grants that exist keep their expiry. Null leaves a setting as it is; reset names settings to put back to their default, so that reset => ''{overage_limit}'' removes the limit. metadata is replaced as a whole. Errors: not_found, wrong_state for a closed wallet, invalid_argument for a name in reset that is no setting or is given as well.';

comment on function credits.set_wallet_status(text, text, text) is 'Sets a wallet to active, frozen or closed and returns that status; the status it has already is no error. A frozen wallet takes no usage and gives no transfer, but its grants go on to activate and expire and it still receives credits. Closing is for good and voids the active and scheduled grants. Errors: not_found, wrong_state if the wallet is closed already or cannot be closed because debt is left.';

comment on function credits.grant_credits(text, numeric, text, text, timestamp with time zone, timestamp with time zone, integer, numeric, text, text[], jsonb, text) is 'Gives a wallet amount credits (above zero, at most 12 decimals, below 10^16), first repaying its debt unless applies_to limits the grant, and returns the grant''s id. grant_type is prepaid, promotional or committed; the grant is live from effective_at (null: now) until just before expires_at (null: by the wallet''s expires_after, else never; infinity: never), lower priority is spent first, unit_price and currency (both or neither) are what one credit cost, and applies_to names the events whose usage it pays (null: any). A repeated idempotency_key with the same amount and wallet returns the first grant''s id and gives nothing. Errors: not_found (customer or wallet), wrong_state (closed wallet), out_of_range, idempotency_key_reused.';

comment on function credits.void_grant(text, uuid, text, numeric, text) is 'Takes unused credits of a grant back, all that is left (amount null) or a part, and returns how many. With the last of them the grant is voided: what a later refund brings back to it is voided at once. reason, up to 1000 bytes, stands in the ledger. Errors: not_found, out_of_range if less than amount is left, wrong_state if the grant has expired or was voided, idempotency_key_reused.';

comment on function credits.change_expiry(text, uuid, timestamp with time zone, text, text) is 'Moves what is left of an active or scheduled grant into a new grant that expires at expires_at, all else equal, and returns the new grant''s id. expires_at lies in the future or is infinity, which is never; null is refused. The old grant stays, exhausted, or voided if it was scheduled. Errors: not_found, wrong_state if nothing is left of the grant, idempotency_key_reused.';

comment on function credits.transfer_credits(text, numeric, text, text, text, jsonb) is 'Moves amount credits between two wallets of a customer that have one unit, in the order of spending; what is moved keeps its type, expiry, price, priority, metadata and applies_to. Returns one row: the transaction''s id, the credits moved, both balances, and replayed, which is true if the idempotency_key was used for the same request before. Errors: insufficient_credits, not_found, wrong_state (from a frozen wallet, from or to a closed one), invalid_argument (another unit, the same wallet), idempotency_key_reused.';

comment on function credits.adjust_credits(text, numeric, text, text, text) is 'Corrects a wallet by hand: a positive amount gives a promotional grant that lives for the wallet''s expires_after, a negative one takes credits in the order of spending, never below zero. reason is required, has up to 1000 bytes and stands in the ledger. Returns one row: the transaction''s id, the credits adjusted, the balance, and replayed, which is true if the idempotency_key was used for the same request before. Errors: insufficient_credits, not_found, wrong_state (closed wallet), invalid_argument for zero, idempotency_key_reused.';

comment on function credits.deduct_usage(text, numeric, text, text, text, text, timestamp with time zone, text, jsonb) is 'Charges usage of amount credits (zero is allowed and recorded) to the grants of one wallet, or with wallet null to those of all active wallets of the unit, in the order of spending, then to a wallet whose policy allows overage. event_name decides which limited grants may pay; occurred_at is when the usage happened (null: now; at most 5 minutes in the future); pass an idempotency_key so that a repeated call charges once. Returns one row: status is charged (by grants alone), overage, partial or insufficient, deducted came from grants, overage did not, balance is what can be spent now in the wallets considered, and replayed is true if the key was used for the same request before. If there is not enough, on_insufficient => error raises insufficient_credits, report charges nothing, partial takes what there is; other errors: not_found, wrong_state (frozen or closed), idempotency_key_reused.';

comment on function credits.preview_deduction(text, numeric, text, text, text) is 'Tells which grants would pay a deduction of amount credits now, one row each in the order of spending, with the credits each would give. Changes nothing and works on a standby; the arguments mean what they mean for deduct_usage. If the credits sum to less than amount, the rest is not covered by grants. Errors: not_found, wrong_state (frozen or closed).';

comment on function credits.refund_usage(text, text, numeric, text, text) is 'Gives back usage that deduct_usage recorded under transaction_id, all that is left of it (amount null) or a part: overage first, then the grants that paid, from the last to the first. What goes back to a grant that has expired or was voided since ends with it at once. Returns one row: the refund''s transaction id, the credits refunded, the balance of the wallets concerned, and replayed, which is true if the idempotency_key was used for the same request before. Errors: not_found (no usage of this id), out_of_range (more than is left), idempotency_key_reused.';

comment on function credits.balance(text, text) is 'Balances of a customer as of now, one row for each wallet in the order of spending, or for the one named: what is due by now counts, settled or not. balance can be spent now if the wallet is active, scheduled is not effective yet, debt is overdraft not repaid, overage is what was recorded to be invoiced, and next_expiry_at tells when next_expiry_credits expire (null if none will). A customer without wallets has no rows; a named wallet that does not exist is not_found. Works on a standby.';

comment on function credits.balance_at(text, text, timestamp with time zone) is 'Balance in credits of a wallet after everything up to and including the instant at; the answer about the past never changes. For a future instant it is a forecast: known activations and expiries are applied, usage is not guessed. Works on a standby. Errors: not_found, out_of_range for an instant outside the years 1970 to 9999.';

comment on function credits.statement(text, text, timestamp with time zone, timestamp with time zone) is 'Entries of a wallet from from_at to just before to_at, in order, between a row of kind opening and one of kind closing that tell the balances at both ends. amount is the signed effect on the balance, 0 for kinds that do not touch it. Entries that are due but not settled yet are shown too, with ids that are not final; nothing after now is forecast. Works on a standby; errors: not_found, invalid_argument if to_at is before from_at.';

comment on function credits.verify_ledger(text) is 'Replays the ledger of one customer, or of all (null), and compares every stored total with what it arrives at. Returns one row for each violation, with the number of the invariant violated; no row means that the ledger is sound. It reads the whole ledger in one snapshot: run it on a standby if the ledger is large. Error not_found for a customer without wallets.';

comment on function credits.run_maintenance(integer) is 'Settles up to batch_size customers (1 or more) with something due, the longest overdue first; those that another session has locked are skipped. Returns a row for each of activate_grants, expire_grants and repay_debt, with the number of entries written and their credits. more_due true means that something is still due: call again. Safe to run at any time, twice and side by side; schedule_jobs runs it with pg_cron.';

comment on function credits.expire_grants(integer) is 'Does the work of run_maintenance, activations and repayments included, for up to batch_size customers (1 or more), and returns one row that tells the expiries: customers settled, grants expired, credits expired. more_due true means that something is still due: call again.';

comment on function credits.clock() is 'The time the ledger goes by: the system''s, or that of the setting credits.test_clock, which is for tests. Like clock_timestamp() it moves on within a transaction.';

comment on function credits.chart_of_accounts() is 'Lists the kinds of ledger entries, and from which account (debit_account) to which (credit_account) each moves credits. kind_id is the number under which the ledger stores a kind.';

revoke all on type credits_data.amount, credits_data.name, credits_data.grant_type, credits_data.grant_status,
    credits_data.wallet_status, credits_data.overage_policy from public;
