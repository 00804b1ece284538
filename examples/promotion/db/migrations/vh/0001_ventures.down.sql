DROP TABLE vh.venture_notes;
DROP TABLE vh.ventures;
SELECT audit.log_migration('vh', '0001', 'down');
