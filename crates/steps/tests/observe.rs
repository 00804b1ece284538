//! Observations under trouble: the right one of three outcomes each time, in fast time, on real servers.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use jiff::SignedDuration;
use pgrunbook_engine::evidence::chart::{Charts, FACT, Tone};
use pgrunbook_engine::{RunEnd, RunOptions, Waiting};

use crate::bench::{Bench, failure};
use crate::clock::{FastClock, Says, metrics, metrics_behind};

/// Ten samples, one each ten seconds, of what the server says.
const WINDOW: &str = "interval = \"10s\"\nfor = \"100s\"\n";

fn runbook(step: &str) -> String {
    format!("# Watch\n\n## Phase\n\n```toml step\n{step}\n```\n")
}

fn observe(keys: &str, metric: &str) -> String {
    runbook(&format!("observe = \"steady\"\ntarget = \"prom\"\n{WINDOW}{keys}\n{metric}"))
}

const ERRORS: &str = "[metric.errors]\nprometheus = \"sum(rate(errors[1m]))\"\nmax = 0.01\n";

async fn bench(clock: &FastClock, says: impl Fn(f64, &str) -> Says + Send + Sync + Clone + 'static) -> Bench {
    let mut bench = Bench::new().await;
    let base = metrics(clock, says).await;
    bench.config(&format!("[targets.prom]\nbase = \"{base}\"\n"));
    bench
}

/// The step's message where the run waits for a person.
fn waits(end: &RunEnd) -> String {
    match end {
        RunEnd::Waiting { on: Waiting::Step { message, .. } } => message.clone(),
        other => panic!("it does not wait: {other:?}"),
    }
}

async fn rounds(bench: &Bench, run: &str) -> u64 {
    bench.evidence(run, "steady").await.facts["rounds"].as_u64().unwrap()
}

#[tokio::test]
async fn steady_sources_of_every_kind_pass_and_leave_samples_and_charts() {
    let clock = FastClock::new();
    let bench = bench(&clock, |seconds, query| match query {
        "/metrics.json" => Says::Number(100.0 + seconds / 100.0),
        _ => Says::Number(0.005),
    })
    .await;
    bench
        .execute(
            "CREATE SCHEMA audit; CREATE TABLE audit.logs (at timestamptz DEFAULT clock_timestamp(), level text, ms float8);
             INSERT INTO audit.logs (level, ms) SELECT CASE WHEN n = 1 THEN 'ERROR' ELSE 'INFO' END, n FROM generate_series(1, 100) AS n",
        )
        .await;
    let log = "log = \"audit.logs\"\ntarget = \"main\"\ntime = \"at\"\nwindow = \"10m\"\n";
    let text = observe(
        "",
        &format!(
            "[metric.errors]\nprometheus = \"errors\"\nrange = \"5m\"\nresolution = \"15s\"\nmax = 0.01\nmax_age = \"30s\"\n\
             [metric.instant]\nprometheus = \"errors\"\ntraffic = \"requests\"\nmin_traffic = 0.001\nmax = 0.01\n\
             [metric.json]\nhttp = \"/metrics.json\"\nvalue = \"/value\"\ntraffic = \"/requests\"\nat = \"/at\"\nmin_traffic = 50\nmax_age = \"1m\"\nmax = 110\nunit = \"ms\"\n\
             [metric.sql]\nsql = \"SELECT 3 AS value, 9 AS traffic -- all of them\"\ntarget = \"main\"\nmin_traffic = 9\nmin = 3\n\
             [metric.count]\n{log}measure = \"count\"\nbad = \"level = 'ERROR'\"\nmax = 1\nmin_traffic = 100\n\
             [metric.ratio]\n{log}measure = \"ratio\"\nbad = \"level = 'ERROR'\"\nmax = 0.01\nmin_traffic = 100\nmax_age = \"10m\"\n\
             [metric.p95]\n{log}measure = \"percentile\"\nof = \"ms\"\npercentile = 0.95\nmax = 95.1\nunit = \"ms\"\n"
        ),
    );
    let (run, end) = bench.run_at(&clock, &text).await;
    assert_eq!(end, RunEnd::Completed, "{}", bench.hand.said());
    assert!((clock.seconds() - 100.0).abs() < 0.1, "ten samples of ten seconds, and none more: {}", clock.seconds());
    let evidence = bench.evidence(&run, "steady").await;
    assert_eq!(evidence.facts["outcome"], "pass");
    assert_eq!(evidence.facts["samples"]["json"]["taken"], 10);
    let p95 = evidence.facts["samples"]["p95"]["listed"][9][1].as_f64().unwrap();
    assert!((p95 - 95.05).abs() < 1e-9, "{p95}");
    let charts = Charts::read(&evidence.facts[FACT]).unwrap().charts;
    assert_eq!(charts.len(), 7);
    assert!(charts.iter().all(|chart| chart.tone == Tone::Good && chart.points.len() == 10), "{charts:#?}");
    let said = bench.hand.said();
    assert!(said.contains("10 of 10") && said.contains("json 101 ms (at most 110 ms) ▇▇▇▇▇▇▇▇▇▇"), "{said}");

    let folder = bench.path("evidence");
    bench.engine().await.report(&run, &folder, None).await.unwrap();
    let page = std::fs::read_to_string(folder.join("report.html")).unwrap();
    assert_eq!(page.matches("<svg").count(), 7);
    assert!(page.contains("at most 110 ms"), "{page}");
    pgrunbook_engine::evidence::verify::verify(&folder, None).unwrap();
}

