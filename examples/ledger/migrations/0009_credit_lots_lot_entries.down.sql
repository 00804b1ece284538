DROP FUNCTION app.update_lot_status(uuid, text);
DROP VIEW lot_balances;
DROP TABLE lot_entries;
DROP TABLE credit_lots;
DROP FUNCTION enforce_lot_status();
DROP FUNCTION prevent_mutation();
