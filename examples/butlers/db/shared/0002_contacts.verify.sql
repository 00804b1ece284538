-- A contact is found at its address ...
-- expect: value = 't'
INSERT INTO shared.contacts (id, display_name) VALUES ('00000000-0000-4000-8000-000000000001', 'Verify');
INSERT INTO shared.contact_addresses VALUES ('mail', 'verify@example.com', '00000000-0000-4000-8000-000000000001');
SELECT shared.find_contact('mail', 'verify@example.com') = '00000000-0000-4000-8000-000000000001';

-- ... and nobody at any other.
-- expect: value = 't'
SELECT shared.find_contact('mail', 'nobody@example.com') IS NULL;