#[tokio::test]
async fn error_burst_fails_at_once_and_short_ones_where_they_are_allowed_do_not() {
    let burst = |seconds: f64, _: &str| Says::Number(if (40.0..60.0).contains(&seconds) { 0.2 } else { 0.001 });
    let clock = FastClock::new();
    let bench = bench(&clock, burst).await;
    let (run, end) = bench.run_at(&clock, &observe("", ERRORS)).await;
    let (step, code, message) = failure(&end);
    assert_eq!((step.as_str(), code.as_str()), ("steady", "observation"));
    assert!(message.contains("errors is 0.2, and at most 0.01 (1 of 4 samples"), "{message}");
    assert!(clock.seconds() < 41.0, "it does not wait for the end of the window");
    assert_eq!(rounds(&bench, &run).await, 4);
    // Looked at again it is a new window: its first sample is still of the burst, those of a third are not.
    assert_eq!(failure(&bench.resume_at(&clock, &run).await).1, "observation");
    assert_eq!(rounds(&bench, &run).await, 1);
    assert_eq!(bench.resume_at(&clock, &run).await, RunEnd::Completed);
    assert_eq!(rounds(&bench, &run).await, 10);

    // Two in a row are let pass where three are too many.
    let clock = FastClock::new();
    let bench = self::bench(&clock, burst).await;
    let text = observe("", &format!("{ERRORS}consecutive_failures = 3\n"));
    assert_eq!(bench.run_at(&clock, &text).await.1, RunEnd::Completed);
    let two = observe("", &format!("{ERRORS}consecutive_failures = 2\n"));
    let clock_two = FastClock::new();
    let bench_two = self::bench(&clock_two, burst).await;
    assert_eq!(failure(&bench_two.run_at(&clock_two, &two).await.1).1, "observation");
}

