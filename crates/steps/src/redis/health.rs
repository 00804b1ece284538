//! How a Redis is: round trips, memory, evictions, role, replication and persistence; and which limits that breaks.

use std::time::{Duration, Instant};

use ::redis::cmd;
use serde_json::{Value, json};

use super::address::RedisOptions;
use super::error::RedisFault;
use super::node::{Info, Node, Role, connect};

/// Round trips that are measured where nobody says otherwise.
pub const PINGS: u32 = 100;

/// What must hold. What is not given is not judged; what is given and cannot be found out does not hold.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Limits {
    pub max_p50: Option<Duration>,
    pub max_p99: Option<Duration>,
    /// Of `maxmemory`, or of the machine's memory where there is none, in per cent.
    pub max_memory_percent: Option<f64>,
    /// Keys that were evicted since the server started.
    pub max_evicted: Option<u64>,
    pub role: Option<Role>,
    pub min_replicas: Option<u64>,
    /// Of a primary: since its slowest replica was last heard. Of a replica: since it last heard its primary.
    pub max_lag: Option<Duration>,
    /// Whether it must write to disk, and the last writing must have gone well.
    pub persistent: bool,
}

/// How one server is.
#[derive(Debug, Clone, PartialEq)]
pub struct NodeHealth {
    pub address: String,
    pub info: Info,
    /// Round trips of PING, shortest first.
    pub trips: Vec<Duration>,
}

/// How the servers behind an address are.
///
/// # Errors
/// [`RedisFault`] if one does not answer.
pub async fn health(options: &RedisOptions, pings: u32, timeout: Duration) -> Result<Vec<NodeHealth>, RedisFault> {
    let mut nodes = connect(options, timeout).await?;
    let mut found = Vec::new();
    for node in nodes.all() {
        found.push(measure(node, pings).await?);
    }
    Ok(found)
}

async fn measure(node: &mut Node, pings: u32) -> Result<NodeHealth, RedisFault> {
    let ping = cmd("PING");
    // The first finds the way for the others.
    node.ask(&ping).await?;
    let mut trips = Vec::new();
    for _ in 0..pings.clamp(1, 100_000) {
        let begin = Instant::now();
        node.ask(&ping).await?;
        trips.push(begin.elapsed());
    }
    trips.sort_unstable();
    node.look().await?;
    Ok(NodeHealth { address: node.address.clone(), info: node.info.clone(), trips })
}

/// The value below which that share of all lies, by nearest rank. `sorted` is not empty.
pub fn percentile(sorted: &[Duration], percent: usize) -> Duration {
    let rank = (sorted.len() * percent).div_ceil(100).max(1);
    sorted[rank.min(sorted.len()) - 1]
}

impl NodeHealth {
    pub fn p50(&self) -> Duration {
        percentile(&self.trips, 50)
    }

    pub fn p99(&self) -> Duration {
        percentile(&self.trips, 99)
    }

    /// Used memory, and what it is measured by, in bytes.
    pub fn memory(&self) -> Option<(u64, u64)> {
        let limit = self.info.number("maxmemory").filter(|limit| *limit > 0);
        Some((self.info.number("used_memory")?, limit.or_else(|| self.info.number("total_system_memory"))?))
    }

    /// Seconds since the other side of the replication was heard; `None` where there is no other side.
    pub fn lag(&self) -> Option<u64> {
        match self.info.role()? {
            Role::Primary => {
                let lags = self.info.replicas().into_iter();
                lags.map(|replica| replica.get("lag").and_then(|lag| lag.parse().ok()).unwrap_or(u64::MAX)).max()
            }
            Role::Replica if self.info.text("master_link_status") == Some("up") => {
                self.info.number("master_last_io_seconds_ago")
            }
            Role::Replica => Some(u64::MAX),
        }
    }

