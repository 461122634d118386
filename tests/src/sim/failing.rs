//! A device that fails: in one operation, the n-th call of some kinds, once or for good. The caller gets an error or
//! what it asked for, what is left needs nobody to mend it, and nothing else is lost.

use std::collections::BTreeSet;
use std::sync::Arc;

use blockdev::{BlockDevice, Calls, Fault, FaultError, Faulty, RamDevice, Repeat, Tear};
use ext2_core::{Closed, Errno, Ext2, FileKind, Follow, InodeFlags, NewInode, XattrSet};
use ext2_dax::mmu::Sharing;
use ext2_image::check::Checker;

use super::{
    Answer, Data, HANDS, Model, Operation, Options, Scene, Step, Word, World, base, crashes::action_of,
    fenced::Fenced, mend::mend_alone, passed_by, run::sound, world::Held,
};
use crate::{
    Rng, Scratch, ShortRuns,
    crash::{History, Moment},
    log_is_lost,
    tree::{self, Tree},
};

/// Bytes of a page.
const PAGE: u64 = 4096;
/// Bytes that a disk stores whole.
const SECTOR: usize = 512;
/// A file that is made afterwards, to see whether that goes on.
const AFTER: &[u8] = b"made-afterwards";
/// An attribute that is set afterwards, and removed.
const PASSING: &[u8] = b"trusted.passing";

/// What fails in an operation.
fn fault(rng: &mut Rng, last: &Step, options: &Options) -> Fault {
    if options.scene == Some(Scene::FirstUse) {
        // Among its first stores is that of the feature.
        return Fault::once(Calls::WRITE, rng.below(8));
    }
    if options.scene == Some(Scene::Transfer) {
        let kinds = [Calls::LOAD, Calls::STORE, Calls::LOAD | Calls::STORE, Calls::DIRECT_ACCESS];
        return Fault::once(*rng.pick(&kinds), rng.below(5));
    }
    if options.scene == Some(Scene::Owners) && rng.one_in(2) {
        // Between the words that they lie in.
        return Fault::once(Calls::FENCE, rng.below(4));
    }
    if matches!(last.operation, Operation::Store { .. }) && rng.one_in(2) {
        // Behind the blocks that a fault has allocated.
        return Fault::once(Calls::DIRECT_ACCESS, rng.below(4));
    }
    let is_shared = |last: &Step| {
        matches!(
            last.operation,
            Operation::SetXattr { .. } | Operation::RemoveXattr { .. } | Operation::Unlink { .. }
        )
    };
    if options.share_xattrs && is_shared(last) && rng.one_in(2) {
        // A store of the transaction, or behind it.
        return Fault::once(Calls::WRITE, rng.below(30));
    }
    let kinds = [
        Calls::READ,
        Calls::WRITE,
        Calls::FENCE,
        Calls::FLUSH,
        Calls::DIRECT_ACCESS,
        Calls::WRITE_BACK,
        Calls::STORE,
        Calls::LOAD,
        Calls::WRITE | Calls::ZERO | Calls::FENCE | Calls::FLUSH,
        Calls::READ | Calls::WRITE | Calls::ZERO | Calls::FENCE | Calls::FLUSH,
    ];
    let after = if rng.one_in(2) { rng.below(6) } else { rng.below(40) };
    Fault {
        repeat: if rng.one_in(4) { Repeat::FromThenOn } else { Repeat::Once },
        error: *rng.pick(&[FaultError::Io, FaultError::Io, FaultError::NoSpace]),
        tear: if rng.one_in(3) { Tear::FirstHalf } else { Tear::Nothing },
        ..Fault::once(*rng.pick(&kinds), after)
    }
}

/// A device that can be told to fail, with the image that is on it.
pub(super) fn device(options: &Options, image: &[u8]) -> Arc<Faulty<Fenced>> {
    let is_paged = options.scene == Some(Scene::Transfer) || Rng::named(options.seed, "pages").one_in(2);
    let ram = RamDevice::from_bytes(image).expect("memory");
    Arc::new(Faulty::new(Fenced::new(ShortRuns { ram, most: if is_paged { 1 } else { u64::MAX } })))
}

