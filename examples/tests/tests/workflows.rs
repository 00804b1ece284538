//! The examples' workflow files: what they may and install, and what their scripts do where a runner calls them.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use serde_json::Value;

use crate::project::Project;

pub const CONFIRM: &str = "CONFIRM PRODUCTION DEPLOYMENT";

/// What a program said, which ended as it should.
#[track_caller]
pub fn said(output: &Output, code: i32) -> String {
    let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert_eq!(output.status.code(), Some(code), "{out}\n{err}");
    format!("{out}{err}")
}

fn git(folder: &Path, args: &[&str]) {
    let who = ["-c", "user.name=anna", "-c", "user.email=anna@example.com"];
    let output = Command::new("git").args(who).args(args).current_dir(folder).output().unwrap();
    said(&output, 0);
}

/// The folder of an example.
fn folder_of(example: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().join(example)
}

/// A workflow of an example, as GitHub's own reader would see it.
pub fn workflow(example: &str, name: &str) -> (String, Value) {
    yaml(&folder_of(example).join(".github/workflows").join(name))
}

/// A file of YAML, and its text.
pub fn yaml(path: &Path) -> (String, Value) {
    // `BaseLoader`: `on` stays a word, and is not the truth.
    let program = "import json, sys, yaml; print(json.dumps(yaml.load(sys.stdin, yaml.BaseLoader)))";
    let text = std::fs::read_to_string(path).unwrap();
    let mut child = Command::new("python3")
        .args(["-c", program])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("python3 is missing: scripts/need python3-yaml");
    child.stdin.take().unwrap().write_all(text.as_bytes()).unwrap();
    let read = said(&child.wait_with_output().unwrap(), 0);
    (text, serde_json::from_str(&read).unwrap())
}

/// All of them, by example and file.
fn workflows() -> Vec<(String, String)> {
    let named = |entry: std::fs::DirEntry| entry.file_name().into_string().unwrap();
    let mut found = Vec::new();
    for example in std::fs::read_dir(folder_of("")).unwrap().flatten().map(named) {
        let files = std::fs::read_dir(folder_of(&example).join(".github/workflows"));
        let names = files.into_iter().flatten().flatten().map(named);
        found.extend(names.map(|name| (example.clone(), name)));
    }
    assert!(found.len() >= 4, "{found:?}");
    found
}

fn jobs(workflow: &Value) -> impl Iterator<Item = (&String, &Value)> {
    workflow["jobs"].as_object().unwrap().iter()
}

fn steps(job: &Value) -> &[Value] {
    job["steps"].as_array().unwrap()
}

pub fn step<'a>(workflow: &'a Value, job: &str, name: &str) -> &'a Value {
    let found = steps(&workflow["jobs"][job]).iter().find(|one| one["name"] == name);
    found.unwrap_or_else(|| panic!("{job} has no step {name}"))
}

/// What a step of the pipeline's workflow runs, as GitHub gives it to a shell.
fn script(file: &str, job: &str, name: &str) -> String {
    step(&workflow("pipeline", file).1, job, name)["run"].as_str().unwrap().to_owned()
}

