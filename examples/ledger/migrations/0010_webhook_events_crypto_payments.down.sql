DROP TABLE crypto_payments;
DROP TABLE webhook_events;
DROP FUNCTION enforce_payment_status_monotonicity();
