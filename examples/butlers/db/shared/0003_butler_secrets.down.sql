-- What is stored is lost with the table: whoever goes back keeps a copy of it, or logs in everywhere again.
DROP TABLE shared.butler_secrets;
DROP TABLE shared.secret_approvals;
