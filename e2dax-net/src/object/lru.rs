//! Which of many was used last.

use std::collections::{BTreeMap, HashMap};
use std::hash::Hash;

/// Keys with the bytes that each stands for, in the order of their use.
#[derive(Debug)]
pub(super) struct Lru<K> {
    limit: u64,
    bytes: u64,
    clock: u64,
    used: HashMap<K, (u64, u64)>,
    order: BTreeMap<u64, K>,
}

impl<K: Clone + Eq + Hash> Lru<K> {
    /// For so many bytes.
    pub(super) fn new(limit: u64) -> Self {
        Self { limit, bytes: 0, clock: 0, used: HashMap::new(), order: BTreeMap::new() }
    }

    /// Says that one is used; false where it is not there.
    pub(super) fn touch(&mut self, key: &K) -> bool {
        let Some((when, _)) = self.used.get_mut(key) else { return false };
        self.clock += 1;
        self.order.remove(&*when);
        *when = self.clock;
        self.order.insert(self.clock, key.clone());
        true
    }

    /// Adds one, and gives those that have to go for it.
    pub(super) fn insert(&mut self, key: K, bytes: u64) -> Vec<K> {
        self.remove(&key);
        self.clock += 1;
        self.used.insert(key.clone(), (self.clock, bytes));
        self.order.insert(self.clock, key);
        self.bytes += bytes;
        let mut gone = Vec::new();
        while self.bytes > self.limit
            && self.used.len() > 1
            && let Some((_, oldest)) = self.order.pop_first()
        {
            self.bytes -= self.used.remove(&oldest).map_or(0, |(_, bytes)| bytes);
            gone.push(oldest);
        }
        gone
    }

    pub(super) fn remove(&mut self, key: &K) {
        if let Some((when, bytes)) = self.used.remove(key) {
            self.order.remove(&when);
            self.bytes -= bytes;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_not_used_longest_goes_first() {
        let mut lru = Lru::new(30);
        for key in 0..3 {
            assert!(lru.insert(key, 10).is_empty());
        }
        assert!(lru.touch(&0) && !lru.touch(&9));
        assert_eq!(lru.insert(3, 20), [1, 2]);
        lru.remove(&0);
        assert!(lru.insert(4, 10).is_empty());
        // One that is larger than all stays alone.
        assert_eq!(lru.insert(5, 99).len(), 2);
        assert!(lru.touch(&5));
    }
}
