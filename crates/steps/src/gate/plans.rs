//! How the target would plan what the smoke files ask: their statements explained over a copy of its statistics.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use pgrunbook_document::Severity;
use pgrunbook_document::sql::split;
use pgrunbook_postgres::{PgError, Session, quote};
use serde_json::Value;

use super::error::GateError;
use super::ground::Plot;
use super::size::grouped;
use super::statistics::{self, Columns};
use super::{Files, Review, Wish, finding, read};
use crate::migrate::{Asked, asked};

/// The plan of a statement, with the target's figures.
#[derive(Debug, Clone, PartialEq)]
pub struct Planned {
    /// The file and the line of the statement in it.
    pub path: String,
    pub line: usize,
    /// In the planner's units: <https://www.postgresql.org/docs/current/runtime-config-query.html#RUNTIME-CONFIG-QUERY-CONSTANTS>.
    pub cost: f64,
    /// A line for each node, with two blanks for each above it.
    pub nodes: Vec<String>,
    /// Relations that it reads from end to end, with the rows that it reads there.
    pub scans: Vec<(String, i64)>,
}

/// First words of what EXPLAIN takes and does not make anything.
const EXPLAINED: [&str; 8] = ["SELECT", "WITH", "VALUES", "TABLE", "INSERT", "UPDATE", "DELETE", "MERGE"];

/// Explains the smoke statements, and finds sequential scans of many rows.
pub(super) async fn look(
    wish: &Wish<'_>,
    files: &Files,
    live: Option<&Session>,
    plot: &Plot,
    session: &Session,
    review: &mut Review,
) -> Result<(), GateError> {
    let (live, sandbox) = match (live, &plot.sandbox) {
        _ if wish.smoke.is_empty() => {
            review.skip("plans", "no --smoke file is named");
            return Ok(());
        }
        (None, _) => {
            review.skip("plans", "no --target is named, whose statistics they need");
            return Ok(());
        }
        (Some(_), None) => {
            review.skip("plans", "the target's statistics are copied to a throwaway server alone, and one was given");
            return Ok(());
        }
        (Some(live), Some(sandbox)) => (live, sandbox),
    };
    let mut statements: Vec<(&Path, Asked)> = Vec::new();
    for path in &wish.smoke {
        let text = match read(path) {
            Ok(text) => text,
            Err(why) => {
                review.unread(&files.shown(path), "planned", &why);
                continue;
            }
        };
        let explained = asked(&text).into_iter().filter(|one| {
            let head = split(&one.text).statements.into_iter().next().map(|one| one.head).unwrap_or_default();
            EXPLAINED.contains(&head.split(' ').next().unwrap_or_default())
        });
        statements.extend(explained.map(|one| (path.as_path(), one)));
    }
    // Once to see what they read: nothing else is asked of the target.
    let mut names = BTreeSet::new();
    for (_, one) in &statements {
        if let Some(plan) = explain(session, one).await? {
            relations(&plan, &mut names);
        }
    }
    let names: Vec<String> = names.into_iter().collect();
    let data = sandbox.folder().join("data");
    let copied = statistics::copy(live, session, &data, &names, wish.columns).await?;
    let mut refused = 0;
    for (path, one) in &statements {
        let Some(plan) = explain(session, one).await? else {
            refused += 1;
            continue;
        };
        let mut planned = Planned {
            path: files.shown(path),
            line: one.line,
            cost: plan["Total Cost"].as_f64().unwrap_or(0.0),
            nodes: Vec::new(),
            scans: Vec::new(),
        };
        walk(&plan, 0, 1.0, &copied.rows, &mut planned);
        for (relation, rows) in planned.scans.iter().filter(|(_, rows)| *rows >= wish.large) {
            let message = format!("at the target this reads {relation} from end to end, about {} rows", grouped(*rows));
            let help = "an index that it can use, or fewer rows; a check that runs at each deployment should be cheap";
            let script = super::script(path, files);
            review.at(files, &script, Some(one.line), finding("smoke-scan", Severity::Warning, message).help(help));
        }
        review.plans.push(planned);
    }
    let mut said =
        format!("{} statement(s) planned with the statistics of {} relation(s)", review.plans.len(), names.len());
    match wish.columns {
        Columns::Copied => said.push_str(&format!(" and {} column(s)", copied.columns)),
        Columns::LeftOut => said.push_str(", without those of columns"),
    }
    for (count, what) in
        [(refused, "statement(s) cannot be planned alone"), (copied.refused, "statistic(s) were refused")]
    {
        if count > 0 {
            said.push_str(&format!("; {count} {what}"));
        }
    }
    review.check("plans", said);
    Ok(())
}

