//! Attributes: what `stat` tells and `chmod`, `chown`, `truncate` and `utimensat` change.

use std::ops::Range;

use ext2_core::Clock as _;
use ext2_core::plumbing::Plumbing as _;
use ext2_core::{Attr, DeviceNr, FileKind, Inode, InodeFlags, SetAttr, Timestamp, Wait};
use rustix::io::Errno;

use super::xattr::CAPABILITY;
use super::{Caller, Volume};
use crate::clock::CoarseClock;
use crate::nodes::Node;
use crate::options::Atime;
use crate::reply::Reply;
use crate::wire;

/// Seconds after which an access time is brought up to date in any case.
const DAY: i64 = 24 * 60 * 60;

/// Linux: `CAP_SYS_ADMIN`.
const CAP_SYS_ADMIN: u32 = 21;

/// What a time is to be.
#[derive(Clone, Copy, Debug)]
pub(crate) enum SetTime {
    Now,
    To(Timestamp),
}

/// What a setattr asks for.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Change {
    pub(crate) mode: Option<u32>,
    pub(crate) uid: Option<u32>,
    pub(crate) gid: Option<u32>,
    pub(crate) size: Option<u64>,
    pub(crate) atime: Option<SetTime>,
    pub(crate) mtime: Option<SetTime>,
    pub(crate) ctime: Option<Timestamp>,
    /// The caller may not keep set-id bits.
    pub(crate) takes_ids: bool,
}

/// What a change does with the times, as far as an append-only file suffers it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Touch {
    /// Sets both to now (Linux: `ATTR_TOUCH`).
    Both,
    /// Tells when the contents were changed, by a kernel that keeps that time while it gathers writes.
    Written,
    /// Asks for nothing, but perhaps for a time of change: a chown that changes no owner, or what comes before a write.
    Nothing,
    /// Something else.
    Other,
}

impl Change {
    fn touches(&self) -> Touch {
        if self.mode.is_some() || self.uid.is_some() || self.gid.is_some() || self.size.is_some() {
            return Touch::Other;
        }
        // A kernel that keeps the times of files sends its own, the same for both, in place of now.
        let is_kept = matches!((self.mtime, self.ctime), (Some(SetTime::To(m)), Some(c)) if m == c);
        match (self.atime, self.mtime) {
            (Some(SetTime::Now), Some(SetTime::Now)) => Touch::Both,
            (Some(SetTime::Now), _) if is_kept => Touch::Both,
            (None, _) if is_kept => Touch::Written,
            (None, None) => Touch::Nothing,
            _ => Touch::Other,
        }
    }
}

/// Whether reading brings the access time up to date. Linux: `relatime_need_update`.
fn is_due(policy: Atime, attr: &Attr, now: Timestamp) -> bool {
    match policy {
        Atime::Never => false,
        Atime::RelativeFiles if attr.kind == FileKind::Directory => false,
        Atime::Always => true,
        Atime::Relative | Atime::RelativeFiles => {
            attr.atime <= attr.mtime || attr.atime <= attr.ctime || now.sec - attr.atime.sec >= DAY
        }
    }
}

impl Volume {
    /// The attributes as the protocol has them.
    pub(crate) fn attr(&self, inode: &Inode) -> wire::Attr {
        let attr = inode.attr();
        wire::Attr {
            ino: attr.nr.get().into(),
            size: attr.size,
            blocks: attr.blocks_512.into(),
            atime: attr.atime,
            mtime: attr.mtime,
            ctime: attr.ctime,
            btime: attr.crtime,
            mode: u32::from(attr.kind.mode_bits() | attr.mode),
            links: attr.links.into(),
            uid: self.options.uid.unwrap_or(attr.uid),
            gid: self.options.gid.unwrap_or(attr.gid),
            device: attr.device.unwrap_or(DeviceNr { major: 0, minor: 0 }),
            block_size: u32::try_from(self.fs.geometry().block_size.bytes()).unwrap_or(4096),
        }
    }

    /// Whether a read would change the access time.
    pub(super) fn atime_is_due(&self, inode: &Inode) -> bool {
        !self.options.read_only && is_due(self.options.atime, &inode.attr(), CoarseClock.now())
    }

