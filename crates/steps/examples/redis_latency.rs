//! What a second client of a Redis notices while `pgrunbook redis keys` counts: for `bench/redis`.
//!
//! usage: `redis_latency PORT KEYS ROUNDS PROGRAM ARGUMENT ...`
//!
//! Fills the server, then measures GET round trips of one client, in turn with nothing else going on and while the
//! program runs. Prints a line per round: the program's milliseconds, and p50 and p99 in microseconds of idle and busy.

use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use redis::{Client, Connection};

/// Between two questions of the second client: an application asks now and then, and does not race.
const PAUSE: Duration = Duration::from_micros(500);

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let [port, keys, rounds, program, arguments @ ..] = args.as_slice() else {
        return Err("usage: redis_latency PORT KEYS ROUNDS PROGRAM ARGUMENT ...".into());
    };
    let client = Client::open(format!("redis://127.0.0.1:{port}"))?;
    let mut connection = client.get_connection()?;
    fill(&mut connection, keys.parse()?)?;
    println!("count_ms idle_p50_us idle_p99_us busy_p50_us busy_p99_us ratio_p99");
    for _ in 0..rounds.parse()? {
        let begin = Instant::now();
        let idle = measure(&mut connection, || begin.elapsed() >= Duration::from_secs(2))?;
        let over = AtomicBool::new(false);
        let (busy, took) = std::thread::scope(|scope| {
            let counting = scope.spawn(|| {
                let begin = Instant::now();
                let status = Command::new(program).args(arguments).stdout(Stdio::null()).status();
                over.store(true, Ordering::SeqCst);
                status.map(|status| (status.success(), begin.elapsed()))
            });
            let busy = measure(&mut connection, || over.load(Ordering::SeqCst));
            (busy, counting.join())
        });
        let (busy, (success, took)) = (busy?, took.map_err(|_| "the counting thread panicked")??);
        if !success {
            return Err(format!("{program} failed").into());
        }
        let [idle_p50, idle_p99] = percentiles(idle);
        let [busy_p50, busy_p99] = percentiles(busy);
        println!(
            "{} {idle_p50} {idle_p99} {busy_p50} {busy_p99} {:.2}",
            took.as_millis(),
            busy_p99 as f64 / idle_p99.max(1) as f64
        );
    }
    Ok(())
}

/// Half of the keys begin with `stg:`.
fn fill(connection: &mut Connection, keys: u64) -> redis::RedisResult<()> {
    for from in (0..keys).step_by(10_000) {
        let mut pipe = redis::pipe();
        for number in from..(from + 10_000).min(keys) {
            let prefix = if number % 2 == 0 { "stg" } else { "prod" };
            pipe.cmd("SET").arg(format!("{prefix}:session:{number:08}")).arg("a value of some length").ignore();
        }
        pipe.query::<()>(connection)?;
    }
    Ok(())
}

fn measure(connection: &mut Connection, over: impl Fn() -> bool) -> redis::RedisResult<Vec<Duration>> {
    let mut trips = Vec::new();
    let mut number = 0u64;
    while !over() {
        number += 1;
        let begin = Instant::now();
        redis::cmd("GET")
            .arg(format!("prod:session:{:08}", number * 7919 % 1_000_000))
            .query::<Option<String>>(connection)?;
        trips.push(begin.elapsed());
        std::thread::sleep(PAUSE);
    }
    Ok(trips)
}

fn percentiles(mut trips: Vec<Duration>) -> [u128; 2] {
    trips.sort_unstable();
    [50, 99].map(|percent| {
        let rank = (trips.len() * percent).div_ceil(100).max(1) - 1;
        trips.get(rank).map_or(0, Duration::as_micros)
    })
}
