//! From a pull request to production, and out of emergencies: two environments, one Redis, both applications.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::project::Project;
use crate::workflows::{CONFIRM, said, step, workflow, yaml};

const ALWAYS: &str = "Mon-Sun 00:00-24:00 UTC";
/// Long gone.
const NEVER: &str = "2020-01-06 09:00-16:00 UTC";
const APP: &str = "pw-of-the-applications";
const OPERATOR: &str = "pw-of-the-operator";

/// Everything that the example needs, and nothing of it when a test ends.
struct Stage {
    project: Project,
    /// Its sandbox; the journal is in another cluster than what it tells of.
    journal: String,
    production: String,
    redis: Child,
    redis_port: u16,
    /// Bot and API, in staging and production.
    ports: [u16; 4],
}

impl Drop for Stage {
    fn drop(&mut self) {
        for environment in ["staging", "production"] {
            self.service("stop", environment);
        }
        self.project.call(&["sandbox", "down", &self.journal]);
        let _ = self.redis.kill();
        let _ = self.redis.wait();
    }
}

fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

#[track_caller]
pub fn until(what: &str, holds: impl Fn() -> bool) {
    let begun = Instant::now();
    while !holds() {
        assert!(begun.elapsed() < Duration::from_secs(60), "{what}");
        std::thread::park_timeout(Duration::from_millis(50));
    }
}

impl Stage {
    /// Both databases as Supabase has left them at 1.0.0, its history taken over; nothing runs yet.
    fn new(test: &str) -> Self {
        let project = Project::new("pipeline", test, "staging", "STAGING_DATABASE_URL", &[]);
        let journal = format!("journal-{}-{test}", std::process::id());
        let url =
            project.done(&["sandbox", "up", "--detach", "--name", &journal, "--database", "j", "--format", "plain"]);
        project.sql(&std::fs::read_to_string(project.folder.join("scripts/supabase-roles.sql")).unwrap());
        project.sql(&format!("ALTER ROLE bot_app PASSWORD '{APP}'"));
        project.sql("CREATE DATABASE production");
        let staging = project.url.clone();
        let production = staging.replacen("/pipeline", "/production", 1);
        let app = |url: &str| format!("postgres://bot_app:{APP}{}", &url[url.find('@').unwrap()..]);

        let redis_port = free_port();
        let redis = start_redis(&project.folder, redis_port);
        let redis_as = |user: &str, password: &str| format!("redis://{user}:{password}@127.0.0.1:{redis_port}");
        let ports = [free_port(), free_port(), free_port(), free_port()];
        let http = |at: usize| format!("http://127.0.0.1:{}", ports[at]);
        let project = [
            ("JOURNAL_URL", url.trim().to_owned()),
            ("PROD_DATABASE_URL", production.clone()),
            ("STAGING_APP_DATABASE_URL", app(&staging)),
            ("PROD_APP_DATABASE_URL", app(&production)),
            ("REDIS_URL", redis_as("operator", OPERATOR)),
            ("REDIS_STG_PASSWORD", "pw-of-staging".to_owned()),
            ("REDIS_PROD_PASSWORD", "pw-of-production".to_owned()),
            ("STAGING_APP_REDIS_URL", redis_as("app_stg", "pw-of-staging")),
            ("PROD_APP_REDIS_URL", redis_as("app_prod", "pw-of-production")),
            ("STAGING_BOT_URL", http(0)),
            ("STAGING_API_URL", http(1)),
            ("PROD_BOT_URL", http(2)),
            ("PROD_API_URL", http(3)),
        ]
        .into_iter()
        .fold(project, |project, (name, value)| project.with(name, &value));
        for (environment, at) in [("staging", 0), ("production", 2)] {
            let path = project.folder.join(format!("deploy/{environment}.env"));
            let text = std::fs::read_to_string(&path).unwrap();
            let line = |line: &str| match line.split_once('=') {
                Some((name @ "BOT_PORT", _)) => format!("{name}={}\n", ports[at]),
                Some((name @ "API_PORT", _)) => format!("{name}={}\n", ports[at + 1]),
                _ => format!("{line}\n"),
            };
            std::fs::write(path, text.lines().map(line).collect::<String>()).unwrap();
        }
        let stage = Self { project, journal, production, redis, redis_port, ports };
        stage.window(ALWAYS);
        for url in [&staging, &stage.production] {
            let file = ["-X", "-q", "-v", "ON_ERROR_STOP=1", "-d", url, "-f", "scripts/as-it-was.sql"];
            said(&stage.project.program(Path::new("psql"), &file, &[]), 0);
            let adopt = ["-e", "takeover", "migrate", "adopt", "supabase/migrations"];
            let program = stage.project.folder_of_programs().join("pgrunbook");
            said(&stage.project.program(&program, &adopt, &[("TAKEOVER_DATABASE_URL", url)]), 0);
        }
        stage
    }

