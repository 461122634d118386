//! The vocabulary against the public functions of the crates: each that changes or reads a file system has a word, or
//! stands in a list of exceptions with its reason.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::Path,
};

use super::Word;

/// Functions, and the words that call them.
const SAID: &[(&str, &[Word])] = {
    use Word as W;
    &[
        ("Ext2::close", &[W::Remount, W::Close]),
        ("Ext2::inode", &[W::ByNumber]),
        ("Ext2::max_size", &[W::Write]),
        ("Ext2::open", &[W::Remount, W::Kill]),
        ("Ext2::rename", &[W::Rename]),
        ("Ext2::resolve", &[W::Resolve]),
        ("Ext2::resolve_parent", &[W::ResolveParent]),
        ("Ext2::root", &[W::Root]),
        ("Ext2::statfs", &[W::StatFs]),
        ("Ext2::remove_dir_all", &[W::RemoveAll]),
        ("Ext2::trim", &[W::Trim]),
        ("Ext2::walk", &[W::Walk]),
        ("Ext2::sync", &[W::SyncAll]),
        ("Inode::acl", &[W::Acl]),
        ("Inode::append", &[W::FileWrite]),
        ("Inode::attr", &[W::Stat]),
        ("Inode::create", &[W::Create]),
        ("Inode::entries", &[W::BeginListing, W::List]),
        ("Inode::extents", &[W::Extents, W::Store]),
        ("Inode::fallocate", &[W::Fallocate]),
        ("Inode::kind", &[W::Lookup]),
        ("Inode::link", &[W::Link]),
        ("Inode::lookup", &[W::Lookup]),
        ("Inode::lookup_nr", &[W::LookupNr]),
        ("Inode::map", &[W::MapBlocks]),
        ("Inode::nr", &[W::Lookup]),
        ("Inode::punch_hole", &[W::Punch]),
        ("Inode::read_at", &[W::Read]),
        ("Inode::read_link", &[W::ReadLink]),
        ("Inode::rmdir", &[W::Rmdir]),
        ("Inode::seek_data", &[W::SeekData]),
        ("Inode::seek_hole", &[W::SeekHole]),
        ("Inode::set_acl", &[W::SetAcl]),
        ("Inode::set_attr", &[W::Chmod, W::Chown, W::SetTimes]),
        ("Inode::set_flags", &[W::SetFlags]),
        ("Inode::size", &[W::Stat]),
        ("Inode::strip_setid", &[W::StripSetid]),
        ("Inode::symlink", &[W::Symlink]),
        ("Inode::sync", &[W::Sync]),
        ("Inode::tmpfile", &[W::Tmpfile]),
        ("Inode::touch", &[W::Touch]),
        ("Inode::touch_accessed", &[W::TouchAccessed]),
        ("Inode::touch_modified", &[W::TouchModified]),
        ("Inode::truncate", &[W::Truncate]),
        ("Inode::unlink", &[W::Unlink]),
        ("Inode::with_pieces", &[W::ReadPieces]),
        ("Inode::write_at", &[W::Write]),
        ("Inode::xattr_get", &[W::GetXattr]),
        ("Inode::xattr_list", &[W::ListXattrs]),
        ("Inode::xattr_remove", &[W::RemoveXattr]),
        ("Inode::xattr_set", &[W::SetXattr]),
        ("Inode::xattrs", &[W::Xattrs]),
        ("Inode::zero_range", &[W::Zero]),
        ("Acl::new", &[W::SetAcl]),
        ("NewInode::new", &[W::Create]),
        ("DaxFs::new", &[W::Remount]),
        ("File::extents", &[W::FileExtents]),
        ("File::inode", &[W::FileTruncate]),
        ("File::lease", &[W::Lease]),
        ("File::map", &[W::Map]),
        ("File::open", &[W::Open]),
        ("File::punch_hole", &[W::FilePunch]),
        ("File::read_at", &[W::FileRead]),
        ("File::read_to", &[W::FileRead]),
        ("File::seek_data", &[W::FileSeekData]),
        ("File::seek_hole", &[W::FileSeekHole]),
        ("File::sync", &[W::FileSync]),
        ("File::truncate", &[W::FileTruncate]),
        ("File::write_at", &[W::FileWrite]),
        ("File::write_from", &[W::FileWrite]),
        ("File::zero_range", &[W::FileZero]),
        ("Lease::sync", &[W::LeaseSync]),
        ("Lease::parts", &[W::LeaseRead, W::LeaseWrite]),
        ("File::map_host", &[W::Map]),
        ("HostMap::msync", &[W::Msync]),
        ("HostMap::try_load", &[W::Load]),
        ("HostMap::try_store", &[W::Store]),
        ("HostMmu::new", &[W::Map]),
        ("SoftMap::load_bytes", &[W::Load]),
        ("SoftMap::store_bytes", &[W::Store]),
        ("SoftMap::msync", &[W::Msync]),
        ("SoftMmu::map", &[W::Map]),
        ("SoftMmu::new", &[W::Map]),
    ]
};

