-- RESTRICT on purpose: a dependant that is not known here stops the rollback instead of vanishing with it.
DROP FUNCTION app.set_community_context(uuid);
DROP FUNCTION app.current_community_id();
DROP SCHEMA app;
