"""Looks after the directives: finds where one is not followed, and notes it."""

import os

import psycopg

ACTIVATE = """
    UPDATE eng.strategic_directives_v2
    SET status = 'active'
    WHERE code = %(code)s AND status = 'draft'
"""

NOTE_FINDINGS = """
    WITH silent AS (
        SELECT directive.id
        FROM eng.strategic_directives_v2 AS directive
        WHERE directive.status = 'active'
          AND NOT EXISTS (SELECT FROM eng.product_requirements AS requirement
                          WHERE requirement.directive_id = directive.id)
    )
    INSERT INTO eng.governance_findings (directive_id, severity, finding)
    SELECT id, 'medium', 'active, and asks nothing of the product' FROM silent
"""

# What the server refused is not in the trail: its SQLSTATE is told here.
REFUSED = """
    INSERT INTO audit.service_logs (service, level, message, sqlstate)
    VALUES ('governance', 'ERROR', %(message)s, %(sqlstate)s)
"""

# The hub's own tables are the hub's to write; what is needed of them is in the views.
STAGES = "SELECT stage, ventures FROM views.vh_venture_summary ORDER BY stage"


def activate(connection, code):
    """Makes a draft active; tells whether there was one."""
    return connection.execute(ACTIVATE, {"code": code}).rowcount == 1


def note_findings(connection):
    """Notes what is amiss, unless the sync is switched off."""
    if os.environ.get("ENG_GOVERNANCE_SYNC") != "true":
        return 0
    try:
        return connection.execute(NOTE_FINDINGS).rowcount
    except psycopg.Error as error:
        connection.rollback()
        connection.execute(REFUSED, {"message": str(error), "sqlstate": error.sqlstate})
        connection.commit()
        raise


def stages(connection):
    """How many ventures are in each stage."""
    return connection.execute(STAGES).fetchall()
