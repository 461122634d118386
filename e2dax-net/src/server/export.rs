//! A device that is served.

use std::sync::Arc;

use blockdev::{BlockDevice, Claim};

use crate::proto::can;

/// A device with the name under which it is served.
#[derive(Clone, Debug)]
pub struct Export {
    name: String,
    description: String,
    device: Arc<dyn BlockDevice>,
    read_only: bool,
    /// Nobody else of this process writes to the device while it is served.
    _claim: Option<Arc<Claim>>,
}

impl Export {
    /// Serves `device`, for writing too where it can be written. A name has at most 4096 bytes; a longer one is cut.
    pub fn new(name: impl Into<String>, device: Arc<dyn BlockDevice>) -> Self {
        let mut name = name.into();
        while name.len() > crate::proto::MAX_NAME {
            name.pop();
        }
        let read_only = device.is_read_only();
        Self { name, description: String::new(), device, read_only, _claim: None }
    }

    /// The same, for reading only.
    #[must_use]
    pub fn read_only(self) -> Self {
        Self { read_only: true, ..self }
    }

    /// The same with a line that tells a person what it is.
    #[must_use]
    pub fn described(self, description: impl Into<String>) -> Self {
        Self { description: description.into(), ..self }
    }

    /// The same, which holds the device's bytes for as long as it is served.
    #[must_use]
    pub fn claimed(self, claim: Claim) -> Self {
        Self { _claim: Some(Arc::new(claim)), ..self }
    }

    /// Its name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// What a person is told about it.
    #[must_use]
    pub fn description(&self) -> &str {
        &self.description
    }

    /// The device.
    #[must_use]
    pub fn device(&self) -> &dyn BlockDevice {
        &*self.device
    }

    /// Whether it is served for reading only.
    #[must_use]
    pub fn is_read_only(&self) -> bool {
        self.read_only
    }

    /// What it can do, as transmission flags.
    pub(super) fn flags(&self, structured: bool) -> u16 {
        let mut flags = can::HAS_FLAGS | can::FLUSH | can::FUA | can::MULTI_CONN | can::CACHE;
        flags |= if self.read_only { can::READ_ONLY } else { can::TRIM | can::WRITE_ZEROES };
        if structured {
            flags |= can::DF;
        }
        flags
    }
}
