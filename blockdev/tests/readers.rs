//! Devices made of what can be read.

#![cfg(feature = "std")]

use std::io::Cursor;
use std::sync::{Arc, Mutex};

use blockdev::{BlockDevice, CacheOptions, Cached, Error, ReadAt, ReadDevice, conformance};
use tempfile::NamedTempFile;

fn image() -> Vec<u8> {
    (0..300_000_u32).map(|at| (at.wrapping_mul(2_654_435_761) >> 24) as u8).collect()
}

#[test]
fn every_source_is_a_sound_device_for_reading() {
    let image = image();
    let file = NamedTempFile::new().unwrap();
    std::fs::write(file.path(), &image).unwrap();
    let open = || std::fs::File::open(file.path()).unwrap();
    let slice: &[u8] = &image;
    let devices: [(&str, Box<dyn BlockDevice + '_>); 7] = [
        ("slice", Box::new(ReadDevice::new(slice).unwrap())),
        ("vector", Box::new(ReadDevice::new(image.clone()).unwrap())),
        ("shared", Box::new(ReadDevice::new(Arc::<[u8]>::from(slice)).unwrap())),
        ("file", Box::new(ReadDevice::new(open()).unwrap())),
        ("cursor", Box::new(ReadDevice::new(Mutex::new(Cursor::new(image.clone()))).unwrap())),
        ("seeking file", Box::new(ReadDevice::new(Mutex::new(open())).unwrap())),
        ("cached", Box::new(Cached::new(ReadDevice::new(open()).unwrap(), CacheOptions::default()).unwrap())),
    ];
    for (name, device) in devices {
        assert_eq!(device.size(), image.len() as u64, "{name}");
        conformance::check_read_only(&*device);
        let mut all = vec![0; image.len()];
        device.read_at(0, &mut all).unwrap();
        assert!(all == image, "{name}");
        assert!(matches!(device.read_at(image.len() as u64 - 1, &mut [0; 2]), Err(Error::OutOfRange { .. })));
    }
}

#[test]
fn a_source_without_a_size_is_given_one() {
    struct Zeros;
    impl ReadAt for Zeros {
        fn read_at(&self, _offset: u64, buf: &mut [u8]) -> blockdev::Result<()> {
            buf.fill(0);
            Ok(())
        }
    }
    assert!(matches!(ReadDevice::new(&Zeros), Err(Error::Unsupported(_))));
    let device = ReadDevice::with_size(Zeros, u64::MAX);
    assert_eq!(device.read_u32(u64::MAX - 4), Ok(0));
    assert!(device.read_u32(u64::MAX - 3).is_err());
}

#[test]
fn a_source_that_ends_early_is_an_error_that_names_the_place() {
    let device = ReadDevice::with_size(Mutex::new(Cursor::new(vec![0; 100])), 200);
    let error = device.read_at(90, &mut [0; 20]).unwrap_err();
    assert!(matches!(error, Error::Io { op: "read", offset: 90, .. }), "{error:?}");
}