    /// Why it would not survive a restart; `None` if it would.
    pub fn persistence_fault(&self) -> Option<String> {
        let info = &self.info;
        let Some(aof) = info.text("aof_enabled") else { return Some("it does not say how it is kept".to_owned()) };
        let bad = |name: &str| info.text(name).is_some_and(|status| status != "ok");
        if aof == "1" {
            let failed = ["aof_last_write_status", "aof_last_bgrewrite_status"].into_iter().find(|name| bad(name));
            return failed.map(|name| format!("{name} is not ok"));
        }
        if bad("rdb_last_bgsave_status") {
            return Some("rdb_last_bgsave_status is not ok".to_owned());
        }
        // A file that it wrote, or one that it began with: neither can be seen of a server that was told never to save.
        let some = |name: &str| info.number(name).is_some_and(|count| count > 0);
        if some("rdb_saves") || some("rdb_last_load_keys_loaded") {
            return None;
        }
        Some(match info.number("rdb_saves") {
            Some(_) => "no AOF, and no RDB file was saved since it started".to_owned(),
            None => "no AOF, and it does not say whether it saves RDB files (Redis 7 does)".to_owned(),
        })
    }

    /// Every limit that does not hold.
    pub fn faults(&self, limits: &Limits) -> Vec<String> {
        let mut faults = Vec::new();
        let at = &self.address;
        let info = &self.info;
        let asked = limits.max_memory_percent.is_some()
            || limits.max_evicted.is_some()
            || limits.role.is_some()
            || limits.min_replicas.is_some()
            || limits.max_lag.is_some()
            || limits.persistent;
        if asked && !info.is_known() {
            faults.push(format!("{at}: INFO is refused, so that no limit but the round trip can be judged"));
        }
        if info.text("loading") == Some("1") {
            faults.push(format!("{at}: it is loading its data"));
        }
        let trips = [("p50", limits.max_p50, self.p50()), ("p99", limits.max_p99, self.p99())];
        for (name, limit, found) in trips {
            if let Some(limit) = limit.filter(|limit| found > *limit) {
                faults.push(format!("{at}: round trip {name} {} is above {}", shown(found), shown(limit)));
            }
        }
        if !info.is_known() {
            return faults;
        }
        if let Some(limit) = limits.max_memory_percent {
            match self.memory() {
                Some((used, of)) if used as f64 <= of as f64 * limit / 100.0 => {}
                Some((used, of)) => {
                    faults.push(format!("{at}: {} of {} memory used, above {limit} %", bytes(used), bytes(of)));
                }
                None => faults.push(format!("{at}: its memory is not known")),
            }
        }
        if let Some(limit) = limits.max_evicted {
            match info.number("evicted_keys") {
                Some(found) if found <= limit => {}
                Some(found) => faults.push(format!("{at}: {found} keys were evicted, more than {limit}")),
                None => faults.push(format!("{at}: evictions are not known")),
            }
        }
        if let Some(role) = limits.role.filter(|role| info.role() != Some(*role)) {
            let found = info.role().map_or("of no known role", Role::word);
            faults.push(format!("{at}: it is {found}, not {}", role.word()));
        }
        if let Some(limit) = limits.min_replicas {
            let online = info.replicas().iter().filter(|one| one.get("state") == Some(&"online")).count() as u64;
            if online < limit {
                faults.push(format!("{at}: {online} replicas are online, fewer than {limit}"));
            }
        }
        if let Some(limit) = limits.max_lag {
            match self.lag() {
                Some(u64::MAX) => faults.push(format!("{at}: its replication link is down")),
                Some(lag) if Duration::from_secs(lag) > limit => {
                    faults.push(format!("{at}: its replication is {lag} s behind, above {}", shown(limit)));
                }
                Some(_) => {}
                None if info.role() == Some(Role::Primary) => {
                    faults.push(format!("{at}: no replica is connected, so that none can be judged by its lag"));
                }
                None => faults.push(format!("{at}: its replication lag is not known")),
            }
        }
        if limits.persistent
            && let Some(why) = self.persistence_fault()
        {
            faults.push(format!("{at}: {why}"));
        }
        faults
    }

