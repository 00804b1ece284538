DROP FUNCTION shared.find_contact(text, text);
DROP TABLE shared.contact_addresses;
DROP TABLE shared.contacts;
