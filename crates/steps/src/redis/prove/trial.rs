//! One trial: a command, how it is sent, and what its answer means.

use std::time::Duration;

use ::redis::aio::MultiplexedConnection;
use ::redis::{Cmd, RedisError, Value, cmd};

use super::{Subject, fresh};
use crate::redis::address::RedisOptions;
use crate::redis::node::words;
use crate::redis::prefix::Prefix;

/// One thing that was tried.
#[derive(Debug, Clone, PartialEq)]
pub struct Trial {
    pub at: String,
    /// The user; empty for a connection that does not log in.
    pub user: String,
    /// `GET`, `EVAL, key not named`.
    pub what: String,
    /// The prefix, or `names of all keys`, `the server`.
    pub on: String,
    pub way: Way,
    pub answer: String,
    pub verdict: Verdict,
}

/// How it was tried.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Way {
    /// It was run, with arguments that do no harm.
    Run,
    /// It was put into a transaction and discarded.
    Queued,
    /// Logging in was.
    LogIn,
}

impl Way {
    pub fn word(self) -> &'static str {
        match self {
            Self::Run => "run",
            Self::Queued => "queued and discarded",
            Self::LogIn => "log-in",
        }
    }
}

/// How it came out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Verdict {
    /// Refused, as it should be.
    Refused,
    /// Possible, as it should be.
    Works,
    /// Possible, and declared with its reason.
    Declared,
    /// It is not known.
    Inconclusive,
    /// Not possible, and it should be.
    Broken,
    /// Possible, and it should not be.
    Leaked,
}

impl Verdict {
    pub fn word(self) -> &'static str {
        match self {
            Self::Refused => "refused",
            Self::Works => "works",
            Self::Declared => "declared",
            Self::Inconclusive => "inconclusive",
            Self::Broken => "broken",
            Self::Leaked => "leaked",
        }
    }
}

/// What a server said.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Answer {
    /// It checked the permission and let it pass, whatever came of it.
    Allowed(String),
    Refused(String),
    Unknown(String),
}

/// Where something is tried.
pub struct Place<'a> {
    pub options: &'a RedisOptions,
    pub address: &'a str,
    pub nonce: &'a str,
    pub timeout: Duration,
}

/// What an answer means. Everything but a refusal came after the check of permissions: a wrong type, a wrong option,
/// a slot of another server, a replica that does not write.
fn judged(answer: Result<Value, RedisError>) -> Answer {
    let error = match answer {
        Ok(value) => return Answer::Allowed(brief(&value)),
        Err(error) => error,
    };
    let said = words(&error);
    if error.is_io_error() || error.is_timeout() || error.is_connection_dropped() || error.code().is_none() {
        return Answer::Unknown(said);
    }
    // A script is refused inside, by a sentence: "ERR ... can't access at least one of the keys" before 7.2, "ACL failure
    // in script" since; and SORT ... BY by another.
    let sentences = [
        "ACL failure",
        "can't access at least one of the keys",
        "can't run this command",
        "insufficient ACL permissions",
        "NOPERM",
        "unknown command",
        "unknown subcommand",
    ];
    let refused = matches!(error.code(), Some("NOPERM" | "NOAUTH"))
        || sentences.iter().any(|sentence| said.to_lowercase().contains(&sentence.to_lowercase()));
    if refused { Answer::Refused(said) } else { Answer::Allowed(said) }
}

/// What kind of thing came back; never what it holds.
fn brief(value: &Value) -> String {
    match value {
        Value::Nil => "nil".to_owned(),
        Value::Okay => "OK".to_owned(),
        Value::Int(number) => number.to_string(),
        Value::SimpleString(text) => text.chars().take(40).collect(),
        Value::BulkString(bytes) => format!("{} bytes", bytes.len()),
        Value::Array(all) | Value::Set(all) => format!("{} answers", all.len()),
        _ => "an answer".to_owned(),
    }
}

/// Whether a command would be run, without running it.
async fn queued(connection: &mut MultiplexedConnection, command: &Cmd) -> Answer {
    match cmd("MULTI").query_async::<Value>(connection).await {
        Ok(Value::Okay) => {}
        Ok(_) => return Answer::Unknown("MULTI was answered by something else than OK".to_owned()),
        Err(error) => return Answer::Unknown(format!("it can only be tried in a transaction: {}", words(&error))),
    }
    let answer = judged(command.query_async(connection).await);
    // Also where it was refused: the transaction is still open. Dropping the connection would discard it too.
    let _ = cmd("DISCARD").query_async::<Value>(connection).await;
    match answer {
        // Not every command may stand in a transaction, and that is found before permissions are looked at.
        Answer::Allowed(said) if said != "QUEUED" => Answer::Unknown(said),
        other => other,
    }
}