/// Does the last step while the device fails, and looks at what is left. What would have become of it had nothing
/// failed is what the same steps lead to on another device.
pub(super) fn run(
    options: &Options,
    world: &mut World,
    device: &Arc<Faulty<Fenced>>,
    model: &Model,
    before: &[Step],
    last: &Step,
) -> Result<(), String> {
    let block = world.ext2().geometry().block_size.len();
    if world.ext2().has_log() {
        // What was done before is told of already.
        world.ext2().sync().map_err(|error| error.to_string())?;
    }
    let tree = tree::of(world.ext2())?;
    // What is on the device so far lacks the times that memory has later ones of.
    let stored = tree::read(mended(device.inner().to_vec())?)?;
    let mut history = History::new(stored, block).of_failing_device();
    if options.share_xattrs {
        history = history.of_shared_attributes();
    }
    history.push(None, tree.clone());
    let stands_for = action_of(last, model, &tree);
    let mut rng = Rng::named(options.seed, "fault");
    if rng.one_in(8) {
        return flush_that_loses(world, device, last, &mut rng);
    }
    let mut later = Rng::named(options.seed, "passed by");
    if passed_by::can_come_between(options, last.operation.word()) && later.one_in(6) {
        return passed_by::run(world, device, last, &mut later);
    }
    let fault = fault(&mut rng, last, options);
    // Or some of the memory is poisoned, until it is written or what is under it is replaced.
    let pages = device.size() / PAGE;
    let poisoned: Vec<u64> = (0..1 + rng.below(3)).map(|_| rng.below(pages)).collect();
    let poisoned = if rng.one_in(5) { poisoned } else { Vec::new() };
    // What mends poison may fail too.
    let is_armed = poisoned.is_empty() || rng.one_in(2);
    if is_armed {
        device.arm(fault);
    }
    poisoned.iter().try_for_each(|page| device.poison(*page)).map_err(|error| error.to_string())?;
    let answer = world.perform(last);
    poisoned.iter().for_each(|page| device.heal(*page));
    let is_gone = fault.repeat == Repeat::FromThenOn && is_armed;
    let is_failed = (is_armed && device.fired() > 0) || !poisoned.is_empty();
    let told = |words: String| {
        let what = match (is_armed, poisoned.is_empty()) {
            (true, true) => format!("{fault:?}"),
            (true, false) => format!("{fault:?} and poison of {poisoned:?}"),
            (false, _) => format!("poison of {poisoned:?}"),
        };
        format!("{words}; {what} in {last}, which gave {}", answer.words())
    };
    let stores = matches!(last.operation, Operation::Store { .. });
    if !is_gone && (rng.one_in(4) || stores) && world.fs.is_some() {
        device.disarm();
        return mappings_show_what_is_written(world).map_err(told);
    }
    let mut is_root_touched = false;
    if !is_gone {
        device.disarm();
        if world.fs.is_some() && rng.one_in(2) {
            return done_again(world, device, last, &mut rng).map_err(told);
        }
        is_root_touched = usable(world, &answer).map_err(&told)?;
    }
    let closed = world.fs.is_some().then(|| world.close());
    device.disarm();
    match closed {
        Some(Err(error)) if device.fired() == 0 && poisoned.is_empty() => {
            return Err(told(format!("nothing failed, and it cannot be closed: {error}")));
        }
        Some(Ok(Closed::Clean)) => {
            sound(&device.inner().to_vec()).map_err(|words| told(format!("called clean: {words}")))?;
        }
        _ => {}
    }
    let left = mended(device.inner().to_vec()).map_err(&told)?;
    let (twin_answer, twin) = twin(options, before, last, is_root_touched)?;
    let moved = moved(&answer, &twin_answer, is_failed).map_err(told)?;
    let action = twin_answer.is_done().then_some(stands_for);
    history.push(action, twin);
    let is_whole = answer.is_done() && moved == Moved::All && !is_gone;
    let moment = if is_whole { Moment::After(2) } else { Moment::During(1) };
    let mut found = tree::read(left)?;
    found.remove(&[b"/", AFTER].concat());
    if answer.is_done() && matches!(last.operation, Operation::Rename { .. }) {
        leave_out_shelter(&mut found, history.last());
    }
    history.judge(moment, &found).map_err(told)
}

