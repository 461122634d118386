//! What the kernel says of a range as a whole: /proc/self/smaps.

use std::fs;
use std::io;

/// The sums of what /proc/self/smaps says of the mappings in a range.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct HostView {
    /// Mappings (VMAs) in the range.
    pub mappings: u64,
    /// Bytes that are mapped, zero pages left out.
    pub resident: u64,
    /// Of those, bytes that a page of 2 MiB of a tmpfs maps.
    pub shmem_huge: u64,
    /// Bytes that a page of 2 MiB of another file system maps.
    pub file_huge: u64,
    /// Bytes of private pages.
    pub anonymous: u64,
}

impl HostView {
    /// Bytes of a file that translations of 2 MiB map.
    #[must_use]
    pub fn huge(&self) -> u64 {
        self.shmem_huge + self.file_huge
    }

    /// What lies in `start..end`.
    pub(super) fn of(start: u64, end: u64) -> io::Result<Self> {
        let text = fs::read_to_string("/proc/self/smaps")?;
        Ok(Self::parse(&text, start, end))
    }

    fn parse(text: &str, start: u64, end: u64) -> Self {
        let mut view = Self::default();
        let mut inside = false;
        for line in text.lines() {
            if let Some((first, last)) = range(line) {
                inside = first >= start && last <= end;
                view.mappings += u64::from(inside);
                continue;
            }
            let Some((name, value)) = line.split_once(':').filter(|_| inside) else { continue };
            let kibibytes = value.split_whitespace().next().and_then(|word| word.parse::<u64>().ok());
            let bytes = kibibytes.unwrap_or(0) << 10;
            match name {
                "Rss" => view.resident += bytes,
                "ShmemPmdMapped" => view.shmem_huge += bytes,
                "FilePmdMapped" => view.file_huge += bytes,
                "Anonymous" => view.anonymous += bytes,
                _ => {}
            }
        }
        view
    }
}

/// The range in the first line of a mapping.
fn range(line: &str) -> Option<(u64, u64)> {
    let (first, last) = line.split_whitespace().next()?.split_once('-')?;
    Some((u64::from_str_radix(first, 16).ok()?, u64::from_str_radix(last, 16).ok()?))
}

/// Whether the kernel gives anonymous memory that asks for it zero pages of 2 MiB.
#[must_use]
pub fn huge_zero_page() -> bool {
    let setting = |name| fs::read_to_string(format!("/sys/kernel/mm/transparent_hugepage/{name}"));
    let enabled = setting("enabled").is_ok_and(|text| !text.contains("[never]"));
    enabled && setting("use_zero_page").is_ok_and(|text| text.trim() == "1")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_mappings_inside_the_range_count() {
        let text = "7f0000000000-7f0000200000 rw-s 0 00:1a 5 /a b\nRss: 2048 kB\nShmemPmdMapped: 2048 kB\n\
                    7f0000200000-7f0000201000 rw-p 0 00:00 0\nRss: 4 kB\nAnonymous: 4 kB\n\
                    7f0000400000-7f0000401000 rw-p 0 00:00 0\nRss: 4 kB\n";
        let view = HostView::parse(text, 0x7f00_0000_0000, 0x7f00_0040_0000);
        assert_eq!(
            (view.mappings, view.resident, view.huge(), view.anonymous),
            (2, 2052 << 10, 2 << 20, 4096)
        );
    }
}
