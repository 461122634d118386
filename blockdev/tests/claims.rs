//! Bytes of one device have one writer.

use std::sync::Arc;

use blockdev::{BlockDevice, Counted, Error, Overlay, Partition, RamDevice, ReadOnly};

#[track_caller]
fn refused(device: &dyn BlockDevice) {
    match device.claim(0, device.size()) {
        Err(Error::InUse { by }) => assert!(by.contains("already"), "{by}"),
        other => panic!("not refused: {other:?}"),
    }
}

#[test]
fn bytes_of_one_device_have_one_writer() {
    let device = Arc::new(RamDevice::new(1 << 20).unwrap());
    let low = Partition::new(device.clone(), 0, 1 << 19).unwrap();
    let high = Partition::new(Box::new(&*device), 1 << 19, 1 << 19).unwrap();
    let claim = low.claim(0, 1 << 19).unwrap();
    let beside = high.claim(0, 1 << 19).unwrap();
    refused(&device);
    refused(&low);
    refused(&high);
    assert!(matches!(device.claim(1 << 20, 1), Err(Error::OutOfRange { .. })));
    claim.release();
    let again = low.claim(0, 1 << 19).unwrap();
    // The second end of the first claim is nothing to the one that followed.
    drop(claim);
    refused(&low);
    drop((again, beside));
    drop(device.claim(0, 1 << 20).unwrap());
    assert!(matches!(ReadOnly::new(&*device).claim(0, 1), Err(Error::ReadOnly)));
    let other = RamDevice::new(1 << 20).unwrap();
    let _one = device.claim(0, 1 << 20).unwrap();
    let _two = other.claim(0, 1 << 20).unwrap();
}

#[test]
fn an_overlay_is_a_device_of_its_own() {
    let golden = Arc::new(RamDevice::new(1 << 20).unwrap());
    let _below = golden.claim(0, 1 << 20).unwrap();
    let overlay = Overlay::new(golden.clone()).unwrap();
    let _above = overlay.claim(0, 1 << 20).unwrap();
    refused(&Counted::new(&overlay));
}

#[test]
fn a_device_of_somebody_elses_kind_is_claimed_too() {
    #[derive(Debug)]
    struct Own(RamDevice);
    impl BlockDevice for Own {
        fn size(&self) -> u64 {
            self.0.size()
        }
        fn read_at(&self, offset: u64, buf: &mut [u8]) -> blockdev::Result<()> {
            self.0.read_at(offset, buf)
        }
        fn write_at(&self, offset: u64, buf: &[u8]) -> blockdev::Result<()> {
            self.0.write_at(offset, buf)
        }
        fn zero(&self, offset: u64, len: u64) -> blockdev::Result<()> {
            self.0.zero(offset, len)
        }
        fn fence(&self) -> blockdev::Result<()> {
            Ok(())
        }
        fn flush(&self) -> blockdev::Result<()> {
            Ok(())
        }
    }
    let device: Arc<dyn BlockDevice> = Arc::new(Own(RamDevice::new(1 << 20).unwrap()));
    let claim = device.claim(0, 1 << 20).unwrap();
    refused(&device);
    refused(&*device);
    drop(claim);
    drop(device.claim(0, 1 << 20).unwrap());
}