    /// The contents are being read. Linux: `file_accessed`.
    pub(crate) fn accessed(&self, inode: &Inode, read: wire::Read) {
        if !read.keeps_atime {
            self.touch_atime(inode);
        }
    }

    /// The contents were read, by whoever wants that to be known.
    pub(super) fn touch_atime(&self, inode: &Inode) {
        if self.atime_is_due(inode) {
            inode.touch_accessed();
        }
    }

    /// A time that the image can hold. Linux: `timestamp_truncate`.
    fn fit(&self, time: Timestamp) -> Timestamp {
        let whole = self.has_whole_seconds();
        let last = if whole { i64::from(i32::MAX) } else { Timestamp::MAX_SEC };
        let sec = time.sec.clamp(i64::from(i32::MIN), last);
        Timestamp { sec, nsec: if whole || sec != time.sec { 0 } else { time.nsec } }
    }

    fn time(&self, asked: Option<SetTime>) -> Option<Timestamp> {
        asked.map(|asked| {
            self.fit(match asked {
                SetTime::Now => CoarseClock.now(),
                SetTime::To(time) => time,
            })
        })
    }

    /// Changes attributes. The kernel has checked who may. Linux: `ext2_setattr`.
    pub(crate) fn set_attr(&self, number: u64, change: &Change, caller: Caller) -> Reply<wire::Attr> {
        let node = self.node(number)?;
        let inode = &node.inode;
        let mode = inode.attr().mode;
        if let Some(size) = change.size {
            let before = inode.size();
            inode.truncate(size, Wait::Yes).map_err(|error| self.errno(&error))?;
            self.clear_tail(&node, before..size);
            self.drop_privileges(&node, change.takes_ids, caller)?;
        }
        let (touches, own) = (change.touches(), inode.attr().flags);
        let is_chown = change.uid.is_some() || change.gid.is_some();
        // The time of what the kernel has of writes before the file was immutable comes now.
        if own.contains(InodeFlags::IMMUTABLE) && touches != Touch::Written
            || own.contains(InodeFlags::APPEND) && is_chown
        {
            // What is refused takes no rights away.
            return Err(FORBIDDEN);
        }
        // A chown takes set-id bits and capabilities away: the kernel leaves that to us.
        if (is_chown || touches == Touch::Nothing)
            && inode.kind() != FileKind::Directory
            && change.mode.is_none()
        {
            let by_root = node.capabilities.take_root();
            let ids = is_chown || self.is_chown_to_the_same(&node, change, caller, by_root)?;
            self.drop_privileges(&node, ids, caller)?;
        }
        let wanted = SetAttr {
            // OK to cast: only the lower 12 bits are meant.
            mode: change.mode.map(|mode| (mode & 0o7777) as u16),
            uid: change.uid,
            gid: change.gid,
            atime: self.time(change.atime),
            mtime: self.time(change.mtime),
            ctime: change.ctime.map(|time| self.fit(time)),
            crtime: None,
        };
        match (own.intersects(InodeFlags::IMMUTABLE | InodeFlags::APPEND), touches) {
            (true, Touch::Both) => inode.touch().map_err(|error| self.errno(&error))?,
            // The write that the kernel tells the time of has set it, or is still to come.
            (true, Touch::Written | Touch::Nothing) => {}
            _ if wanted != SetAttr::default() || touches == Touch::Nothing => {
                inode.set_attr(&wanted).map_err(|error| self.errno(&error))?;
            }
            _ => {}
        }
        self.written_from(inode, mode)?;
        Ok(self.attr(inode))
    }

    /// Whether a setattr that asks for nothing takes set-id bits away, as a chown that changes no owner does. That comes with a
    /// time of change where the kernel keeps times (while it gathers writes). Elsewhere it is like what comes before a write that
    /// takes capabilities away, which brings word of the set-id bits itself: whoever may not change the mode loses nothing by
    /// that, and of root, who keeps the bits, a change of a file that has capabilities, or had them until root removed them, is
    /// taken for a write.
    fn is_chown_to_the_same(
        &self,
        node: &Node,
        change: &Change,
        caller: Caller,
        by_root: bool,
    ) -> Reply<bool> {
        let may_change = caller.uid == 0 || caller.uid == self.attr(&node.inode).uid;
        // The mode of an append-only file is not changed.
        if !may_change || node.inode.attr().flags.contains(InodeFlags::APPEND) {
            return Ok(false);
        }
        if self.gathers_writes() {
            return Ok(change.ctime.is_some());
        }
        Ok(caller.uid != 0 || !(by_root || self.has_capabilities(node)?))
    }

