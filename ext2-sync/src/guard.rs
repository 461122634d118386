//! What holds a lock.

use core::ops::{Deref, DerefMut};

use crate::rank::order;

/// What holds a lock until it is dropped.
#[derive(Debug)]
pub struct Guard<G> {
    pub(crate) inner: G,
    pub(crate) _held: order::Held,
}

impl<G: Deref> Deref for Guard<G> {
    type Target = G::Target;
    fn deref(&self) -> &G::Target {
        &self.inner
    }
}

impl<G: DerefMut> DerefMut for Guard<G> {
    fn deref_mut(&mut self) -> &mut G::Target {
        &mut self.inner
    }
}
