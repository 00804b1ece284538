//! An audit as people and programs read it: the forms of the linter, over objects of a database instead of lines of a file.
//!
//! The JSON is a format: version 1, whose fields stay. A reader that knows it ignores fields that it does not know.

use std::fmt::Write as _;

use pgrunbook_document::Format;
use serde_json::{Value, json};

use super::finding::{Audit, Finding, RULES, Severity};

/// Of the JSON.
const VERSION: u32 = 1;

/// The report. `source` is the file that declares: what a finding is held against.
pub fn render(audit: &Audit, source: &str, format: Format) -> String {
    match format {
        Format::Human { colour } => human(audit, colour),
        Format::Json => pretty(&value(audit)),
        Format::Github => audit.findings.iter().map(|one| github(one, source)).collect(),
        Format::Sarif => sarif(audit, source),
    }
}

/// The audit as JSON: what was examined, and the findings.
pub fn value(audit: &Audit) -> Value {
    json!({ "version": VERSION, "examined": examined(audit), "findings": findings(audit) })
}

/// How much was examined, as JSON.
pub fn examined(audit: &Audit) -> Value {
    let one = &audit.examined;
    json!({
        "roles": one.roles,
        "schemas": one.schemas,
        "relations": one.relations,
        "routines": one.routines,
        "acl_entries": one.acl_entries,
        "memberships": one.memberships,
        "policies": one.policies,
        "triggers": one.triggers,
        "texts": one.texts,
    })
}

/// The findings, as JSON.
pub fn findings(audit: &Audit) -> Value {
    Value::Array(audit.findings.iter().map(object).collect())
}

fn object(one: &Finding) -> Value {
    json!({
        "rule": one.rule,
        "severity": word(one.severity),
        "role": one.role,
        "object": one.object,
        "path": one.path,
        "message": one.message,
        "mend": one.mend,
    })
}

/// `2 errors, 1 warning, no notes`
pub fn counted(audit: &Audit) -> String {
    let words: Vec<String> = audit
        .counts()
        .iter()
        .rev()
        .map(|(severity, count)| match count {
            0 => format!("no {}s", word(*severity)),
            1 => format!("1 {}", word(*severity)),
            many => format!("{many} {}s", word(*severity)),
        })
        .collect();
    words.join(", ")
}

fn human(audit: &Audit, colour: bool) -> String {
    let paint = |code: &str, text: &str| {
        if colour { format!("\u{1b}[{code}m{text}\u{1b}[0m") } else { text.to_owned() }
    };
    let mut out = String::new();
    for one in &audit.findings {
        let code = match one.severity {
            Severity::Error => "31;1",
            Severity::Warning | Severity::Unknown => "33;1",
            Severity::Note => "36;1",
        };
        let head = paint(code, &format!("{}[{}]", word(one.severity), one.rule));
        let _ = writeln!(out, "{head} {}", one.message);
        let _ = writeln!(out, "  {}", one.path);
        if let Some(mend) = &one.mend {
            let _ = writeln!(out, "  {} {mend}", paint("2", "mend:"));
        }
        out.push('\n');
    }
    let examined = &audit.examined;
    let _ = writeln!(
        out,
        "{}; examined {} roles, {} schemas, {} relations, {} routines, {} ACL entries",
        counted(audit),
        examined.roles,
        examined.schemas,
        examined.relations,
        examined.routines,
        examined.acl_entries
    );
    out
}

fn word(severity: Severity) -> &'static str {
    match severity {
        Severity::Error => "error",
        Severity::Unknown => "unknown",
        Severity::Warning => "warning",
        Severity::Note => "note",
    }
}

/// The sentence with the way, and how it is mended.
fn text(one: &Finding) -> String {
    let mend = one.mend.as_ref().map_or_else(String::new, |mend| format!(" Mend: {mend}"));
    format!("{}. {}.{mend}", one.message, one.path)
}

fn github(one: &Finding, source: &str) -> String {
    let command = if one.severity == Severity::Note { "notice" } else { word(one.severity) };
    let data = |text: &str| text.replace('%', "%25").replace('\r', "%0D").replace('\n', "%0A");
    let property = |text: &str| data(text).replace(':', "%3A").replace(',', "%2C");
    format!("::{command} file={},title={}::{}\n", property(source), property(one.rule), data(&text(one)))
}

