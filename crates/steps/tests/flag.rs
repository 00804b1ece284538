//! Flags set and put back in each of their places, and ramps under trouble, in fast time.

use jiff::SignedDuration;
use pgrunbook_engine::evidence::chart::{Charts, FACT};
use pgrunbook_engine::{Purpose, RunEnd, RunOptions, UNDO};
use pgrunbook_steps::{Source, rehearse};

use crate::bench::{Bench, failure};
use crate::clock::{FastClock, Says, metrics};

fn runbook(steps: &[&str]) -> String {
    let steps = steps.iter().map(|step| format!("```toml step\n{step}\n```\n\n"));
    format!("# Flags\n\n## Phase\n\n{}", steps.collect::<String>())
}

const FILE: &str = "{\n  \"flags\": {\n    \"ingest\": {\n      \"state\": \"ENABLED\",\n      \"variants\": { \"on\": true, \"off\": false },\n      \"defaultVariant\": \"off\"\n    }\n  }\n}\n";

/// The seed's table, with other flags in it, and two environments.
const BOT_CONFIG: &str = "CREATE TABLE bot_config (config_key text, config_value jsonb, environment text);
    INSERT INTO bot_config VALUES ('feature_flags', '{\"other\": true, \"posting\": true}', 'production'),
        ('feature_flags', '{\"posting\": true}', 'staging'), ('schema_version', '{}', 'production')";

const ROWS: &str =
    "SELECT string_agg(environment || ' ' || config_value, '; ' ORDER BY config_key, environment) FROM bot_config";

#[tokio::test]
async fn row_of_settings_is_set_by_member_and_put_back() {
    let bench = Bench::new().await;
    bench.execute(BOT_CONFIG).await;
    let before = bench.value(ROWS).await;
    let row = "target = \"main\"\ntable = \"public.bot_config\"\nenvironment = \"production\"\nundo = \"auto\"";
    let text = runbook(&[
        &format!("flag = \"posting-off\"\nname = \"posting\"\nenabled = false\n{row}"),
        &format!("flag = \"ingest\"\npercent = 10\n{row}"),
        &format!("flag = \"fine\"\nname = \"ingest\"\npercent = 12.5\n{row}"),
    ]);
    let (run, end) = bench.run(&text).await;
    assert_eq!(end, RunEnd::Completed);
    assert_eq!(
        bench.value(ROWS).await,
        "production {\"other\": true, \"ingest\": {\"enabled\": true, \"percentage\": 12.5}, \"posting\": false}; \
         staging {\"posting\": true}; production {}"
    );
    let said = bench.evidence(&run, "posting-off").await.summary;
    assert_eq!(said, "posting is off, and was on, in public.bot_config (feature_flags, production) on `main`");

    // Somebody else has set it since: it is theirs.
    let set = |value: &str| {
        format!(
            "UPDATE bot_config SET config_value = jsonb_set(config_value, '{{posting}}', '{value}') WHERE environment = 'production' AND config_key = 'feature_flags'"
        )
    };
    bench.execute(&set("{\"enabled\": true, \"percentage\": 3}")).await;
    let (step, code, message) = failure(&bench.rollback(&run, UNDO).await);
    assert_eq!((step.as_str(), code.as_str()), ("posting-off", "flag-changed"));
    assert!(message.contains("is 3 %, and this step left it at off"), "{message}");
    bench.execute(&set("false")).await;
    assert_eq!(bench.resume(&run).await, RunEnd::RolledBack);
    assert_eq!(bench.value(ROWS).await, before, "the flag that was not there is gone again");

    let lone = runbook(&["flag = \"x\"\nenabled = true\ntarget = \"main\"\ntable = \"bot_config\"\nundo = \"auto\""]);
    let (_, _, message) = failure(&bench.run(&lone).await.1);
    assert!(message.contains("there are several such rows: name the `environment`"), "{message}");
}

#[tokio::test]
async fn table_of_flags_is_made_by_the_first_and_kill_switch_is_its_own_column() {
    let bench = Bench::new().await;
    let on_main = "target = \"main\"\nundo = \"auto\"";
    let text = runbook(&[
        &format!("flag = \"half\"\nname = \"ingest\"\npercent = 50\n{on_main}"),
        &format!("flag = \"off\"\nname = \"ingest\"\nenabled = false\n{on_main}"),
    ]);
    let (run, end) = bench.run(&text).await;
    assert_eq!(end, RunEnd::Completed);
    let row = "SELECT percentage || ' ' || enabled || ' ' || updated_by FROM pgrunbook.flag WHERE name = 'ingest'";
    assert_eq!(bench.value(row).await, "50.000 false anna@desk");
    assert_eq!(bench.rollback(&run, UNDO).await, RunEnd::RolledBack);
    assert_eq!(bench.value("SELECT count(*) FROM pgrunbook.flag").await, "0");
}

