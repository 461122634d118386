//! Reading a file's pieces where they lie, beside somebody who cuts it.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use blockdev::RamDevice;
use ext2_core::{Ext2, FileKind, NewInode, OpenOptions, Piece, Wait};
use ext2_image::mkfs::{self, Format, Fresh};

#[test]
fn nobody_cuts_a_file_while_somebody_uses_its_pieces() {
    let device = Arc::new(RamDevice::new(1 << 20).unwrap());
    mkfs::format(&*device, &Format::default(), Fresh::Zeros).unwrap();
    let fs = Ext2::open(device.clone(), &OpenOptions::default()).unwrap();
    let file = fs.root().unwrap().create(b"f", &NewInode::new(FileKind::Regular, 0o644)).unwrap();
    file.write_at(0, &[7; 50_000]).unwrap();
    let is_cut = AtomicBool::new(false);
    std::thread::scope(|scope| {
        file.with_pieces(0, u64::MAX, |pieces| {
            scope.spawn(|| {
                file.truncate(0, Wait::Yes).unwrap();
                is_cut.store(true, Ordering::SeqCst);
            });
            std::thread::sleep(Duration::from_millis(50));
            assert!(!is_cut.load(Ordering::SeqCst));
            assert_eq!(pieces.iter().map(|piece| piece.len).sum::<u64>(), 50_000);
        })
        .unwrap();
    });
    assert!(is_cut.load(Ordering::SeqCst));
    assert_eq!(file.with_pieces(0, u64::MAX, <[Piece]>::len), Ok(0));
}
