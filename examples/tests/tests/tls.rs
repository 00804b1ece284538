//! The pipeline's Rust service and a database that wants TLS, with a certificate of its own authority.

use std::io::{BufRead, BufReader};
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown};
use std::path::Path;
use std::process::{Command, Stdio};

use crate::pipeline::{get, until};
use crate::project::Project;
use crate::workflows::said;

/// A certificate of nobody but itself for these names, and its key.
fn certificate(folder: &Path, name: &str, names: &str) {
    let output = Command::new("openssl")
        .args(["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2"])
        .args(["-subj", "/CN=database", "-addext", &format!("subjectAltName={names}")])
        .args(["-addext", "basicConstraints=critical,CA:FALSE", "-keyout", &format!("{name}.key")])
        .args(["-out", &format!("{name}.crt")])
        .current_dir(folder)
        .output()
        .expect("openssl is missing: scripts/need openssl");
    said(&output, 0);
}

#[test]
fn readers_service_starts_on_a_certificate_that_it_can_check() {
    let project = Project::new("pipeline", "tls", "staging", "STAGING_DATABASE_URL", &[]);
    for file in ["supabase-roles", "as-it-was"] {
        let file = format!("scripts/{file}.sql");
        let psql = ["-X", "-q", "-v", "ON_ERROR_STOP=1", "-d", &project.url, "-f", &file];
        said(&project.program(Path::new("psql"), &psql, &[]), 0);
    }
    project.sql("ALTER ROLE bot_app PASSWORD 'pw-of-the-bot'");
    let at = project.url.find('@').unwrap();
    let place = project.url[at..].split('?').next().unwrap();
    let url = format!("postgres://bot_app:pw-of-the-bot{place}?sslmode=require");
    let variables = [("APP_ENV", "staging"), ("APP_SCHEMA_VERSION", "1.0.0"), ("PORT", "0"), ("DATABASE_URL", &url)];
    let service = project.folder_of_programs().join("pipeline-api");
    let refused = |root: &str| {
        let variables = [&variables[..], &[("PGSSLROOTCERT", root)]].concat();
        said(&project.program(&service, &[], &variables), 1)
    };
    assert!(refused("").contains("not started: "), "the server has no TLS");

    // Both are for this address; the other is of somebody else.
    certificate(&project.folder, "server", "IP:127.0.0.1");
    certificate(&project.folder, "other", "IP:127.0.0.1");
    let data = project.sql("SHOW data_directory");
    let owner = std::fs::metadata(&data).unwrap();
    for (file, mode) in [("server.key", 0o600), ("server.crt", 0o644)] {
        let to = Path::new(&data).join(file);
        std::fs::copy(project.folder.join(file), &to).unwrap();
        std::fs::set_permissions(&to, std::fs::Permissions::from_mode(mode)).unwrap();
        chown(&to, Some(owner.uid()), Some(owner.gid())).unwrap();
    }
    project.sql("ALTER SYSTEM SET ssl = on");
    project.sql("SELECT pg_reload_conf()");
    until("the server speaks TLS", || project.sql("SHOW ssl") == "on");

    for root in ["", "other.crt"] {
        let said = refused(root);
        assert!(said.contains("not started: ") && said.contains("certificate"), "{root}: {said}");
    }
    assert!(refused("server.key").contains("PGSSLROOTCERT: server.key cannot be used"), "{}", refused("server.key"));
    assert!(refused("none.crt").contains("PGSSLROOTCERT: none.crt cannot be used"), "{}", refused("none.crt"));

    // The bot's psql: encrypted in any case, checked once the authority is named.
    let bot = |root: &str, code: i32| {
        let ask = "require('./app-node/src/sql.js').sql(process.env.DATABASE_URL, 'SELECT ssl FROM pg_stat_ssl WHERE pid = pg_backend_pid()')
            .then((rows) => console.log('ssl:', rows[0][0]))";
        said(
            &project.program(Path::new("node"), &["-e", ask], &[("DATABASE_URL", &url), ("PGSSLROOTCERT", root)]),
            code,
        )
    };
    assert_eq!((bot("", 0), bot("server.crt", 0)), ("ssl: t\n".to_owned(), "ssl: t\n".to_owned()));
    assert!(bot("other.crt", 1).contains("certificate verify failed"), "{}", bot("other.crt", 1));

    let mut running = Command::new(&service)
        .envs(variables)
        .env("PGSSLROOTCERT", "server.crt")
        .current_dir(&project.folder)
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut line = String::new();
    BufReader::new(running.stdout.take().unwrap()).read_line(&mut line).unwrap();
    let port = line.split([':', ',']).nth(1).and_then(|port| port.trim().parse().ok());
    let health = port.map(|port| get(port, "/health"));
    let encrypted = "SELECT count(*) > 0 AND bool_and(ssl) FROM pg_stat_ssl JOIN pg_stat_activity USING (pid) WHERE usename = 'bot_app'";
    let encrypted = project.sql(encrypted);
    running.kill().unwrap();
    running.wait().unwrap();
    assert_eq!(health.unwrap_or_else(|| panic!("{line}")).1["status"], "ok");
    assert_eq!(encrypted, "t");
}
