//! Stands for the program that listens to a channel's webhook: prints its address, then each message that comes, and keeps
//! them as lines of JSON.
//!
//! usage: receiver FILE

use std::fs::OpenOptions;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};

/// More than any message of a runbook: whoever sends more is not one.
const LONGEST: usize = 1 << 20;

fn main() -> io::Result<()> {
    let file = std::env::args().nth(1).ok_or_else(|| io::Error::other("usage: receiver FILE"))?;
    let listener = TcpListener::bind("127.0.0.1:0")?;
    println!("http://{}", listener.local_addr()?);
    io::stdout().flush()?;
    for stream in listener.incoming().flatten() {
        // A sender that goes away takes only its own message with it.
        if let Ok((stream, body)) = message(stream) {
            writeln!(OpenOptions::new().create(true).append(true).open(&file)?, "{}", body.replace('\n', " "))?;
            let answered = (&stream).write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: close\r\n\r\n");
            drop(answered);
        }
    }
    Ok(())
}

fn message(stream: TcpStream) -> io::Result<(TcpStream, String)> {
    let mut reader = BufReader::new(stream.try_clone()?);
    let mut length = 0;
    loop {
        let mut line = String::new();
        if reader.read_line(&mut line)? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        if let Some(value) = line.to_ascii_lowercase().strip_prefix("content-length:") {
            length = value.trim().parse().unwrap_or(0);
        }
        if line.trim().is_empty() {
            break;
        }
    }
    let mut body = vec![0; length.min(LONGEST)];
    reader.read_exact(&mut body)?;
    Ok((stream, String::from_utf8_lossy(&body).into_owned()))
}
