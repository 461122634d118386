//! What the server has answered, and may lose as long as it is not flushed.

use std::collections::VecDeque;

/// Bytes from which on it is flushed.
const MAX_BYTES: usize = 64 << 20;
const MAX_ENTRIES: usize = 1 << 16;

/// A store.
#[derive(Clone, Debug)]
pub(super) enum Store {
    /// Bytes at an offset.
    Data(u64, Box<[u8]>),
    /// So many zeros at an offset.
    Zeros(u64, u64),
}

/// Stores in the order in which they were answered.
#[derive(Debug, Default)]
pub(super) struct Unflushed {
    stores: VecDeque<Store>,
    bytes: usize,
    /// The number of the first of them.
    first: u64,
}

impl Unflushed {
    /// Remembers a store, and tells whether it is time to flush.
    pub(super) fn push(&mut self, store: Store) -> bool {
        if let Store::Data(_, data) = &store {
            self.bytes += data.len();
        }
        self.stores.push_back(store);
        self.bytes > MAX_BYTES || self.stores.len() > MAX_ENTRIES
    }

    /// The number of the next store: a flush that is asked for now covers those before.
    pub(super) fn mark(&self) -> u64 {
        self.first + self.stores.len() as u64
    }

    /// Forgets what lies before a mark, and is durable.
    pub(super) fn forget(&mut self, mark: u64) {
        while self.first < mark
            && let Some(store) = self.stores.pop_front()
        {
            self.first += 1;
            if let Store::Data(_, data) = store {
                self.bytes -= data.len();
            }
        }
    }

    /// All of it, first to last.
    pub(super) fn iter(&self) -> impl Iterator<Item = &Store> {
        self.stores.iter()
    }
}
