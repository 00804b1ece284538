//! Who asks the program to stop: a person by Ctrl-C, a supervisor by SIGTERM, a terminal that is gone by SIGHUP.

use pgrunbook_engine::Cancel;
use tokio::signal::unix::{SignalKind, signal};

/// From now on the program is asked to stop, and not ended: Ctrl-C once, after what is under way; twice, that is cancelled.
/// SIGTERM and SIGHUP cancel it at once: their senders do not wait long, and a fence or a pause must not outlive the process.
/// Where `nohup` has SIGHUP ignored, it stays so.
///
/// `told` is called each time, with whether what is under way is cancelled.
pub fn heed(cancel: &Cancel, told: impl Fn(bool) + Clone + Send + 'static) {
    let hangup = (!is_hangup_ignored()).then(SignalKind::hangup);
    let kinds = [(Some(SignalKind::interrupt()), 1), (Some(SignalKind::terminate()), 2), (hangup, 2)];
    for (kind, times) in kinds {
        // A signal that cannot be taken ends the program, as it does without us.
        let Some(Ok(mut comes)) = kind.map(signal) else { continue };
        let (cancel, told) = (cancel.clone(), told.clone());
        tokio::spawn(async move {
            while comes.recv().await.is_some() {
                (0..times).for_each(|_| cancel.ask());
                told(cancel.is_aborting());
            }
        });
    }
}

/// See `proc(5)`: a mask in hexadecimal, whose lowest bit is signal 1. Where there is no such file, a SIGHUP ends the program.
fn is_hangup_ignored() -> bool {
    let Ok(status) = std::fs::read_to_string("/proc/self/status") else { return true };
    let mask = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    mask.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok()).is_none_or(|mask| mask & 1 == 1)
}
