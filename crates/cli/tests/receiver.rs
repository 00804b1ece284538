//! Receivers of messages: an HTTP server and a mail server that keep what they were told.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::process::Command;
use std::sync::{Arc, Mutex};

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ServerConfig, ServerConnection, StreamOwned};

/// A server that answers every request with 200, or as it was told, and keeps them. `/login`, where it sends whom it redirects,
/// is always there.
pub struct Http {
    pub base: String,
    asked: Arc<Mutex<Vec<String>>>,
    status: Arc<Mutex<u16>>,
}

pub fn http() -> Http {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let base = format!("http://{}", listener.local_addr().unwrap());
    let (asked, status) = (Arc::new(Mutex::new(Vec::new())), Arc::new(Mutex::new(200)));
    let (kept, answered) = (Arc::clone(&asked), Arc::clone(&status));
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            // Whoever asks may be killed in between.
            let Some((stream, request)) = request(stream) else { continue };
            let status = if request.starts_with("GET /login ") { 200 } else { *answered.lock().unwrap() };
            kept.lock().unwrap().push(request);
            let answer =
                format!("HTTP/1.1 {status} X\r\nLocation: /login\r\nContent-Length: 0\r\nConnection: close\r\n\r\n");
            let _ = (&stream).write_all(answer.as_bytes());
        }
    });
    Http { base, asked, status }
}

fn request(stream: TcpStream) -> Option<(TcpStream, String)> {
    let mut reader = BufReader::new(stream.try_clone().ok()?);
    let (mut head, mut length) = (String::new(), 0);
    loop {
        let mut line = String::new();
        if reader.read_line(&mut line).ok()? == 0 {
            return None;
        }
        if let Some(value) = line.to_lowercase().strip_prefix("content-length:") {
            length = value.trim().parse().ok()?;
        }
        head.push_str(&line);
        if line.trim().is_empty() {
            break;
        }
    }
    let mut body = vec![0; length];
    reader.read_exact(&mut body).ok()?;
    Some((stream, format!("{head}{}", String::from_utf8_lossy(&body))))
}

impl Http {
    pub fn answer(&self, status: u16) {
        *self.status.lock().unwrap() = status;
    }

    /// Heads and bodies, in order.
    pub fn asked(&self) -> Vec<String> {
        self.asked.lock().unwrap().clone()
    }

    /// The keys of what came, in order.
    pub fn keys(&self) -> Vec<String> {
        let key = |asked: &String| {
            asked.lines().find_map(|line| line.strip_prefix("idempotency-key: ").map(|key| key.trim().to_owned()))
        };
        self.asked().iter().map(|asked| key(asked).unwrap()).collect()
    }
}

/// How a mail server encrypts.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Tls {
    Never,
    Upgraded,
    FirstByte,
}

/// A mail server that keeps every line it is told, and takes every mail but to `nobody@...`.
pub struct Smtp {
    pub address: String,
    told: Arc<Mutex<Vec<String>>>,
}

/// A certificate of `localhost`, and its key: `server.crt` and `server.key`.
pub fn certificate(folder: &Path) {
    let made = Command::new("openssl")
        .args(["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2"])
        .args(["-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost"])
        .args(["-addext", "basicConstraints=critical,CA:FALSE"])
        .arg("-keyout")
        .arg(folder.join("server.key"))
        .arg("-out")
        .arg(folder.join("server.crt"))
        .output()
        .unwrap();
    assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
}

/// `folder` holds what [`certificate`] made, if it encrypts.
pub fn smtp(tls: Tls, folder: &Path) -> Smtp {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = format!("localhost:{}", listener.local_addr().unwrap().port());
    let told = Arc::new(Mutex::new(Vec::new()));
    let config = (tls != Tls::Never).then(|| {
        let certificate = CertificateDer::from_pem_file(folder.join("server.crt")).unwrap();
        let key = PrivateKeyDer::from_pem_file(folder.join("server.key")).unwrap();
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
        Arc::new(config.with_no_client_auth().with_single_cert(vec![certificate], key).unwrap())
    });
    let kept = Arc::clone(&told);
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let encrypted = |stream| StreamOwned::new(ServerConnection::new(config.clone().unwrap()).unwrap(), stream);
            // A client that goes away, or does not trust the certificate, ends its conversation only.
            let _ = match tls {
                Tls::FirstByte => speak(&mut encrypted(stream), true, false, &kept).map(drop),
                _ => match speak(&mut &stream, true, tls == Tls::Upgraded, &kept) {
                    Ok(true) => speak(&mut encrypted(stream), false, false, &kept).map(drop),
                    ended => ended.map(drop),
                },
            };
        }
    });
    Smtp { address, told }
}

/// A line, read byte by byte: what follows STARTTLS is not ours to read.
fn line(stream: &mut impl Read) -> std::io::Result<String> {
    let mut text = Vec::new();
    let mut byte = [0];
    loop {
        stream.read_exact(&mut byte)?;
        text.push(byte[0]);
        if byte[0] == b'\n' {
            return Ok(String::from_utf8_lossy(&text).trim_end().to_owned());
        }
    }
}

/// Speaks RFC 5321 as far as a client needs it. `true`: STARTTLS was asked for.
fn speak(
    stream: &mut (impl Read + Write),
    greet: bool,
    starttls: bool,
    told: &Mutex<Vec<String>>,
) -> std::io::Result<bool> {
    if greet {
        stream.write_all(b"220 localhost\r\n")?;
    }
    loop {
        let said = line(stream)?;
        told.lock().unwrap().push(said.clone());
        let verb = said.split([' ', ':']).next().unwrap_or_default().to_uppercase();
        match verb.as_str() {
            "EHLO" if starttls => stream.write_all(b"250-localhost\r\n250 STARTTLS\r\n")?,
            "EHLO" => stream.write_all(b"250-localhost\r\n250 AUTH PLAIN LOGIN\r\n")?,
            "STARTTLS" => {
                stream.write_all(b"220 go ahead\r\n")?;
                return Ok(true);
            }
            "AUTH" => stream.write_all(b"235 welcome\r\n")?,
            "RCPT" if said.contains("nobody@") => stream.write_all(b"550 no such mailbox\r\n")?,
            "DATA" => {
                stream.write_all(b"354 go on\r\n")?;
                loop {
                    let said = line(stream)?;
                    if said == "." {
                        break;
                    }
                    told.lock().unwrap().push(said);
                }
                stream.write_all(b"250 taken\r\n")?;
            }
            "QUIT" => {
                stream.write_all(b"221 bye\r\n")?;
                return Ok(false);
            }
            _ => stream.write_all(b"250 ok\r\n")?,
        }
    }
}

impl Smtp {
    /// Every line that came, in order: commands and mails.
    pub fn told(&self) -> Vec<String> {
        self.told.lock().unwrap().clone()
    }
}