    /// As [`written`](Self::written), of what may have changed the mode from this: waits for the media where set-id bits, or what they
    /// depend on, went and the kernel gathers writes. It sends those that come next without asking for the bits to be taken, and
    /// what it sends waits for no commit.
    pub(super) fn written_from(&self, inode: &Inode, before: u16) -> Reply<()> {
        let has_changed = before & 0o6000 != 0 && inode.attr().mode != before;
        self.written(inode, has_changed && self.gathers_writes() && inode.kind() == FileKind::Regular)
    }

    /// Whether a change may have to [clear](Self::clear_tail) what the kernel has of a page. Nobody whom a page can wait for
    /// may do that.
    pub(crate) fn may_wait_for_page(&self, number: u64, change: &Change) -> bool {
        let grows = |size| self.node(number).is_ok_and(|node| node.inode.size() < size);
        !self.gathers_writes() && change.size.is_some_and(grows)
    }

    /// A file grew. What a program stored through a map behind its old end is in the page that the kernel has, and would
    /// be seen; nobody changes the size meanwhile. (Not while the kernel gathers writes: it may know a later end.) Linux:
    /// `pagecache_isize_extended`.
    fn clear_tail(&self, node: &Node, grown: Range<u64>) {
        let page = rustix::param::page_size() as u64;
        let end = grown.end.min(grown.start.next_multiple_of(page));
        if end <= grown.start || self.gathers_writes() || !node.may_be_dirty() {
            return;
        }
        let (number, len) = (crate::convert::node_of(node.inode.nr()), end - grown.start);
        if let (Some(kernel), Ok(len)) = (self.kernel.get(), u32::try_from(len))
            && let Err(error) = kernel.store_zeros(number, grown.start, len)
        {
            log::error!("inode {}: the kernel keeps what lay behind its end: {error}", node.inode.nr());
        }
    }

    /// Takes away what a change of the contents or the owner takes: capabilities, and with `ids` the set-id bits.
    /// Linux: `file_remove_privs`, which the kernel leaves to us (`FUSE_HANDLE_KILLPRIV_V2`).
    ///
    /// The kernel forgets the attributes that it keeps before anything else happens, since it goes by them when the file
    /// is run: of a write, an fallocate or a copy it takes a size and times for changed, and the mode for the old one.
    pub(super) fn drop_privileges(&self, node: &Node, ids: bool, caller: Caller) -> Reply<()> {
        let inode = &node.inode;
        let before = inode.attr();
        if ids && before.kind != FileKind::Directory {
            // Without group execute set-group-ID is a mark of old for mandatory locks, and leaves with a write by somebody
            // outside of the group (Linux: `setattr_should_drop_sgid`).
            let takes_mark =
                before.mode & 0o2010 == 0o2000 && caller.uid != 0 && !caller.is_in_group(before.gid);
            // Also where they are gone in memory: another may be waiting for the media.
            let done = if takes_mark { inode.strip_all_setid() } else { inode.strip_setid() };
            done.map_err(|error| self.errno(&error))?;
        }
        if self.has_capabilities(node)? {
            match self.remove_capabilities(node) {
                // Another has removed them, and waited for the media.
                Ok(()) | Err(Errno::NODATA) => {}
                Err(error) => return Err(error),
            }
            self.forget_attributes(inode);
        } else if inode.attr().mode != before.mode {
            self.forget_attributes(inode);
        }
        Ok(())
    }

    /// Removes the capabilities of a file, durably: what is written next does not wait for a commit, nor for a fence. That there are
    /// none is said when there are none on the media, either.
    pub(super) fn remove_capabilities(&self, node: &Node) -> Reply<()> {
        let _alone = node.capabilities.remove();
        node.inode.take_xattr(CAPABILITY).map_err(|error| self.errno(&error))
    }

