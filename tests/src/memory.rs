//! The memory of a process, as Linux tells it.

/// KiB in a field of a process's status: `VmHWM` is the most that it has had in memory. `None` where the system does not
/// tell, as outside Linux.
pub fn of(process: u32, field: &str) -> Option<u64> {
    let status = std::fs::read_to_string(format!("/proc/{process}/status")).ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix(field)?.strip_prefix(':'))?;
    line.trim().strip_suffix(" kB")?.parse().ok()
}
