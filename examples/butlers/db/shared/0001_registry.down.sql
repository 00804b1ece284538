-- RESTRICT everywhere: a dependant that is not known here stops the way back instead of vanishing with it.
DROP FUNCTION shared.stamp();
DROP FUNCTION shared.current_butler();
DROP TABLE shared.registry;