#[tokio::test]
async fn file_of_flagd_keeps_its_form_and_is_put_back_byte_for_byte() {
    let bench = Bench::new().await;
    bench.write("flags.json", FILE);
    let file = "file = \"flags.json\"\nundo = \"auto\"";
    let text = runbook(&[
        &format!("flag = \"ten\"\nname = \"ingest\"\npercent = 10\n{file}"),
        &format!("flag = \"off\"\nname = \"ingest\"\nenabled = false\n{file}"),
    ]);
    let (run, end) = bench.run(&text).await;
    assert_eq!(end, RunEnd::Completed);
    let read = || std::fs::read_to_string(bench.path("flags.json")).unwrap();
    assert_eq!(
        read(),
        FILE.replace("ENABLED", "DISABLED")
            .replace("\"off\"\n", "\"off\",\n      \"targeting\": { \"fractional\": [[\"on\", 10], [\"off\", 90]] }\n")
    );
    // What changes elsewhere in the file is not this step's.
    bench.write("flags.json", &read().replace("{\n  \"flags\"", "{\n  \"$schema\": \"x\",\n  \"flags\""));
    assert_eq!(bench.rollback(&run, UNDO).await, RunEnd::RolledBack);
    assert_eq!(read(), FILE.replace("{\n  \"flags\"", "{\n  \"$schema\": \"x\",\n  \"flags\""));

    let missing = bench.parse(&runbook(&[&format!("flag = \"none\"\nenabled = true\n{file}")]));
    let error = bench.engine().await.plan(&missing, &Default::default()).await.unwrap_err();
    assert!(error.to_string().contains("the file has no such flag"), "{error}");
}

/// A ramp over three stages of ten samples, gated by errors.
fn ramp(keys: &str) -> String {
    runbook(&[&format!(
        "ramp = \"ingest\"\ntarget = \"main\"\nstages = [10, 50, 100]\nhold = \"100s\"\ninterval = \"10s\"\nundo = \"auto\"\n{keys}\n\
         [metric.errors]\nprometheus = \"errors\"\ntarget = \"prom\"\nmax = 0.01\n"
    )])
}

async fn bench(clock: &FastClock, says: impl Fn(f64, &str) -> Says + Send + Sync + Clone + 'static) -> Bench {
    let mut bench = Bench::new().await;
    let base = metrics(clock, says).await;
    bench.config(&format!("[targets.prom]\nbase = \"{base}\"\n"));
    bench
}

const PERCENT: &str =
    "SELECT coalesce((SELECT percentage || ' ' || enabled FROM pgrunbook.flag WHERE name = 'ingest'), 'none')";

#[tokio::test]
async fn ramp_goes_through_its_stages_and_back_to_where_it_began() {
    let clock = FastClock::new();
    let bench = bench(&clock, |_, _| Says::Number(0.0)).await;
    let (run, end) = bench.run_at(&clock, &ramp("")).await;
    assert_eq!(end, RunEnd::Completed);
    assert!((clock.seconds() - 300.0).abs() < 0.1, "{}", clock.seconds());
    assert_eq!(bench.value(PERCENT).await, "100.000 true");
    let evidence = bench.evidence(&run, "ingest").await;
    assert_eq!(evidence.summary, "ingest is 100 % after stages 10, 50, 100 and 30 samples, and was not there");
    let chart = Charts::read(&evidence.facts[FACT]).unwrap().charts.remove(0);
    let moments: Vec<_> = chart.moments.iter().map(|moment| (moment.at.round(), moment.label.as_str())).collect();
    assert_eq!(moments, [(0.0, "10 %"), (100.0, "50 %"), (200.0, "100 %")]);
    assert!(bench.hand.said().contains("ingest at 50 %, stage 2 of 3: held for 10 samples, one each 10s"));
    assert_eq!(bench.rollback(&run, UNDO).await, RunEnd::RolledBack);
    assert_eq!(bench.value(PERCENT).await, "none");
}

