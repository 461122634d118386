//! Capabilities of files as people write them (`cap_net_raw+ep`), and as the attribute `security.capability` holds them.
//!
//! Linux: `include/uapi/linux/capability.h` (`vfs_cap_data`), the text as `cap_from_text` of libcap reads it.

use alloc::string::String;
use alloc::vec::Vec;

/// Names without `cap_`, by their numbers.
const NAMES: [&str; 41] = [
    "chown",
    "dac_override",
    "dac_read_search",
    "fowner",
    "fsetid",
    "kill",
    "setgid",
    "setuid",
    "setpcap",
    "linux_immutable",
    "net_bind_service",
    "net_broadcast",
    "net_admin",
    "net_raw",
    "ipc_lock",
    "ipc_owner",
    "sys_module",
    "sys_rawio",
    "sys_chroot",
    "sys_ptrace",
    "sys_pacct",
    "sys_admin",
    "sys_boot",
    "sys_nice",
    "sys_resource",
    "sys_time",
    "sys_tty_config",
    "mknod",
    "lease",
    "audit_write",
    "audit_control",
    "setfcap",
    "mac_override",
    "mac_admin",
    "syslog",
    "wake_alarm",
    "block_suspend",
    "audit_read",
    "perfmon",
    "bpf",
    "checkpoint_restore",
];

/// Revision 2 of the attribute: 64 bits of each set.
const REVISION_2: u32 = 0x0200_0000;
/// All that is permitted is effective when the program starts.
const EFFECTIVE: u32 = 1;
/// Bytes of the attribute in its revisions 1, 2 and 3.
const SIZES: [(u8, usize); 3] = [(1, 12), (2, 20), (3, 24)];

/// The bytes of `security.capability` for a text.
///
/// # Errors
/// What of the text makes no sense, or cannot be said of a file.
pub fn capability_from_text(text: &str) -> Result<Vec<u8>, String> {
    // Effective, inheritable, permitted.
    let mut sets = [0_u64; 3];
    let mut words = 0;
    for word in text.split_whitespace() {
        clause(word, &mut sets)?;
        words += 1;
    }
    let [effective, inheritable, permitted] = sets;
    if words == 0 {
        return Err("names no capability".into());
    }
    let flag = match effective {
        0 => 0,
        // A file has one bit for all of them.
        _ if effective == permitted | inheritable => EFFECTIVE,
        _ => return Err("of a file, all capabilities or none are effective".into()),
    };
    let halves = [permitted, inheritable].map(|set| [set as u32, (set >> 32) as u32]); // both halves of 64 bits
    let mut bytes = (REVISION_2 | flag).to_le_bytes().to_vec();
    for half in 0..2 {
        for set in &halves {
            bytes.extend_from_slice(&set[half].to_le_bytes());
        }
    }
    Ok(bytes)
}

/// One word: names, then operators with letters.
fn clause(word: &str, sets: &mut [u64; 3]) -> Result<(), String> {
    let wrong = |what: &str| Err(alloc::format!("{word:?}: {what}"));
    let Some(cut) = word.find(['=', '+', '-']) else { return wrong("no =, + or - behind the names") };
    let (names, mut rest) = word.split_at(cut);
    let mut mask = 0_u64;
    for name in names.split(',') {
        let name = name.to_ascii_lowercase();
        mask |= match name.as_str() {
            "all" => (1 << NAMES.len()) - 1,
            "" if names.is_empty() && rest.starts_with('=') => (1 << NAMES.len()) - 1,
            name => {
                let number = match name.parse::<u32>() {
                    Ok(number) => Some(number).filter(|&number| number < 64),
                    Err(_) => {
                        let plain = name.strip_prefix("cap_");
                        plain
                            .and_then(|plain| (0..).zip(NAMES).find(|(_, known)| *known == plain))
                            .map(|found| found.0)
                    }
                };
                match number {
                    Some(number) => 1 << number,
                    None => return wrong("there is no such capability"),
                }
            }
        };
    }
    while let Some(operator) = rest.chars().next() {
        rest = &rest[1..];
        let end = rest.find(['=', '+', '-']).unwrap_or(rest.len());
        let (letters, after) = rest.split_at(end);
        rest = after;
        if operator == '=' {
            sets.iter_mut().for_each(|set| *set &= !mask);
        } else if letters.is_empty() {
            return wrong("no e, i or p behind the operator");
        }
        for letter in letters.chars() {
            let Some(which) = "eip".find(letter) else { return wrong("sets are e, i and p") };
            if operator == '-' { sets[which] &= !mask } else { sets[which] |= mask }
        }
    }
    Ok(())
}

/// Whether these are the bytes of a `security.capability` that Linux takes.
#[must_use]
pub fn is_capability(bytes: &[u8]) -> bool {
    let revision = bytes.get(3).copied().unwrap_or_default();
    SIZES.iter().any(|&(known, size)| known == revision && size == bytes.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_are_the_bytes_that_setcap_stores() {
        let raw = |word: u8, permitted: [u8; 4]| {
            let mut bytes = alloc::vec![word, 0, 0, 2];
            bytes.extend(permitted);
            bytes.resize(20, 0);
            bytes
        };
        assert_eq!(capability_from_text("cap_net_raw+ep"), Ok(raw(1, [0, 0x20, 0, 0])));
        assert_eq!(capability_from_text("cap_net_raw=p"), Ok(raw(0, [0, 0x20, 0, 0])));
        assert_eq!(capability_from_text("cap_chown,CAP_KILL=pe"), Ok(raw(1, [0x21, 0, 0, 0])));
        let high = capability_from_text("cap_bpf+p").unwrap();
        assert_eq!(
            (high[12..16].to_vec(), high[4..8].to_vec()),
            (alloc::vec![0x80, 0, 0, 0], alloc::vec![0; 4])
        );
        assert_eq!(capability_from_text("all=eip cap_bpf-eip").unwrap()[0], 1);
        assert!(is_capability(&capability_from_text("cap_setuid+i").unwrap()));
    }

    #[test]
    fn what_makes_no_sense_is_refused() {
        for bad in ["", "cap_net_raw", "cap_net_rwa+ep", "cap_net_raw+x", "cap_net_raw+", "net_raw+p", "99+p"]
        {
            assert!(capability_from_text(bad).is_err(), "{bad:?}");
        }
        assert!(capability_from_text("cap_chown+ep cap_kill+p").is_err(), "one effective bit for all");
        assert!(!is_capability(b"cap_net_raw+ep"));
    }
}
