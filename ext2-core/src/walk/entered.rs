//! The directories that somebody has come to who goes through a tree: whether one that is met again was moved meanwhile, or has a
//! second name, which none may have.

use alloc::collections::BTreeMap;
use alloc::vec::Vec;

use crate::sync::Mended;
use crate::{Errno, Error, Inode, InodeNr};

/// Directories that were come to, each by the name that led to it first.
#[derive(Debug, Default)]
pub(crate) struct Entered(BTreeMap<Id, Option<(Id, Vec<u8>)>>);

/// A directory, with its generation: the number of one that is gone may be another's.
type Id = (InodeNr, u32);

fn id(inode: &Inode) -> Id {
    (inode.nr(), inode.0.generation)
}

/// How a directory was come to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Met {
    First,
    /// Again, since it was moved meanwhile.
    Moved,
    /// By a second name.
    Twice,
}

impl Entered {
    /// Notes where it begins.
    pub(crate) fn begin(&mut self, start: &Inode) {
        self.0.insert(id(start), None);
    }

    /// Notes that `name` of `directory` led to `child`.
    ///
    /// # Errors
    /// As [`Inode::lookup`].
    pub(crate) fn enter(&mut self, directory: &Inode, name: &[u8], child: &Inode) -> Result<Met, Error> {
        let Some(first) = self.0.get(&id(child)) else {
            self.0.insert(id(child), Some((id(directory), name.to_vec())));
            return Ok(Met::First);
        };
        let fs = child.fs();
        // Not whether it can be written now: what was moved before that ended was moved.
        if !fs.0.has_writer() || Mended::MovedIsBroken.is_back() {
            return Ok(Met::Twice);
        }
        let leads = |directory: &Inode, name: &[u8]| match directory.lookup(name) {
            Ok(there) => Ok(there == *child),
            Err(error) if error.is(Errno::NOENT) || error.is(Errno::NOTDIR) => Ok(false),
            Err(error) => Err(error),
        };
        // It leads here; where the first name does so too, and this one still, there are two.
        let Some(((nr, generation), first_name)) = first else { return Ok(Met::Twice) };
        let above = match fs.inode(*nr) {
            Ok(above) if above.0.generation == *generation => above,
            Ok(_) | Err(Error::Caller(..)) => return Ok(Met::Moved),
            Err(error) => return Err(error),
        };
        // Both at one moment: it may go there and come back between the two questions.
        let seen = [&above, directory].map(|directory| (directory, directory.0.io.glance()));
        let are_two = leads(&above, first_name)? && leads(directory, name)?;
        let is_one_moment =
            seen.iter().all(|(directory, seen)| seen.is_some_and(|seen| directory.0.io.unchanged(seen)));
        Ok(if are_two && is_one_moment { Met::Twice } else { Met::Moved })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Ext2, Follow, OpenOptions};

    #[test]
    fn a_directory_that_is_met_again_was_moved_or_has_two_names() {
        let device = ext2_image::mkfs::in_memory(4 << 20).unwrap();
        let fs = Ext2::open(device, &OpenOptions::default()).unwrap();
        let at = |path: &str| fs.resolve(path, Follow::No).unwrap();
        fs.create_dir_all("a/d").unwrap();
        fs.create_dir("z").unwrap();
        let (a, d, z) = (at("a"), at("a/d"), at("z"));
        let mut entered = Entered::default();
        assert_eq!(entered.enter(&a, b"d", &d), Ok(Met::First));
        // By the name that it has still.
        assert_eq!(entered.enter(&a, b"d", &d), Ok(Met::Twice));
        fs.rename_path("a/d", "z/e").unwrap();
        assert_eq!(entered.enter(&z, b"e", &d), Ok(Met::Moved));
        // Where its first directory is gone, too.
        fs.remove_dir("a").unwrap();
        drop(a);
        assert_eq!(entered.enter(&z, b"e", &d), Ok(Met::Moved));
        // Whoever only reads sees nothing moved.
        let device = fs.device().clone();
        drop((d, z));
        fs.close().unwrap();
        let fs = Ext2::open(device, &OpenOptions::read_only()).unwrap();
        let (z, d) = (fs.resolve("z", Follow::No).unwrap(), fs.resolve("z/e", Follow::No).unwrap());
        let mut entered = Entered::default();
        assert_eq!(entered.enter(&z, b"e", &d), Ok(Met::First));
        assert_eq!(entered.enter(&z, b"e", &d), Ok(Met::Twice));
    }
}
