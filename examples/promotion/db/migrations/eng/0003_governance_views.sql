-- What others may know of engineering. The views run with their owner's rights, since their readers have none on the tables;
-- security_barrier, so that no condition of a reader sees a row before the view's own conditions have.

CREATE VIEW views.eng_governance_summary WITH (security_barrier = true) AS
SELECT directive.status,
       count(DISTINCT directive.id) AS directives,
       count(finding.id) FILTER (WHERE finding.resolved_at IS NULL) AS open_findings,
       count(finding.id) FILTER (WHERE finding.resolved_at IS NULL AND finding.severity = 'high') AS open_high_findings
FROM eng.strategic_directives_v2 AS directive
LEFT JOIN eng.governance_findings AS finding ON finding.directive_id = directive.id
WHERE NOT directive.confidential
GROUP BY directive.status;
COMMENT ON VIEW views.eng_governance_summary IS 'Directives and their open findings, by status';

CREATE VIEW views.eng_directive_progress WITH (security_barrier = true) AS
SELECT directive.code,
       directive.title,
       directive.status,
       count(requirement.id) AS requirements,
       count(requirement.id) FILTER (WHERE requirement.done) AS done
FROM eng.strategic_directives_v2 AS directive
LEFT JOIN eng.product_requirements AS requirement ON requirement.directive_id = directive.id
WHERE NOT directive.confidential
GROUP BY directive.id;
COMMENT ON VIEW views.eng_directive_progress IS 'How far each directive is';

SELECT audit.log_migration('eng', '0003', 'up');
