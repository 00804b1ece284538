//! Throwaway Redis servers.

use std::collections::BTreeSet;
use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use redis::{Client, Connection, Value};

/// A server that ends with this value.
pub struct Server {
    /// Without TLS.
    pub port: u16,
    pub tls_port: Option<u16>,
    pub folder: tempfile::TempDir,
    password: Option<String>,
    args: Vec<String>,
    child: Child,
}

/// A port that nobody has now; a cluster's bus takes the one 10,000 above.
pub fn port() -> u16 {
    loop {
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        if port < 50_000 && TcpListener::bind(("127.0.0.1", port + 10_000)).is_ok() {
            return port;
        }
    }
}

/// Waits for a condition, and says what it waited for when it gives up.
pub fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let begin = Instant::now();
    while !holds() {
        assert!(begin.elapsed() < Duration::from_secs(60), "{what}");
        std::thread::yield_now();
        std::thread::park_timeout(Duration::from_millis(20));
    }
}

fn spawn(folder: &Path, args: &[String]) -> Child {
    let log = std::fs::File::options().create(true).append(true).open(folder.join("log")).unwrap();
    Command::new("redis-server")
        .args(args)
        .current_dir(folder)
        .stdin(Stdio::null())
        .stdout(log)
        .stderr(Stdio::null())
        .spawn()
        .expect("redis-server is missing: scripts/need redis-server")
}

impl Server {
    /// In memory alone, on a port of its own, with these further arguments.
    pub fn start(more: &[&str]) -> Self {
        let port = port();
        let folder = tempfile::tempdir().unwrap();
        let fixed = ["--port", &port.to_string(), "--bind", "127.0.0.1", "--save", "", "--appendonly", "no"];
        let args: Vec<String> = fixed.iter().chain(more).map(|argument| (*argument).to_owned()).collect();
        let password = more.iter().skip_while(|argument| **argument != "--requirepass").nth(1);
        let password = password.map(|password| (*password).to_owned());
        let child = spawn(folder.path(), &args);
        let server = Self { port, tls_port: None, folder, password, args, child };
        server.wait();
        server
    }

    /// The same behind TLS too, on another port; what the test itself asks goes without.
    pub fn tls(certificates: &Certificates, more: &[&str]) -> Self {
        let port = port();
        let mut args = vec!["--tls-port".to_owned(), port.to_string()];
        for (name, value) in certificates.options() {
            args.extend([format!("--{name}"), value]);
        }
        let args: Vec<&str> = args.iter().map(String::as_str).chain(more.iter().copied()).collect();
        let mut server = Self::start(&args);
        server.tls_port = Some(port);
        server
    }

    /// A Sentinel of a configuration.
    pub fn sentinel(text: &str) -> Self {
        Self::sentinel_at(port(), text)
    }

    /// The same, on a port that the configuration may speak of.
    pub fn sentinel_at(port: u16, text: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("sentinel.conf");
        std::fs::write(&path, format!("port {port}\nbind 127.0.0.1\n{text}")).unwrap();
        let args = vec![path.display().to_string(), "--sentinel".to_owned()];
        let child = spawn(folder.path(), &args);
        let server = Self { port, tls_port: None, folder, password: None, args, child };
        server.wait();
        server
    }

    fn wait(&self) {
        until("the server takes connections", || TcpStream::connect(("127.0.0.1", self.port)).is_ok());
    }