/// How much of a transfer was done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Moved {
    All,
    /// A part, from the beginning.
    Some,
}

/// How much was done of what is given in bytes: as much as where nothing fails, or a part of the same bytes where something did.
fn moved(answer: &Answer, twin: &Answer, is_failed: bool) -> Result<Moved, String> {
    let is_part = match (answer, twin) {
        (Answer::Bytes(part), Answer::Bytes(whole)) if !whole.starts_with(part) => {
            return Err(format!("the bytes are not those of where nothing fails, {}", twin.words()));
        }
        (Answer::Bytes(part), Answer::Bytes(whole)) => part.len() < whole.len(),
        (Answer::Number(part), Answer::Number(whole)) => part < whole,
        _ => false,
    };
    match (is_part, is_failed) {
        (false, _) => Ok(Moved::All),
        (true, true) => Ok(Moved::Some),
        (true, false) => Err(format!("nothing failed, and it is less than {}", twin.words())),
    }
}

/// A flush or a fence fails, and with it goes some of what was stored since the one before; it says so but once. What is called clean
/// then has lost nothing of its structure.
fn flush_that_loses(
    world: &mut World,
    device: &Faulty<Fenced>,
    last: &Step,
    rng: &mut Rng,
) -> Result<(), String> {
    world.ext2().sync().map_err(|error| error.to_string())?;
    // A device whose fences order what its flushes alone make durable, or one for which both are the same.
    let calls = *rng.pick(&[Calls::FLUSH, Calls::FLUSH | Calls::FENCE]);
    device.inner().keep(calls);
    // Something that is not flushed yet.
    let made = make_and_keep(world.ext2());
    // Among its fences are those of what the step is made of.
    device.arm(Fault::once(calls, if calls == Calls::FLUSH { 0 } else { rng.below(6) }));
    let answer = world.perform(last);
    let is_lossy = device.fired() > 0;
    device.disarm();
    let before = device.inner().take_kept();
    // What ended all writing may have left memory and the image apart.
    let known = world.fs.is_some().then(|| tree::of(world.ext2()).ok()).flatten();
    if is_lossy {
        for (nr, was) in before.chunks(SECTOR).enumerate() {
            if rng.one_in(2) {
                device.inner().write_at((nr * SECTOR) as u64, was).map_err(|error| error.to_string())?;
            }
        }
    }
    let told =
        |words: String| format!("{words}; a flush or fence failed in {last}, which gave {}", answer.words());
    if let Some(known) = known.filter(|_| is_lossy && !is_sync(last.operation.word())) {
        synced_is_there(world.ext2(), &known).map_err(told)?;
    }
    match world.fs.is_some().then(|| world.close()) {
        Some(Ok(Closed::Clean)) => sound(&device.inner().to_vec()).map_err(|words| {
            let lost = if is_lossy { "a flush or fence failed" } else { "nothing failed" };
            format!("called clean: {words}; {lost} in {last}, which gave {}, after {made:?}", answer.words())
        }),
        _ => Ok(()),
    }
}

/// Whether whoever is told of what failed is told of it for all that he makes durable, and needs not be told again.
fn is_sync(word: Word) -> bool {
    use Word as W;
    matches!(word, W::Sync | W::SyncAll | W::FileSync | W::Msync | W::LeaseSync)
}

/// What is synced after something was lost, and said to be durable, has its bytes.
fn synced_is_there(fs: &Ext2, known: &Tree) -> Result<(), String> {
    let mut seen = BTreeSet::new();
    for found in fs.walk("/").map_err(|error| error.to_string())?.flatten() {
        let inode = &found.inode;
        // Whoever is told is told once, by whatever name.
        if inode.kind() != FileKind::Regular || !seen.insert(inode.nr()) || inode.sync().is_err() {
            continue;
        }
        let was = known.values().find(|node| node.inode == inode.nr().get());
        if was.is_some_and(|was| inode.read_all().is_ok_and(|bytes| bytes != was.content)) {
            return Err(format!("inode {} was synced, and what had been stored to it is lost", inode.nr()));
        }
    }
    Ok(())
}