    /// One line for people.
    pub fn line(&self) -> String {
        let info = &self.info;
        let mut line = self.address.clone();
        if let Some(version) = info.version() {
            line.push_str(&format!(", {}", version_word(info, version)));
        }
        if let Some(role) = info.role() {
            line.push_str(&format!(", {}", role.word()));
        }
        line.push_str(&format!(", ping p50 {} p99 {}", shown(self.p50()), shown(self.p99())));
        if let Some((used, of)) = self.memory() {
            let limit = if info.number("maxmemory") == Some(0) { " (no maxmemory)" } else { "" };
            line.push_str(&format!(", {} of {}{limit}", bytes(used), bytes(of)));
        }
        if let Some(evicted) = info.number("evicted_keys") {
            line.push_str(&format!(", {evicted} evicted"));
        }
        match (info.role(), self.lag()) {
            (Some(Role::Primary), _) => line.push_str(&format!(", {} replicas", info.replicas().len())),
            (Some(Role::Replica), Some(u64::MAX)) => line.push_str(", link down"),
            (Some(Role::Replica), Some(lag)) => line.push_str(&format!(", heard {lag} s ago")),
            _ => {}
        }
        line
    }

    /// For programs. Times are microseconds, sizes bytes.
    pub fn json(&self) -> Value {
        let info = &self.info;
        let replicas: Vec<Value> = info.replicas().iter().map(|one| json!(one)).collect();
        let micros = |time: Duration| time.as_micros() as u64;
        json!({
            "address": self.address,
            "version": info.version(),
            "role": info.role().map(Role::word),
            "pings": self.trips.len(),
            "p50_us": micros(self.p50()),
            "p99_us": micros(self.p99()),
            "max_us": self.trips.last().map(|trip| micros(*trip)),
            "used_memory": info.number("used_memory"),
            "maxmemory": info.number("maxmemory"),
            "maxmemory_policy": info.text("maxmemory_policy"),
            "evicted_keys": info.number("evicted_keys"),
            "connected_clients": info.number("connected_clients"),
            "replicas": replicas,
            "master_link_status": info.text("master_link_status"),
            "lag_s": self.lag().filter(|lag| *lag != u64::MAX),
            "aof_enabled": info.text("aof_enabled").map(|text| text == "1"),
            "rdb_last_bgsave_status": info.text("rdb_last_bgsave_status"),
            "not_persistent": self.persistence_fault(),
            "uptime_s": info.number("uptime_in_seconds"),
        })
    }
}

fn version_word(info: &Info, version: &str) -> String {
    match info.text("valkey_version") {
        Some(valkey) => format!("Valkey {valkey}"),
        None => format!("Redis {version}"),
    }
}

/// `0.12 ms`, `3.4 s`.
pub fn shown(time: Duration) -> String {
    if time < Duration::from_secs(1) {
        format!("{:.2} ms", time.as_secs_f64() * 1e3)
    } else {
        format!("{:.1} s", time.as_secs_f64())
    }
}

