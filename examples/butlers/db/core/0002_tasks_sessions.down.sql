DROP TABLE sessions;
DROP TABLE tasks;