/// The top node of a statement's plan; `None` if the server does not plan it by itself.
async fn explain(session: &Session, one: &Asked) -> Result<Option<Value>, PgError> {
    let role = one
        .role
        .as_ref()
        .map_or_else(String::new, |role| format!("SET LOCAL ROLE {};", quote::ident(role).unwrap_or_default()));
    let sql = format!("BEGIN; {role} EXPLAIN (FORMAT JSON, VERBOSE) {}\n; ROLLBACK", one.text);
    let answered = session.simple(&sql).await;
    if answered.is_err() {
        session.execute("ROLLBACK").await?;
    }
    let answers = match answered {
        Ok(answers) => answers,
        Err(PgError::Server(_)) => return Ok(None),
        Err(error) => return Err(error),
    };
    let text = answers.into_iter().find(|answer| answer.columns == ["QUERY PLAN"]);
    let text = text.and_then(|answer| answer.rows.into_iter().next()?.into_iter().next()?);
    let plan = text.and_then(|text| serde_json::from_str::<Value>(&text).ok());
    Ok(plan.and_then(|mut plan| plan.pointer_mut("/0/Plan").map(Value::take)).filter(Value::is_object))
}

fn relation(node: &Value) -> Option<String> {
    let (schema, name) = (node["Schema"].as_str()?, node["Relation Name"].as_str()?);
    Some(format!("{}.{}", quote::ident(schema).ok()?, quote::ident(name).ok()?))
}

fn children(node: &Value) -> impl Iterator<Item = &Value> {
    node["Plans"].as_array().into_iter().flatten()
}

fn relations(node: &Value, names: &mut BTreeSet<String>) {
    names.extend(relation(node));
    children(node).for_each(|child| relations(child, names));
}

/// `part`: how much of what the node can give is asked of it, which a LIMIT above may say. `rows`: what the relations have.
fn walk(node: &Value, depth: usize, part: f64, rows: &BTreeMap<String, f64>, planned: &mut Planned) {
    let text = |name: &str| node[name].as_str();
    let number = |node: &Value, name: &str| node[name].as_f64().unwrap_or(0.0);
    let kind = text("Node Type").unwrap_or("?");
    let relation = relation(node);
    let mut line = format!("{}{kind}", "  ".repeat(depth));
    if let Some(index) = text("Index Name") {
        line.push_str(&format!(" using {index}"));
    }
    if let Some(relation) = &relation {
        line.push_str(&format!(" on {relation}"));
    }
    #[expect(clippy::cast_possible_truncation, reason = "a planner's estimate, for people")]
    let whole = |number: f64| number.round() as i64;
    line.push_str(&format!(", about {} rows", grouped(whole(number(node, "Plan Rows")))));
    planned.nodes.push(line);
    if let Some(relation) = relation.filter(|_| kind == "Seq Scan") {
        // What it reads is not what it gives: the filter is paid for each row.
        let read = rows.get(&relation).copied().unwrap_or_else(|| number(node, "Plan Rows"));
        planned.scans.push((relation, whole(read * part)));
    }
    for child in children(node) {
        let (startup, total) = (number(child, "Startup Cost"), number(child, "Total Cost"));
        let run = total - startup;
        let part = match kind {
            // A LIMIT pays for the part of its child's run that it needs.
            "Limit" if run > 0.0 => part * ((number(node, "Total Cost") - startup) / run).clamp(0.0, 1.0),
            // Who is not ready before the child has ended needs all of it: a sort, a hash, an aggregate.
            _ if number(node, "Startup Cost") >= total => 1.0,
            _ => part,
        };
        walk(child, depth + 1, part, rows, planned);
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn scans(plan: &Value) -> Vec<(String, i64)> {
        let mut planned = Planned { path: String::new(), line: 1, cost: 0.0, nodes: Vec::new(), scans: Vec::new() };
        walk(plan, 0, 1.0, &BTreeMap::from([("s.t".to_owned(), 1000.0)]), &mut planned);
        planned.scans
    }

    fn scan() -> Value {
        json!({ "Node Type": "Seq Scan", "Schema": "s", "Relation Name": "t", "Startup Cost": 0.0, "Total Cost": 100.0,
            "Plan Rows": 5 })
    }

    #[test]
    fn limit_reads_a_part_and_a_sort_below_it_all() {
        assert_eq!(scans(&scan()), [("s.t".to_owned(), 1000)]);
        let limit = |child: Value, total: f64| json!({ "Node Type": "Limit", "Startup Cost": 0.0, "Total Cost": total, "Plan Rows": 1, "Plans": [child] });
        assert_eq!(scans(&limit(scan(), 10.0)), [("s.t".to_owned(), 100)]);
        let sort = json!({ "Node Type": "Sort", "Startup Cost": 110.0, "Total Cost": 120.0, "Plan Rows": 5, "Plans": [scan()] });
        assert_eq!(scans(&limit(sort, 111.0)), [("s.t".to_owned(), 1000)]);
    }
}
