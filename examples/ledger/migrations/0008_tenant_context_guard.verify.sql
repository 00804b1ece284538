-- The guard raises where no context is set ...
-- expect: error P0001 ~ 'app.community_id is not set'
SELECT app.current_community_id();

-- ... for the runtime role too, which may call it ...
-- as: arrakis_app
-- expect: error P0001 ~ 'app.community_id is not set'
SELECT app.current_community_id();

-- ... and answers inside a transaction that named one.
-- expect: value = '00000000-0000-4000-8000-00000000000a'
SELECT app.set_community_context('00000000-0000-4000-8000-00000000000a');
SELECT app.current_community_id();
