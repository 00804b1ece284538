-- The people that the butlers know, and how each is reached: one list for all butlers.

CREATE TABLE shared.contacts (
    id           uuid PRIMARY KEY DEFAULT gen_random_uuid(),
    display_name text NOT NULL CHECK (display_name <> ''),
    created_at   timestamptz NOT NULL DEFAULT now(),
    updated_at   timestamptz NOT NULL DEFAULT now(),
    updated_by   text NOT NULL DEFAULT current_user
);
COMMENT ON TABLE shared.contacts IS 'People that the butlers know';

CREATE TABLE shared.contact_addresses (
    channel    text NOT NULL CHECK (channel IN ('mail', 'phone', 'telegram')),
    address    text NOT NULL CHECK (address <> ''),
    contact_id uuid NOT NULL REFERENCES shared.contacts (id),
    -- An address belongs to one person: else a message would have two senders.
    PRIMARY KEY (channel, address)
);
COMMENT ON TABLE shared.contact_addresses IS 'How a contact is reached';
CREATE INDEX contact_addresses_contact_id_idx ON shared.contact_addresses (contact_id);

CREATE TRIGGER contacts_stamp BEFORE INSERT OR UPDATE ON shared.contacts
    FOR EACH ROW EXECUTE FUNCTION shared.stamp();

CREATE FUNCTION shared.find_contact(channel text, address text) RETURNS uuid
    LANGUAGE sql STABLE PARALLEL SAFE
    SET search_path = pg_catalog, pg_temp
AS $$
SELECT contact_id FROM shared.contact_addresses AS known
WHERE known.channel = find_contact.channel AND known.address = find_contact.address
$$;
COMMENT ON FUNCTION shared.find_contact(text, text) IS 'The contact at an address; null where it is nobody''s';
