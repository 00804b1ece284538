//! Whether a process that left its mark (the holder of a lease, the owner of a sandbox) still lives, on this host.

use rustix::process::{Pid, test_kill_process};

/// What tells a process from a later one with the same number: boot and start time. `None` where `/proc` is not.
pub fn mark(pid: u32) -> Option<String> {
    let boot = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").ok()?;
    let stat = Stat::of(pid)?;
    Some(format!("{} {}", boot.trim(), stat.start))
}

/// Whether the process lives. A zombie does not; nor does another process that got the number after it.
pub fn lives(pid: u32, marked: Option<&str>) -> bool {
    let Some(id) = i32::try_from(pid).ok().and_then(Pid::from_raw) else { return false };
    // EPERM: it is there and belongs to somebody else.
    if test_kill_process(id) == Err(rustix::io::Errno::SRCH) {
        return false;
    }
    if Stat::of(pid).is_some_and(|stat| matches!(stat.state, 'Z' | 'X')) {
        return false;
    }
    match (marked, mark(pid)) {
        (Some(then), Some(now)) => then == now,
        _ => true,
    }
}

/// Fields 3 and 22 of `/proc/<pid>/stat` (proc_pid_stat(5)).
struct Stat {
    state: char,
    start: u64,
}

impl Stat {
    fn of(pid: u32) -> Option<Self> {
        let text = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
        // The second field is the command in parentheses and may hold anything, also parentheses and spaces.
        let mut fields = text.rsplit_once(')')?.1.split_whitespace();
        Some(Self { state: fields.next()?.chars().next()?, start: fields.nth(18)?.parse().ok()? })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn own_process_lives_and_another_start_time_does_not() {
        let own = std::process::id();
        let marked = mark(own);
        assert!(lives(own, marked.as_deref()));
        assert!(!lives(own, Some("another boot 1")));
    }

    #[test]
    fn process_that_ended_is_dead_before_and_after_it_is_reaped() {
        let mut child = std::process::Command::new("true").spawn().unwrap();
        let pid = child.id();
        let deadline = std::time::Instant::now() + std::time::Duration::from_secs(10);
        while lives(pid, None) {
            assert!(std::time::Instant::now() < deadline, "the zombie still counts as alive");
            std::thread::yield_now();
        }
        child.wait().unwrap();
        assert!(!lives(pid, None));
    }
}
