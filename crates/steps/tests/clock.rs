//! A clock that runs as fast as the steps ask it to wait, and a small server that speaks as Prometheus does.

use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use async_trait::async_trait;
use axum::Router;
use axum::http::{HeaderMap, StatusCode, Uri};
use jiff::{SignedDuration, Timestamp};
use pgrunbook_engine::{Clock, Engine, RunEnd, RunOptions};
use serde_json::{Value, json};
use tokio::sync::watch;

use crate::bench::Bench;

/// What the engine's lease sleeps between two heartbeats: it does not drive the time.
const HEARTBEAT: Duration = Duration::from_secs(5);

type Deed = Box<dyn FnOnce() -> Pin<Box<dyn Future<Output = ()> + Send>> + Send>;

/// Time that goes on when a step sleeps.
#[derive(Clone)]
pub struct FastClock(Arc<State>);

struct State {
    begun: Instant,
    moved: watch::Sender<Duration>,
    /// What the wall clock is off.
    set: Mutex<SignedDuration>,
    script: Mutex<Vec<(Duration, Deed)>>,
    dead: watch::Sender<bool>,
}

impl FastClock {
    pub fn new() -> Self {
        Self(Arc::new(State {
            begun: Instant::now(),
            moved: watch::Sender::new(Duration::ZERO),
            set: Mutex::new(SignedDuration::ZERO),
            script: Mutex::new(Vec::new()),
            dead: watch::Sender::new(false),
        }))
    }

    /// Seconds since the beginning.
    pub fn seconds(&self) -> f64 {
        self.0.moved.borrow().as_secs_f64()
    }

    /// Does something when the time has come to this second.
    pub fn at<F, T>(&self, second: u64, deed: F)
    where
        F: FnOnce() -> T + Send + 'static,
        T: Future<Output = ()> + Send + 'static,
    {
        let mut script = self.0.script.lock().unwrap();
        script.push((Duration::from_secs(second), Box::new(move || Box::pin(deed()))));
        script.sort_by_key(|(at, _)| *at);
    }

    /// Sets the wall clock at this second.
    pub fn set_at(&self, second: u64, by: SignedDuration) {
        let clock = self.clone();
        self.at(second, move || async move { *clock.0.set.lock().unwrap() += by });
    }

    /// Lets monotonic time pass at once at this second.
    pub fn skip_at(&self, second: u64, length: Duration) {
        let clock = self.clone();
        self.at(second, move || async move { clock.0.moved.send_modify(|moved| *moved += length) });
    }

    /// The process dies at this second: nobody who sleeps then wakes up.
    pub fn die_at(&self, second: u64) {
        let clock = self.clone();
        self.at(second, move || async move {
            clock.0.dead.send_replace(true);
            std::future::pending::<()>().await;
        });
    }

    async fn died(&self) {
        self.0.dead.subscribe().wait_for(|dead| *dead).await.unwrap();
    }
}

#[async_trait]
impl Clock for FastClock {
    fn now(&self) -> Timestamp {
        let noon: Timestamp = "2026-11-21T12:00:00Z".parse().unwrap();
        noon + SignedDuration::try_from(*self.0.moved.borrow()).unwrap() + *self.0.set.lock().unwrap()
    }

    fn instant(&self) -> Instant {
        self.0.begun + *self.0.moved.borrow()
    }

    async fn sleep(&self, duration: Duration) {
        let end = *self.0.moved.borrow() + duration;
        if duration == HEARTBEAT {
            self.0.moved.subscribe().wait_for(|moved| *moved >= end).await.unwrap();
            return;
        }
        loop {
            let due = {
                let mut script = self.0.script.lock().unwrap();
                match script.first() {
                    Some((at, _)) if *at <= end => Some(script.remove(0)),
                    _ => None,
                }
            };
            let Some((at, deed)) = due else { break };
            self.0.moved.send_modify(|moved| *moved = (*moved).max(at));
            deed().await;
        }
        self.0.moved.send_modify(|moved| *moved = (*moved).max(end));
        tokio::task::yield_now().await;
    }
}

/// What the server answers to a query.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Says {
    Number(f64),
    NaN,
    Empty,
    Down,
}

/// A server that speaks Prometheus' HTTP API and has a JSON document, and answers as a function of time and query.
///
/// `GET /metrics.json`: `{"value": ..., "requests": 100, "at": ...}`.
pub async fn metrics(clock: &FastClock, says: impl Fn(f64, &str) -> Says + Send + Sync + Clone + 'static) -> String {
    metrics_behind(clock, None, says).await
}