    /// When production may be changed.
    fn window(&self, window: &str) {
        let path = self.project.folder.join("pgrunbook.toml");
        let text = std::fs::read_to_string(&path).unwrap();
        let line = |line: &str| match line.starts_with("windows = ") {
            true => format!("windows = [\"{window}\"]\n"),
            false => format!("{line}\n"),
        };
        std::fs::write(path, text.lines().map(line).collect::<String>()).unwrap();
    }

    /// `promote` to production, with what more is said; its exit code is as expected.
    #[track_caller]
    fn promote(&self, code: i32, more: &[&str]) -> String {
        said(&self.project.call(&[&["promote", "RUNBOOK.md", "--to", "production", "--no-input"], more].concat()), code)
    }

    fn service(&self, command: &str, environment: &str) -> Output {
        let file = format!("deploy/{environment}.env");
        self.project.program(&self.project.folder.join("service"), &[command, &file], &[])
    }

    #[track_caller]
    fn starts(&self, environment: &str) {
        said(&self.service("restart", environment), 0);
    }

    /// Runs the emergency's look, and takes one of its ways.
    #[track_caller]
    fn emergency(&self, path: &str, more: &[&str]) -> String {
        let looked = [&["run", "EMERGENCY.md", "--no-input"], more].concat();
        said(&self.project.call(&looked), 0);
        self.project.back(path)
    }

    /// What an application says of itself.
    #[track_caller]
    fn health(&self, at: usize) -> Value {
        let (status, body) = get(self.ports[at], "/health");
        assert_eq!(status, 200, "{body}");
        body
    }

    /// Runs a step of a workflow as a runner does: with the names of its own `env` and what GitHub sets, and nothing else of what this
    /// test knows. `inputs`: values of names that a person typed.
    #[track_caller]
    fn workflow_step(&self, (file, job, name): (&str, &str, &str), inputs: &[(&str, &str)]) {
        let (_, workflow) = workflow("pipeline", file);
        let step = step(&workflow, job, name);
        let mut env = vec![("GITHUB_ACTOR".to_owned(), "olga".to_owned())];
        env.push(("GITHUB_STEP_SUMMARY".to_owned(), "summary.md".to_owned()));
        for name in step["env"].as_object().unwrap().keys() {
            let input = inputs.iter().find(|(input, _)| input == name).map(|(_, value)| (*value).to_owned());
            // The sandbox's URLs bring their password.
            let value =
                input.or_else(|| self.project.variable(name)).or_else(|| (name == "PGPASSWORD").then(String::new));
            env.push((
                name.clone(),
                value.unwrap_or_else(|| panic!("{file}: {name} is nothing that the example knows")),
            ));
        }
        let run = step["run"].as_str().unwrap();
        said(&self.project.bare(Path::new("bash"), &["-e", "-c", run], &env), 0);
    }

    fn bot_log(&self) -> String {
        std::fs::read_to_string(self.project.folder.join(".state/staging/bot.log")).unwrap()
    }

    #[track_caller]
    fn on_production(&self, statement: &str) -> String {
        let output = self.project.psql(&self.production, statement);
        said(&output, 0).trim().to_owned()
    }
}