#[tokio::test]
async fn error_burst_takes_the_flag_back_to_the_stage_before_or_to_zero() {
    for (on_fail, left) in [("back", "10.000 true"), ("zero", "0.000 true")] {
        let clock = FastClock::new();
        let bench =
            bench(&clock, |seconds, _| Says::Number(if (140.0..160.0).contains(&seconds) { 0.5 } else { 0.0 })).await;
        let (run, end) = bench.run_at(&clock, &ramp(&format!("on_fail = \"{on_fail}\""))).await;
        let (step, code, message) = failure(&end);
        assert_eq!((step.as_str(), code.as_str()), ("ingest", "ramp"));
        assert!(
            message.contains("stage 50 % of flag `ingest` did not hold: errors is 0.5, and at most 0.01"),
            "{message}"
        );
        assert_eq!(bench.value(PERCENT).await, left);

        // Tried again it goes on from where the flag stands; and the way back leads to before the first attempt.
        match on_fail {
            "back" => {
                let begun = clock.seconds();
                clock.skip_at(141, std::time::Duration::from_secs(60));
                assert_eq!(bench.resume_at(&clock, &run).await, RunEnd::Completed);
                assert_eq!(bench.value(PERCENT).await, "100.000 true");
                assert!(clock.seconds() - begun > 300.0, "10 % is held once more");
            }
            _ => assert!(message.contains("is back at 0 %"), "{message}"),
        }
        assert_eq!(bench.rollback(&run, UNDO).await, RunEnd::RolledBack);
        assert_eq!(bench.value(PERCENT).await, "none");
    }
}

#[tokio::test]
async fn metric_gates_its_own_stages_alone() {
    let own = "max = 0.01\nstages = [50, 100]\n\n[metric.up]\nprometheus = \"up\"\ntarget = \"prom\"\nmax = 1\n";
    let text = ramp("").replace("max = 0.01\n", own);
    for (burst, left) in [(20.0..40.0, "100.000 true"), (120.0..140.0, "10.000 true"), (220.0..240.0, "50.000 true")] {
        let clock = FastClock::new();
        let at = burst.clone();
        let says = move |seconds: f64, query: &str| {
            Says::Number(if query.contains("errors") && at.contains(&seconds) { 0.5 } else { 0.0 })
        };
        let bench = bench(&clock, says).await;
        let (run, end) = bench.run_at(&clock, &text).await;
        assert_eq!(bench.value(PERCENT).await, left, "{burst:?}");
        if left.starts_with("100") {
            assert_eq!(end, RunEnd::Completed);
            let listed = bench.evidence(&run, "ingest").await.facts["samples"]["errors"]["listed"].to_string();
            assert!(listed.contains("\"bad\""), "shown all the same: {listed}");
            assert!(bench.hand.said().contains("errors ✗ 0.5 (at most 0.01)"), "{}", bench.hand.said());
        } else {
            assert_eq!(failure(&end).1, "ramp");
        }
    }
}

/// Latency before the change, and a ramp that is held against it.
fn ramp_of_latency() -> String {
    let metric = "[metric.p95]\nprometheus = \"p95\"\ntarget = \"prom\"\nmax_of_baseline = 1.1\nunit = \"ms\"\n";
    let before = "observe = \"before\"\ntarget = \"prom\"\ninterval = \"10s\"\nfor = \"100s\"\ncapture = true\n";
    let ramp = "ramp = \"ingest\"\ntarget = \"main\"\nstages = [10, 50, 100]\nhold = \"100s\"\ninterval = \"10s\"\nundo = \"auto\"\nbaseline = \"before\"\n";
    runbook(&[&format!("{before}{metric}"), &format!("{ramp}{metric}")])
}

#[tokio::test]
async fn latency_step_at_a_stage_takes_the_flag_back_to_the_stage_before() {
    for (after, passes) in [(109.0, true), (112.0, false)] {
        let clock = FastClock::new();
        // The baseline takes 100 s and the first stage as long: the second makes it slower.
        let bench = bench(&clock, move |seconds, _| Says::Number(if seconds < 210.0 { 100.0 } else { after })).await;
        let (_, end) = bench.run_at(&clock, &ramp_of_latency()).await;
        if passes {
            assert_eq!(end, RunEnd::Completed);
            assert_eq!(bench.value(PERCENT).await, "100.000 true");
            continue;
        }
        let (step, code, message) = failure(&end);
        assert_eq!((step.as_str(), code.as_str()), ("ingest", "ramp"));
        let why = "stage 50 % of flag `ingest` did not hold: p95 is 112 ms, and at most 110 ms, baseline 100 ms";
        assert!(message.contains(why), "{message}");
        assert_eq!(bench.value(PERCENT).await, "10.000 true");
        assert!(clock.seconds() < 230.0, "it does not wait for the end of the stage: {}", clock.seconds());
    }
}