#[test]
fn workflows_pin_what_they_use_and_may_little() {
    let cargo = std::fs::read_to_string(folder_of("").parent().unwrap().join("Cargo.toml")).unwrap();
    let repository = cargo.lines().find_map(|line| line.strip_prefix("repository = ")).unwrap().trim_matches('"');
    // The program is in no registry.
    let ours = format!("cargo install --locked --git {repository} --rev \"$PGRUNBOOK_REV\" pgrunbook");
    for (example, name) in workflows() {
        let readme = std::fs::read_to_string(folder_of(&example).join("README.md")).unwrap();
        let (text, workflow) = workflow(&example, &name);
        assert_eq!(workflow["env"]["PGRUNBOOK_REV"], "REPLACE", "{name}: which commit is trusted is nobody's to guess");
        assert_eq!(workflow["permissions"], serde_json::json!({}), "{name}: nothing, unless a job says so");
        for (job_name, job) in jobs(&workflow) {
            let permissions = job["permissions"].as_object().unwrap_or_else(|| panic!("{name}: {job_name} says none"));
            for (what, level) in permissions {
                let writes = ["pull-requests", "security-events"].contains(&what.as_str()) && job_name == "gate";
                assert!(level == "read" || (level == "write" && writes), "{name}: {job_name} may {level} {what}");
            }
            assert!(job["timeout-minutes"].is_string(), "{name}: {job_name} may take for ever");
            for step in steps(job) {
                // What somebody else writes (a branch's name, a text) reaches a shell as a variable only.
                assert!(!step["run"].as_str().unwrap_or_default().contains("${{"), "{name}: {step}");
                if let Some(run) = step["run"].as_str().filter(|run| run.contains("cargo install")) {
                    let fixed = run == ours || run.starts_with("cargo install --locked --path ");
                    assert!(fixed, "{name}: installs what is newest, or what is not there: {run}");
                }
                let Some(used) = step["uses"].as_str() else { continue };
                let (action, hash) = used.split_once('@').unwrap();
                assert!(hash.len() == 40 && hash.bytes().all(|byte| byte.is_ascii_hexdigit()), "{name}: {used}");
                let line = text.lines().find(|line| line.contains(used)).unwrap();
                assert!(line.contains(" # v"), "{name}: of which version is {action}? {line}");
                if action == "actions/checkout" {
                    assert_eq!(step["with"]["persist-credentials"], "false", "{name}: {step}");
                }
            }
        }
        assert_eq!(pgrunbook_document::secrets::find(&text), [], "{name}");
        let given = ["secrets.", "vars."].iter().flat_map(|of| text.split(of).skip(1)).map(|rest| {
            let end = rest.find(|c: char| !c.is_ascii_alphanumeric() && c != '_').unwrap_or(rest.len());
            &rest[..end]
        });
        for name in given.chain(["PGRUNBOOK_REV"]) {
            assert!(readme.contains(&format!("`{name}`")), "the README of {example} does not tell of {name}");
        }
    }
}

#[test]
fn servers_programs_are_of_the_version_that_the_databases_have() {
    let scripts = [("pr-migrations.yml", "gate"), ("pr-migrations.yml", "staging"), ("promote-prod.yml", "promote")]
        .map(|(file, job)| script(file, job, "PostgreSQL's programs"));
    assert!(scripts.iter().all(|script| *script == scripts[0]), "{scripts:#?}");
    for part in [
        "/usr/share/postgresql-common/pgdg/apt.postgresql.org.sh -y",
        "--no-install-recommends \"postgresql-$POSTGRES_MAJOR\"",
        "echo \"/usr/lib/postgresql/$POSTGRES_MAJOR/bin\" >>\"$GITHUB_PATH\"",
    ] {
        assert!(scripts[0].contains(part), "{part}\n{}", scripts[0]);
    }
    for file in ["pr-migrations.yml", "promote-prod.yml"] {
        let (_, workflow) = workflow("pipeline", file);
        assert_eq!(workflow["env"]["POSTGRES_MAJOR"], "${{ vars.POSTGRES_MAJOR || '17' }}", "{file}");
    }
}

/// Files below a folder, as paths from it.
fn files(folder: &Path, from: &str, found: &mut Vec<String>) {
    for entry in std::fs::read_dir(folder).unwrap().flatten() {
        let path = format!("{from}{}", entry.file_name().into_string().unwrap());
        match entry.path().is_dir() {
            true => files(&entry.path(), &format!("{path}/"), found),
            false => found.push(path),
        }
    }
}

/// Whether a pattern of `paths:` covers a path, as far as the example's patterns need it.
fn covers(pattern: &str, path: &str) -> bool {
    let Some(folder) = pattern.strip_suffix("/**") else { return pattern == path };
    match folder.strip_suffix('*') {
        Some(start) => path.split_once('/').is_some_and(|(first, _)| first.starts_with(start)),
        None => path.strip_prefix(folder).is_some_and(|rest| rest.starts_with('/')),
    }
}