fn start_redis(folder: &Path, port: u16) -> Child {
    let acl = folder.join("users.acl");
    if !acl.exists() {
        std::fs::write(&acl, format!("user operator on >{OPERATOR} ~* &* +@all\n")).unwrap();
    }
    let child = Command::new("redis-server")
        .args(["--port", &port.to_string(), "--bind", "127.0.0.1", "--save", "", "--aclfile"])
        .arg(acl)
        .stdout(Stdio::null())
        .spawn()
        .expect("redis-server is missing: scripts/need redis-server");
    until("Redis takes connections", || TcpStream::connect(("127.0.0.1", port)).is_ok());
    child
}

pub fn get(port: u16, path: &str) -> (u16, Value) {
    let (status, body) = fetch(port, path);
    (status, serde_json::from_str(body.trim()).unwrap_or_else(|error| panic!("{error}: {body}")))
}

fn fetch(port: u16, path: &str) -> (u16, String) {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
    write!(stream, "GET {path} HTTP/1.0\r\nHost: localhost\r\n\r\n").unwrap();
    let mut text = String::new();
    stream.read_to_string(&mut text).unwrap();
    let (head, body) = text.split_once("\r\n\r\n").unwrap_or_else(|| panic!("no answer: {text}"));
    (head.split(' ').nth(1).unwrap().parse().unwrap(), body.to_owned())
}

const VERSION: &str =
    "SELECT config_value ->> 'version' FROM bot_config WHERE config_key = 'schema_version' AND environment = ";

