-- Credentials of the butlers' modules: readable for approved keys only, and unreadable for the server.

-- Which butler may read which key, and which may write it. The owner's to fill; the only place that says so. No secret
-- itself: whoever writes a key must know for whom to encrypt it.
CREATE TABLE shared.secret_approvals (
    butler      text NOT NULL REFERENCES shared.registry (butler) ON DELETE CASCADE,
    secret_key  text NOT NULL CHECK (secret_key ~ '^[a-z][a-z0-9_.]*$'),
    may_write   boolean NOT NULL DEFAULT false,
    approved_by text NOT NULL DEFAULT session_user,
    approved_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (butler, secret_key)
);
COMMENT ON TABLE shared.secret_approvals IS 'Which butler may read which secret, and which may write it';

CREATE TABLE shared.butler_secrets (
    secret_key text PRIMARY KEY CHECK (secret_key ~ '^[a-z][a-z0-9_.]*$'),
    -- Encrypted with age before it is sent. A value in the clear has another beginning, and is refused.
    value      text NOT NULL
               CHECK (value ~ '^-----BEGIN AGE ENCRYPTED FILE-----\n[A-Za-z0-9+/=\n]+\n-----END AGE ENCRYPTED FILE-----\n*$'),
    updated_at timestamptz NOT NULL DEFAULT now(),
    updated_by text NOT NULL DEFAULT current_user
);
COMMENT ON TABLE shared.butler_secrets IS 'Credentials, encrypted with age for those who may read them';

CREATE TRIGGER butler_secrets_stamp BEFORE INSERT OR UPDATE ON shared.butler_secrets
    FOR EACH ROW EXECUTE FUNCTION shared.stamp();

ALTER TABLE shared.butler_secrets ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY;

-- The role that runs this migration: the owner, which is bound by the policies too.
CREATE POLICY owner_keeps ON shared.butler_secrets TO CURRENT_USER USING (true) WITH CHECK (true);

-- A role that is no butler's has no name here, and null is equal to nothing.
CREATE POLICY approved_keys_are_read ON shared.butler_secrets FOR SELECT
    USING (EXISTS (SELECT FROM shared.secret_approvals AS approval
                   WHERE approval.secret_key = butler_secrets.secret_key
                     AND approval.butler = shared.current_butler()));
CREATE POLICY approved_keys_are_written ON shared.butler_secrets FOR INSERT
    WITH CHECK (EXISTS (SELECT FROM shared.secret_approvals AS approval
                        WHERE approval.secret_key = butler_secrets.secret_key AND approval.may_write
                          AND approval.butler = shared.current_butler()));
CREATE POLICY approved_keys_are_renewed ON shared.butler_secrets FOR UPDATE
    USING (EXISTS (SELECT FROM shared.secret_approvals AS approval
                   WHERE approval.secret_key = butler_secrets.secret_key AND approval.may_write
                     AND approval.butler = shared.current_butler()));
