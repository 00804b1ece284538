-- A session that has ended has an outcome.
-- expect: error 23514
INSERT INTO sessions (finished_at) VALUES (now());

-- A schedule has five fields.
-- expect: error 23514 ~ 'tasks_schedule_check'
INSERT INTO tasks (name, schedule, prompt) VALUES ('verify', '0 7', 'verify');