#[test]
fn release_goes_through_staging_to_production_and_back() {
    let stage = Stage::new("promote");
    stage.starts("staging");
    stage.starts("production");
    assert_eq!(stage.health(2)["status"], "degraded", "Redis has no users yet, and that stops nobody");
    assert_eq!(stage.health(3)["guard"], "equal");

    // Too new for its schema: neither guard lets it start.
    let file = stage.project.folder.join("deploy/production.env");
    let text = std::fs::read_to_string(&file).unwrap();
    std::fs::write(&file, text.replace("APP_SCHEMA_VERSION=1.0.0", "APP_SCHEMA_VERSION=1.1.0")).unwrap();
    let refused = said(&stage.service("restart", "production"), 1);
    assert!(refused.contains("1.1.0") && refused.contains("run the migrations"), "{refused}");
    let environment = [
        ("APP_ENV", "production"),
        ("APP_SCHEMA_VERSION", "1.1.0"),
        ("PORT", "1"),
        (
            "DATABASE_URL",
            &format!("postgres://bot_app:{APP}{}", &stage.production[stage.production.find('@').unwrap()..]),
        ),
    ];
    let api = stage.project.folder_of_programs().join("pipeline-api");
    let refused = said(&stage.project.program(&api, &[], &environment), 1);
    assert!(refused.contains("not started") && refused.contains("1.1.0"), "{refused}");
    std::fs::write(&file, text).unwrap();
    stage.starts("production");

    stage.project.done(&["lint", "RUNBOOK.md", "EMERGENCY.md"]);
    let listed = stage.promote(3, &["--check", "--confirm", CONFIRM]);
    assert!(listed.contains("`pgrunbook run RUNBOOK.md --environment staging`"), "{listed}");
    stage.workflow_step(("pr-migrations.yml", "staging", "The same run as production's"), &[]);
    assert_eq!(stage.health(0)["status"], "ok");
    assert_eq!(stage.health(1)["version"], "1.1.0");
    assert_eq!(stage.on_production(&format!("{VERSION}'production'")), "1.0.0", "staging is not production");

    // Production wants a time, no incident, and its text, exactly.
    let version = format!("{VERSION}'production'");
    stage.on_production("INSERT INTO incidents (environment, title) VALUES ('production', 'posts are doubled')");
    assert!(stage.promote(3, &["--confirm", CONFIRM]).contains("posts are doubled"));
    stage.on_production("UPDATE incidents SET closed_at = now()");
    stage.window(NEVER);
    assert!(stage.promote(3, &["--confirm", CONFIRM]).contains("closed"));
    let without = ["--confirm", CONFIRM, "--override", "window", "--reason", "the fix cannot wait: nobody decided it"];
    assert_ne!(
        stage.project.call(&[&["promote", "RUNBOOK.md", "--to", "production"], &without[..]].concat()).status.code(),
        Some(0)
    );
    stage.window(ALWAYS);
    stage.promote(3, &[]);
    stage.promote(2, &["--confirm", "confirm production deployment"]);
    assert_eq!(stage.on_production(&version), "1.0.0", "nothing of all that began");
    stage.workflow_step(("promote-prod.yml", "promote", "The promotion"), &[("CONFIRMATION", CONFIRM)]);
    assert_eq!(stage.on_production(&version), "1.1.0");
    assert_eq!(stage.health(2)["guard"], "equal");
    let summary = std::fs::read_to_string(stage.project.folder.join("summary.md")).unwrap();
    for part in ["1.0.0", "1.1.0", "20250901090000", "Application health: curl", "the next review is in the calendar"] {
        assert!(summary.contains(part), "{part}\n{summary}");
    }
    let log = "SELECT string_agg(concat_ws(' ', action, environment, version, migration), ', ' ORDER BY id) FROM deployment_log";
    assert_eq!(stage.on_production(log), "deployed production 1.1.0 20250901090000_scheduling");

    // A tenth of the readers, each always the same way.
    let sees = |reader: &str| get(stage.ports[3], &format!("/posts/{reader}")).1["scheduling"] == true;
    let readers: Vec<String> = (0..100).map(|number| format!("reader{number}")).collect();
    let first: Vec<bool> = readers.iter().map(|reader| sees(reader)).collect();
    let share = first.iter().filter(|sees| **sees).count();
    assert!((1..=25).contains(&share), "{share} of 100");
    assert_eq!(readers.iter().map(|reader| sees(reader)).collect::<Vec<_>>(), first);

    stage.project.done(&["-e", "production", "rollback", "--path", "rollback-the-feature", "--reason", "a test"]);
    until("nobody sees it any more", || !readers.iter().any(|reader| sees(reader)));

    // Staging goes all the way back: the release before runs on the schema before.
    stage.project.back("undo");
    assert_eq!(stage.project.sql(&format!("{VERSION}'staging'")), "1.0.0");
    assert_eq!(stage.health(0)["version"], "1.0.0");
    let column = "SELECT count(*) FROM pg_attribute WHERE attrelid = 'posts'::regclass AND attname = 'scheduled_for'";
    assert_eq!(stage.project.sql(column), "0");
    assert_eq!(stage.on_production(column), "1", "production stays");
    assert!(stage.project.sql(log).ends_with("rolled back staging 1.1.0 20250901090000_scheduling"));

    // In an incident whoever is on call goes on, by name and reason; and no demand stands before a way out.
    stage.on_production("UPDATE incidents SET closed_at = NULL");
    stage.window(NEVER);
    let look = ["-e", "production", "run", "EMERGENCY.md", "--no-input", "--confirm", CONFIRM];
    assert_eq!(stage.project.call(&look).status.code(), Some(3));
    let on_call = ["--as", "oncall@example.com", "--reason", "the bot doubles its posts: on-call decided it"];
    let overrides = ["--override", "window", "--override", "incident", "--override", "rehearsal"];
    let looked = said(&stage.project.call(&[&look[..], &on_call, &overrides].concat()), 0);
    assert!(looked.contains("the bot doubles its posts"), "{looked}");
    let off = ["-e", "production", "rollback", "--path", "rollback-the-posting-job", "--reason", "it doubles them"];
    stage.project.done(&off);
    assert_eq!(stage.health(2)["posting"]["on"], false);
}

