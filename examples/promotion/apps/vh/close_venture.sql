-- Closes a venture: run by its product owner. Its notes stay.
UPDATE vh.ventures SET stage = 'closed' WHERE id = :'venture';