/// `1.2 MB`.
pub fn bytes(count: u64) -> String {
    let mut size = count as f64;
    for unit in ["B", "kB", "MB", "GB"] {
        if size < 1000.0 {
            return if unit == "B" { format!("{count} B") } else { format!("{size:.1} {unit}") };
        }
        size /= 1000.0;
    }
    format!("{size:.1} TB")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn node(info: &str, trips: &[u64]) -> NodeHealth {
        let trips = trips.iter().map(|micros| Duration::from_micros(*micros)).collect();
        NodeHealth { address: "cache:6379".to_owned(), info: Info::read(info), trips }
    }

    #[test]
    fn percentiles_are_by_nearest_rank() {
        let trips: Vec<u64> = (1..=200).collect();
        let node = node("", &trips);
        assert_eq!((node.p50().as_micros(), node.p99().as_micros()), (100, 198));
        assert_eq!(percentile(&[Duration::from_secs(1)], 99), Duration::from_secs(1));
    }

    #[test]
    fn a_limit_that_cannot_be_judged_does_not_hold() {
        let limits = Limits { max_evicted: Some(0), ..Limits::default() };
        assert_eq!(node("", &[1]).faults(&limits).len(), 1);
        assert_eq!(node("redis_version:7.0.15", &[1]).faults(&limits), ["cache:6379: evictions are not known"]);
        assert!(node("", &[1]).faults(&Limits::default()).is_empty());
    }

    #[test]
    fn each_limit_breaks_by_itself_and_holds_where_it_is_reached() {
        let millis = Duration::from_millis;
        let busy = node("redis_version:7.0.15\nevicted_keys:3", &[1_000, 9_000]);
        assert_eq!((busy.p50(), busy.p99()), (millis(1), millis(9)));
        let p50 = |limit: u64| Limits { max_p50: Some(millis(limit)), ..Limits::default() };
        let p99 = |limit: u64| Limits { max_p99: Some(millis(limit)), ..Limits::default() };
        let evicted = |limit: u64| Limits { max_evicted: Some(limit), ..Limits::default() };
        assert_eq!(busy.faults(&p99(5)), ["cache:6379: round trip p99 9.00 ms is above 5.00 ms"]);
        assert_eq!(busy.faults(&p50(0)), ["cache:6379: round trip p50 1.00 ms is above 0.00 ms"]);
        assert_eq!(busy.faults(&evicted(2)), ["cache:6379: 3 keys were evicted, more than 2"]);
        for held in [p50(1), p50(5), p99(9), evicted(3)] {
            assert_eq!(busy.faults(&held), [] as [&str; 0], "{held:?}");
        }
        let all = Limits { max_p50: Some(millis(0)), max_evicted: Some(2), ..p99(5) };
        assert_eq!(busy.faults(&all).len(), 3, "each is told");
    }

    #[test]
    fn memory_without_a_limit_is_measured_by_the_machine() {
        let limits = Limits { max_memory_percent: Some(50.0), ..Limits::default() };
        let info = "used_memory:600\nmaxmemory:0\ntotal_system_memory:1000";
        assert_eq!(node(info, &[1]).faults(&limits), ["cache:6379: 600 B of 1.0 kB memory used, above 50 %"]);
        let info = "used_memory:600\nmaxmemory:2000\ntotal_system_memory:1000";
        assert!(node(info, &[1]).faults(&limits).is_empty());
    }

    #[test]
    fn a_replica_whose_link_is_down_is_behind_every_limit() {
        let limits = Limits { max_lag: Some(Duration::from_secs(3600)), ..Limits::default() };
        let info = "role:slave\nmaster_link_status:down\nmaster_last_io_seconds_ago:1";
        assert_eq!(node(info, &[1]).faults(&limits), ["cache:6379: its replication link is down"]);
        let info = "role:slave\nmaster_link_status:up\nmaster_last_io_seconds_ago:1";
        assert!(node(info, &[1]).faults(&limits).is_empty());
    }

    #[test]
    fn lag_that_nobody_tells_is_within_no_limit() {
        let limits = Limits { max_lag: Some(Duration::from_secs(3600)), ..Limits::default() };
        let faults = |info: &str| node(info, &[1]).faults(&limits);
        let gone = "cache:6379: no replica is connected, so that none can be judged by its lag";
        assert_eq!(faults("role:master\nconnected_slaves:0"), [gone]);
        assert!(faults("role:master\nslave0:ip=10.0.0.2,port=6379,state=online,offset=1,lag=1").is_empty());
        let unknown = "cache:6379: its replication lag is not known";
        assert_eq!(faults("role:slave\nmaster_link_status:up"), [unknown]);
        assert_eq!(faults("role:sentinel"), [unknown]);
    }

    #[test]
    fn server_that_does_not_say_that_it_saves_is_not_persistent() {
        let fault = |info: &str| node(info, &[1]).persistence_fault().unwrap_or_default();
        let older = "redis_version:5.0.14\naof_enabled:0\nrdb_last_bgsave_status:ok";
        assert_eq!(fault(older), "no AOF, and it does not say whether it saves RDB files (Redis 7 does)");
        assert_eq!(fault("aof_enabled:0\nrdb_saves:0"), "no AOF, and no RDB file was saved since it started");
        assert_eq!(fault("aof_enabled:0\nrdb_saves:1"), "");
        assert_eq!(fault("redis_version:5.0.14\naof_enabled:1"), "");
    }
}
