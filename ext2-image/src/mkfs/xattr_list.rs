//! Lists of extended attributes, which the files that have the same attributes share.

use alloc::sync::Arc;
use alloc::vec::Vec;
use core::ops::Deref;

/// An extended attribute: whole name, and the value as programs see it.
pub type Xattr = (Vec<u8>, Vec<u8>);

/// The extended attributes of a file, in any order. Copies are one list in memory until one of them is changed: what an
/// archive says of all its members is there once.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct XattrList(
    /// None where there are none.
    Option<Arc<Vec<Xattr>>>,
);

impl XattrList {
    /// Adds one at the end.
    pub fn push(&mut self, xattr: Xattr) {
        Arc::make_mut(self.0.get_or_insert_default()).push(xattr);
    }

    /// Keeps those that `keep` says, each of which it is asked about once and in order. Where all stay, the list stays shared.
    pub fn retain(&mut self, keep: impl FnMut(&Xattr) -> bool) {
        let kept: Vec<bool> = self.iter().map(keep).collect();
        if let Some(list) = self.0.as_mut().filter(|_| kept.contains(&false)) {
            let mut kept = kept.iter();
            Arc::make_mut(list).retain(|_| kept.next() == Some(&true));
        }
        self.0.take_if(|list| list.is_empty());
    }

    /// Takes all away.
    pub fn clear(&mut self) {
        self.0 = None;
    }

    /// Whether two lists are one in memory.
    fn is_same(&self, other: &Self) -> bool {
        matches!((&self.0, &other.0), (Some(list), Some(other)) if Arc::ptr_eq(list, other))
    }

    /// Whether somebody else has this list too.
    fn is_shared(&self) -> bool {
        self.0.as_ref().is_some_and(|list| Arc::strong_count(list) > 1)
    }
}

impl Deref for XattrList {
    type Target = [Xattr];

    fn deref(&self) -> &[Xattr] {
        self.0.as_deref().map_or(&[], Vec::as_slice)
    }
}

impl From<Vec<Xattr>> for XattrList {
    fn from(list: Vec<Xattr>) -> Self {
        Self((!list.is_empty()).then(|| Arc::new(list)))
    }
}

impl FromIterator<Xattr> for XattrList {
    fn from_iter<I: IntoIterator<Item = Xattr>>(list: I) -> Self {
        list.into_iter().collect::<Vec<_>>().into()
    }
}

impl<'l> IntoIterator for &'l XattrList {
    type Item = &'l Xattr;
    type IntoIter = core::slice::Iter<'l, Xattr>;

    fn into_iter(self) -> Self::IntoIter {
        self.iter()
    }
}

/// What became of a list, so that files that shared it share what is left of it, and it is looked through once for all of them.
#[derive(Debug)]
pub(crate) struct Alike<T> {
    /// The last list that was shared, what is left of it, and what else there is to know of that.
    last: Option<(XattrList, XattrList, T)>,
}

impl<T> Default for Alike<T> {
    fn default() -> Self {
        Self { last: None }
    }
}

impl<T: Clone> Alike<T> {
    /// Changes a list by `change`, whose result is the same for the same list.
    pub(crate) fn change(&mut self, list: &mut XattrList, change: impl FnOnce(&mut XattrList) -> T) -> T {
        if !list.is_shared() {
            return change(list);
        }
        if let Some((from, to, told)) = &self.last
            && from.is_same(list)
        {
            *list = to.clone();
            return told.clone();
        }
        let from = list.clone();
        let told = change(list);
        self.last = Some((from, list.clone(), told.clone()));
        told
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::vec;

    fn list() -> XattrList {
        vec![(b"user.a".to_vec(), vec![1]), (b"user.b".to_vec(), vec![2])].into()
    }

    #[test]
    fn copies_are_one_list_until_one_of_them_is_changed() {
        let one = list();
        let mut other = one.clone();
        other.retain(|_| true);
        assert!(one.is_same(&other));
        other.retain(|(name, _)| name == b"user.b");
        assert_eq!((one.len(), other.len()), (2, 1));
        other.retain(|_| false);
        assert_eq!(other, XattrList::default());
    }

    #[test]
    fn what_is_left_of_a_shared_list_is_shared() {
        let (one, mut alike, mut asked) = (list(), Alike::default(), 0);
        let left: Vec<XattrList> = (0..3)
            .map(|_| {
                let mut copy = one.clone();
                let lost = alike.change(&mut copy, |list| {
                    asked += 1;
                    list.retain(|(name, _)| name == b"user.a");
                    1
                });
                assert_eq!(lost, 1);
                copy
            })
            .collect();
        assert_eq!(asked, 1);
        assert!(left.iter().all(|list| list.len() == 1 && list.is_same(&left[0])));
    }
}