#[tokio::test]
async fn latency_step_is_held_against_the_baseline_before_it() {
    for (after, passes) in [(109.0, true), (112.0, false)] {
        let clock = FastClock::new();
        // One bad minute before the change.
        let bench = bench(&clock, move |seconds, _| {
            Says::Number(match seconds as u64 {
                30 => 900.0,
                0..=100 => 100.0,
                _ => after,
            })
        })
        .await;
        let metric = "[metric.p95]\nprometheus = \"p95\"\nmax_of_baseline = 1.1\nunit = \"ms\"\n";
        let text = format!(
            "# Watch\n\n## Before\n\n```toml step\nobserve = \"before\"\ntarget = \"prom\"\n{WINDOW}capture = true\n{metric}```\n\n\
             ## After\n\n```toml step\nobserve = \"steady\"\ntarget = \"prom\"\n{WINDOW}baseline = \"before\"\n{metric}```\n"
        );
        let (run, end) = bench.run_at(&clock, &text).await;
        assert_eq!(bench.evidence(&run, "before").await.facts["baseline"]["p95"], 100.0);
        match passes {
            true => {
                assert_eq!(end, RunEnd::Completed);
                let folder = bench.path("evidence");
                bench.engine().await.report(&run, &folder, None).await.unwrap();
                let page = std::fs::read_to_string(folder.join("report.html")).unwrap();
                assert!(page.contains(">at most 110 ms<") && page.contains(">baseline 100 ms<"), "{page}");
            }
            false => {
                let (_, code, message) = failure(&end);
                assert_eq!(code, "observation");
                assert!(message.contains("p95 is 112 ms, and at most 110 ms, baseline 100 ms"), "{message}");
            }
        }
    }
}

#[tokio::test]
async fn source_that_is_down_is_inconclusive_and_its_window_goes_on_when_it_is_back() {
    let clock = FastClock::new();
    let bench =
        bench(&clock, |seconds, _| if (30.0..400.0).contains(&seconds) { Says::Down } else { Says::Number(0.0) }).await;
    let (run, end) = bench.run_at(&clock, &observe("", ERRORS)).await;
    let message = waits(&end);
    assert!(message.contains("2 of 20 samples are a number") && message.contains("status 503"), "{message}");
    assert!((clock.seconds() - 200.0).abs() < 0.1, "the deadline is twice the window: {}", clock.seconds());
    // Nobody mended it: still no pass.
    waits(&bench.resume_at(&clock, &run).await);
    assert_eq!(bench.resume_at(&clock, &run).await, RunEnd::Completed);
    let evidence = bench.evidence(&run, "steady").await;
    // 2 before, 37 without a number, 8 behind.
    assert_eq!(evidence.facts["rounds"], 47, "{evidence:?}");
    let charts = Charts::read(&evidence.facts[FACT]).unwrap().charts;
    assert!(charts[0].note.starts_with("pass: 10 good, 0 beyond, 37 without a number"), "{}", charts[0].note);

    // Nobody listens at all.
    let clock = FastClock::new();
    let mut bench = Bench::new().await;
    let closed = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    bench.config(&format!("[targets.prom]\nbase = \"http://{closed}\"\n"));
    let message = waits(&bench.run_at(&clock, &observe("", ERRORS)).await.1);
    assert!(message.contains("0 of 20 samples") && message.contains("refused"), "{message}");
}