#[tokio::test]
async fn clock_that_is_set_in_a_hold_neither_shortens_nor_fails_a_stage() {
    let clock = FastClock::new();
    let bench = bench(&clock, |_, _| Says::Number(0.0)).await;
    clock.set_at(125, SignedDuration::from_hours(24));
    clock.set_at(245, SignedDuration::from_hours(-25));
    let (run, end) = bench.run_at(&clock, &ramp("deadline = \"10m\"")).await;
    assert_eq!(end, RunEnd::Completed);
    assert_eq!(bench.value(PERCENT).await, "100.000 true");
    let evidence = bench.evidence(&run, "ingest").await;
    assert_eq!(evidence.summary, "ingest is 100 % after stages 10, 50, 100 and 30 samples, and was not there");
    assert!(
        (clock.seconds() - 300.0).abs() < 0.1,
        "held by what passed, not by what the clock shows: {}",
        clock.seconds()
    );
    let said = bench.hand.said();
    assert!(said.contains("the clock moved by 86410 s") && said.contains("the clock moved by -89990 s"), "{said}");
}

#[tokio::test]
async fn metrics_that_are_down_hold_the_ramp_and_take_it_back_at_the_deadline() {
    let clock = FastClock::new();
    let bench = bench(&clock, |seconds, _| if seconds > 130.0 { Says::Down } else { Says::Number(0.0) }).await;
    let (_, end) = bench.run_at(&clock, &ramp("deadline = \"250s\"")).await;
    let (_, code, message) = failure(&end);
    assert_eq!(code, "ramp-inconclusive");
    assert!(message.contains("3 of 25 samples are a number") && message.contains("back at 10 %"), "{message}");
    assert!((clock.seconds() - 350.0).abs() < 0.1, "100 s of 10 %, 250 s of 50 %: {}", clock.seconds());
    assert_eq!(bench.value(PERCENT).await, "10.000 true");
}

#[tokio::test]
async fn kill_switch_that_is_thrown_in_a_hold_stays_thrown() {
    let clock = FastClock::new();
    let bench = bench(&clock, |_, _| Says::Number(0.0)).await;
    let database = bench.database.clone();
    clock.at(125, move || async move {
        let session = pgrunbook_postgres::Session::connect(&database, "test").await.unwrap();
        session.execute("UPDATE pgrunbook.flag SET enabled = false WHERE name = 'ingest'").await.unwrap();
    });
    let (run, end) = bench.run_at(&clock, &ramp("")).await;
    let (_, code, message) = failure(&end);
    assert_eq!(code, "flag-changed");
    assert!(message.contains("is off (not enabled), and this step left it at 50 %"), "{message}");
    assert_eq!(bench.value(PERCENT).await, "50.000 false");
    // Neither does a second attempt.
    assert_eq!(failure(&bench.resume_at(&FastClock::new(), &run).await).1, "flag-killed");
    assert_eq!(bench.value(PERCENT).await, "50.000 false");
    // The way back does not switch it on either.
    assert_eq!(failure(&bench.rollback(&run, UNDO).await).1, "flag-changed");
    assert_eq!(bench.value(PERCENT).await, "50.000 false");
}

#[tokio::test]
async fn flag_that_is_switched_off_before_its_ramp_is_not_switched_on() {
    let clock = FastClock::new();
    let bench = bench(&clock, |_, _| Says::Number(0.0)).await;
    let ready = runbook(&["flag = \"ready\"\nname = \"ingest\"\npercent = 0\ntarget = \"main\"\nundo = \"auto\""]);
    assert_eq!(bench.run(&ready).await.1, RunEnd::Completed);
    let run = bench.begin_at(&clock, &ramp("")).await;
    bench.execute("UPDATE pgrunbook.flag SET enabled = false WHERE name = 'ingest'").await;
    assert_eq!(failure(&bench.resume_at(&clock, &run).await).1, "flag-killed");
    assert_eq!(bench.value(PERCENT).await, "0.000 false");
    // Who switched it off switches it on.
    bench.execute("UPDATE pgrunbook.flag SET enabled = true WHERE name = 'ingest'").await;
    assert_eq!(bench.resume_at(&clock, &run).await, RunEnd::Completed);
    assert_eq!(bench.value(PERCENT).await, "100.000 true");
}

