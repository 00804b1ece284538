//! Servers and connections: who there is behind an address, and asking one of them.
//!
//! Every node is asked over a connection of its own, also in a cluster: what is done here (SCAN, INFO, ACL, trying) is
//! about one node at a time, and a client that hides which node answers would hide what is to be found out.

use std::collections::BTreeMap;
use std::time::Duration;

use ::redis::aio::MultiplexedConnection;
use ::redis::{
    AsyncConnectionConfig, Client, ClientTlsConfig, Cmd, ConnectionAddr, ErrorKind, IntoConnectionInfo, Pipeline,
    RedisConnectionInfo, RedisError, TlsCertificates, Value, cmd,
};

use super::address::{RedisOptions, Sentinel, place};
use super::error::RedisFault;

/// For connecting and for one answer, where nobody says otherwise.
pub const TIMEOUT: Duration = Duration::from_secs(5);

/// How many slots a cluster has: <https://redis.io/docs/latest/operate/oss_and_stack/reference/cluster-spec/>.
const SLOTS: u32 = 16_384;

/// What a server is for the others.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    Primary,
    Replica,
}

impl Role {
    pub fn word(self) -> &'static str {
        match self {
            Self::Primary => "primary",
            Self::Replica => "replica",
        }
    }
}

/// One server, and a connection to it.
pub struct Node {
    /// `host:port`
    pub address: String,
    /// What it says of itself.
    pub info: Info,
    host: String,
    connection: MultiplexedConnection,
}

/// The servers behind an address.
pub struct Nodes {
    /// Those that take writes: one, or all of a cluster's.
    pub primaries: Vec<Node>,
    /// Filled by [`everywhere`] alone.
    pub replicas: Vec<Node>,
    /// Replicas that do not answer, and why.
    pub silent: Vec<(String, String)>,
    pub is_cluster: bool,
}

impl Nodes {
    /// Every server that answers.
    pub fn all(&mut self) -> impl Iterator<Item = &mut Node> {
        self.primaries.iter_mut().chain(self.replicas.iter_mut())
    }
}

/// The answer of `INFO`, by field. Empty where the credential may not ask.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Info(BTreeMap<String, String>);

impl Info {
    /// Reads `name:value` lines: <https://redis.io/docs/latest/commands/info/>.
    pub fn read(text: &str) -> Self {
        let lines = text.lines().filter(|line| !line.starts_with('#'));
        let pairs = lines.filter_map(|line| line.split_once(':'));
        Self(pairs.map(|(name, value)| (name.trim().to_owned(), value.trim().to_owned())).collect())
    }

    /// Whether the server said anything.
    pub fn is_known(&self) -> bool {
        !self.0.is_empty()
    }

    pub fn text(&self, name: &str) -> Option<&str> {
        self.0.get(name).map(String::as_str)
    }

    pub fn number(&self, name: &str) -> Option<u64> {
        self.text(name)?.parse().ok()
    }

    /// `a=1,b=2` as fields.
    pub fn fields(&self, name: &str) -> Option<BTreeMap<&str, &str>> {
        Some(self.text(name)?.split(',').filter_map(|pair| pair.split_once('=')).collect())
    }

    /// What the replicas of this server are, as it sees them.
    pub fn replicas(&self) -> Vec<BTreeMap<&str, &str>> {
        (0..).map_while(|number| self.fields(&format!("slave{number}"))).collect()
    }

    pub fn role(&self) -> Option<Role> {
        match self.text("role")? {
            "master" => Some(Role::Primary),
            "slave" => Some(Role::Replica),
            _ => None,
        }
    }

    /// `7.0.15`; also of Valkey, which says the Redis version that it stands for.
    pub fn version(&self) -> Option<&str> {
        self.text("redis_version")
    }

    /// Whether the version is this one or newer; `None` if it is not known.
    pub fn is_at_least(&self, major: u32, minor: u32) -> Option<bool> {
        let mut parts = self.version()?.split('.').map_while(|part| part.parse::<u32>().ok());
        let (found, minor_found) = (parts.next()?, parts.next().unwrap_or(0));
        Some((found, minor_found) >= (major, minor))
    }