#[tokio::test]
async fn what_is_no_number_is_never_a_pass() {
    let clock = FastClock::new();
    let bench = bench(&clock, |_, query| match query {
        "nan" => Says::NaN,
        "empty" => Says::Empty,
        _ => Says::Number(0.0),
    })
    .await;
    bench.execute("CREATE TABLE logs (at timestamptz, level text)").await;
    let log = "log = \"public.logs\"\ntarget = \"main\"\ntime = \"at\"\nwindow = \"1m\"\nbad = \"level = 'ERROR'\"\nmax = 1\n";
    for (metric, why) in [
        ("prometheus = \"nan\"\nmax = 1\n".to_owned(), "NaN"),
        ("prometheus = \"nan\"\nrange = \"1m\"\nmax = 1\n".to_owned(), "NaN"),
        ("prometheus = \"empty\"\nmax = 1\n".to_owned(), "empty result"),
        ("prometheus = \"empty\"\nrange = \"1m\"\nmax = 1\n".to_owned(), "empty result"),
        ("prometheus = \"broken(\"\nmax = 1\n".to_owned(), "parse error"),
        ("http = \"/metrics.json\"\nvalue = \"/none\"\nmax = 1\n".to_owned(), "has no /none"),
        ("http = \"/metrics.json\"\nvalue = \"/at\"\nmax = 1\n".to_owned(), "no number"),
        (
            "http = \"/metrics.json\"\nvalue = \"/value\"\ntraffic = \"/requests\"\nmin_traffic = 101\nmax = 1\n"
                .to_owned(),
            "too little traffic",
        ),
        ("prometheus = \"x\"\nmin_traffic = 1\nmax = 1\n".to_owned(), "does not say how much traffic"),
        ("sql = \"SELECT 1 WHERE false\"\ntarget = \"main\"\nmax = 1\n".to_owned(), "no row"),
        ("sql = \"SELECT NULL::int AS value\"\ntarget = \"main\"\nmax = 1\n".to_owned(), "value is NULL"),
        ("sql = \"SELECT 'NaN'::float8\"\ntarget = \"main\"\nmax = 1\n".to_owned(), "NaN"),
        (
            "sql = \"SELECT 0 AS value, 61 AS age\"\ntarget = \"main\"\nmax_age = \"1m\"\nmax = 1\n".to_owned(),
            "61 s old",
        ),
        ("sql = \"SELECT n FROM generate_series(1, 2) AS n\"\ntarget = \"main\"\nmax = 9\n".to_owned(), "2 rows"),
        ("sql = \"SELECT count(*) FROM nowhere\"\ntarget = \"main\"\nmax = 1\n".to_owned(), "42P01"),
        ("sql = \"SELECT 1\"\nas = \"nobody_there\"\ntarget = \"main\"\nmax = 1\n".to_owned(), "does not exist"),
        ("sql = \"CREATE TABLE made ()\"\ntarget = \"main\"\nmax = 1\n".to_owned(), "25006"),
        (format!("{log}measure = \"ratio\"\n"), "value is NULL"),
        (format!("{log}measure = \"count\"\nmin_traffic = 1\n"), "too little traffic"),
    ] {
        let text = observe("", &format!("[metric.m]\n{metric}unanswered_limit = 1\n"));
        let message = waits(&bench.run_at(&clock, &text).await.1);
        assert!(message.contains("m: 0 of 1 samples") && message.contains(why), "{metric}: {message}");
    }
}

#[tokio::test]
async fn clock_that_jumps_and_gaps_neither_shorten_nor_fail_a_window() {
    let clock = FastClock::new();
    let bench = bench(&clock, |_, _| Says::Number(0.0)).await;
    clock.set_at(25, SignedDuration::from_hours(24));
    clock.set_at(45, SignedDuration::from_hours(-25));
    clock.skip_at(65, Duration::from_secs(3_600));
    let range = "[metric.errors]\nprometheus = \"errors\"\nrange = \"1m\"\nmax_age = \"1m\"\nmax = 1\n";
    let (run, end) = bench.run_at(&clock, &observe("deadline = \"2h\"", range)).await;
    assert_eq!(end, RunEnd::Completed);
    assert_eq!(rounds(&bench, &run).await, 10);
    assert!(clock.seconds() > 3_690.0, "the gap counts as one sample: {}", clock.seconds());
    let said = bench.hand.said();
    assert!(said.contains("the clock moved by 86410 s") && said.contains("the clock moved by -89990 s"), "{said}");
    assert!(said.contains("a gap of 36"), "{said}");
}

#[tokio::test]
async fn process_killed_in_a_window_is_taken_up_with_its_samples() {
    let clock = FastClock::new();
    let bench = bench(&clock, |_, _| Says::Number(0.0)).await;
    let run = bench.begin_at(&clock, &observe("", ERRORS)).await;
    clock.die_at(55);
    bench.die(&clock, &run).await;
    assert_eq!(bench.notes(&run, "steady").await.len(), 5);

    let later = FastClock::new();
    assert_eq!(bench.resume_at(&later, &run).await, RunEnd::Completed);
    assert!((later.seconds() - 50.0).abs() < 0.1, "five samples were left: {}", later.seconds());
    assert_eq!(rounds(&bench, &run).await, 10);
    assert_eq!(bench.notes(&run, "steady").await.len(), 10);
    assert!(bench.hand.said().contains("goes on with the 5 samples that it has"));
    let evidence = bench.evidence(&run, "steady").await;
    let chart = Charts::read(&evidence.facts[FACT]).unwrap().charts.remove(0);
    assert!(chart.points.windows(2).all(|pair| pair[0].0 < pair[1].0), "time goes on over the crash: {chart:?}");
    assert_eq!(chart.moments[0].label, "taken up again");
}

