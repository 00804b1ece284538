CREATE TABLE mail_messages (
    message_id  text PRIMARY KEY CHECK (message_id <> ''),
    direction   text NOT NULL CHECK (direction IN ('in', 'out')),
    -- shared.contacts.id. No foreign key: it would tie the butler's writes to locks that others hold.
    contact_id  uuid,
    subject     text NOT NULL DEFAULT '',
    received_at timestamptz NOT NULL DEFAULT now()
);
COMMENT ON TABLE mail_messages IS 'Mails that the butler has read or written';
CREATE INDEX mail_messages_contact_id_idx ON mail_messages (contact_id, received_at);