fn sarif(audit: &Audit, source: &str) -> String {
    let rules: Vec<Value> = RULES
        .iter()
        .map(|rule| {
            json!({
                "id": rule.id,
                "shortDescription": { "text": rule.about },
                "defaultConfiguration": { "level": word(rule.severity) },
            })
        })
        .collect();
    let results: Vec<Value> = audit
        .findings
        .iter()
        .map(|one| {
            json!({
                "ruleId": one.rule,
                "level": word(one.severity),
                "message": { "text": text(one) },
                "locations": [{
                    // Viewers want a file: the one that says how it should be.
                    "physicalLocation": { "artifactLocation": { "uri": source }, "region": { "startLine": 1 } },
                    "logicalLocations": [{ "fullyQualifiedName": one.object, "kind": "object" }],
                }],
                // The same hole is the same result the next time, wherever it stands in the list.
                "partialFingerprints": { "pgrunbook/v1": format!("{}/{}/{}", one.rule, one.role, one.object) },
                "properties": { "role": one.role, "path": one.path, "mend": one.mend },
            })
        })
        .collect();
    pretty(&json!({
        "$schema": "https://json.schemastore.org/sarif-2.1.0.json",
        "version": "2.1.0",
        "runs": [{
            "tool": { "driver": { "name": "pgrunbook", "version": env!("CARGO_PKG_VERSION"), "rules": rules } },
            "results": results,
        }],
    }))
}

fn pretty(value: &Value) -> String {
    let mut text = serde_json::to_string_pretty(value).unwrap_or_default();
    text.push('\n');
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::audit::finding::Examined;

    fn one() -> Audit {
        let finding = Finding {
            rule: "table-grant",
            severity: Severity::Error,
            role: "health_app".to_owned(),
            object: "general.contact".to_owned(),
            path: "`health_app` -> member of `reporting` -> SELECT on `general.contact`".to_owned(),
            message: "the runtime role health_app has SELECT on `general.contact`".to_owned(),
            mend: Some("REVOKE reporting FROM health_app;".to_owned()),
        };
        let examined =
            Examined { roles: 5, schemas: 3, relations: 9, routines: 2, acl_entries: 40, ..Examined::default() };
        Audit { findings: vec![finding], examined }
    }

    #[test]
    fn people_read_who_reaches_what_and_how() {
        insta::assert_snapshot!(render(&one(), "topology.toml", Format::Human { colour: false }), @r"
        error[table-grant] the runtime role health_app has SELECT on `general.contact`
          `health_app` -> member of `reporting` -> SELECT on `general.contact`
          mend: REVOKE reporting FROM health_app;

        1 error, no warnings, no notes; examined 5 roles, 3 schemas, 9 relations, 2 routines, 40 ACL entries
        ");
    }

    /// The format of version 1.
    #[test]
    fn programs_read_the_same() {
        insta::assert_snapshot!(render(&one(), "topology.toml", Format::Json), @r#"
        {
          "examined": {
            "acl_entries": 40,
            "memberships": 0,
            "policies": 0,
            "relations": 9,
            "roles": 5,
            "routines": 2,
            "schemas": 3,
            "texts": 0,
            "triggers": 0
          },
          "findings": [
            {
              "mend": "REVOKE reporting FROM health_app;",
              "message": "the runtime role health_app has SELECT on `general.contact`",
              "object": "general.contact",
              "path": "`health_app` -> member of `reporting` -> SELECT on `general.contact`",
              "role": "health_app",
              "rule": "table-grant",
              "severity": "error"
            }
          ],
          "version": 1
        }
        "#);
        let sarif: Value = serde_json::from_str(&render(&one(), "topology.toml", Format::Sarif)).unwrap();
        let result = &sarif["runs"][0]["results"][0];
        assert_eq!(result["ruleId"], "table-grant");
        assert_eq!(result["locations"][0]["logicalLocations"][0]["fullyQualifiedName"], "general.contact");
        assert_eq!(sarif["runs"][0]["tool"]["driver"]["rules"].as_array().unwrap().len(), RULES.len());
        let github = render(&one(), "topology.toml", Format::Github);
        assert!(github.starts_with("::error file=topology.toml,title=table-grant::the runtime role"), "{github}");
    }
}