#[tokio::test]
async fn process_killed_in_a_hold_is_taken_up_in_its_stage_with_its_samples() {
    let clock = FastClock::new();
    let bench = bench(&clock, |_, _| Says::Number(0.0)).await;
    let run = bench.begin_at(&clock, &ramp("")).await;
    clock.die_at(165);
    bench.die(&clock, &run).await;
    assert_eq!(bench.value(PERCENT).await, "50.000 true");

    let later = FastClock::new();
    assert_eq!(bench.resume_at(&later, &run).await, RunEnd::Completed);
    assert!((later.seconds() - 140.0).abs() < 0.1, "four samples of 50 % and all of 100 %: {}", later.seconds());
    assert_eq!(bench.evidence(&run, "ingest").await.facts["rounds"], 30);
    assert!(bench.hand.said().contains("ingest at 50 %, stage 2 of 3, taken up again"), "{}", bench.hand.said());
    assert_eq!(bench.rollback(&run, UNDO).await, RunEnd::RolledBack);
    assert_eq!(bench.value(PERCENT).await, "none", "what it was before the crash is known");
}

#[tokio::test]
async fn kill_switch_thrown_while_the_process_is_dead_stays_thrown() {
    let clock = FastClock::new();
    let bench = bench(&clock, |_, _| Says::Number(0.0)).await;
    bench.execute(BOT_CONFIG).await;
    let place = "table = \"bot_config\"\nenvironment = \"staging\"\nname = \"posting\"";
    // Switched off before the ramp, so that the kill switch looks as the beginning did.
    bench.execute("UPDATE bot_config SET config_value = '{\"posting\": false}' WHERE environment = 'staging'").await;
    let run = bench.begin_at(&clock, &ramp(place)).await;
    clock.die_at(55);
    bench.die(&clock, &run).await;
    let value = "SELECT config_value -> 'posting' FROM bot_config WHERE environment = 'staging'";
    assert_eq!(bench.value(value).await, "{\"enabled\": true, \"percentage\": 10}");
    bench.execute("UPDATE bot_config SET config_value = '{\"posting\": false}' WHERE environment = 'staging'").await;
    let (_, code, _) = failure(&bench.resume_at(&FastClock::new(), &run).await);
    assert_eq!(code, "flag-changed");
    assert_eq!(bench.value(value).await, "false");
}

#[tokio::test]
async fn run_that_turns_back_in_the_middle_of_a_ramp_puts_the_flag_back() {
    let clock = FastClock::new();
    let bench = bench(&clock, |_, _| Says::Number(0.0)).await;
    bench.write("flags.json", FILE);
    let text = ramp("file = \"flags.json\"");
    let run = bench.begin_at(&clock, &text).await;
    clock.die_at(165);
    bench.die(&clock, &run).await;
    let read = || std::fs::read_to_string(bench.path("flags.json")).unwrap();
    assert!(read().contains("[\"on\", 50]"), "{}", read());
    assert_eq!(bench.rollback(&run, UNDO).await, RunEnd::RolledBack);
    assert_eq!(read(), FILE);
}

#[tokio::test]
async fn ramp_that_could_not_fail_or_does_not_rise_is_refused() {
    let clock = FastClock::new();
    let bench = bench(&clock, |_, _| Says::Number(0.0)).await;
    let engine = bench.engine().await;
    let good = ramp("");
    for (wrong, why) in [
        (good.replace("[10, 50, 100]", "[50, 10]"), "`stages` rise"),
        (good.replace("[10, 50, 100]", "[10, 101]"), "`stages` rise"),
        (good.replace("hold = \"100s\"", "hold = [\"1m\"]"), "one for each stage"),
        (good.replace("max = 0.01\n", "max = 0.01\ndry_run = true\n"), "no metric gates 10 %"),
        (good.replace("max = 0.01\n", "max = 0.01\nmin_samples = 11\n"), "the window has 10 samples"),
        (good.replace("max = 0.01\n", "max = 0.01\nstages = [10, 100]\n"), "no metric gates 50 %"),
        (good.replace("max = 0.01\n", "max = 0.01\nstages = [10, 49]\n"), "gates 49 %, which is no stage"),
        (good.replace("[10, 50, 100]", "[10, 50.0001, 100]"), "`stages` rise"),
    ] {
        let error = engine.plan(&bench.parse(&wrong), &Default::default()).await.unwrap_err();
        assert!(format!("{error:?}").contains(why), "{why}: {error:?}");
    }
    let planned = engine.plan(&bench.parse(&good), &Default::default()).await.unwrap();
    let change = &planned.steps().next().unwrap().change;
    assert!(change.details.join("\n").contains("it is not there now; begins with 10 %"), "{change:?}");
}