    /// Changes when the server starts anew: a SCAN cursor means nothing to the next process, whose hash seed differs.
    pub fn run_id(&self) -> Option<&str> {
        self.text("run_id")
    }
}

impl Node {
    /// The answer to a command.
    ///
    /// # Errors
    /// [`RedisFault`], with the command's name and never its arguments.
    pub async fn ask(&mut self, command: &Cmd) -> Result<Value, RedisFault> {
        let answer = self.try_it(command).await;
        answer.map_err(|error| fault(&self.address, &name_of(command), &error))
    }

    /// The same, with the server's own error.
    ///
    /// # Errors
    /// The server's, or the connection's.
    pub async fn try_it(&mut self, command: &Cmd) -> Result<Value, RedisError> {
        command.query_async(&mut self.connection).await
    }

    /// The answers to commands that are sent together, in their order.
    ///
    /// # Errors
    /// The first of them, as [`Node::ask`].
    pub async fn ask_all(&mut self, name: &str, commands: &Pipeline) -> Result<Vec<Value>, RedisFault> {
        let answer = commands.query_async(&mut self.connection).await;
        answer.map_err(|error| fault(&self.address, name, &error))
    }

    /// A text.
    ///
    /// # Errors
    /// As [`Node::ask`], or if it is none.
    pub async fn text(&mut self, command: &Cmd) -> Result<String, RedisFault> {
        let answer = self.ask(command).await?;
        text(&answer).ok_or_else(|| self.not_understood(command))
    }

    /// Asks for [`Info`] anew.
    ///
    /// # Errors
    /// As [`Node::ask`]; that the credential may not ask is none.
    pub async fn look(&mut self) -> Result<(), RedisFault> {
        self.info = match self.text(&cmd("INFO")).await {
            Ok(text) => Info::read(&text),
            Err(RedisFault::Refused { .. }) => Info::default(),
            Err(fault) => return Err(fault),
        };
        Ok(())
    }

    pub fn not_understood(&self, command: &Cmd) -> RedisFault {
        RedisFault::Answer { command: name_of(command), at: self.address.clone() }
    }
}

/// A connection of its own to a server that is known, as somebody or as nobody.
///
/// # Errors
/// [`RedisFault`]
pub async fn dial(
    options: &RedisOptions,
    address: &str,
    timeout: Duration,
) -> Result<MultiplexedConnection, RedisFault> {
    let (host, port) = address.rsplit_once(':').unwrap_or((address, "6379"));
    let host = host.trim_start_matches('[').trim_end_matches(']');
    dial_at(options, host, port.parse().unwrap_or(6379), options.password.as_deref(), timeout).await
}

async fn dial_at(
    options: &RedisOptions,
    host: &str,
    port: u16,
    password: Option<&str>,
    timeout: Duration,
) -> Result<MultiplexedConnection, RedisFault> {
    let at = place(host, port);
    let address = match &options.tls {
        None => ConnectionAddr::Tcp(host.to_owned(), port),
        Some(_) => ConnectionAddr::TcpTls { host: host.to_owned(), port, insecure: false, tls_params: None },
    };
    // Without a library name, which a narrow credential may not set: it would be an entry in ACL LOG.
    let mut settings = RedisConnectionInfo::default().set_db(options.db).set_skip_set_lib_name();
    if let Some(password) = password {
        settings = settings.set_password(password);
        if let Some(user) = &options.user {
            settings = settings.set_username(user);
        }
    }
    let failed = |error: RedisError| {
        let why = words(&error);
        if error.kind() == ErrorKind::AuthenticationFailed || matches!(error.code(), Some("WRONGPASS" | "NOAUTH")) {
            let who = options.user.clone().unwrap_or_else(|| "the default user".to_owned());
            return RedisFault::LogIn { at: at.clone(), who, why };
        }
        unanswered(at.clone(), why)
    };
    let info = address.into_connection_info().map_err(failed)?.set_redis_settings(settings);
    let client = match &options.tls {
        None => Client::open(info).map_err(failed)?,
        Some(tls) => {
            let file = |path: &Option<std::path::PathBuf>| match path {
                None => Ok(None),
                Some(path) => std::fs::read(path)
                    .map(Some)
                    .map_err(|error| RedisFault::File { path: path.display().to_string(), why: error.to_string() }),
            };
            let (root_cert, client_cert, client_key) = (file(&tls.ca)?, file(&tls.cert)?, file(&tls.key)?);
            let client_tls = client_cert.zip(client_key);
            let client_tls = client_tls.map(|(client_cert, client_key)| ClientTlsConfig { client_cert, client_key });
            Client::build_with_tls(info, TlsCertificates { client_tls, root_cert }).map_err(failed)?
        }
    };
    let config = AsyncConnectionConfig::new().set_connection_timeout(Some(timeout)).set_response_timeout(Some(timeout));
    client.get_multiplexed_async_connection_with_config(&config).await.map_err(failed)
}

