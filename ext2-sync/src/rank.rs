//! The order of locks, and who holds which.

/// The place of a lock in the order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[allow(missing_docs)] // the table in the crate's documentation says what each is
pub enum Rank {
    Close,
    Rename,
    Io,
    Journal,
    Index,
    Orphan,
    Map,
    Xattr,
    Group,
    Super,
    Attr,
    Table,
    Stores,
    Leaf,
    Log,
    LogState,
}

impl Rank {
    /// Whether a second lock of this rank may be taken while one is held (in an order of its own).
    #[cfg(all(feature = "std", debug_assertions))]
    const fn repeats(self) -> bool {
        matches!(self, Self::Io)
    }
}

#[cfg(all(feature = "std", debug_assertions))]
pub(crate) mod order {
    use super::Rank;
    use std::cell::RefCell;
    use std::vec::Vec;

    std::thread_local! {
        static HELD: RefCell<Vec<Rank>> = const { RefCell::new(Vec::new()) };
    }

    /// Notes that a lock of a rank is held until it is dropped.
    #[derive(Debug)]
    pub(crate) struct Held(Rank);

    impl Held {
        pub(crate) fn take(rank: Rank) -> Self {
            HELD.with_borrow_mut(|held| {
                if let Some(&highest) = held.iter().max() {
                    assert!(
                        rank > highest || (rank == highest && rank.repeats()),
                        "lock order: {rank:?} taken while {highest:?} is held"
                    );
                }
                held.push(rank);
            });
            Self(rank)
        }
    }

    impl Drop for Held {
        fn drop(&mut self) {
            // A guard may outlive the thread's storage only while the thread ends.
            let _ = HELD.try_with(|held| {
                let mut held = held.borrow_mut();
                if let Some(at) = held.iter().rposition(|&rank| rank == self.0) {
                    held.remove(at);
                }
            });
        }
    }
}

#[cfg(not(all(feature = "std", debug_assertions)))]
pub(crate) mod order {
    use super::Rank;

    #[derive(Debug)]
    pub(crate) struct Held;

    impl Held {
        #[inline(always)]
        pub(crate) fn take(_: Rank) -> Self {
            Self
        }
    }
}