fn command(words: &[&str]) -> Cmd {
    let mut command = cmd(words[0]);
    for word in &words[1..] {
        command.arg(*word);
    }
    command
}

/// Whoever does not log in must get nothing.
pub async fn nobody(
    options: &RedisOptions,
    address: &str,
    prefixes: &[&Prefix],
    nonce: &str,
    timeout: Duration,
    trials: &mut Vec<Trial>,
) {
    let place = Place { options, address, nonce, timeout };
    let who = RedisOptions { user: None, password: None, ..options.clone() };
    let answers = match fresh(&place, &who).await {
        Ok(mut connection) => {
            let mut answers = Vec::new();
            for prefix in prefixes {
                let key = format!("{prefix}{nonce}");
                answers.push((prefix.to_string(), judged(command(&["GET", &key]).query_async(&mut connection).await)));
            }
            answers
        }
        // It does not even speak to strangers: it wants a password for SELECT, or a certificate.
        Err(fault) if !fault.is_down() => vec![("the server".to_owned(), Answer::Refused(fault.to_string()))],
        Err(fault) => vec![("the server".to_owned(), Answer::Unknown(fault.to_string()))],
    };
    for (on, answer) in answers {
        trials.push(trial(&place, "", "GET without logging in", &on, Way::Run, answer, Expect::Refused));
    }
}

/// What should come out.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Expect {
    Works,
    Refused,
    /// Refused, unless it is declared by this name.
    Unless(bool),
}

fn trial(place: &Place<'_>, user: &str, what: &str, on: &str, way: Way, answer: Answer, expect: Expect) -> Trial {
    let verdict = match (&answer, expect) {
        (Answer::Unknown(_), _) => Verdict::Inconclusive,
        (Answer::Allowed(_), Expect::Works) => Verdict::Works,
        (Answer::Allowed(_), Expect::Unless(true)) => Verdict::Declared,
        (Answer::Allowed(_), _) => Verdict::Leaked,
        (Answer::Refused(_), Expect::Works) => Verdict::Broken,
        (Answer::Refused(_), _) => Verdict::Refused,
    };
    let (Answer::Allowed(said) | Answer::Refused(said) | Answer::Unknown(said)) = answer;
    // A server may repeat a key in its error: the name that nobody has is of no interest.
    let answer = said.replace(place.nonce, "…");
    Trial {
        at: place.address.to_owned(),
        user: user.to_owned(),
        what: what.to_owned(),
        on: on.to_owned(),
        way,
        answer,
        verdict,
    }
}

