//! Rights that a write takes away, which a log keeps for a commit, and the bytes, which it does not.

use std::sync::Arc;

use blockdev::RamDevice;
use e2dax_tests::{
    need_tools,
    small::{batched, create, image_of, logged, open_as},
};
use ext2_core::{Ext2, Follow, OpenOptions, SetAttr};

#[test]
fn a_crash_shows_nothing_that_a_user_wrote_with_a_set_id_bit() {
    need_tools!("mke2fs");
    let base = image_of(&["-t", "ext2", "-b", "1024"], "16M");
    for options in [OpenOptions::default(), logged(), batched()] {
        let device = Arc::new(RamDevice::from_bytes(&base).unwrap());
        let fs = open_as(device.clone(), &options);
        let tool = create(&fs, "tool");
        tool.write_at(0, &[1; 4096]).unwrap();
        tool.set_attr(&SetAttr { mode: Some(0o4777), ..SetAttr::default() }).unwrap();
        fs.sync().unwrap();
        tool.strip_setid().unwrap();
        tool.write_at(0, &[2; 4096]).unwrap();
        // As a process leaves it that is killed.
        let left = RamDevice::from_bytes(&device.to_vec()).unwrap();
        let again = Ext2::open(left, &OpenOptions::default()).unwrap();
        assert_eq!(again.read("tool").unwrap()[0], 2);
        assert_eq!(again.resolve("tool", Follow::No).unwrap().attr().mode, 0o777);
    }
}