/// Types of which no function changes or reads a file system, or all others than those above do not, with what they are.
const VALUES: &[(&str, &str)] = &[
    ("Attr", "a value"),
    ("Cursor", "a place in a file, which calls `read_at` and `write_at`"),
    ("Found", "a file that a walk came to"),
    ("FreeSpace", "what a placement takes blocks from"),
    ("Name", "a value"),
    ("Policy", "an argument"),
    ("ReadDir", "`Entries`"),
    ("Taken", "blocks that a placement took"),
    ("Walk", "`Inode::entries` and `Inode::lookup`, for a tree"),
    ("Window", "a value"),
    ("Acl", "a value"),
    ("Bitmap", "a value"),
    ("Barrier", "a fence or flush, each left out in turn where crashes are looked at"),
    ("BlockSize", "a number"),
    ("Corrupt", "an error"),
    ("Counters", "counts"),
    ("CrcSink", "a buffer of the replayer"),
    ("DevPage", "a number"),
    ("DeviceBlock", "a number"),
    ("DeviceNr", "a number"),
    ("Errno", "a number"),
    ("Error", "an error"),
    ("Event", "a record of a trace"),
    ("EventLog", "a trace"),
    ("Fallback", "a reason"),
    ("FaultRequest", "an argument"),
    ("FaultResult", "an answer"),
    ("Faulting", "a buffer that fails, which the tests of `rw` use"),
    ("Features", "a value"),
    ("FileBlock", "a number"),
    ("FileKind", "a value"),
    ("Geometry", "numbers"),
    ("GroupNr", "a number"),
    ("InodeFlags", "a value"),
    ("InodeNr", "a number"),
    ("IoLock", "a lock, held by what `Inode::io_lock` says"),
    ("Iomap", "a value"),
    ("KnownRun", "a value"),
    ("Map", "a value: the map of a journal"),
    ("Mapping", "a value"),
    ("Mutex", "a lock"),
    ("OpenOptions", "an argument"),
    ("Order", "a value"),
    ("Outcome", "an answer of the replayer"),
    ("PatternSource", "a buffer of the replayer"),
    ("Owners", "a value"),
    ("Player", "the replayer, which calls what others call"),
    ("RwLock", "a lock"),
    ("Script", "an argument of the replayer"),
    ("Shape", "numbers"),
    ("Slot", "a value"),
    ("SliceSink", "a buffer"),
    ("SliceSource", "a buffer"),
    ("StoredRun", "a value"),
    ("Superblock", "a value"),
    ("Timestamp", "a value"),
    ("Tracer", "a trace"),
    ("Vma", "a value"),
    ("WaitTable", "queues that a file system has for itself"),
    ("XattrName", "a value"),
];

