//! What every command has: a manual page, and JSON for what it prints, when it does what it was asked and when it cannot.

use std::collections::BTreeSet;

use serde_json::Value;

use crate::place::{Place, Said};
use crate::proof::key;
use crate::receiver::http;
use crate::redis::Server;

const PROJECT: &str = "[project]
environment = \"local\"
allowed_signers = \"allowed_signers\"

[targets.main]
url = \"env:DATABASE_URL\"
[targets.legacy]
url = \"env:LEGACY_URL\"
[targets.cache]
redis = \"env:CACHE_URL\"

[environments.local]
[channels.ops]
webhook = \"env:OPS_HOOK\"
[people]
dba = [\"olga\"]
[code.shop]
files = [\"apps/**\"]
may_write = [\"shop\"]
";

/// Something is done, then somebody is waited for.
const RUNBOOK: &str = "# Release

## Change

```sql step
-- apply: change    target: main    undo: unchange
CREATE TABLE released ();
```

```sql undo
-- apply: unchange    target: main
DROP TABLE released;
```

## Sign-off

```toml step
sign-off = \"release\"
roles = [\"dba\"]
```
";

/// Commands that only hold others, and what another file's tests run with JSON: they print nothing by themselves, or need a
/// whole cutover.
const ELSEWHERE: &[(&str, &str)] = &[
    ("", "prints help"),
    ("guard", "holds others"),
    ("migrate", "holds others"),
    ("redis", "holds others"),
    ("sandbox", "holds others"),
    ("source", "holds others"),
    ("topology", "holds others"),
    ("transfer", "holds others"),
    ("fence", "holds others"),
    ("guard exec", "standard output is the application's"),
    ("serve", "serve.rs"),
    ("transfer start", "transfer.rs"),
    ("transfer accept", "transfer.rs"),
    ("transfer complete", "transfer.rs"),
    ("transfer abandon", "transfer.rs"),
    ("fence drop", "fence.rs"),
];

/// What was printed, of which each line is JSON by itself.
#[track_caller]
fn lines(command: &str, said: &Said) -> Vec<Value> {
    let parse = |line: &str| {
        let value: Value = serde_json::from_str(line).unwrap_or_else(|error| panic!("`{command}`: {error}: {said:?}"));
        // Findings are a list: of none, where there are none.
        assert!(value.is_object() || value.is_array(), "`{command}`: {line}");
        value
    };
    said.out.lines().map(parse).collect()
}

async fn place(hook: &str, cache: u16) -> (Place, Place) {
    let (mut place, legacy) = (Place::new().await, Place::new().await);
    place.env.push(("LEGACY_URL".to_owned(), legacy.env[0].1.clone()));
    place.env.push(("OPS_HOOK".to_owned(), hook.to_owned()));
    place.env.push(("CACHE_URL".to_owned(), format!("redis://127.0.0.1:{cache}")));
    key(&place, "olga");
    place.write("allowed_signers", &format!("olga {}", place.read("olga.pub")));
    place.write("pgrunbook.toml", PROJECT);
    place.write("RUNBOOK.md", RUNBOOK);
    let name = place.database.database.clone();
    place.write(
        "topology.toml",
        &format!(
            "[database]\nowner = \"{name}_owner\"\n[schemas]\nshared = {{}}\n[roles.{name}_app]\nkind = \"runtime\"\n\
             [sources]\nregistry = \"shared.sources\"\nroles = [\"{name}_app\"]\nchain = [\"db/source\"]\n"
        ),
    );
    place.write("db/source/1_items.sql", "CREATE TABLE items (id int PRIMARY KEY);\n");
    place.write("db/shop/1_notes.sql", "CREATE TABLE notes (id int PRIMARY KEY);\n");
    place.write("db/shop/1_notes.down.sql", "DROP TABLE notes;\n");
    place.write("db/old/1_past.sql", "CREATE TABLE past ();\n");
    place.write("db/dbmate/1_past.sql", "CREATE TABLE past ();\n");
    place.execute("CREATE TABLE schema_migrations (version text PRIMARY KEY)").await;
    place.execute("INSERT INTO schema_migrations VALUES ('1')").await;
    place.execute("CREATE TABLE bot_config (config_key text PRIMARY KEY, config_value jsonb)").await;
    place.execute("INSERT INTO bot_config VALUES ('schema_version', '{\"version\": \"1.0.0\"}')").await;
    place.write("messy.md", "# T\n\n\n\n* one\n");
    place.write("prose.md", "# T\n\nRun this:\n\n```sql\nSELECT 1;\n```\n");
    place.write("flawed.md", "# T\n\n```sql step\n-- aply: x\nSELECT 1;\n```\n");
    place.write("apps/a.sql", "DELETE FROM shop.notes;\n");
    (place, legacy)
}

#[tokio::test]
async fn every_command_prints_json_when_it_does_what_was_asked() {
    let (hook, server) = (http(), Server::start());
    let (place, _legacy) = place(&hook.base, server.port()).await;
    let sandbox = format!("surface-{}", std::process::id());
    let done = &[0][..];
    // In an order in which each finds what it needs. Beside the words: the exit codes that are no failure of the command.
    let calls: Vec<(&str, &str, &[i32])> = vec![
        ("init", "--project new", done),
        ("lint", "flawed.md", &[2]),
        ("fmt", "messy.md", done),
        ("adopt", "prose.md", done),
        ("plan", "RUNBOOK.md --out plan.json", done),
        ("approve", "plan.json", &[3]),
        ("approve", "plan.json --as olga --key olga", done),
        ("promote", "RUNBOOK.md --to local --check", done),
        ("rehearse", "RUNBOOK.md", &[0, 3]),
        ("run", "RUNBOOK.md", &[3]),
        ("status", "", done),
        ("show", "", done),
        ("sign-off", "", &[3]),
        ("sign-off", "--as olga --key olga", done),
        ("resume", "", done),
        ("watch", "", done),
        ("close-review", "", done),
        ("notify", "- --channel ops --text x", done),
        ("report", "--out bundle", done),
        ("verify", "bundle", done),
        ("rollback", "--path undo", &[0, 3]),
        ("guard check", "--app-version 1.0.0", done),
        ("review", "--chain db/shop", &[0, 1, 4]),
        ("review boundary", "", done),
        ("migrate status", "db/shop", &[0, 1]),
        ("migrate up", "db/shop --dry-run", done),
        ("migrate up", "db/shop", done),
        ("drift", "--chain db/shop", &[0, 1]),
        ("migrate down", "db/shop --to 0", done),
        ("migrate baseline", "db/old --at 1", done),
        ("migrate adopt", "db/dbmate", done),
        ("provision", "", done),
        ("topology plan", "", done),
        ("topology apply", "", done),
        ("topology import", "", done),
        ("topology verify", "", &[0, 1]),
        ("probe", "", &[0, 1]),
        ("audit", "", &[0, 1]),
        ("source add", "acme", done),
        ("source resolve", "acme", done),
        ("source list", "", done),
        ("parity", "main legacy", &[0, 1]),
        ("transfer preflight", "--from legacy --schema moved", &[0, 1]),
        ("transfer status", "", done),
        ("transfer follow", "", done),
        ("fence status", "", done),
        ("redis health", "", done),
        ("redis keys", "stg:", done),
        ("redis prove", "--prefix stg: --other prod:", &[0, 1]),
        ("redis delete", "stg: --confirm CONFIRM", done),
        ("sandbox up", "--detach --name NAME", done),
        ("sandbox list", "", done),
        ("sandbox down", "NAME", done),
        ("backup", "main.dump", done),
        ("restore", "main.dump --yes", done),
        ("completions", "fish", done),
        ("man", "guard check", done),
    ];
    let mut seen = BTreeSet::new();
    for (command, more, codes) in calls {
        let words = command.split(' ').chain(more.split(' ').filter(|word| !word.is_empty()));
        let mut words: Vec<String> = words.map(|word| word.replace("NAME", &sandbox)).collect();
        if let Some(last) = words.last_mut().filter(|word| *word == "CONFIRM") {
            *last = "local: delete stg: in cache".to_owned();
        }
        let mut words: Vec<&str> = words.iter().map(String::as_str).collect();
        words.extend(["--format", "json"]);
        let said = place.call(&words);
        assert!(said.code.is_some_and(|code| codes.contains(&code)), "`{command} {more}`: {said:?}");
        let lines = lines(command, &said);
        assert!(!lines.is_empty(), "`{command} {more}` printed nothing: {said:?}");
        let failed = lines.iter().any(|line| line["type"] == "error");
        assert!(!failed, "`{command} {more}`: {said:?}");
        seen.insert(command.to_owned());
    }
    // The manual has a page for each command there is: none was forgotten.
    place.call(&["man", "--out", "man"]).done();
    let mut pages: BTreeSet<String> = BTreeSet::new();
    for entry in std::fs::read_dir(place.path("man")).unwrap() {
        let name = entry.unwrap().file_name().into_string().unwrap();
        let own =
            name.strip_prefix("pgrunbook").and_then(|name| name.strip_suffix(".1")).unwrap().trim_start_matches('-');
        let own = if ["sign-off", "close-review"].contains(&own) { own.to_owned() } else { own.replace('-', " ") };
        let page = place.read(&format!("man/{name}"));
        let shown = format!(".SH NAME\npgrunbook{}", if own.is_empty() { "" } else { "\\-" });
        assert!(page.contains(&shown) && page.contains(".SH SYNOPSIS"), "{name}: {page}");
        assert!(page.contains(".SH EXAMPLES") && page.contains(".SH DESCRIPTION"), "{name}: {page}");
        pages.insert(own);
    }
    let elsewhere = ELSEWHERE.iter().map(|(command, _)| (*command).to_owned());
    let known: BTreeSet<String> = seen.into_iter().chain(elsewhere).collect();
    assert_eq!(pages, known);
}

#[test]
fn every_command_prints_json_when_it_cannot() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::create_dir(folder.path().join("broken")).unwrap();
    std::fs::write(folder.path().join("broken/pgrunbook.toml"), "[targets\n").unwrap();
    let broken = "--project broken";
    let calls = [
        "init --project broken",
        "lint nowhere.md",
        "fmt nowhere.md",
        "adopt nowhere.md",
        "verify nowhere",
        "guard check --app-version latest",
        "guard exec --app-version latest -- true",
        "serve --database env:NOT_SET",
        "sandbox up --pooler nobody",
        "sandbox down surely-no-such-server",
        "sandbox list --nonsense",
        "completions tcsh",
        "man no such command",
        "guard",
        "no-such-command",
        "run",
    ];
    let of_projects = [
        "plan x.md",
        "run x.md",
        "promote x.md --to y",
        "resume",
        "rollback",
        "rehearse x.md",
        "status",
        "show",
        "watch",
        "approve x",
        "sign-off",
        "close-review",
        "notify - --channel x --text y",
        "report",
        "review",
        "review boundary",
        "drift",
        "migrate status db",
        "migrate up db",
        "migrate down db --to 0",
        "migrate baseline db --at 1",
        "migrate adopt db",
        "topology plan",
        "topology apply",
        "topology verify",
        "topology verify --ephemeral",
        "topology import",
        "provision",
        "probe",
        "source list",
        "source resolve x",
        "source add x",
        "transfer preflight --from x --schema y",
        "transfer start --from x --schema y",
        "transfer follow",
        "transfer status",
        "transfer accept x",
        "transfer complete x --yes",
        "transfer abandon x --yes",
        "redis health",
        "redis keys x:",
        "redis delete x:",
        "redis prove",
        "fence status",
        "fence drop x --yes",
        "backup x.dump",
        "restore x.dump --yes",
        "audit",
        "parity a b",
        "serve",
    ];
    let calls =
        calls.iter().map(|call| (*call).to_owned()).chain(of_projects.iter().map(|call| format!("{call} {broken}")));
    for call in calls {
        let (before, after) = call.split_once(" -- ").unwrap_or((&call, ""));
        let mut words: Vec<&str> = before.split(' ').collect();
        words.extend(["--format", "json"]);
        if !after.is_empty() {
            words.extend(["--", after]);
        }
        let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_pgrunbook"));
        command.args(&words).current_dir(folder.path()).env_clear();
        command.env("PATH", std::env::var("PATH").unwrap_or_default()).stdin(std::process::Stdio::null());
        let said = Said::of(command.output().unwrap());
        assert!(said.code.is_some_and(|code| code > 0), "`{call}`: {said:?}");
        let lines = lines(&call, &said);
        let error = lines.last().unwrap_or_else(|| panic!("`{call}` printed nothing: {said:?}"));
        assert_eq!((&error["type"], error["exit"].as_i64()), (&"error".into(), said.code.map(i64::from)), "`{call}`");
        let told = |key: &str| error[key].as_str().is_some_and(|text| !text.is_empty());
        assert!(told("code") && told("message"), "`{call}`: {error}");
        assert_eq!(said.err, "", "`{call}`");
    }
}