/// A server by host and port, looked at once.
async fn node(options: &RedisOptions, host: &str, port: u16, timeout: Duration) -> Result<Node, RedisFault> {
    let connection = dial_at(options, host, port, options.password.as_deref(), timeout).await?;
    let mut node = Node { address: place(host, port), info: Info::default(), host: host.to_owned(), connection };
    match node.look().await {
        // A server without a credential answers everything so.
        Err(RedisFault::Failed { why, at, .. }) if why.starts_with("NOAUTH") => {
            let who = options.user.clone().unwrap_or_else(|| "the default user".to_owned());
            Err(RedisFault::LogIn { at, who, why })
        }
        looked => looked.map(|()| node),
    }
}

/// The servers that take writes: the one of the address, the Sentinels' current primary, or all of a cluster's.
///
/// # Errors
/// [`RedisFault`] if none answers, or a cluster does not serve every slot.
pub async fn connect(options: &RedisOptions, timeout: Duration) -> Result<Nodes, RedisFault> {
    if options.sentinel.is_some() {
        let node = primary_of(options, timeout).await?;
        return Ok(Nodes { primaries: vec![node], replicas: Vec::new(), silent: Vec::new(), is_cluster: false });
    }
    let mut last = None;
    for (host, port) in &options.hosts {
        match node(options, host, *port, timeout).await {
            Ok(node) if node.info.text("redis_mode") == Some("cluster") => {
                return cluster(options, node, timeout).await;
            }
            Ok(node) => {
                let primaries = vec![node];
                return Ok(Nodes { primaries, replicas: Vec::new(), silent: Vec::new(), is_cluster: false });
            }
            // A wrong password is wrong everywhere.
            Err(fault @ RedisFault::LogIn { .. }) => return Err(fault),
            Err(fault) => last = last.filter(RedisFault::is_distrust).or(Some(fault)),
        }
    }
    Err(last.unwrap_or(RedisFault::Unreachable { at: options.shown(), why: "it names no host".to_owned() }))
}

/// The same with the replicas: what is set on a primary alone (access rules) is not there after a failover.
///
/// # Errors
/// As [`connect`]. A replica that does not answer is told in [`Nodes::silent`].
pub async fn everywhere(options: &RedisOptions, timeout: Duration) -> Result<Nodes, RedisFault> {
    let mut nodes = connect(options, timeout).await?;
    let known: Vec<(String, u16)> = nodes
        .primaries
        .iter()
        .flat_map(|node| node.info.replicas())
        .filter_map(|fields| Some(((*fields.get("ip")?).to_owned(), fields.get("port")?.parse().ok()?)))
        .collect();
    for (host, port) in known {
        match node(options, &host, port, timeout).await {
            Ok(node) => nodes.replicas.push(node),
            Err(fault) => nodes.silent.push((place(&host, port), fault.to_string())),
        }
    }
    Ok(nodes)
}

