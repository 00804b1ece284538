//! Start-up and authentication: cleartext, MD5 and SCRAM-SHA-256.
//!
//! SCRAM without channel binding: the connector does not show the certificate. The password is proven, never sent.

use bytes::{Bytes, BytesMut};
use postgres_protocol::authentication::md5_hash;
use postgres_protocol::authentication::sasl::{ChannelBinding, SCRAM_SHA_256, ScramSha256};
use postgres_protocol::message::frontend;

use super::{BackendKey, Message, Purpose, Wire, fields};
use crate::error::PgError;
use crate::options::ConnectOptions;
use crate::session::shortened;

/// One form of every value, whatever the server, the database and the role are set to. A pooler takes none of them at the start-up,
/// so whoever may be behind one sets them in its transaction.
const ONE_FORM: [(&str, &str); 4] =
    [("DateStyle", "ISO"), ("IntervalStyle", "postgres"), ("extra_float_digits", "3"), ("bytea_output", "hex")];

/// What the server told at start-up.
pub(super) struct Greeting {
    pub key: BackendKey,
    /// The major version.
    pub server_version: u32,
}

/// Logs in to the options' database.
pub(super) async fn log_in(
    wire: &mut Wire,
    options: &ConnectOptions,
    name: &str,
    purpose: Purpose,
) -> Result<Greeting, PgError> {
    let mut parameters = vec![
        ("user", options.user.as_str()),
        ("database", options.database.as_str()),
        ("application_name", shortened(name)),
        ("client_encoding", "UTF8"),
    ];
    if purpose == Purpose::Replication {
        parameters.push(("replication", "database"));
        parameters.extend(ONE_FORM);
    }
    if let Some(settings) = &options.options {
        parameters.push(("options", settings));
    }
    let mut buffer = BytesMut::new();
    let nul = |_| PgError::Options("a connection parameter holds a NUL byte".to_owned());
    frontend::startup_message(parameters, &mut buffer).map_err(nul)?;
    wire.send(&buffer).await?;
    authenticate(wire, options).await?;
    let mut greeting = Greeting { key: BackendKey::new(0, 0), server_version: 0 };
    loop {
        let message = answer(wire).await?;
        match message.tag {
            b'S' => {
                let mut texts = message.body.split(|byte| *byte == 0);
                if texts.next() == Some(b"server_version") {
                    let version = String::from_utf8_lossy(texts.next().unwrap_or_default()).into_owned();
                    let digits = version.split(|c: char| !c.is_ascii_digit()).next().unwrap_or_default();
                    greeting.server_version = digits.parse().unwrap_or(0);
                }
            }
            b'K' => {
                let Some((pid, secret)) = message.body.split_first_chunk::<4>() else {
                    return Err(wire.unexpected("the backend's key is malformed"));
                };
                let secret = secret.try_into().map_or(0, i32::from_be_bytes);
                greeting.key = BackendKey::new(i32::from_be_bytes(*pid), secret);
            }
            b'Z' => return Ok(greeting),
            tag => return Err(wire.unexpected_tag(tag, "the start-up")),
        }
    }
}

/// The next message that is no notice. An error here is a refusal.
async fn answer(wire: &mut Wire) -> Result<Message, PgError> {
    loop {
        let message = wire.next().await.map_err(|error| match error {
            PgError::Lost { address, why } => PgError::Unreachable { address, why },
            other => other,
        })?;
        match message.tag {
            b'E' => {
                let error = Box::new(fields(&message.body));
                return Err(PgError::Refused { address: wire.address.clone(), error });
            }
            b'N' => {}
            _ => return Ok(message),
        }
    }
}

/// The next authentication message: its number and the rest.
async fn challenge(wire: &mut Wire) -> Result<(u32, Bytes), PgError> {
    let message = answer(wire).await?;
    match (message.tag, message.body.first_chunk::<4>()) {
        (b'R', Some(number)) => Ok((u32::from_be_bytes(*number), message.body.slice(4..))),
        (tag, _) => Err(wire.unexpected_tag(tag, "the start-up")),
    }
}

async fn authenticate(wire: &mut Wire, options: &ConnectOptions) -> Result<(), PgError> {
    let (number, body) = challenge(wire).await?;
    if number == 0 {
        return Ok(());
    }
    let Some(password) = &options.password else {
        let address = wire.address.clone();
        return Err(PgError::Unreachable {
            address,
            why: "the server asks for a password, and none is set".to_owned(),
        });
    };
    let mut buffer = BytesMut::new();
    let nul = |_| PgError::Options("the password holds a NUL byte".to_owned());
    match number {
        3 => frontend::password_message(password.as_bytes(), &mut buffer).map_err(nul)?,
        5 => {
            let Some(salt) = body.first_chunk::<4>() else { return Err(wire.unexpected("the salt is malformed")) };
            let hash = md5_hash(options.user.as_bytes(), password.as_bytes(), *salt);
            frontend::password_message(hash.as_bytes(), &mut buffer).map_err(nul)?;
        }
        10 => {
            scram(wire, password, &body).await?;
            return accepted(wire).await;
        }
        other => {
            let address = wire.address.clone();
            let why = format!("the server asks for authentication method {other}, which is not spoken here");
            return Err(PgError::Unreachable { address, why });
        }
    }
    wire.send(&buffer).await?;
    accepted(wire).await
}

async fn accepted(wire: &mut Wire) -> Result<(), PgError> {
    match challenge(wire).await? {
        (0, _) => Ok(()),
        (other, _) => Err(wire.unexpected(&format!("authentication message {other} where it should be over"))),
    }
}

/// RFC 5802 and 7677.
async fn scram(wire: &mut Wire, password: &str, mechanisms: &Bytes) -> Result<(), PgError> {
    if !mechanisms.split(|byte| *byte == 0).any(|name| name == SCRAM_SHA_256.as_bytes()) {
        return Err(wire.unexpected("it offers no SASL mechanism that is spoken here"));
    }
    let failed = |wire: &Wire, error: std::io::Error| PgError::Client(format!("log-in to {}: {error}", wire.address));
    let mut scram = ScramSha256::new(password.as_bytes(), ChannelBinding::unsupported());
    let mut buffer = BytesMut::new();
    frontend::sasl_initial_response(SCRAM_SHA_256, scram.message(), &mut buffer)
        .map_err(|error| failed(wire, error))?;
    wire.send(&buffer).await?;
    let (11, body) = challenge(wire).await? else {
        return Err(wire.unexpected("SCRAM goes on otherwise than it must"));
    };
    scram.update(&body).map_err(|error| failed(wire, error))?;
    buffer.clear();
    frontend::sasl_response(scram.message(), &mut buffer).map_err(|error| failed(wire, error))?;
    wire.send(&buffer).await?;
    let (12, body) = challenge(wire).await? else { return Err(wire.unexpected("SCRAM ends otherwise than it must")) };
    // Also the server must prove that it knows the password.
    scram.finish(&body).map_err(|error| failed(wire, error))
}