#[test]
fn ways_out_of_an_emergency_do_what_they_say_and_end() {
    let stage = Stage::new("emergency");
    stage.starts("staging");
    stage.project.done(&["run", "RUNBOOK.md", "--no-input"]);

    // The job: silent at once, while LIVE_POSTS still says otherwise; the trail has it.
    stage.emergency("rollback-the-posting-job", &[]);
    assert_eq!(stage.health(0)["posting"]["on"], false);
    let trail = "SELECT detail -> 'after' ->> 'autonomous_posting' FROM audit_log ORDER BY id DESC LIMIT 1";
    assert_eq!(stage.project.sql(trail), "false");
    let posts = stage.project.sql("SELECT max(id) FROM posts");
    stage.emergency("rollback-the-posting-job-on-again", &[]);
    until("the bot posts again", || stage.project.sql("SELECT max(id) FROM posts") != posts);

    // A variable that overrides the flag, for one process alone, is named.
    let file = stage.project.folder.join("deploy/staging.env");
    let set = |name: &str, value: &str| {
        let text = std::fs::read_to_string(&file).unwrap();
        let line = |line: &str| match line.split_once('=') {
            Some((found, _)) if found == name => format!("{name}={value}\n"),
            _ => format!("{line}\n"),
        };
        std::fs::write(&file, text.lines().map(line).collect::<String>()).unwrap();
    };
    set("LIVE_POSTS", "false");
    stage.starts("staging");
    let posting = &stage.health(0)["posting"];
    assert_eq!((&posting["on"], &posting["why"]), (&false.into(), &"LIVE_POSTS is false".into()));
    set("LIVE_POSTS", "true");
    stage.starts("staging");
    assert_eq!(stage.health(0)["posting"]["on"], true);

    // The release before runs on the schema of the new one.
    let gone = stage.emergency("rollback-the-release-before", &[]);
    assert!(gone.contains("previous-fits"), "{gone}");
    let health = stage.health(0);
    assert_eq!((&health["version"], &health["guard"]), (&"1.0.0".into(), &"database-newer".into()));
    assert_eq!(stage.project.sql(&format!("{VERSION}'staging'")), "1.1.0", "the schema stays");

    // A release of another major: the guard keeps it out, the bypass lets it in and is loud, and ends.
    set("APP_SCHEMA_VERSION", "2.0.0");
    assert!(said(&stage.service("restart", "staging"), 1).contains("schema 2.0.0"));
    stage.emergency("rollback-without-the-guard", &[]);
    assert_eq!(stage.health(0)["guarded"], false);
    assert_eq!(stage.health(1)["guard"], "bypassed");
    assert!(stage.bot_log().contains("WARNING: SCHEMA GUARD BYPASSED"), "{}", stage.bot_log());
    // What the alert looks at, where both applications say it.
    let (_, alerts) = yaml(&stage.project.folder.join("deploy/alerts.yml"));
    let rule = &alerts["groups"][0]["rules"][0];
    assert_eq!((&rule["alert"], &rule["for"]), (&"SchemaGuardBypassed".into(), &Value::Null), "{rule}");
    let (metric, bypassed) = rule["expr"].as_str().unwrap().split_once(" == ").unwrap();
    let says = |value: &str| {
        let file = std::fs::read_to_string(stage.project.folder.join(".state/staging/guard.prom")).unwrap();
        let line = format!("\n{metric} {value}\n");
        assert!(file.contains(&line), "{file}");
        let (_, page) = fetch(stage.ports[1], "/metrics");
        assert!(page.contains(&line), "{page}");
    };
    says(bypassed);

    // It cannot be ended while the reason is there.
    stage.project.done(&["run", "EMERGENCY.md", "--no-input"]);
    let too_early = stage.project.call(&["rollback", "--path", "rollback-the-guard-again", "--reason", "too early"]);
    assert_eq!(too_early.status.code(), Some(1), "{too_early:?}");
    set("APP_SCHEMA_VERSION", "1.1.0");
    stage.project.done(&["rollback", "--path", "rollback-the-guard-again", "--reason", "mended"]);
    assert_eq!(stage.health(0)["guard"], "equal");
    says("0");
    assert!(!stage.bot_log().contains("BYPASSED"), "{}", stage.bot_log());
}

