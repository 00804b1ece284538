//! What was answered since the server started, in Prometheus' text format
//! (<https://prometheus.io/docs/instrumenting/exposition_formats/>).

use std::collections::BTreeMap;
use std::fmt::Write;
use std::sync::{Mutex, PoisonError};

/// Counters. Names of targets come from the project and outcomes from the guard: whoever asks cannot make up new ones.
#[derive(Debug, Default)]
pub struct Metrics {
    /// By environment, target and outcome.
    checks: Mutex<BTreeMap<(String, String, &'static str), u64>>,
    /// Requests that asked for nothing that can be checked.
    unclear: std::sync::atomic::AtomicU64,
}

impl Metrics {
    pub fn checked(&self, environment: &str, target: &str, outcome: &'static str) {
        let mut checks = self.checks.lock().unwrap_or_else(PoisonError::into_inner);
        *checks.entry((environment.to_owned(), target.to_owned(), outcome)).or_default() += 1;
    }

    pub fn unclear(&self) {
        self.unclear.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
    }

    /// The text for `/metrics`. `bypassed`: whether every check is skipped.
    pub fn prometheus(&self, bypassed: bool) -> String {
        let mut text = String::from(
            "# HELP pgrunbook_guard_checks_total Checks that were answered, by what they came to.\n\
             # TYPE pgrunbook_guard_checks_total counter\n",
        );
        for ((environment, target, outcome), count) in &*self.checks.lock().unwrap_or_else(PoisonError::into_inner) {
            let (environment, target) = (label(environment), label(target));
            let _ = writeln!(
                text,
                "pgrunbook_guard_checks_total{{environment=\"{environment}\",target=\"{target}\",outcome=\"{outcome}\"}} {count}"
            );
        }
        let unclear = self.unclear.load(std::sync::atomic::Ordering::Relaxed);
        let _ = write!(
            text,
            "# HELP pgrunbook_guard_bad_requests_total Requests without a version, or for a target that there is not.\n\
             # TYPE pgrunbook_guard_bad_requests_total counter\n\
             pgrunbook_guard_bad_requests_total {unclear}\n\
             # HELP pgrunbook_guard_bypassed 1 if SKIP_SCHEMA_GUARD skips every check.\n\
             # TYPE pgrunbook_guard_bypassed gauge\n\
             pgrunbook_guard_bypassed {}\n",
            u8::from(bypassed)
        );
        text
    }
}

/// A label's value: backslash, quote and line feed are escaped.
fn label(value: &str) -> String {
    value.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_by_outcome_and_escapes_names() {
        let metrics = Metrics::default();
        metrics.checked("a\"b", "main", "equal");
        metrics.checked("a\"b", "main", "equal");
        metrics.checked("a\"b", "main", "unreachable");
        metrics.unclear();
        let text = metrics.prometheus(true);
        for line in [
            "pgrunbook_guard_checks_total{environment=\"a\\\"b\",target=\"main\",outcome=\"equal\"} 2",
            "pgrunbook_guard_checks_total{environment=\"a\\\"b\",target=\"main\",outcome=\"unreachable\"} 1",
            "pgrunbook_guard_bad_requests_total 1",
            "pgrunbook_guard_bypassed 1",
        ] {
            assert!(text.lines().any(|one| one == line), "{line} is not in\n{text}");
        }
    }
}