#[tokio::test]
async fn operator_who_stops_a_window_finds_its_samples_again() {
    let clock = FastClock::new();
    let bench = bench(&clock, |_, _| Says::Number(0.0)).await;
    let run = bench.begin_at(&clock, &observe("", ERRORS)).await;
    let options = RunOptions::default();
    let cancel = options.cancel.clone();
    clock.at(35, move || async move { cancel.ask() });
    let end = bench.engine_at(&clock).await.run(&run, &options, &bench.hand).await.unwrap();
    assert!(matches!(end, RunEnd::Stopped { .. }), "{end:?}");
    assert_eq!(bench.notes(&run, "steady").await.len(), 3);
    assert_eq!(bench.resume_at(&clock, &run).await, RunEnd::Completed);
    assert_eq!(rounds(&bench, &run).await, 10);
}

#[tokio::test]
async fn failures_that_are_allowed_are_counted_over_a_crash() {
    let clock = FastClock::new();
    let bench = bench(&clock, |seconds, _| Says::Number(if seconds >= 50.0 { 1.0 } else { 0.0 })).await;
    let run = bench.begin_at(&clock, &observe("", &format!("{ERRORS}failure_limit = 1\n"))).await;
    clock.die_at(55);
    bench.die(&clock, &run).await;
    let (_, code, message) = failure(&bench.resume_at(&FastClock::new(), &run).await);
    assert_eq!(code, "observation");
    assert!(message.contains("2 of 6 samples are beyond it"), "{message}");
}

#[tokio::test]
async fn warm_up_and_dry_run_are_shown_and_not_judged() {
    let clock = FastClock::new();
    let bench =
        bench(&clock, |seconds, query| Says::Number(if query == "later" || seconds < 35.0 { 9.0 } else { 0.0 })).await;
    let text = observe(
        "warm_up = \"30s\"",
        &format!("{ERRORS}[metric.later]\nprometheus = \"later\"\nmax = 1\ndry_run = true\n"),
    );
    let (run, end) = bench.run_at(&clock, &text).await;
    assert_eq!(end, RunEnd::Completed, "{}", bench.hand.said());
    assert_eq!(rounds(&bench, &run).await, 13);
    let said = bench.hand.said();
    assert!(said.contains("later ✗ 9 (at most 1)") && said.contains("[no gate]"), "{said}");
}

#[tokio::test]
async fn burn_rate_is_of_two_windows_over_the_log() {
    let clock = FastClock::new();
    let bench = bench(&clock, |_, _| Says::Empty).await;
    bench.execute("CREATE TABLE logs (at timestamptz, level text)").await;
    let fill = |minutes: &str, errors: u32| {
        format!(
            "INSERT INTO logs SELECT now() - interval '{minutes}', CASE WHEN n <= {errors} THEN 'ERROR' ELSE 'INFO' END
             FROM generate_series(1, 100) AS n"
        )
    };
    let metric = "[metric.burn]\nlog = \"public.logs\"\ntarget = \"main\"\ntime = \"at\"\nmeasure = \"ratio\"\n\
                  bad = \"level = 'ERROR'\"\nmin_traffic = 50\n\
                  burn = { objective = 0.99, windows = [{ long = \"1h\", short = \"5m\", factor = 14.4 }] }\n";
    // The same by a query of one's own.
    let query = "[metric.burn]\nsql = \"SELECT avg((level = 'ERROR')::int) AS value, count(*) AS traffic FROM logs \
                 WHERE at > now() - $window::interval\"\ntarget = \"main\"\nmin_traffic = 50\n\
                 burn = { objective = 0.99, windows = [{ long = \"1h\", short = \"5m\", factor = 14.4 }] }\n";
    // Over long since: the long window burns and the short one does not.
    bench.execute(&fill("30 minutes", 100)).await;
    bench.execute(&fill("1 minute", 5)).await;
    for metric in [metric, query] {
        let (_, end) = bench.run_at(&clock, &observe("", metric)).await;
        assert_eq!(end, RunEnd::Completed, "{}", bench.hand.said());
    }
    // Now too: 29 of 200 in five minutes are 14.5 times the budget.
    bench.execute(&fill("1 minute", 24)).await;
    for metric in [metric, query] {
        let (_, code, message) = failure(&bench.run_at(&clock, &observe("", metric)).await.1);
        assert_eq!(code, "observation");
        assert!(message.contains("burn is 1.01, and at most 1"), "{metric}: {message}");
    }
}

