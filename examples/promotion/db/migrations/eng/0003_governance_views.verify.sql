-- A summary counts what is not confidential.
-- expect: value = '1 directives, 1 open'
INSERT INTO eng.strategic_directives_v2 (code, title, status, confidential)
VALUES ('SD-VERIFY', 'Verify', 'completed', false), ('SD-VERIFY-2', 'Verify', 'completed', true);
INSERT INTO eng.governance_findings (directive_id, severity, finding)
SELECT id, 'high', 'verify' FROM eng.strategic_directives_v2 WHERE code LIKE 'SD-VERIFY%';
SELECT directives || ' directives, ' || open_high_findings || ' open'
FROM views.eng_governance_summary WHERE status = 'completed';