/// Does the last step again, or not: that may hide what it left. What memory knows then is what the image has once it is closed.
fn done_again(world: &mut World, device: &Faulty<Fenced>, last: &Step, rng: &mut Rng) -> Result<(), String> {
    let again = if rng.one_in(3) { Answer::Nothing } else { world.perform(last) };
    // And something small to all that is in hand, or not: that may hide it, too.
    let actor = last.actor;
    let hands = if rng.one_in(3) { 0 } else { HANDS };
    for of in 0..hands {
        let data = Data { len: 10, seed: of };
        let small = [
            Operation::Chown { of, uid: None, gid: Some(5), mode: None },
            Operation::Write { of, at: 0, data },
        ];
        for operation in small {
            world.perform(&Step { actor, operation });
        }
    }
    let told = |words: String| format!("{words}; it was done again, which gave {}", again.words());
    let Some(fs) = world.fs.as_ref().map(|fs| fs.ext2().clone()) else { return Ok(()) };
    // What ended all writing may have left memory and the image apart.
    if fs.is_read_only() {
        return Ok(());
    }
    // What a fence or a flush has lost is told once.
    match fs.sync().or_else(|_| fs.sync()) {
        Err(error) if fs.has_log() && log_is_lost(&error) => return Ok(()),
        synced => synced.map_err(|error| told(format!("cannot be synced: {error}")))?,
    }
    let known = tree::of(&fs).map_err(&told)?;
    drop(fs);
    let closed = world.close().map_err(|error| told(format!("cannot be closed: {error}")))?;
    let image = device.inner().to_vec();
    if closed == Closed::Clean {
        sound(&image).map_err(|words| told(format!("called clean: {words}")))?;
    }
    let there = tree::read(Arc::new(Scratch::new(image.clone()))).map_err(&told)?;
    if let Some((path, node)) = known.iter().find(|(path, node)| there.get(*path) != Some(node)) {
        let path = String::from_utf8_lossy(path);
        return Err(told(format!(
            "{path} is {node:?} in memory, {:?} in the image",
            there.get(path.as_bytes())
        )));
    }
    mended(image).map(drop).map_err(told)
}

/// The `lost+found` that was made for a rename stays, empty, where the device fails when it is about to go.
fn leave_out_shelter(found: &mut Tree, whole: &Tree) {
    const PLACE: &[u8] = b"/lost+found";
    let is_empty = !found.keys().any(|path| path.starts_with(b"/lost+found/"));
    if is_empty && !whole.contains_key(PLACE) && found.remove(PLACE).is_some() {
        let times = whole[&b""[..]].times;
        found.entry(Vec::new()).and_modify(|root| (root.links, root.times) = (root.links - 1, times));
    }
}

/// What is written to each page that is mapped, where it can be, is what every mapping of it shows.
fn mappings_show_what_is_written(world: &World) -> Result<(), String> {
    let of = |held: &Held| {
        let both = held.maps.iter().zip(&held.mapped);
        both.filter_map(|(map, inode)| Some((*map.as_ref()?.vma(), inode.clone()?))).collect::<Vec<_>>()
    };
    let written: Vec<_> = world.actors.iter().flat_map(of).filter(|(vma, _)| vma.is_shared()).collect();
    for (vma, inode) in written {
        let mapped = vma.pgoff..vma.page_at(vma.end);
        for page in mapped.start..inode.size().div_ceil(PAGE).min(mapped.start + 6).min(mapped.end) {
            let byte = 0xc0 | (page & 0x3f) as u8;
            // No room, a file system that is read-only by now, and flags are no faults.
            if inode.write_at(page * PAGE, &[byte]).is_err() {
                continue;
            }
            for held in &world.actors {
                for (map, own) in held.maps.iter().zip(&held.mapped) {
                    let (Some(map), Some(own)) = (map, own) else { continue };
                    let at = page.checked_sub(map.vma().pgoff).filter(|_| own == &inode);
                    let mut seen = [byte];
                    // What cannot be loaded shows nothing.
                    let _ = at
                        .filter(|_| map.vma().sharing != Sharing::Private)
                        .map(|at| map.load(at * PAGE, &mut seen));
                    if seen != [byte] {
                        return Err(format!(
                            "page {page} was written as {byte:#x}, and a mapping shows {seen:?}"
                        ));
                    }
                }
            }
        }
    }
    Ok(())
}