#[test]
fn schema_is_fixed_by_a_migration_that_the_gate_has_seen() {
    let stage = Stage::new("fix");
    stage.starts("staging");
    stage.project.done(&["run", "RUNBOOK.md", "--no-input"]);
    let write = |folder: &str, text: &str| {
        let path = stage.project.folder.join(format!("supabase/{folder}/20251002000000_emergency_fix_empty_posts.sql"));
        std::fs::write(path, text).unwrap();
    };
    let up = "ALTER TABLE public.posts ADD CONSTRAINT posts_say_something CHECK (body <> '') NOT VALID;\n";
    write("migrations", up);
    write("down", "ALTER TABLE public.posts DROP CONSTRAINT posts_say_something;\n");
    let verify = "-- as: bot_app\n-- expect: error 23514\nINSERT INTO public.posts (environment, body) VALUES ('staging', '');\n";
    write("verify", verify);
    stage.project.done(&["review", "--chain", "supabase/migrations", "--smoke", "scripts/smoke.sql"]);

    stage.emergency("rollback-emergency-schema-fix", &[]);
    assert_eq!(stage.project.sql(&format!("{VERSION}'staging'")), "1.1.1");
    let constraint = "SELECT count(*) FROM pg_constraint WHERE conname = 'posts_say_something'";
    assert_eq!(stage.project.sql(constraint), "1");
    stage.starts("staging");
    assert_eq!(stage.health(0)["guard"], "database-newer");

    // The last resort: refused while nobody wrote anything, whole or not at all, and kept with the run.
    let by_hand = ["rollback", "--path", "rollback-a-fix-by-hand", "--reason", "posts of a day are doubled"];
    let statements = |text: &str| std::fs::write(stage.project.folder.join("scripts/by-hand.sql"), text).unwrap();
    stage.project.done(&["run", "EMERGENCY.md", "--no-input"]);
    assert_eq!(stage.project.call(&by_hand).status.code(), Some(1), "nothing but comments");
    statements("UPDATE public.posts SET body = 'mended';\nSELECT no_such_column FROM public.posts;\n");
    stage.project.sql("INSERT INTO posts (environment, body) VALUES ('staging', 'broken')");
    assert_eq!(stage.project.call(&["resume"]).status.code(), Some(1));
    assert_eq!(stage.project.sql("SELECT count(*) FROM posts WHERE body = 'mended'"), "0", "one transaction");
    statements("UPDATE public.posts SET body = 'mended' WHERE body = 'broken';\n");
    let said = stage.project.done(&["resume"]);
    assert!(said.contains("✓ undo smoke-after-the-hand"), "{said}");
    assert_eq!(stage.project.sql("SELECT count(*) FROM posts WHERE body = 'mended'"), "1");
    let status = stage.project.done(&["status"]);
    let run = status.split_whitespace().next().unwrap();
    stage.project.done(&["report", run]);
    let report = std::fs::read_to_string(stage.project.folder.join(format!("evidence/{run}/report.md"))).unwrap();
    assert!(report.contains("posts of a day are doubled"), "{report}");
    let shown = stage.project.done(&["show", run]);
    assert!(shown.contains("SET body = 'mended' WHERE"), "what was done is kept: {shown}");
}