#[test]
fn gate_sees_a_change_of_whatever_a_run_uses() {
    let (_, workflow) = workflow("pipeline", "pr-migrations.yml");
    let patterns: Vec<&str> =
        workflow["on"]["pull_request"]["paths"].as_array().unwrap().iter().map(|one| one.as_str().unwrap()).collect();
    let mut found = Vec::new();
    files(&folder_of("pipeline"), "", &mut found);
    found.retain(|path| ![".state/", ".pgrunbook/", "evidence/"].iter().any(|made| path.starts_with(made)));
    let (seen, unseen): (Vec<String>, Vec<String>) =
        found.into_iter().partition(|path| patterns.iter().any(|pattern| covers(pattern, path)));
    assert!(seen.len() > 20, "{seen:?}");
    assert!(unseen.iter().all(|path| [".gitignore", "README.md", "demo"].contains(&path.as_str())), "{unseen:?}");
}

#[test]
fn production_is_promoted_by_the_exact_text_and_its_reviewers_alone() {
    let (_, workflow) = workflow("pipeline", "promote-prod.yml");
    assert_eq!(workflow["on"].as_object().unwrap().keys().collect::<Vec<_>>(), ["workflow_dispatch"]);
    let promote = &workflow["jobs"]["promote"];
    assert_eq!((&promote["environment"], &promote["needs"]), (&"production".into(), &"confirmation".into()));
    let script = script("promote-prod.yml", "confirmation", "The exact text");
    for (text, code) in
        [(CONFIRM, 0), ("confirm production deployment", 1), ("", 1), ("CONFIRM PRODUCTION DEPLOYMENT'; true '", 1)]
    {
        let output = Command::new("bash").args(["-e", "-c", &script]).env("CONFIRMATION", text).output().unwrap();
        assert_eq!(output.status.code(), Some(code), "{text:?}");
    }
    let project = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().join("pipeline/pgrunbook.toml");
    let wanted = format!("confirm = \"{CONFIRM}\"");
    assert!(std::fs::read_to_string(project).unwrap().contains(&wanted), "pgrunbook wants the same text");
}

/// The example as a repository: on the main branch all but the newest migration, which this branch adds.
fn branch_that_only_adds(project: &Project) {
    let folder = &project.folder;
    let name = "20250901090000_scheduling.sql";
    let parts = ["migrations", "down", "verify"].map(|part| folder.join("supabase").join(part).join(name));
    let texts = parts.each_ref().map(|path| std::fs::read_to_string(path).unwrap());
    parts.iter().for_each(|path| std::fs::remove_file(path).unwrap());
    git(folder, &["init", "--quiet"]);
    git(folder, &["add", "--all"]);
    git(folder, &["commit", "--quiet", "--message", "main"]);
    git(folder, &["update-ref", "refs/remotes/origin/main", "HEAD"]);
    parts.iter().zip(&texts).for_each(|(path, text)| std::fs::write(path, text).unwrap());
    git(folder, &["add", "--all"]);
    git(folder, &["commit", "--quiet", "--message", "only adds"]);
}

/// The major version of the project's server.
fn major(project: &Project) -> String {
    project.sql("SELECT current_setting('server_version_num')::int / 10000")
}