/// The primary that Sentinels know, if it is one: a Sentinel may still name the one before.
async fn primary_of(options: &RedisOptions, timeout: Duration) -> Result<Node, RedisFault> {
    let sentinel = options.sentinel.as_ref().expect("asked only where there are Sentinels");
    let mut why = "none was asked".to_owned();
    let mut distrust = None;
    for (host, port) in &options.hosts {
        let found = match sentinels_answer(options, sentinel, host, *port, timeout).await {
            Err(fault) if fault.is_distrust() => {
                let why = fault.to_string();
                distrust.get_or_insert(fault);
                Err(why)
            }
            found => found.map_err(|fault| fault.to_string()),
        };
        match found {
            Ok(Some((at, port))) => match node(options, &at, port, timeout).await {
                Ok(node) if node.info.role() == Some(Role::Replica) => {
                    why = format!("{} is a replica now", node.address);
                }
                Ok(node) => return Ok(node),
                Err(fault) if fault.is_distrust() => return Err(fault),
                Err(fault) => why = fault.to_string(),
            },
            Ok(None) => why = format!("{} does not watch that name", place(host, *port)),
            Err(fault) => why = fault,
        }
    }
    // Sentinels that are down would be no failure where a step may go without; one that lets nobody in is.
    if let Some(fault) = distrust {
        return Err(fault);
    }
    let asked = options.hosts.iter().map(|(host, port)| place(host, *port)).collect::<Vec<_>>().join(", ");
    Err(RedisFault::NoPrimary { asked, master: sentinel.master.clone(), why })
}

/// Whom one Sentinel takes for the primary; `None` if it does not watch the name.
async fn sentinels_answer(
    options: &RedisOptions,
    sentinel: &Sentinel,
    host: &str,
    port: u16,
    timeout: Duration,
) -> Result<Option<(String, u16)>, RedisFault> {
    let asked = RedisOptions { user: None, db: 0, ..options.clone() };
    let mut connection = dial_at(&asked, host, port, sentinel.password.as_deref(), timeout).await?;
    let question = cmd("SENTINEL").arg("GET-MASTER-ADDR-BY-NAME").arg(&sentinel.master).to_owned();
    let answer = question.query_async(&mut connection).await;
    answer.map_err(|error: RedisError| match error.code() {
        Some("NOAUTH") => {
            RedisFault::LogIn { at: place(host, port), who: "the default user".to_owned(), why: words(&error) }
        }
        _ => fault(&place(host, port), "SENTINEL", &error),
    })
}

/// All primaries of the cluster that a node belongs to.
async fn cluster(options: &RedisOptions, mut seed: Node, timeout: Duration) -> Result<Nodes, RedisFault> {
    let text = seed.text(cmd("CLUSTER").arg("NODES")).await?;
    let found = Shape::read(&text, &seed.host);
    let not_whole = |why: String| RedisFault::NotWhole { at: seed.address.clone(), why };
    if found.slots < SLOTS {
        return Err(not_whole(format!("{} of {SLOTS} slots are served", found.slots)));
    }
    let mut primaries = Vec::new();
    for (host, port) in &found.primaries {
        let node = node(options, host, *port, timeout).await;
        primaries.push(node.map_err(|fault| match fault {
            fault if fault.is_distrust() => fault,
            fault => not_whole(fault.to_string()),
        })?);
    }
    Ok(Nodes { primaries, replicas: Vec::new(), silent: Vec::new(), is_cluster: true })
}

/// What `CLUSTER NODES` says: <https://redis.io/docs/latest/commands/cluster-nodes/>.
#[derive(Debug, PartialEq, Eq)]
struct Shape {
    primaries: Vec<(String, u16)>,
    /// Served by primaries that are not failing.
    slots: u32,
}