/// Functions without a word, with the reason.
const EXCEPTIONS: &[(&str, &str)] = &[
    ("DaxFs::asked", "counts"),
    ("DaxFs::ext2", "the core below"),
    ("DaxFs::is_dax", "a property"),
    ("DaxFs::options", "an argument"),
    ("DaxFs::tracer", "a trace"),
    ("DaxMapping::*", "the pages of a file, which are loaded and stored through mappings"),
    ("EntryGuard::*", "the same"),
    ("Ext2::create_dir", "`Ext2::resolve_parent` and `Inode::create`"),
    ("Ext2::create_dir_all", "the same, several times"),
    ("Ext2::exists", "`Ext2::resolve`"),
    ("Ext2::hard_link", "`Ext2::resolve_parent` and `Inode::link`"),
    ("Ext2::metadata", "`Ext2::resolve` and `Inode::attr`"),
    ("Ext2::open_path", "`Ext2::open` of a file"),
    ("Ext2::read", "`Ext2::resolve` and `Inode::read_at`"),
    ("Ext2::read_dir", "`Ext2::resolve` and `Inode::entries`"),
    ("Ext2::read_link", "`Ext2::resolve` and `Inode::read_link`"),
    ("Ext2::read_to_string", "`Ext2::read`"),
    ("Ext2::remove_dir", "`Ext2::resolve_parent` and `Inode::rmdir`"),
    ("Ext2::remove_file", "`Ext2::resolve_parent` and `Inode::unlink`"),
    ("Ext2::rename_path", "`Ext2::resolve_parent` and `Ext2::rename`"),
    ("Ext2::resolve_from", "`Ext2::resolve`, from another directory than the root"),
    ("Ext2::symlink", "`Ext2::resolve_parent` and `Inode::symlink`"),
    ("Ext2::symlink_metadata", "`Ext2::resolve` and `Inode::attr`"),
    ("Ext2::write", "`Inode::create`, `Inode::truncate` and `Inode::write_at`"),
    ("Ext2::descriptor", "a field of the image, for who shows it"),
    ("Ext2::device", "the device below"),
    ("Entries::inode", "as `Inode::lookup`"),
    ("Ext2::geometry", "numbers"),
    ("Ext2::has_log", "a property"),
    ("Ext2::has_uncommitted", "a property"),
    ("Ext2::is_read_only", "a property"),
    ("Ext2::note_broken", "says that the image is broken, for who found it so"),
    ("Ext2::shut_down", "ends all writing, for a mount that is ended by force"),
    ("Ext2::together", "the words that are called in it, as renames behind whiteouts of the mount"),
    ("Ext2::superblock", "a field of the image, for who shows it"),
    ("File::is_dax", "a property"),
    ("File::pages", "see `DaxMapping`"),
    ("File::size", "as `Inode::size`"),
    ("Inode::read_all", "`Inode::read_at`"),
    ("Inode::read_exact_at", "`Inode::read_at`"),
    ("Inode::write_all_at", "`Inode::write_at`, several times"),
    ("HostMap::as_mut_ptr", "bare accesses are as `HostMap::try_store`"),
    ("HostMap::as_ptr", "bare accesses are as `HostMap::try_load`"),
    ("HostMap::collapse", "asks the host for other pages of the same bytes"),
    ("HostMap::explain", "shows what is mapped"),
    ("HostMap::is_empty", "a property"),
    ("HostMap::len", "a property"),
    ("HostMap::load", "one byte of `try_load`"),
    ("HostMap::mmu", "a property"),
    ("HostMap::page_kinds", "shows what is mapped"),
    ("HostMap::stores_by", "says who finds stores"),
    ("HostMap::read_from", "`HostMap::try_store` of what a file of the host has"),
    ("HostMap::slice", "`HostMap::try_load` and `HostMap::try_store`, for part of the mapping"),
    ("HostMap::store", "one byte of `try_store`"),
    ("HostMap::take_stored", "called by `File::sync`"),
    ("HostMap::view", "shows what is mapped"),
    ("HostMap::vma", "a property"),
    ("HostMap::write_to", "`HostMap::try_load` into a file of the host"),
    ("HostMmu::capabilities", "a property"),
    ("HostMmu::counters", "counts"),
    ("HostMmu::features", "a property of the machine"),
    ("HostMmu::map", "called by `File::map_host`"),
    ("HostMmu::mappings", "counts"),
    ("Why::*", "says why a unit is not one translation"),
    ("File::read_exact_at", "`File::read_at`"),
    ("File::write_all_at", "`File::write_at`, several times"),
    ("Lease::runs", "as `Lease::parts`"),
    ("Inode::check_write", "called by `File::write_from`"),
    ("Inode::fs", "the file system that it is of"),
    ("Inode::is_map_durable", "called by faults"),
    ("Inode::known_run", "called by `File::read_at`"),
    ("IomapIter::*", "the walk that `File` reads and writes by"),
    ("Lease::owned_parts", "the same as `parts`"),
    ("Lease::range", "a property"),
    ("LeasedPart::*", "a part of a lease"),
    ("DaxFs::check_dax", "a property"),
    ("PageLease::*", "called by `File::lease`"),
    ("SoftMap::load", "one byte of `load_bytes`"),
    ("SoftMap::inode", "a property"),
    ("SoftMap::mmu", "a property"),
    ("SoftMap::store", "one byte of `store_bytes`"),
    ("SoftMap::translations", "shows what is mapped"),
    ("SoftMap::vma", "a property"),
    ("SoftMmu::counters", "counts"),
    ("SoftMmu::load", "as of the mapping"),
    ("SoftMmu::load_bytes", "as of the mapping"),
    ("SoftMmu::store", "as of the mapping"),
    ("SoftMmu::store_bytes", "as of the mapping"),
    ("SoftMmu::with_huge_zero_page", "an option of the tests of faults"),
    ("Unpublished::publish", "called by `Inode::write_at` and `File::write_from`"),
];