/// Tries all that a credential must and must not do on one server.
pub async fn subject(place: &Place<'_>, subject: &Subject, foreign: &[&Prefix], trials: &mut Vec<Trial>) {
    let user = subject.user.as_str();
    let Some(password) = &subject.password else {
        let answer = Answer::Unknown("its password has no value here".to_owned());
        trials.push(trial(place, user, "log in", "the server", Way::LogIn, answer, Expect::Works));
        return;
    };
    let who = place.options.as_user(user, Some(password.clone()));
    let mut connection = match fresh(place, &who).await {
        Ok(connection) => connection,
        Err(fault) => {
            let answer =
                if fault.is_down() { Answer::Unknown(fault.to_string()) } else { Answer::Refused(fault.to_string()) };
            trials.push(trial(place, user, "log in", "the server", Way::LogIn, answer, Expect::Works));
            return;
        }
    };
    let mut keep = |what: &str, on: &str, way: Way, answer: Answer, expect: Expect| {
        trials.push(trial(place, user, what, on, way, answer, expect));
    };

    for prefix in &subject.prefixes {
        let (key, on) = (format!("{prefix}{}", place.nonce), prefix.as_str());
        // It expires by itself should nobody be left to delete it.
        let write = ["SET", &key, "pgrunbook", "PX", "10000", "NX"];
        for (what, words) in [("SET", &write[..]), ("GET", &["GET", &key]), ("DEL", &["DEL", &key])] {
            let answer = judged(command(words).query_async(&mut connection).await);
            keep(what, on, Way::Run, answer, Expect::Works);
        }
        let answer = subscribed(place, &who, "SUBSCRIBE", &key).await;
        keep("SUBSCRIBE", on, Way::Run, answer, Expect::Works);
    }
    for prefix in &subject.reads {
        let key = format!("{prefix}{}", place.nonce);
        let answer = judged(command(&["GET", &key]).query_async(&mut connection).await);
        keep("GET", prefix.as_str(), Way::Run, answer, Expect::Works);
        let answer = judged(command(&["SET", &key, "x", "XX"]).query_async(&mut connection).await);
        keep("SET", prefix.as_str(), Way::Run, answer, Expect::Refused);
    }

    let own = format!("{}{}", subject.prefixes.first().map_or("", Prefix::as_str), place.nonce);
    for prefix in foreign.iter().filter(|prefix| !subject.reads.contains(prefix)) {
        let (key, on) = (format!("{prefix}{}", place.nonce), prefix.as_str());
        let pattern = prefix.pattern();
        for (what, words) in harmless(&own, &key, &pattern) {
            let answer = judged(command(&words).query_async(&mut connection).await);
            keep(what, on, Way::Run, answer, Expect::Refused);
        }
        let answer = queued(&mut connection, &command(&["PUBLISH", &key, "pgrunbook"])).await;
        keep("PUBLISH", on, Way::Queued, answer, Expect::Refused);
        for (verb, channel) in [("SUBSCRIBE", &key), ("PSUBSCRIBE", &pattern)] {
            let answer = subscribed(place, &who, verb, channel).await;
            keep(verb, on, Way::Run, answer, Expect::Refused);
        }
    }

    // What no key pattern binds, since it names no key.
    let declared =
        |name: &str| Expect::Unless(subject.may.iter().any(|may| may == name || name.starts_with(&format!("{may}|"))));
    let names = "names of all keys";
    for (what, name, words) in
        [("SCAN", "scan", &["SCAN", "0", "COUNT", "1"][..]), ("RANDOMKEY", "randomkey", &["RANDOMKEY"])]
    {
        let answer = judged(command(words).query_async(&mut connection).await);
        keep(what, names, Way::Run, answer, declared(name));
    }
    for (what, name, on, words) in [
        ("KEYS", "keys", names, &["KEYS", place.nonce][..]),
        ("CLIENT TRACKING ON BCAST", "client|tracking", names, &["CLIENT", "TRACKING", "ON", "BCAST"]),
        ("MONITOR", "monitor", "commands of all", &["MONITOR"]),
        ("PUBSUB CHANNELS", "pubsub|channels", "channels of all", &["PUBSUB", "CHANNELS", place.nonce]),
        // With arguments that are refused even if the transaction were run.
        ("FLUSHALL", "flushall", "every key", &["FLUSHALL", "PGRUNBOOK"]),
        ("FLUSHDB", "flushdb", "every key", &["FLUSHDB", "PGRUNBOOK"]),
        ("SWAPDB", "swapdb", "every key", &["SWAPDB", "x", "x"]),
        ("CONFIG GET", "config|get", "the server", &["CONFIG", "GET", "pgrunbook-none"]),
        ("ACL LIST", "acl|list", "the server", &["ACL", "LIST"]),
        ("CLIENT LIST", "client|list", "the server", &["CLIENT", "LIST"]),
        ("SLOWLOG GET", "slowlog|get", "commands of all", &["SLOWLOG", "GET", "0"]),
    ] {
        let answer = queued(&mut connection, &command(words)).await;
        keep(what, on, Way::Queued, answer, declared(name));
    }
}

/// Commands that would reach a foreign key, and do nothing where nobody has it: one for each way in which a command
/// names its keys.
fn harmless<'a>(own: &'a str, key: &'a str, pattern: &'a str) -> Vec<(&'static str, Vec<&'a str>)> {
    vec![
        ("GET", vec!["GET", key]),
        ("MGET, second key", vec!["MGET", own, key]),
        ("EXISTS", vec!["EXISTS", key]),
        ("TYPE", vec!["TYPE", key]),
        ("DUMP", vec!["DUMP", key]),
        ("XREAD", vec!["XREAD", "COUNT", "1", "STREAMS", key, "0"]),
        ("SET", vec!["SET", key, "pgrunbook", "XX"]),
        ("HDEL", vec!["HDEL", key, "pgrunbook"]),
        ("DEL", vec!["DEL", key]),
        ("UNLINK", vec!["UNLINK", key]),
        ("EXPIRE", vec!["EXPIRE", key, "1"]),
        ("RENAME into", vec!["RENAME", own, key]),
        ("COPY from", vec!["COPY", key, own]),
        ("ZUNIONSTORE from", vec!["ZUNIONSTORE", own, "1", key]),
        ("SORT BY", vec!["SORT", own, "BY", pattern, "GET", pattern]),
        ("EVAL", vec!["EVAL", "return redis.call('GET', KEYS[1])", "1", key]),
        ("EVAL, key not named", vec!["EVAL", "return redis.call('GET', ARGV[1])", "0", key]),
    ]
}

/// Subscribing takes the connection over, so that it has one of its own.
async fn subscribed(place: &Place<'_>, who: &RedisOptions, verb: &str, channel: &str) -> Answer {
    match fresh(place, who).await {
        Ok(mut connection) => judged(command(&[verb, channel]).query_async(&mut connection).await),
        Err(fault) => Answer::Unknown(fault.to_string()),
    }
}
