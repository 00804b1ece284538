//! `sslmode` against a server with a certificate of its own.

use std::path::Path;
use std::process::Command;

use pgrunbook_postgres::copy::CopyOut;
use pgrunbook_postgres::options::{HostPort, SslMode, SslOptions};
use pgrunbook_postgres::replication::Replication;
use pgrunbook_postgres::sandbox::{Sandbox, SandboxOptions};
use pgrunbook_postgres::{ConnectOptions, PgError, Session};

/// A certificate for `localhost`, and its key, that the server's user can read.
fn certificate(folder: &Path) {
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

#[tokio::test]
async fn sslmode_means_what_it_means_to_libpq() {
    let sandbox = Sandbox::start(SandboxOptions::default()).await.unwrap();
    let plain = sandbox.options();
    let data = sandbox.folder().join("data");
    certificate(&data);
    let owner = std::fs::metadata(&data).unwrap();
    for file in ["server.key", "server.crt"] {
        let path = data.join(file);
        let mode = if file.ends_with("key") { 0o600 } else { 0o644 };
        std::fs::set_permissions(&path, std::os::unix::fs::PermissionsExt::from_mode(mode)).unwrap();
        use std::os::unix::fs::MetadataExt;
        std::os::unix::fs::chown(&path, Some(owner.uid()), Some(owner.gid())).unwrap();
    }
    // The server's folder is its own: the certificate is copied to where a client may read it.
    let root = tempfile::tempdir().unwrap();
    std::fs::copy(data.join("server.crt"), root.path().join("root.crt")).unwrap();
    let connect = async |host: &str, mode: SslMode, root_cert: bool| {
        let options = ConnectOptions {
            hosts: vec![HostPort { host: host.to_owned(), port: plain.hosts[0].port }],
            ssl: SslOptions { mode, root_cert: root_cert.then(|| root.path().join("root.crt")), cert: None, key: None },
            ..plain.clone()
        };
        const ENCRYPTED: &str = "SELECT ssl FROM pg_stat_ssl WHERE pid = pg_backend_pid()";
        // A replication connection goes the same way.
        let replication = Replication::connect(&options, "tls").await;
        match Session::connect(&options, "tls").await {
            Ok(session) => {
                let encrypted = session.value(ENCRYPTED).await?;
                assert_eq!(replication?.query(ENCRYPTED).await?, [[Some(encrypted.clone())]]);
                // And one that reads rows: more of them than TLS decrypts at once.
                const ROWS: &str =
                    "SELECT ssl, n FROM pg_stat_ssl, generate_series(1, 100000) AS n WHERE pid = pg_backend_pid()";
                let (_, rows) = crate::copy_out::read(CopyOut::connect(&options, "tls").await?, ROWS, 2).await;
                let flag = u8::from(encrypted == "t");
                assert!(rows.len() == 100_000 && rows.iter().all(|row| row[6] == flag), "{}", rows.len());
                Ok(encrypted)
            }
            Err(error) => {
                for other in [replication.err().unwrap(), CopyOut::connect(&options, "tls").await.err().unwrap()] {
                    assert_eq!(std::mem::discriminant(&error), std::mem::discriminant(&other), "{error:?} {other:?}");
                }
                Err(error)
            }
        }
    };
    // A server without TLS.
    assert_eq!(connect("127.0.0.1", SslMode::Prefer, false).await.unwrap(), "f");
    assert!(matches!(connect("127.0.0.1", SslMode::Require, false).await, Err(PgError::Tls { .. })));

    Session::connect(&plain, "tls").await.unwrap().simple("ALTER SYSTEM SET ssl = on").await.unwrap();
    sandbox.stop().unwrap();
    sandbox.restart().unwrap();
    assert_eq!(connect("127.0.0.1", SslMode::Disable, false).await.unwrap(), "f");
    assert_eq!(connect("127.0.0.1", SslMode::Prefer, false).await.unwrap(), "t");
    assert_eq!(connect("127.0.0.1", SslMode::Require, false).await.unwrap(), "t");
    // By name, and by a name that is not the certificate's.
    assert_eq!(connect("localhost", SslMode::VerifyFull, true).await.unwrap(), "t");
    assert_eq!(connect("127.0.0.1", SslMode::VerifyCa, true).await.unwrap(), "t");
    let other = connect("127.0.0.1", SslMode::VerifyFull, true).await.unwrap_err();
    assert!(matches!(&other, PgError::Tls { .. }), "{other:?}");
    let unknown = connect("localhost", SslMode::VerifyFull, false).await.unwrap_err();
    assert!(matches!(&unknown, PgError::Tls { .. }), "{unknown:?}");
}
