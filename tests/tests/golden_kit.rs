//! Programs of other projects: a manifest as the test of their images (the example of `docs/golden-images.md`), and common
//! jobs in the fewest lines.

use std::{fs, path::Path};

use e2dax_tests::{need_tools, tools};
use ext2_core::{Ext2, OpenOptions};
use ext2_image::manifest::{Manifest, diff, from_image, parse};
use tempfile::tempdir;

#[path = "golden_kit/jobs.rs"]
mod jobs;

/// What the other project does: it builds an image, here of two files and a link.
fn build(image: &Path, password_mode: u32) {
    use std::os::unix::fs::{PermissionsExt, symlink};
    let tree = tempdir().unwrap();
    let etc = tree.path().join("etc");
    fs::create_dir(&etc).unwrap();
    fs::set_permissions(tree.path(), fs::Permissions::from_mode(0o755)).unwrap();
    fs::set_permissions(&etc, fs::Permissions::from_mode(0o755)).unwrap();
    fs::write(etc.join("motd"), "welcome\n").unwrap();
    fs::set_permissions(etc.join("motd"), fs::Permissions::from_mode(0o644)).unwrap();
    fs::write(etc.join("passwd"), "root:x:0:0::/:/bin/sh\n").unwrap();
    fs::set_permissions(etc.join("passwd"), fs::Permissions::from_mode(password_mode)).unwrap();
    symlink("etc/motd", tree.path().join("motd")).unwrap();
    let _ = fs::remove_file(image);
    tools::mke2fs(&[
        "-t".as_ref(),
        "ext2".as_ref(),
        "-d".as_ref(),
        tree.path().as_os_str(),
        image.as_os_str(),
        "512K".as_ref(),
    ]);
}

/// What is in an image.
fn manifest_of(image: &Path) -> Manifest {
    let device = blockdev::open_image(image, &blockdev::DeviceOptions::read_only()).unwrap();
    from_image(&Ext2::open(device, &OpenOptions::read_only()).unwrap()).unwrap()
}

/// The manifest that is committed: the text without what differs from build to build. Times, owners (the images are
/// built by any user), sizes of directories, and what the file system is.
fn reduced(manifest: &Manifest, owner: (u32, u32)) -> String {
    let mut text = String::new();
    for line in manifest.to_string().lines().filter(|line| !line.starts_with("fs ")) {
        let mut words: Vec<&str> = line.split(' ').filter(|word| !word.contains("time=")).collect();
        if words.get(1) == Some(&"d") {
            words[5] = "-";
        }
        text.push_str(&words.join(" "));
        text.push('\n');
    }
    text.replace(&format!(" {} {} ", owner.0, owner.1), " 0 0 ")
}

#[test]
fn a_committed_manifest_passes_the_next_build_and_names_the_mistake_in_a_later_one() {
    use std::os::unix::fs::MetadataExt;
    need_tools!("mke2fs");
    let folder = tempdir().unwrap();
    let image = folder.path().join("disk.img");
    let me = fs::metadata(folder.path()).map(|found| (found.uid(), found.gid())).unwrap();

    build(&image, 0o600);
    let committed = reduced(&manifest_of(&image), me);
    assert_eq!(
        committed,
        "\
e2dax-manifest 1
/ d 0755 0 0 - 4
/etc d 0755 0 0 - 2
/etc/motd f 0644 0 0 8 1 crc=60882fc4
/etc/passwd f 0600 0 0 22 1 crc=330dc12a
/lost+found d 0700 0 0 - 2
/motd l 0777 0 0 8 1 target=etc/motd
"
    );

    let expected = parse(&committed).unwrap();
    build(&image, 0o600);
    let found = parse(&reduced(&manifest_of(&image), me)).unwrap();
    assert_eq!(diff(&expected, &found), []);

    build(&image, 0o644);
    let found = parse(&reduced(&manifest_of(&image), me)).unwrap();
    let said: Vec<String> = diff(&expected, &found).iter().map(ToString::to_string).collect();
    assert_eq!(said, ["/etc/passwd: mode: 0600 != 0644"]);
}
