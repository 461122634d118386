//! A device for whoever keeps it.

use alloc::sync::Arc;
use core::any::Any;

use crate::BlockDevice;

/// The device as something that many may hold; one that is already shared as `Arc<dyn BlockDevice>` is not wrapped again.
///
/// ```
/// use std::sync::Arc;
/// use blockdev::{BlockDevice, RamDevice, shared};
///
/// let device: Arc<dyn BlockDevice> = shared(RamDevice::new(4096)?);
/// let same = shared(device.clone());
/// assert!(Arc::ptr_eq(&device, &same));
/// # Ok::<(), blockdev::Error>(())
/// ```
pub fn shared(device: impl BlockDevice + 'static) -> Arc<dyn BlockDevice> {
    let mut device = Some(device);
    let any: &mut dyn Any = &mut device;
    if let Some(shared) = any.downcast_mut::<Option<Arc<dyn BlockDevice>>>()
        && let Some(shared) = shared.take()
    {
        return shared;
    }
    match device {
        Some(device) => Arc::new(device),
        None => unreachable!("it was taken only to be returned"),
    }
}
