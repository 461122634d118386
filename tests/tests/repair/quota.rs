//! Images with the feature `quota`: what users and groups use is compared, and set right.

use std::fs;

use e2dax_tests::{Scratch, need_tools, tools};
use ext2_image::check::{self, Kind};
use ext2_image::repair::{Changes, repair};

use crate::bench::{Bench, options};
use crate::kinds::{base, debugfs, repaired};

#[test]
fn what_users_and_groups_use_is_set_right_in_the_files_of_quota() {
    need_tools!("mke2fs", "debugfs", "e2fsck");
    for size in ["1024", "4096"] {
        let bench = Bench::new();
        // What debugfs makes it does not count.
        let path = base(&bench, &["-t", "ext2", "-O", "quota", "-b", size]);
        tools::e2fsck_fn(&path).expect_err("e2fsck counts otherwise");
        let (wanted, kinds) = repaired(&bench, fs::read(&path).unwrap(), size);
        assert_eq!(kinds, [Kind::QuotaUsage, Kind::QuotaUsage], "of users, and of groups");

        // One more user and group, which e2fsck gives entries; with the files gone the entries have to say so.
        debugfs(&path, "sif d/f uid 70000\nsif d/f gid 900\n");
        let image = path.to_str().unwrap();
        tools::run("e2fsck", &["-fy", image]).expect_err("it mends, and says so by its exit code");
        tools::e2fsck_fn(&path).unwrap();
        debugfs(&path, "sif d/f uid 0\nsif d/g gid 900\nsif d/f links_count 3\n");
        let (found, kinds) = repaired(&bench, fs::read(&path).unwrap(), size);
        assert!(kinds.contains(&Kind::QuotaUsage) && kinds.contains(&Kind::Links), "{kinds:?}");
        assert_eq!(found.len(), wanted.len());
    }
}

#[test]
fn an_owner_without_an_entry_of_quota_is_named_and_left() {
    need_tools!("mke2fs", "debugfs");
    let bench = Bench::new();
    let path = base(&bench, &["-t", "ext2", "-O", "quota"]);
    debugfs(&path, "sif d/f uid 70000\nsif d/f links_count 3\n");
    let device = Scratch::new(fs::read(&path).unwrap());
    let changes = Changes::new(&device);
    let report = repair(&changes, &options(), &mut |_| true).unwrap();
    assert!(!report.clean);
    assert_eq!(report.stopped.unwrap().kind, Kind::QuotaUsage);
    // All else is mended, and a further repair finds no more to do.
    let mut left = Vec::new();
    check::check(&changes, &Default::default(), &mut |finding| left.push(finding.clone())).unwrap();
    let of_users: Vec<_> = left.iter().map(|finding| (finding.kind, finding.found)).collect();
    assert_eq!(of_users, [(Kind::QuotaUsage, Some(1))]);
    let stamp = changes.stamp();
    repair(&changes, &options(), &mut |_| true).unwrap();
    assert_eq!(changes.stamp(), stamp);
}