#[tokio::test]
async fn rehearsal_sets_every_stage_asks_once_and_judges_nothing() {
    let clock = FastClock::new();
    let mut bench = bench(&clock, |_, _| Says::Number(9.0)).await;
    bench.write("setup.sql", "CREATE TABLE logs (level text); INSERT INTO logs VALUES ('ERROR')");
    bench.config("[rehearsal]\nsetup = [\"setup.sql\"]\n");
    let logs = "[metric.logs]\nsql = \"SELECT count(*) FROM logs\"\ntarget = \"main\"\nmax = 0";
    let text = ramp("").replace("max = 0.01\n", &format!("max = 0.01\n{logs}\n"));
    let (project, surroundings) = bench.project();
    let rehearsal = rehearse(project, &surroundings, None, &Source::Files).await.unwrap();
    let engine = &rehearsal.opened.engine;
    let run_of = async |text: &str| {
        let plan = engine.plan(&bench.parse(text), &Default::default()).await.unwrap();
        let run = engine.begin(plan, Purpose::Rehearsal).await.unwrap();
        let end = engine.run(&run, &RunOptions::default(), &bench.hand).await.unwrap();
        (run, end)
    };
    let (run, end) = run_of(&text).await;
    assert_eq!(end, RunEnd::Completed);
    let said = bench.evidence(&run, "ingest").await.summary;
    assert_eq!(
        said,
        "ingest went through 3 stages; asked once in this rehearsal, not judged: errors: not asked in a rehearsal: it is \
         outside of its server; logs 1"
    );
    let end = engine.rollback(&run, UNDO, None, &RunOptions::default(), &bench.hand).await.unwrap();
    assert_eq!(end, RunEnd::RolledBack);
    // A query that is wrong is found.
    let (_, code, message) = failure(&run_of(&text.replace("FROM logs", "FROM log")).await.1);
    assert!(code == "metric" && message.contains("relation \"log\" does not exist"), "{code}: {message}");
    assert_eq!(bench.value("SELECT to_regclass('pgrunbook.flag') IS NULL").await, "t", "the real one was not touched");
}

#[tokio::test]
async fn ramp_that_a_rehearsal_skips_has_the_content_of_the_run() {
    let clock = FastClock::new();
    let bench = bench(&clock, |_, _| Says::Number(0.0)).await;
    bench.write("metrics.toml", "[metric.errors]\nprometheus = \"errors\"\ntarget = \"prom\"\nmax = 0.01\n");
    let flags = "{\"flags\": {\"ingest\": {\"state\": \"ENABLED\", \"variants\": {\"on\": true, \"off\": false}, \
                 \"defaultVariant\": \"off\", \"targeting\": {\"fractional\": [[\"on\", 0], [\"off\", 100]]}}}}";
    bench.write("flags.json", flags);
    let text = runbook(&[
        "ramp = \"ingest\"\nfile = \"flags.json\"\nmetrics = \"metrics.toml\"\nstages = [100]\nhold = \"100s\"\n\
                          interval = \"10s\"\nundo = \"auto\"",
    ]);
    let (project, surroundings) = bench.project();
    let rehearsal = rehearse(project, &surroundings, None, &Source::Files).await.unwrap();
    let skipped = rehearsal.opened.engine.plan(&bench.parse(&text), &Default::default()).await.unwrap();
    let real = bench.engine().await.plan(&bench.parse(&text), &Default::default()).await.unwrap();
    assert!(real.files().contains_key("metrics.toml"), "{:?}", real.files());
    assert_eq!(skipped.content_digest, real.content_digest);
}
