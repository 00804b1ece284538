DROP VIEW last_encounters;
DROP TABLE encounters;