/// An image, mended as by `e2fsck -p`.
pub(super) fn mended(image: Vec<u8>) -> Result<Arc<Scratch>, String> {
    let device = Arc::new(Scratch::new(image));
    mend_alone(&mut Checker::new(), &*device)?;
    Ok(device)
}

/// Whether it goes on after one failure: it takes changes, or none at all. Gives whether it took one, in the root.
fn usable(world: &World, answer: &Answer) -> Result<bool, String> {
    if let Answer::Broken(words) = answer {
        return Err(format!("a device that fails is no broken image: {words}"));
    }
    let Some(fs) = world.fs.as_ref().map(ext2_dax::DaxFs::ext2) else { return Ok(false) };
    attributes_come_and_go(fs)?;
    let is_taken = match make_and_remove(fs) {
        Ok(()) => true,
        Err(error) if [Errno::ROFS, Errno::NOSPC, Errno::PERM].contains(&error.errno()) => false,
        // For good: whoever has all made durable is told, too.
        Err(error)
            if fs.has_log() && log_is_lost(&error) && fs.sync().is_err_and(|synced| log_is_lost(&synced)) =>
        {
            false
        }
        Err(error) => return Err(format!("afterwards: {error}")),
    };
    let read = fs.resolve(b"/", Follow::No).map_err(|error| error.to_string()).and_then(|_| tree::of(fs));
    match read {
        Err(words) if !fs.is_read_only() => Err(format!("cannot be read afterwards: {words}")),
        _ => Ok(is_taken),
    }
}

/// Gives everything that has attributes one more, and takes it away again: whoever is wrong about what is shared gives back
/// what somebody else uses.
fn attributes_come_and_go(fs: &Ext2) -> Result<(), String> {
    for found in fs.walk("/").map_err(|error| error.to_string())?.flatten() {
        let inode = found.inode;
        let has_some = inode.xattrs().is_ok_and(|all| !all.is_empty());
        // One that has no room, or is not to be changed, stays as it is.
        if has_some && inode.xattr_set(PASSING, b"by", XattrSet::Create).is_ok() {
            inode
                .xattr_remove(PASSING)
                .map_err(|error| format!("an attribute that was set stays: {error}"))?;
        }
    }
    Ok(())
}

/// Makes a file in the root.
fn make_and_keep(fs: &Ext2) -> ext2_core::Result<()> {
    let file = fs.root()?.create(AFTER, &NewInode::new(FileKind::Regular, 0o644))?;
    // Over what was given back; there may be no room.
    let _ = file.write_at(0, &vec![0xee; 20 * fs.geometry().block_size.len()]);
    Ok(())
}

/// Makes a file in the root and removes it, unless the root may only grow.
fn make_and_remove(fs: &Ext2) -> ext2_core::Result<()> {
    make_and_keep(fs)?;
    match fs.root()?.unlink(AFTER) {
        Err(error) if error.is(Errno::PERM) => Ok(()),
        done => done,
    }
}

/// The same steps where nothing fails, and the look at the root that follows them.
fn twin(
    options: &Options,
    before: &[Step],
    last: &Step,
    is_root_touched: bool,
) -> Result<(Answer, tree::Tree), String> {
    let device: Arc<dyn BlockDevice> = device(options, &base::image(options));
    let mut world = World::new(options, device).map_err(|error| error.to_string())?;
    let mut answer = Answer::Nothing;
    for (nr, step) in before.iter().chain([last]).enumerate() {
        world.clock.set(options.begin + 1 + nr as i64);
        answer = world.perform(step);
    }
    if is_root_touched {
        // Where the step failed the root may not have become one that is not to be touched.
        let root = world.ext2().root().map_err(|error| error.to_string())?;
        let flags = root.attr().flags;
        let touched = root.set_flags(flags - (InodeFlags::IMMUTABLE | InodeFlags::APPEND));
        touched
            .and_then(|()| make_and_remove(world.ext2()))
            .and_then(|()| root.set_flags(flags))
            .map_err(|error| error.to_string())?;
    }
    let mut tree = tree::of(world.ext2())?;
    tree.remove(&[b"/", AFTER].concat());
    Ok((answer, tree))
}
