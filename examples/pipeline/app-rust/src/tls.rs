//! TLS to PostgreSQL. Whether it is asked for, `sslmode` says (`disable`, `prefer`, `require`); a server that speaks it must have a
//! certificate that can be checked, for its name.

use std::path::Path;
use std::sync::Arc;

use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use rustls::{ClientConfig, RootCertStore};
use tokio_postgres_rustls::MakeRustlsConnect;

use crate::Failure;

/// The connector. `root` is a file with the authority's certificates (PEM), where the database's own is not one of the system's: Supabase has its
/// own authority, and so has many another.
pub fn connector(root: Option<&Path>) -> Result<MakeRustlsConnect, Failure> {
    let mut roots = RootCertStore::empty();
    match root {
        Some(path) => {
            let unusable =
                |why: &dyn std::fmt::Display| format!("PGSSLROOTCERT: {} cannot be used: {why}", path.display());
            for certificate in CertificateDer::pem_file_iter(path).map_err(|error| unusable(&error))? {
                let certificate = certificate.map_err(|error| unusable(&error))?;
                roots.add(certificate).map_err(|error| unusable(&error))?;
            }
            if roots.is_empty() {
                return Err(unusable(&"it has no certificate").into());
            }
        }
        None => {
            roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
        }
    }
    let config = ClientConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
        .with_safe_default_protocol_versions()?
        .with_root_certificates(roots)
        .with_no_client_auth();
    Ok(MakeRustlsConnect::new(config))
}
