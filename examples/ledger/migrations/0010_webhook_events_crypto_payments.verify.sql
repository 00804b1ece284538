-- The trigger that keeps the status from going back is there, and enabled ALWAYS.
-- expect: value = 'A'
SELECT tgenabled FROM pg_catalog.pg_trigger
WHERE tgrelid = 'crypto_payments'::regclass AND tgname = 'crypto_payments_status';

-- It works.
-- expect: error P0001 ~ 'cannot go from finished to confirming'
SELECT app.set_community_context('00000000-0000-4000-8000-00000000000a');
INSERT INTO crypto_payments (community_id, provider, payment_id, amount_micro, status)
VALUES (app.current_community_id(), 'verify', 'verify-0010', 1, 'finished');
UPDATE crypto_payments SET status = 'confirming' WHERE payment_id = 'verify-0010';

-- An event that comes twice is refused.
-- expect: error 23505 ~ 'webhook_events_provider_event_id_key'
SELECT app.set_community_context('00000000-0000-4000-8000-00000000000a');
INSERT INTO webhook_events (community_id, provider, event_id, payload)
SELECT app.current_community_id(), 'verify', 'verify-0010', '{}' FROM generate_series(1, 2);
