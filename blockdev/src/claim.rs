//! Who writes to a device as a whole.
//!
//! Two file systems that are open for writing on one device destroy each other's work, whichever layers they came
//! through. So each claims the bytes that it is going to write to, and the second one is refused. This is about one
//! device object of this process; two openings of a file, here or by another process, are kept apart by its lock, and
//! `in_use` asks what the kernel does with it.

use alloc::string::String;
use alloc::vec::Vec;
use core::ops::Range;

use crate::sync::Mutex;
use crate::{Error, Result};

/// The claims of the process.
static CLAIMS: Mutex<Claims> = Mutex::new(Claims { next: 0, held: Vec::new() });

#[derive(Debug)]
struct Claims {
    /// The number of the next claim; none is used twice.
    next: u64,
    held: Vec<Held>,
}

/// Which object, by its address, and which of its bytes.
#[derive(Debug)]
struct Held {
    nr: u64,
    object: usize,
    bytes: Range<u64>,
}

/// Bytes of a device that its holder alone writes to, until it is [released](Self::release) or dropped. See
/// [`BlockDevice::claim`](crate::BlockDevice::claim).
#[derive(Debug)]
#[must_use = "a claim ends when it is dropped"]
pub struct Claim {
    nr: u64,
}

impl Claim {
    /// Claims bytes of the object, which must not move while somebody holds the claim.
    pub(crate) fn of<T: ?Sized>(object: &T, offset: u64, len: u64) -> Result<Self> {
        let address = core::ptr::from_ref(object).cast::<()>().addr();
        let bytes = offset..offset.saturating_add(len);
        let mut claims = CLAIMS.lock();
        // Objects without a byte of their own may share an address.
        let is_other = |held: &Held| {
            held.object == address
                && size_of_val(object) > 0
                && held.bytes.start < bytes.end
                && bytes.start < held.bytes.end
        };
        if claims.held.iter().any(is_other) {
            return Err(Error::InUse { by: String::from("this program has it open for writing already") });
        }
        let nr = claims.next;
        claims.next += 1;
        claims.held.push(Held { nr, object: address, bytes });
        Ok(Self { nr })
    }

    /// Gives the bytes up now. Does nothing the second time.
    pub fn release(&self) {
        CLAIMS.lock().held.retain(|held| held.nr != self.nr);
    }
}

impl Drop for Claim {
    fn drop(&mut self) {
        self.release();
    }
}