    /// Whether a file has capabilities, or may have them on the media; remembered where it has none.
    fn has_capabilities(&self, node: &Node) -> Reply<bool> {
        let known = &node.capabilities;
        if known.are_none() {
            return Ok(false);
        }
        let look = known.look();
        match node.inode.xattr_get(CAPABILITY) {
            Ok(_) => Ok(true),
            Err(error) if error.is(ext2_core::Errno::NODATA) => {
                Ok(known.found_none(look, node.inode.may_have_lost_rights()))
            }
            Err(error) => Err(self.errno(&error)),
        }
    }
}

impl Volume {
    /// Whether the caller may do what is for root alone. Linux: `capable(CAP_SYS_ADMIN)`.
    ///
    /// Of a mount of root's it is not the number of the user that counts: in a container, or a namespace of users, root is
    /// anybody. Of another's mount we may not ask, and root has the kernel's leave to come here.
    pub(super) fn is_administrator(&self, caller: Caller) -> bool {
        if self.owner != 0 { caller.uid == 0 } else { caller.has_capability(CAP_SYS_ADMIN) }
    }
}

impl Caller {
    /// Whether the caller has a capability, and in our namespace of users. No thread that cannot be seen has.
    fn has_capability(self, number: u32) -> bool {
        let users = |whose: &str| std::fs::read_link(format!("/proc/{whose}/ns/user")).ok();
        let Some(ours) = users("self") else { return false };
        self.status("CapEff:")
            .and_then(|set| u64::from_str_radix(set.trim(), 16).ok())
            .is_some_and(|set| set >> number & 1 != 0 && users(&self.pid.to_string()) == Some(ours))
    }

    /// What the system says of the caller in the line that begins with `field`.
    fn status(self, field: &str) -> Option<String> {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.pid)).ok()?;
        status.lines().find_map(|line| line.strip_prefix(field)).map(str::to_owned)
    }

    /// Whether the caller is in a group. Of a thread that cannot be seen only the first group is known.
    pub(super) fn is_in_group(self, gid: u32) -> bool {
        if self.gid == gid {
            return true;
        }
        let groups = self.status("Groups:").unwrap_or_default();
        groups.split_whitespace().any(|group| group.parse() == Ok(gid))
    }
}

/// The error of what the attribute flags forbid.
pub(super) const FORBIDDEN: Errno = Errno::PERM;

#[cfg(test)]
mod tests {
    use super::*;
    use ext2_core::InodeNr;

    fn attr(kind: FileKind, atime: i64, mtime: i64, ctime: i64) -> Attr {
        Attr {
            nr: InodeNr::ROOT,
            kind,
            mode: 0,
            uid: 0,
            gid: 0,
            size: 0,
            links: 1,
            blocks_512: 0,
            atime: Timestamp::from_secs(atime),
            mtime: Timestamp::from_secs(mtime),
            ctime: Timestamp::from_secs(ctime),
            crtime: None,
            flags: InodeFlags::empty(),
            generation: 0,
            device: None,
        }
    }

    #[test]
    fn relatime_updates_what_is_not_newer_than_the_last_change_or_a_day_old() {
        let now = Timestamp::from_secs(1_000_000);
        let file = FileKind::Regular;
        let due = |attr: &Attr| is_due(Atime::Relative, attr, now);
        assert!(due(&attr(file, 900_000, 900_000, 1)), "as old as the contents");
        assert!(due(&attr(file, 950_000, 1, 960_000)), "older than the inode's change");
        assert!(!due(&attr(file, 950_000, 1, 1)), "newer than all");
        assert!(due(&attr(file, 1_000_000 - DAY, 1, 1)), "a day old");
        let read = attr(FileKind::Directory, 1, 2, 2);
        assert!(is_due(Atime::Relative, &read, now) && !is_due(Atime::RelativeFiles, &read, now));
        assert!(!is_due(Atime::Never, &read, now));
        assert!(is_due(Atime::Always, &attr(file, 999_999, 1, 1), now));
    }
}