#[test]
fn gate_of_the_workflow_passes_what_only_adds_and_refuses_the_rest() {
    let project = Project::new("pipeline", "gate", "staging", "STAGING_DATABASE_URL", &[]);
    let folder = &project.folder;
    let (script, major) = (script("pr-migrations.yml", "gate", "The change"), major(&project));
    let gate = || {
        // As on a fork: without secrets, and so without staging.
        let env = [("BASE", "main"), ("PGPASSWORD", ""), ("POSTGRES_MAJOR", &major)];
        project.program(Path::new("bash"), &["-e", "-c", &script], &env)
    };
    branch_that_only_adds(&project);
    said(&gate(), 0);
    let comment = std::fs::read_to_string(folder.join("comment.md")).unwrap();
    assert!(comment.contains("20250901090000 scheduling"), "{comment}");
    let sarif: Value = serde_json::from_str(&std::fs::read_to_string(folder.join("review.sarif")).unwrap()).unwrap();
    assert_eq!(sarif["version"], "2.1.0");

    let bad = PathBuf::from("supabase/migrations/20251001000000_author.sql");
    let up = "ALTER TABLE public.posts DROP COLUMN body, ADD COLUMN author text NOT NULL;\n\
              CREATE TABLE public.drafts (body text);\n";
    std::fs::write(folder.join(&bad), up).unwrap();
    let text = said(&gate(), 1);
    for rule in ["not-additive", "not-null-without-default", "missing-down", "rls-missing", "grant-missing"] {
        assert!(text.contains(rule), "{rule}\n{text}");
    }
    assert!(text.contains(&format!("::error file={}", bad.display())), "annotations stand at the line\n{text}");
    std::fs::remove_file(folder.join(&bad)).unwrap();

    // History is not edited.
    let first = folder.join("supabase/migrations/20250811000000_baseline.sql");
    let text = std::fs::read_to_string(&first).unwrap();
    std::fs::write(&first, text.replace("body        text        NOT NULL", "body        text")).unwrap();
    assert!(said(&gate(), 1).contains("history-edited"));
}

#[test]
fn gate_of_the_workflow_reads_staging_where_the_secrets_are_there() {
    let project = Project::new("pipeline", "gate-staging", "staging", "STAGING_DATABASE_URL", &[]);
    // Staging as `supabase db push` has left it, taken over, beside what Supabase keeps there itself.
    project.sql(&std::fs::read_to_string(project.folder.join("scripts/supabase-roles.sql")).unwrap());
    let file = ["-X", "-q", "-v", "ON_ERROR_STOP=1", "-d", &project.url, "-f", "scripts/as-it-was.sql"];
    said(&project.program(Path::new("psql"), &file, &[]), 0);
    let program = project.folder_of_programs().join("pgrunbook");
    let adopt = ["-e", "takeover", "migrate", "adopt", "supabase/migrations"];
    said(&project.program(&program, &adopt, &[("TAKEOVER_DATABASE_URL", &project.url)]), 0);
    let theirs = ["auth", "extensions", "graphql", "graphql_public", "pgbouncer", "realtime", "storage", "vault"];
    for schema in theirs {
        project.sql(&format!("CREATE SCHEMA {schema}; CREATE TABLE {schema}.own (id int)"));
    }
    branch_that_only_adds(&project);

    // As in the workflow the password is beside the URL, and not in it.
    let (user, rest) = project.url.split_once("://").unwrap().1.split_once(':').unwrap();
    let (password, place) = rest.split_once('@').unwrap();
    let url = format!("postgres://{user}@{place}");
    let (script, major) = (script("pr-migrations.yml", "gate", "The change"), major(&project));
    let env =
        [("BASE", "main"), ("STAGING_DATABASE_URL", &*url), ("PGPASSWORD", password), ("POSTGRES_MAJOR", &*major)];
    let gate = |code: i32| {
        let text = said(&project.program(Path::new("bash"), &["-e", "-c", &script], &env), code);
        let comment = std::fs::read_to_string(project.folder.join("comment.md")).unwrap();
        assert!(!text.contains(password) && !comment.contains(password), "{text}\n{comment}");
        (text, comment)
    };
    let (text, comment) = gate(0);
    assert!(comment.contains("20250901090000 scheduling"), "{comment}\n{text}");
    assert!(comment.contains("☑ drift: "), "{comment}");

    // Each of the schemas that are left out would be drift.
    let drift = ["drift", "main", "--chain", "supabase/migrations"];
    let all = said(&project.program(&program, &drift, &env), 1);
    for schema in theirs.iter().chain(&["supabase_migrations"]) {
        assert!(all.contains(schema), "{schema}\n{all}");
    }

    // What somebody made there by hand is found.
    project.sql("CREATE TABLE public.by_hand (id int)");
    let (text, comment) = gate(1);
    assert!(text.contains("::error") && comment.contains("by_hand"), "{text}\n{comment}");
    assert!(!comment.contains("auth.own"), "{comment}");
}