#[tokio::test]
async fn burn_rate_asks_prometheus_over_each_window_and_takes_the_worst_pair() {
    const METRIC: &str = "[metric.burn]\nprometheus = \"errors[$window]\"\ntraffic = \"requests[$window]\"\nmin_traffic = 50\n\
        burn = { objective = 0.99, windows = [{ long = \"1h\", short = \"5m\", factor = 14.4 }, { long = \"6h\", short = \"30m\", factor = 6 }] }\n";
    const WINDOWS: [&str; 4] = ["3600000ms", "300000ms", "21600000ms", "1800000ms"];
    let asked = Arc::new(Mutex::new(BTreeSet::new()));
    // By window: the share of errors, and the requests in the shortest.
    let watched = async |ratios: [f64; 4], requests: f64| {
        let clock = FastClock::new();
        let asked = Arc::clone(&asked);
        let bench = bench(&clock, move |_, query| {
            asked.lock().unwrap().insert(query.to_owned());
            let number = |name: &str, numbers: [f64; 4]| {
                let window = query.strip_prefix(name)?.strip_prefix('[')?.strip_suffix(']')?;
                WINDOWS.iter().position(|one| *one == window).map(|at| numbers[at])
            };
            let ratio = number("errors", ratios).or_else(|| number("requests", [1e4, requests, 1e5, 1e3]));
            ratio.map_or(Says::Empty, Says::Number)
        })
        .await;
        bench.run_at(&clock, &observe("", METRIC)).await.1
    };
    // One pair burns in its long window alone, the other in its short one alone.
    assert_eq!(watched([0.5, 0.001, 0.001, 0.5], 100.0).await, RunEnd::Completed);
    let mut both: Vec<String> =
        ["errors", "requests"].iter().flat_map(|name| WINDOWS.map(|window| format!("{name}[{window}]"))).collect();
    both.sort();
    assert_eq!(asked.lock().unwrap().iter().cloned().collect::<Vec<_>>(), both);
    // 7.5 % over both windows are 7.5 times the budget: too little for the first pair, too much for the second.
    let (_, code, message) = failure(&watched([0.075, 0.075, 0.075, 0.08], 100.0).await);
    assert_eq!(code, "observation");
    assert!(message.contains("burn is 1.25, and at most 1"), "{message}");
    let (_, code, message) = failure(&watched([0.36, 0.5, 0.001, 0.001], 100.0).await);
    assert_eq!(code, "observation");
    assert!(message.contains("burn is 2.5, and at most 1"), "{message}");
    // Of the window with the least.
    let message = waits(&watched([0.001; 4], 49.0).await);
    assert!(message.contains("burn: 0 of 20 samples") && message.contains("too little traffic"), "{message}");
}

const TOKEN: &str = "Bearer obs-t0ken-of-this-test";