/// The public functions of methods in the sources of a crate, as `Type::function`. What stands at the left edge is no
/// method: functions of modules that `File` and `SoftMap` call, and traits for who puts something else in their place.
fn methods(sources: &Path, found: &mut BTreeSet<String>) {
    let entries = fs::read_dir(sources).unwrap_or_else(|error| panic!("{}: {error}", sources.display()));
    for entry in entries {
        let path = entry.expect("an entry").path();
        if path.is_dir() {
            methods(&path, found);
            continue;
        }
        let text = fs::read_to_string(&path).expect("source text");
        let mut of = None;
        for line in text.lines() {
            // Tests come last.
            if line.starts_with("#[cfg(") && line.contains("test") {
                break;
            }
            if let Some(rest) = line.strip_prefix("impl") {
                let (_, after) = generics(rest);
                let named = after.rsplit(" for ").next().unwrap_or(after);
                let name = named.trim_start_matches(|c: char| !c.is_alphanumeric());
                of = name.split(|c: char| !c.is_alphanumeric()).next().map(str::to_owned);
            } else if line.starts_with('}') {
                of = None;
            } else if let (Some(of), Some(rest)) = (&of, line.strip_prefix("    pub ")) {
                let rest = rest.strip_prefix("const ").unwrap_or(rest);
                let name = rest.strip_prefix("fn ").and_then(|rest| rest.split(['(', '<']).next());
                found.extend(name.map(|name| format!("{of}::{name}")));
            }
        }
    }
}

/// What is in angle brackets at the beginning, and what follows.
fn generics(text: &str) -> (&str, &str) {
    let mut depth = 0;
    for (at, letter) in text.char_indices() {
        match letter {
            '<' => depth += 1,
            '>' => depth -= 1,
            _ => {}
        }
        if depth == 0 {
            return text.split_at(at);
        }
    }
    (text, "")
}

/// What of the crates' public functions has neither a word nor a reason to have none, and what is listed and is not
/// there.
#[must_use]
pub fn unsaid() -> Vec<String> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the workspace");
    let mut there = BTreeSet::new();
    for name in ["ext2-format", "ext2-core", "ext2-dax"] {
        methods(&root.join(name).join("src"), &mut there);
    }
    let said: BTreeMap<&str, &[Word]> = SAID.iter().copied().collect();
    let type_of = |name: &str| name.split("::").next().unwrap_or_default().to_owned();
    let is_excepted = |name: &str| {
        let all = format!("{}::*", type_of(name));
        EXCEPTIONS.iter().any(|(own, _)| *own == name || *own == all)
            || VALUES.iter().any(|(own, _)| *own == type_of(name))
    };
    let mut problems = Vec::new();
    for name in &there {
        match (said.get(&name[..]), is_excepted(name)) {
            (None, false) => problems.push(format!("{name} has no word")),
            (Some([]), _) => problems.push(format!("{name} is said by no word")),
            _ => {}
        }
    }
    let listed = SAID.iter().map(|(name, _)| *name).chain(EXCEPTIONS.iter().map(|(name, _)| *name));
    for name in listed.filter(|name| !name.ends_with("::*")) {
        if !there.contains(name) {
            problems.push(format!("{name} is listed, and there is no such function"));
        }
    }
    let used: BTreeSet<Word> = SAID.iter().flat_map(|(_, words)| words.iter().copied()).collect();
    // `Plumbing` is a trait.
    let no_function =
        [Word::GiveUpWrite, Word::LetGo, Word::CloseFile, Word::EndLease, Word::Unmap, Word::Exit];
    for word in Word::ALL {
        if !used.contains(word) && !no_function.contains(word) {
            problems.push(format!("{word:?} says no function"));
        }
    }
    problems
}
