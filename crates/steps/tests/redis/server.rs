//! Throwaway Redis servers.

use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use redis::{Client, Connection, Value};

/// A server that ends with this value.
pub struct Server {
    pub port: u16,
    pub folder: tempfile::TempDir,
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
        Self::with(port, &["--port", &port.to_string()], more)
    }

    /// The same with its own arguments for the port.
    pub fn with(port: u16, ports: &[&str], more: &[&str]) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let fixed = ["--bind", "127.0.0.1", "--save", "", "--appendonly", "no"];
        let args: Vec<String> = ports.iter().chain(&fixed).chain(more).map(|argument| (*argument).to_owned()).collect();
        let child = spawn(folder.path(), &args);
        let server = Self { port, folder, args, child };
        server.wait();
        server
    }

    /// A Sentinel of a configuration.
    pub fn sentinel(text: &str) -> Self {
        let (port, folder) = (port(), tempfile::tempdir().unwrap());
        let path = folder.path().join("sentinel.conf");
        std::fs::write(&path, format!("port {port}\nbind 127.0.0.1\n{text}")).unwrap();
        let args = vec![path.display().to_string(), "--sentinel".to_owned()];
        let child = spawn(folder.path(), &args);
        let server = Self { port, folder, args, child };
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
        format!("redis://127.0.0.1:{}/0", self.port)
    }

    pub fn connection(&self) -> Connection {
        Client::open(self.url()).unwrap().get_connection().unwrap()
    }

    /// A command's words and its answer.
    pub fn ask(&self, words: &[&str]) -> Value {
        ask(&mut self.connection(), words).unwrap()
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