/// The same, which answers nobody who does not send a header with its value, and repeats it where a query is wrong.
pub async fn metrics_behind(
    clock: &FastClock,
    wanted: Option<(&'static str, &'static str)>,
    says: impl Fn(f64, &str) -> Says + Send + Sync + Clone + 'static,
) -> String {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let base = format!("http://{}", listener.local_addr().unwrap());
    let clock = clock.clone();
    let answer = move |headers: HeaderMap, uri: Uri| {
        let (clock, says) = (clock.clone(), says.clone());
        async move {
            if wanted.is_some_and(|(name, value)| headers.get(name).is_none_or(|found| found != value)) {
                return (StatusCode::UNAUTHORIZED, String::new());
            }
            answer(&clock, &says, &uri, wanted.map_or("nobody", |(_, value)| value))
        }
    };
    tokio::spawn(async move { axum::serve(listener, Router::new().fallback(answer)).await });
    base
}

fn answer(clock: &FastClock, says: &impl Fn(f64, &str) -> Says, uri: &Uri, who: &str) -> (StatusCode, String) {
    let url = reqwest::Url::parse(&format!("http://x{uri}")).unwrap();
    let parameter =
        |name: &str| url.query_pairs().find(|(found, _)| found == name).map(|(_, value)| value.into_owned());
    let query = parameter("query").unwrap_or_else(|| uri.path().to_owned());
    // Its own clock: ours may be wrong.
    let now = 1_700_000_000.0 + clock.seconds();
    let data = |data: Value| (StatusCode::OK, json!({ "status": "success", "data": data }).to_string());
    if query == "time()" {
        return data(json!({ "resultType": "scalar", "result": [now, now.to_string()] }));
    }
    if query.contains('(') && !query.contains(')') {
        let error = json!({ "status": "error", "errorType": "bad_data", "error": format!("parse error of {who}") });
        return (StatusCode::BAD_REQUEST, error.to_string());
    }
    let text = match says(clock.seconds(), &query) {
        Says::Down => return (StatusCode::SERVICE_UNAVAILABLE, String::new()),
        Says::Number(number) => Some(number.to_string()),
        Says::NaN => Some("NaN".to_owned()),
        Says::Empty => None,
    };
    match uri.path() {
        "/api/v1/query" => {
            let result: Vec<Value> = text.iter().map(|text| json!({ "metric": {}, "value": [now, text] })).collect();
            data(json!({ "resultType": "vector", "result": result }))
        }
        "/api/v1/query_range" => {
            let number = |name: &str| parameter(name).unwrap().parse::<f64>().unwrap();
            let (start, end, step) = (number("start"), number("end"), number("step"));
            assert!((end - now).abs() < 1.0, "the range ends at the server's time: {end} and {now}");
            let points = ((end - start) / step) as usize + 1;
            let values: Vec<Value> = text
                .iter()
                .flat_map(|text| (0..points).map(move |at| json!([start + at as f64 * step, text])))
                .collect();
            let result = if values.is_empty() { json!([]) } else { json!([{ "metric": {}, "values": values }]) };
            data(json!({ "resultType": "matrix", "result": result }))
        }
        _ => {
            let value = text.map_or(Value::Null, |text| text.parse::<f64>().map_or(Value::from("NaN"), Value::from));
            (StatusCode::OK, json!({ "value": value, "requests": 100, "at": clock.now().to_string() }).to_string())
        }
    }
}

/// A process id that no process has.
fn nobody() -> u32 {
    let mut child = std::process::Command::new("true").spawn().unwrap();
    let pid = child.id();
    child.wait().unwrap();
    pid
}

impl Bench {
    pub async fn engine_at(&self, clock: &FastClock) -> Engine {
        Engine { clock: Arc::new(clock.clone()), ..self.engine().await }
    }

    /// Plans, begins and runs in fast time.
    pub async fn run_at(&self, clock: &FastClock, text: &str) -> (String, RunEnd) {
        let run = self.begin_at(clock, text).await;
        let end = self.resume_at(clock, &run).await;
        (run, end)
    }

    pub async fn begin_at(&self, clock: &FastClock, text: &str) -> String {
        let engine = self.engine_at(clock).await;
        let plan = engine.plan(&self.parse(text), &Default::default()).await.unwrap();
        engine.begin(plan, pgrunbook_engine::Purpose::Real).await.unwrap()
    }

    pub async fn resume_at(&self, clock: &FastClock, run: &str) -> RunEnd {
        self.engine_at(clock).await.run(run, &RunOptions::default(), &self.hand).await.unwrap()
    }

    /// Runs until the process dies, as the clock's script says.
    pub async fn die(&self, clock: &FastClock, run: &str) {
        let mut engine = self.engine_at(clock).await;
        engine.operator.pid = nobody();
        let options = RunOptions::default();
        tokio::select! {
            end = engine.run(run, &options, &self.hand) => panic!("it did not die: {end:?}"),
            () = clock.died() => {}
        }
    }

    /// What a step noted over all attempts.
    pub async fn notes(&self, run: &str, step: &str) -> Vec<Value> {
        let events = self.engine().await.journal.read(run).await.unwrap();
        let notes = events.into_iter().filter_map(|sealed| match sealed.event {
            pgrunbook_engine::Event::Noted { step: id, note, .. } if id.as_str() == step => Some(note),
            _ => None,
        });
        notes.collect()
    }
}