#[tokio::test]
async fn header_that_a_source_wants_is_sent_and_told_nowhere() {
    let clock = FastClock::new();
    let says = |_: f64, query: &str| Says::Number(if query == "/metrics.json" { 100.0 } else { 0.0 });
    let base = metrics_behind(&clock, Some(("authorization", TOKEN)), says).await;
    let mut bench = Bench::new().await;
    bench.config(&format!("[targets.prom]\nbase = \"{base}\"\n"));
    bench.env.push(("OBSERVE_TOKEN".to_owned(), TOKEN.to_owned()));
    let metrics = |headers: &str| {
        format!(
            "[metric.errors]\nprometheus = \"errors\"\nrange = \"1m\"\nmax = 0\n{headers}unanswered_limit = 1\n\
             [metric.p95]\nhttp = \"/metrics.json\"\nvalue = \"/value\"\nmax = 110\n{headers}"
        )
    };
    let with = metrics("headers = { authorization = \"env:OBSERVE_TOKEN\" }\n");
    let (good, end) = bench.run_at(&clock, &observe("", &with)).await;
    assert_eq!(end, RunEnd::Completed, "{}", bench.hand.said());
    assert_eq!(rounds(&bench, &good).await, 10);
    // Without it nobody is answered.
    let message = waits(&bench.run_at(&clock, &observe("", &metrics(""))).await.1);
    assert!(message.contains("status 401"), "{message}");
    // A server that says in its error what it was sent: so it is with what a query has wrong.
    let wrong = with.replace("\"errors\"", "\"broken(\"");
    let (bad, end) = bench.run_at(&clock, &observe("", &wrong)).await;
    let message = waits(&end);
    assert!(message.contains("parse error of"), "{message}");

    let engine = bench.engine().await;
    let mut told = vec![message, bench.hand.said()];
    for run in [good, bad] {
        let events = engine.journal.read(&run).await.unwrap();
        assert!(events.len() > 4, "{events:?}");
        told.extend(events.iter().map(|event| serde_json::to_string(event).unwrap()));
    }
    for text in told {
        assert!(!text.contains("obs-t0ken"), "{text}");
    }
}

#[tokio::test]
async fn plan_asks_each_metric_once_and_shows_what_it_says() {
    let clock = FastClock::new();
    let bench = bench(&clock, |_, query| if query == "none" { Says::Empty } else { Says::Number(0.004) }).await;
    bench.write(
        "metrics.toml",
        "[metric.none]\nprometheus = \"none\"\nmax = 1\n[metric.errors]\nprometheus = \"overridden\"\nmax = 1\n",
    );
    let engine = bench.engine().await;
    let text = observe("metrics = \"metrics.toml\"", ERRORS);
    let plan = engine.plan(&bench.parse(&text), &Default::default()).await.unwrap();
    let change = &plan.steps().next().unwrap().change;
    let lines = change.details.join("\n");
    assert!(lines.contains("errors: now 0.004; at most 0.01; `sum(rate(errors[1m]))` of http"), "{lines}");
    assert!(lines.contains("none: no number now (an empty result"), "{lines}");
    assert_eq!(change.files.len(), 1, "the file is part of the plan: {:?}", change.files);

    for (wrong, why) in [
        (observe("", "[metric.m]\nprometheus = \"x\"\n"), "nothing could fail"),
        (observe("", "[metric.m]\nprometheus = \"x\"\nmax_of_baseline = 1.1\n"), "`baseline`"),
        (observe("", "[metric.m]\nsql = \"COMMIT\"\ntarget = \"main\"\nmax = 1\n"), "COMMIT"),
        (observe("", "[metric.m]\nprometheus = \"x[$window]\"\nmax = 1\n"), "$window"),
        (observe("", "[metric.m]\nprometheus = \"x\"\nmax = 1\ndry_run = true\n"), "nothing could fail"),
        (observe("deadline = \"5s\"", ERRORS), "shorter than the window"),
        (observe("", ""), "no metric"),
    ] {
        let error = engine.plan(&bench.parse(&wrong), &Default::default()).await.unwrap_err();
        assert!(error.to_string().contains(why) || format!("{error:?}").contains(why), "{why}: {error:?}");
    }
}