impl Shape {
    /// `own`: the host by which the node that answers was reached, which it may not know.
    fn read(text: &str, own: &str) -> Self {
        let mut shape = Self { primaries: Vec::new(), slots: 0 };
        for line in text.lines() {
            let words: Vec<&str> = line.split_whitespace().collect();
            let [_, address, flags, _, _, _, _, _, slots @ ..] = words.as_slice() else { continue };
            let flags: Vec<&str> = flags.split(',').collect();
            let away = ["fail", "noaddr", "handshake"].iter().any(|flag| flags.contains(flag));
            // ip:port@cport[,hostname]
            let address = address.split(['@', ',']).next().unwrap_or_default();
            let Some((host, port)) = address.rsplit_once(':') else { continue };
            let Ok(port) = port.parse() else { continue };
            if !flags.contains(&"master") || away {
                continue;
            }
            let host = if host.is_empty() { own } else { host };
            shape.primaries.push((host.to_owned(), port));
            // A slot under way to another node stands in brackets, besides its owner's range.
            for range in slots.iter().filter(|range| !range.starts_with('[')) {
                let (first, last) = range.split_once('-').unwrap_or((range, range));
                if let (Ok(first), Ok(last)) = (first.parse::<u32>(), last.parse::<u32>()) {
                    shape.slots += (last + 1).saturating_sub(first);
                }
            }
        }
        shape
    }
}

/// A text of an answer, whatever its form.
pub fn text(value: &Value) -> Option<String> {
    match value {
        Value::BulkString(bytes) => Some(String::from_utf8_lossy(bytes).into_owned()),
        Value::SimpleString(text) | Value::VerbatimString { text, .. } => Some(text.clone()),
        Value::Okay => Some("OK".to_owned()),
        Value::Int(number) => Some(number.to_string()),
        _ => None,
    }
}

/// A whole number of an answer, whatever its form.
pub fn number(value: &Value) -> Option<i64> {
    match value {
        Value::Int(number) => Some(*number),
        other => text(other)?.parse().ok(),
    }
}

/// A server's error in its own words, in one line.
pub fn words(error: &RedisError) -> String {
    let all = match (error.code(), error.detail()) {
        (Some("ERR"), Some(detail)) => detail.to_owned(),
        (Some(code), Some(detail)) => format!("{code} {detail}"),
        _ => error.to_string(),
    };
    all.replace(['\r', '\n'], " ")
}

fn name_of(command: &Cmd) -> String {
    let first = command.args_iter().next();
    match first {
        Some(::redis::Arg::Simple(bytes)) => String::from_utf8_lossy(bytes).to_uppercase(),
        _ => "command".to_owned(),
    }
}

fn fault(at: &str, command: &str, error: &RedisError) -> RedisFault {
    let (at, command, why) = (at.to_owned(), command.to_owned(), words(error));
    if error.code() == Some("NOPERM") {
        return RedisFault::Refused { command, at, why };
    }
    if error.is_io_error() || error.is_timeout() || error.is_connection_dropped() {
        return unanswered(at, why);
    }
    RedisFault::Failed { command, at, why }
}

/// Nobody answered; or somebody did, and one of the two does not trust the other's certificate. The client keeps of the TLS stack's
/// errors the text alone: these words are those of `rustls::Error`.
fn unanswered(at: String, why: String) -> RedisFault {
    if why.contains("invalid peer certificate") || why.contains("received fatal alert") {
        return RedisFault::Tls { at, why };
    }
    RedisFault::Unreachable { at, why }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn primaries_of_a_cluster_and_the_slots_they_serve() {
        let text = "\
07c3 127.0.0.1:30004@31004 slave e7d1 0 1426238317239 4 connected
67ed 127.0.0.1:30002@31002,db2 master - 0 1426238316232 2 connected 5461-10922
292f :30003@31003 myself,master - 0 1426238318243 3 connected 10923-16382 16383 [93-<-292f]
6ec2 127.0.0.1:30005@31005 master,fail - 0 1426238316232 5 connected 0-5460
";
        let shape = Shape::read(text, "cache");
        assert_eq!(shape.primaries, [("127.0.0.1".to_owned(), 30002), ("cache".to_owned(), 30003)]);
        assert_eq!(shape.slots, SLOTS - 5461);
    }

    #[test]
    fn versions_are_compared_as_numbers() {
        let info = Info::read("# Server\r\nredis_version:7.10.2\r\nslave0:ip=a,port=1,lag=0\r\n");
        assert_eq!(info.is_at_least(7, 2), Some(true));
        assert_eq!(info.is_at_least(8, 0), Some(false));
        assert_eq!(info.replicas()[0]["ip"], "a");
        assert_eq!(Info::default().is_at_least(7, 0), None);
    }
}