#[test]
fn redis_keeps_the_environments_apart_and_may_be_away() {
    let mut stage = Stage::new("redis");
    stage.starts("staging");
    stage.project.done(&["run", "RUNBOOK.md", "--no-input"]);
    stage.starts("production");
    until("both bots use their prefix", || stage.health(0)["redis"] == "up" && stage.health(2)["redis"] == "up");
    let keys = |prefix: &str| {
        let said = stage.project.done(&["redis", "keys", prefix, "--format", "json"]);
        serde_json::from_str::<Value>(said.trim()).unwrap()["keys"].as_u64().unwrap()
    };
    until("both have keys", || keys("stg:") == 1 && keys("prod:") == 1);
    // As staging's bot, whatever is written into its configuration.
    let raw = |command: &str| {
        let mut stream = TcpStream::connect(("127.0.0.1", stage.redis_port)).unwrap();
        write!(stream, "AUTH app_stg pw-of-staging\r\n{command}\r\nQUIT\r\n").unwrap();
        let mut text = String::new();
        stream.read_to_string(&mut text).unwrap();
        text.lines().nth(1).unwrap_or_default().to_owned()
    };
    assert!(raw("GET prod:posts:last").starts_with("-NOPERM"), "{}", raw("GET prod:posts:last"));
    assert!(raw("GET stg:posts:last").starts_with('$'), "{}", raw("GET stg:posts:last"));
    stage.project.done(&["redis", "prove"]);

    // Only what is named, only with the text of this environment. The bot is silent meanwhile, or it fills it anew.
    stage.emergency("rollback-the-posting-job", &[]);
    let path = "rollback-the-keys-of-an-environment";
    for text in ["yes", "production: delete stg: in cache", "staging: delete prod: in cache"] {
        stage.project.done(&["run", "EMERGENCY.md", "--no-input", "--var", &format!("clear={text}")]);
        let refused = stage.project.call(&["rollback", "--path", path, "--reason", "a test"]);
        assert_ne!(refused.status.code(), Some(0), "{text}");
        assert_eq!(keys("stg:"), 1, "{text}");
    }
    stage.emergency(path, &["--var", "clear=staging: delete stg: in cache"]);
    assert_eq!((keys("stg:"), keys("prod:")), (0, 1));

    // Away: degraded and no failure; back: as before.
    stage.redis.kill().unwrap();
    stage.redis.wait().unwrap();
    let health = stage.health(2);
    assert_eq!((&health["status"], &health["database"]), (&"degraded".into(), &"up".into()), "{health}");
    assert!(health["last_post"].as_u64().is_some(), "the database tells: {health}");
    let looked = stage.project.done(&["run", "EMERGENCY.md", "--no-input"]);
    assert!(looked.contains("DEGRADED"), "{looked}");
    stage.redis = start_redis(&stage.project.folder, stage.redis_port);
    until("the bots find it again", || stage.health(2)["redis"] == "up");
}

#[test]
fn rehearsal_has_the_content_of_the_run() {
    let stage = Stage::new("rehearse");
    let said = stage.project.done(&["rehearse", "RUNBOOK.md"]);
    stage.project.done(&["plan", "RUNBOOK.md", "--out", "plan.json"]);
    let plan = std::fs::read_to_string(stage.project.folder.join("plan.json")).unwrap();
    let plan: Value = serde_json::from_str(&plan).unwrap();
    let digest = plan["content_digest"].as_str().unwrap();
    assert!(said.contains(&format!("Rehearsed forward and back. content {digest}")), "{digest}\n{said}");
}

#[test]
fn everyday_commands_of_package_json_work() {
    let stage = Stage::new("npm");
    let package: Value =
        serde_json::from_str(&std::fs::read_to_string(stage.project.folder.join("package.json")).unwrap()).unwrap();
    let run = |script: &str, version: &str| {
        let line = package["scripts"][script].as_str().unwrap();
        let env = [("APP_ENV", "staging"), ("APP_SCHEMA_VERSION", version)];
        stage.project.program(Path::new("sh"), &["-c", line], &env)
    };
    said(&run("test:guards", "1.0.0"), 0);
    assert!(said(&run("test:guards", "1.1.0"), 1).contains("run the migrations"));
    said(&run("db:shadow", "1.0.0"), 0);
    said(&run("redis:health", "1.0.0"), 0);
    assert!(said(&run("db:smoke", "1.0.0"), 0).contains("holds in staging"));
    stage.project.sql("GRANT SELECT ON posts TO anon");
    assert!(said(&run("db:smoke", "1.0.0"), 1).contains("everybody on the Internet can read posts"));
}