    pub fn stop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }

    /// The same server as another process.
    pub fn restart(&mut self) {
        self.stop();
        self.child = spawn(self.folder.path(), &self.args);
        self.wait();
    }

    pub fn url(&self) -> String {
        let password = self.password.as_ref().map_or_else(String::new, |password| format!(":{password}@"));
        format!("redis://{password}127.0.0.1:{}/0", self.port)
    }

    pub fn connection(&self) -> Connection {
        Client::open(self.url()).unwrap().get_connection().unwrap()
    }

    /// A command's words and its answer.
    pub fn ask(&self, words: &[&str]) -> Value {
        ask(&mut self.connection(), words).unwrap()
    }

    /// The answer as a text, empty where there is none: who is promoted by a Sentinel has its clients' connections closed.
    pub fn tells(&self, words: &[&str]) -> String {
        let connection = Client::open(self.url()).unwrap().get_connection();
        let answer = connection.and_then(|mut connection| ask(&mut connection, words));
        answer.map_or_else(|_| String::new(), |answer| format!("{answer:?}"))
    }

    pub fn number(&self, words: &[&str]) -> i64 {
        match self.ask(words) {
            Value::Int(number) => number,
            other => panic!("{words:?}: {other:?}"),
        }
    }

    /// Keys `prefix0`, `prefix1`, ... of a text.
    pub fn fill(&self, prefix: &str, count: usize) {
        let mut connection = self.connection();
        for from in (0..count).step_by(10_000) {
            let mut pipe = redis::pipe();
            for number in from..(from + 10_000).min(count) {
                pipe.cmd("SET").arg(format!("{prefix}{number}")).arg("x").ignore();
            }
            pipe.query::<()>(&mut connection).unwrap();
        }
    }
}

/// What an old server answers, of which there is none here: its `INFO`, and that it knows no other command.
pub struct Older {
    pub port: u16,
    /// The commands that it was sent.
    pub asked: Arc<Mutex<BTreeSet<String>>>,
}

impl Older {
    pub fn start(version: &str) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let asked = Arc::new(Mutex::new(BTreeSet::new()));
        let info = format!("# Server\r\nredis_version:{version}\r\nredis_mode:standalone\r\nrole:master\r\n");
        let seen = Arc::clone(&asked);
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let (info, seen) = (info.clone(), Arc::clone(&seen));
                std::thread::spawn(move || answers(stream, &info, &seen));
            }
        });
        Self { port, asked }
    }
}

/// Commands as arrays of bulk strings: <https://redis.io/docs/latest/develop/reference/protocol-spec/>.
fn answers(stream: TcpStream, info: &str, asked: &Mutex<BTreeSet<String>>) -> Option<()> {
    let mut answer = stream.try_clone().ok()?;
    let mut lines = BufReader::new(stream).lines().map_while(Result::ok);
    while let Some(head) = lines.next() {
        let words: usize = head.strip_prefix('*')?.parse().ok()?;
        let command: Vec<String> = lines.by_ref().take(2 * words).skip(1).step_by(2).collect();
        asked.lock().unwrap().insert(command.join(" ").to_uppercase());
        let text = match command.first()?.to_uppercase().as_str() {
            "INFO" => format!("${}\r\n{info}\r\n", info.len()),
            other => format!("-ERR unknown command `{other}`\r\n"),
        };
        answer.write_all(text.as_bytes()).ok()?;
    }
    Some(())
}

/// An authority, and a certificate that it signed.
pub struct Certificates(tempfile::TempDir);

impl Certificates {
    /// Of `localhost` and 127.0.0.1.
    pub fn new() -> Self {
        Self::of("DNS:localhost,IP:127.0.0.1")
    }

    pub fn of(names: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let script = "
            openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 2 -keyout ca.key -out ca.pem -subj /CN=test-ca &&
            openssl req -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -keyout key.pem -out csr.pem -subj /CN=localhost &&
            printf \"subjectAltName=$NAMES\" > ext &&
            openssl x509 -req -in csr.pem -CA ca.pem -CAkey ca.key -CAcreateserial -days 2 -extfile ext -out cert.pem";
        let made =
            Command::new("sh").arg("-c").arg(script).env("NAMES", names).current_dir(folder.path()).output().unwrap();
        assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
        Self(folder)
    }

    /// `ca.pem`, `cert.pem`, `key.pem`.
    pub fn file(&self, name: &str) -> String {
        self.0.path().join(name).display().to_string()
    }

    /// What a server's configuration says of them.
    pub fn options(&self) -> [(&'static str, String); 3] {
        [
            ("tls-cert-file", self.file("cert.pem")),
            ("tls-key-file", self.file("key.pem")),
            ("tls-ca-cert-file", self.file("ca.pem")),
        ]
    }
}

pub fn ask(connection: &mut Connection, words: &[&str]) -> redis::RedisResult<Value> {
    let mut command = redis::cmd(words[0]);
    for word in &words[1..] {
        command.arg(*word);
    }
    command.query(connection)
}

impl Drop for Server {
    fn drop(&mut self) {
        self.stop();
    }
}
