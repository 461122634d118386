//! Images from container images and from several sources: what comes out is what well-known tools unpack.

use std::fs::{self, File};
use std::os::unix::fs::{FileExt as _, PermissionsExt as _, symlink};
use std::path::Path;

use e2dax_tests::{need_tools, skip, tools};

use crate::common::Folder;
use crate::layers::{Blob, Pack, add_image, index, layout, new_layout, tagged, tar_of, write_index};

fn write(path: &Path, bytes: &[u8]) {
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(path, bytes).unwrap();
}

/// Lets every file have a time of its own that is no accident of when the test ran.
fn settle(root: &Path) {
    let script = r#"find "$1" -depth | sort | while read -r f; do n=$((n+1)); touch -h -d "@$((1500000000+n))" "$f"; done"#;
    tools::run("sh", &["-c", script, "sh", root.to_str().unwrap()]).unwrap();
}

/// Three layers with all that layers do to each other.
fn layers(folder: &Folder) -> Vec<Vec<u8>> {
    let [one, two, three] = ["l1", "l2", "l3"].map(|name| folder.path(name));
    write(&one.join("etc/passwd"), b"root:x:0:0::/:/bin/sh\n");
    write(&one.join("etc/kept"), b"kept");
    write(&one.join("etc/gone"), b"gone");
    write(&one.join("whole/a/b/c"), b"below");
    write(&one.join("whole/d"), b"beside");
    write(&one.join("opaque/old"), b"old");
    write(&one.join("opaque/again"), b"old");
    write(&one.join("opaque/sub/old"), b"old");
    write(&one.join("linked/first"), b"linked bytes");
    fs::hard_link(one.join("linked/first"), one.join("linked/second")).unwrap();
    write(&one.join("usr/bin/tool"), b"tool");
    symlink("usr/bin", one.join("bin")).unwrap();
    symlink("/etc", one.join("absolute")).unwrap();
    write(&one.join("becomes_dir"), b"file");
    write(&one.join("becomes_file/x"), b"x");
    symlink("usr", one.join("link_becomes_dir")).unwrap();
    write(&one.join("mode"), b"m");
    let sparse = File::create(one.join("sparse")).unwrap();
    sparse.set_len(3 << 20).unwrap();
    sparse.write_all_at(b"data", 1 << 20).unwrap();
    settle(&one);

    write(&two.join("etc/.wh.gone"), b"");
    write(&two.join(".wh.whole"), b"");
    write(&two.join("opaque/.wh..wh..opq"), b"");
    write(&two.join("opaque/again"), b"new");
    write(&two.join("opaque/new"), b"new");
    // Only one of two names gets new bytes.
    write(&two.join("linked/first"), b"new bytes");
    write(&two.join("becomes_dir/inside"), b"inside");
    write(&two.join("becomes_file"), b"now a file");
    write(&two.join("link_becomes_dir/own"), b"own");
    write(&two.join("deep/.wh..wh.plnk"), b"");
    write(&two.join("deep/er/file"), b"deep");
    write(&two.join("mode"), b"m");
    fs::set_permissions(two.join("mode"), fs::Permissions::from_mode(0o4755)).unwrap();
    settle(&two);

    // Through links that lie below: into what they lead to.
    write(&three.join("whole/returned"), b"returned");
    write(&three.join("opaque/.wh.new"), b"");
    write(&three.join("z"), b"z");
    settle(&three);
    vec![
        tar_of(&one, &["."]),
        tar_of(&two, &["."]),
        // A hard link to a file of a layer below, through Python: tar writes links among its own files only.
        tools::run("python3", &["-c", HARD_LINK, three.to_str().unwrap()]).unwrap(),
    ]
}

const HARD_LINK: &str = "
import sys, tarfile, os
out = tarfile.open(fileobj=sys.stdout.buffer, mode='w|', format=tarfile.PAX_FORMAT)
def own(member):
    member.uid = member.gid = 0
    member.uname = member.gname = ''
    return member
for name in ['whole', 'opaque', 'z']:
    out.add(os.path.join(sys.argv[1], name), arcname=name, filter=own)
link = tarfile.TarInfo('linked/third')
link.type, link.linkname, link.mtime = tarfile.LNKTYPE, 'linked/second', 1400000000
out.addfile(link)
through = tarfile.TarInfo('bin/added')
through.size, through.mtime, through.mode = 0, 1400000001, 0o644
out.addfile(through)
out.close()
";

/// What a manifest says of files; not of the root's times, which unpacking changes.
fn files(folder: &Folder, image: &str) -> Vec<String> {
    let text = folder.run(&["manifest", image]).ok();
    let lines = text.lines().filter(|line| line.starts_with('/') && !line.starts_with("/ "));
    let without_times = |line: &str| -> String {
        let words = line
            .split(' ')
            .filter(|word| !["atime=", "ctime=", "crtime="].iter().any(|prefix| word.starts_with(prefix)));
        words.collect::<Vec<_>>().join(" ")
    };
    lines.map(without_times).collect()
}

fn without_holes(lines: &[String]) -> Vec<String> {
    let without = |line: &String| -> String {
        line.split(' ').filter(|word| !word.starts_with("holes=")).collect::<Vec<_>>().join(" ")
    };
    lines.iter().map(without).collect()
}

fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

#[test]
fn what_aufs_kept_in_a_layer_for_itself_is_not_in_the_image_and_its_links_are() {
    need_tools!("tar");
    let folder = Folder::with(&[]);
    let tree = folder.path("tree");
    // As old images have it: a file with two names lies among what is aufs' own, too.
    write(&tree.join(".wh..wh.plnk/77.1"), b"linked");
    fs::create_dir(tree.join("d")).unwrap();
    fs::hard_link(tree.join(".wh..wh.plnk/77.1"), tree.join("d/a")).unwrap();
    fs::hard_link(tree.join(".wh..wh.plnk/77.1"), tree.join("d/b")).unwrap();
    fs::create_dir(tree.join(".wh..wh.orph")).unwrap();
    write(&tree.join(".wh..wh.aufs"), b"");
    let layer = tar_of(&tree, &[".wh..wh.aufs", ".wh..wh.orph", ".wh..wh.plnk", "d"]);
    layout(&folder, "image", &[layer], Pack::Gzip);
    folder.run(&["mkfs", "a.img", "--from", "oci:image:v1"]).ok();
    assert_eq!(folder.run(&["find", "a.img:/"]).ok(), "/\n/d\n/d/a\n/d/b\n/lost+found\n");
    assert_eq!(folder.run(&["cat", "a.img:/d/a", "a.img:/d/b"]).ok(), "linkedlinked");
    assert_eq!(folder.run(&["find", "a.img:/", "--links", "2", "--type", "f"]).ok(), "/d/a\n/d/b\n");
}

#[test]
fn layers_are_applied_as_umoci_unpacks_them() {
    need_tools!("tar", "python3", "umoci");
    if !is_root() {
        skip!("umoci keeps owners for root only");
    }
    let folder = Folder::with(&[]);
    let layers = layers(&folder);
    layout(&folder, "image", &layers, Pack::Gzip);
    folder.run(&["mkfs", "oci.img", "--from", "oci:image:v1", "--size", "16M"]).ok();
    let bundle = folder.path("bundle");
    let output = tools::command("umoci")
        .current_dir(folder.root())
        .args(["unpack", "--image", "image:v1"])
        .arg(&bundle)
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", tools::words(&output));
    folder.run(&["mkfs", "umoci.img", "--from", "bundle/rootfs", "--size", "16M"]).ok();
    let (ours, theirs) = (files(&folder, "oci.img"), files(&folder, "umoci.img"));
    assert_eq!(without_holes(&ours), without_holes(&theirs));
    let has = |path: &str| ours.iter().any(|line| line.split(' ').next() == Some(path));
    for path in ["/etc/kept", "/opaque/again", "/whole/returned", "/linked/third", "/usr/bin/added"] {
        assert!(has(path), "{path}: {ours:#?}");
    }
    for path in ["/etc/gone", "/whole/d", "/opaque/old", "/opaque/sub", "/opaque/new", "/usr/own"] {
        assert!(!has(path), "{path}: {ours:#?}");
    }
    assert!(!ours.iter().any(|line| line.contains(".wh.")), "{ours:#?}");
    if tools::have("e2fsck") {
        tools::e2fsck_fn(&folder.path("oci.img")).unwrap();
    }
}

#[test]
fn an_image_is_the_same_however_it_is_packed_and_whoever_carries_it() {
    need_tools!("tar", "python3");
    let folder = Folder::with(&[]);
    let layers = layers(&folder);
    let mut images = Vec::new();
    let mut make = |name: &str, source: &str| {
        folder.run(&["mkfs", name, "--from", source]).ok();
        images.push((source.to_owned(), fs::read(folder.path(name)).unwrap()));
    };
    for (name, pack) in [("plain", Pack::Plain), ("gzip", Pack::Gzip), ("zstd", Pack::Zstd)] {
        layout(&folder, name, &layers, pack);
        make(&format!("{name}.img"), &format!("oci:{name}:v1"));
    }
    // There is but one: it needs no tag.
    make("one.img", "oci:gzip");
    // A layout as an archive, packed and not.
    tools::run(
        "tar",
        &["-C", folder.path("gzip").to_str().unwrap(), "-cf", folder.path("l.tar").to_str().unwrap(), "."],
    )
    .unwrap();
    make("tar.img", "oci:l.tar:v1");
    tools::run(
        "tar",
        &["-C", folder.path("gzip").to_str().unwrap(), "-czf", folder.path("l.tgz").to_str().unwrap(), "."],
    )
    .unwrap();
    make("tgz.img", "oci-archive:l.tgz:v1");
    if tools::have("skopeo") {
        for target in
            ["docker-archive:saved.tar:host:5000/name:v1", "oci-archive:carried.tar:v1", "oci:carried:v1"]
        {
            let output = tools::command("skopeo")
                .current_dir(folder.root())
                .args(["--insecure-policy", "copy", "oci:gzip:v1", target])
                .output()
                .unwrap();
            assert!(output.status.success(), "{}", tools::words(&output));
        }
        make("saved.img", "docker-archive:saved.tar:host:5000/name:v1");
        make("saved-tag.img", "oci:saved.tar:v1");
        make("carried.img", "oci:carried.tar:v1");
        make("carried-dir.img", "oci:carried:v1");
    }
    let (first, bytes) = &images[0];
    for (source, other) in &images {
        assert!(bytes == other, "{source} differs from {first}");
    }
}

#[test]
fn of_several_images_the_one_is_taken_that_was_asked_for() {
    need_tools!("tar", "python3");
    let folder = Folder::with(&[]);
    let layers = layers(&folder);
    let layout = new_layout(&folder, "many");
    let amd = add_image(&layout, &layers[..1], Pack::Gzip, "amd64");
    let arm = add_image(&layout, &layers[..2], Pack::Gzip, "arm64");
    let platform = |name: &str| format!(r#","platform":{{"os":"linux","architecture":"{name}"}}"#);
    let attestation = (
        amd.clone(),
        r#","platform":{"os":"unknown","architecture":"unknown"},"annotations":{"vnd.docker.reference.type":"attestation-manifest"}"#.to_owned(),
    );
    let inner = index(&[(amd.clone(), platform("amd64")), (arm, platform("arm64")), attestation]);
    let inner = Blob::put(&layout, inner.as_bytes());
    // An index in an index, as buildx writes it.
    let top = format!(
        r#"{{"schemaVersion":2,"manifests":[{},{}]}}"#,
        inner.descriptor("application/vnd.oci.image.index.v1+json", &tagged("multi")),
        amd.descriptor("application/vnd.oci.image.manifest.v1+json", &tagged("single")),
    );
    fs::write(layout.join("index.json"), top).unwrap();
    let fails = |words: &[&str]| folder.run(&[&["mkfs", "x.img", "--from"][..], words].concat()).fails(1);
    let said = fails(&["oci:many"]);
    assert!(said.contains("multi") && said.contains("single"), "{said}");
    let said = fails(&["oci:many:multi"]);
    assert!(said.contains("linux/amd64") && said.contains("linux/arm64"), "{said}");
    let said = fails(&["oci:many:multi", "--platform", "linux/s390x"]);
    assert!(said.contains("linux/s390x") && said.contains("linux/arm64"), "{said}");
    let said = fails(&["oci:many:none"]);
    assert!(said.contains("no image \"none\"") && said.contains("multi"), "{said}");
    let said = fails(&["oci:many:single", "--platform", "arm64"]);
    assert!(said.contains("linux/amd64"), "{said}");
    assert!(!folder.path("x.img").exists());
    let has = |image: &str, path: &str| folder.run(&["stat", &format!("{image}:{path}")]).code() == 0;
    folder.run(&["mkfs", "amd.img", "--from", "oci:many:multi", "--platform", "linux/amd64"]).ok();
    folder.run(&["mkfs", "arm.img", "--from", "oci:many:multi", "--platform", "arm64"]).ok();
    folder.run(&["mkfs", "single.img", "--from", "oci:many:single"]).ok();
    assert!(has("amd.img", "/etc/gone") && !has("arm.img", "/etc/gone"));
    assert!(fs::read(folder.path("amd.img")).unwrap() == fs::read(folder.path("single.img")).unwrap());
}

#[test]
fn a_blob_that_is_not_what_its_digest_says_is_refused() {
    need_tools!("tar", "python3");
    let folder = Folder::with(&[]);
    let layers = layers(&folder);
    layout(&folder, "image", &layers, Pack::Plain);
    let blobs = folder.path("image/blobs/sha256");
    for entry in fs::read_dir(&blobs).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_str().unwrap().to_owned();
        let bytes = fs::read(&path).unwrap();
        let mut changed = bytes.clone();
        // A byte within a file or within a number, so that what is read still makes sense.
        let at = changed.len() / 2;
        changed[at] ^= 1;
        for (bytes, what) in [(&changed, "digest"), (&bytes[..bytes.len() - 1].to_vec(), "bytes")] {
            fs::write(&path, bytes).unwrap();
            let said = folder.run(&["mkfs", "x.img", "--from", "oci:image:v1"]).fails(1);
            assert!(said.contains(&name) && (said.contains(what) || said.contains("digest")), "{said}");
        }
        fs::remove_file(&path).unwrap();
        let said = folder.run(&["mkfs", "x.img", "--from", "oci:image:v1"]).fails(1);
        assert!(said.contains(&name) && said.contains("not there"), "{said}");
        fs::write(&path, &bytes).unwrap();
    }
    assert!(!folder.path("x.img").exists());
    folder.run(&["mkfs", "x.img", "--from", "oci:image:v1"]).ok();
    // The right blobs in the wrong places: a config that says other layers.
    let layout = new_layout(&folder, "swapped");
    let right = add_image(&layout, &layers, Pack::Gzip, "amd64");
    let other =
        add_image(&layout, &[layers[1].clone(), layers[0].clone(), layers[2].clone()], Pack::Gzip, "amd64");
    let read = |blob: &Blob| fs::read_to_string(Blob::path_of(&layout, &blob.digest)).unwrap();
    let config = |text: &str| text.split("\"layers\":").next().unwrap().to_owned();
    let (right, other) = (read(&right), read(&other));
    let mixed = right.replace(&config(&right), &config(&other));
    write_index(&layout, &[(Blob::put(&layout, mixed.as_bytes()), tagged("v1"))]);
    let said = folder.run(&["mkfs", "y.img", "--from", "oci:swapped"]).fails(1);
    assert!(said.contains("digest"), "{said}");
}

#[test]
fn several_sources_are_layers_be_they_directories_archives_or_images() {
    need_tools!("tar", "python3");
    let folder = Folder::with(&[]);
    let layers = layers(&folder);
    layout(&folder, "whole", &layers, Pack::Gzip);
    layout(&folder, "first", &layers[..1], Pack::Gzip);
    fs::write(folder.path("l2.tar"), &layers[1]).unwrap();
    fs::write(folder.path("l3.tar"), &layers[2]).unwrap();
    folder.run(&["mkfs", "whole.img", "--from", "oci:whole"]).ok();
    let whole = fs::read(folder.path("whole.img")).unwrap();
    folder.run(&["mkfs", "a.img", "--from", "oci:first", "--from", "l2.tar", "--from", "l3.tar"]).ok();
    assert!(whole == fs::read(folder.path("a.img")).unwrap(), "archives over an image");
    // Directories; their owners are those of whoever ran this.
    let words = ["mkfs", "b.img", "--owner", "0:0", "--from", "l1", "--from", "l2", "--from", "l3.tar"];
    folder.run(&words).ok();
    // What holes the directory has is not in the archive.
    assert_eq!(without_holes(&files(&folder, "b.img")), without_holes(&files(&folder, "whole.img")));
}

#[test]
fn directories_of_overlayfs_hide_what_they_hide_when_mounted() {
    need_tools!("tar", "mount");
    let folder = Folder::with(&[]);
    for name in ["lower", "upper", "work", "merged"] {
        fs::create_dir(folder.path(name)).unwrap();
    }
    write(&folder.path("lower/a/one"), b"1");
    write(&folder.path("lower/a/two"), b"2");
    write(&folder.path("lower/b/three"), b"3");
    write(&folder.path("lower/c"), b"c");
    let options = format!(
        "lowerdir={},upperdir={},workdir={}",
        folder.path("lower").display(),
        folder.path("upper").display(),
        folder.path("work").display()
    );
    let merged = folder.path("merged");
    let mounted = tools::command("mount")
        .args(["-t", "overlay", "overlay", "-o", &options])
        .arg(&merged)
        .output()
        .unwrap();
    if !mounted.status.success() {
        skip!("overlayfs cannot be mounted here: {}", tools::words(&mounted));
    }
    let change = "rm a/one && rm -r b && mkdir b && echo new > b/new && rm c && mkdir c && echo x > a/x";
    let changed = tools::command("sh").current_dir(&merged).args(["-c", change]).output().unwrap();
    let built = folder.run(&["mkfs", "merged.img", "--from", "merged"]);
    tools::run("umount", &[merged.to_str().unwrap()]).unwrap();
    assert!(changed.status.success(), "{}", tools::words(&changed));
    built.ok();
    folder.run(&["mkfs", "layers.img", "--from", "lower", "--from", "upper"]).ok();
    assert_eq!(files(&folder, "layers.img"), files(&folder, "merged.img"));
}

/// Sets attributes of files; false where nobody can.
fn set_attributes(folder: &Folder, all: &[(&str, &str, &str)]) -> bool {
    all.iter().all(|(name, value, path)| {
        let words = ["-n", name, "-v", value, path];
        tools::command("setfattr").current_dir(folder.root()).args(words).status().unwrap().success()
    })
}

#[test]
fn whiteouts_of_overlayfs_may_be_empty_files_with_an_attribute() {
    need_tools!("setfattr", "mount");
    let folder = Folder::with(&[]);
    for name in ["gone", "kept", "full"] {
        write(&folder.path("lower/d").join(name), b"below");
    }
    fs::create_dir(folder.path("merged")).unwrap();
    for name in ["upper/d/gone", "upper/d/new"] {
        write(&folder.path(name), b"");
    }
    write(&folder.path("upper/d/full"), b"not empty");
    let attributes = [
        ("user.overlay.opaque", "x", "upper/d"),
        ("user.overlay.whiteout", "", "upper/d/gone"),
        ("user.overlay.whiteout", "", "upper/d/full"),
    ];
    if !set_attributes(&folder, &attributes) {
        skip!("no extended attributes here");
    }
    folder.run(&["mkfs", "layers.img", "--from", "lower", "--from", "upper"]).ok();
    let lines = files(&folder, "layers.img");
    let names: Vec<&str> = lines.iter().map(|line| line.split(' ').next().unwrap()).collect();
    assert!(!names.contains(&"/d/gone"), "{names:?}");
    for name in ["/d/kept", "/d/new", "/d/full"] {
        assert!(names.contains(&name), "{name}: {names:?}");
    }
    assert!(!lines.iter().any(|line| line.contains("overlay")), "{lines:?}");
    // What the kernel makes of them, where it knows them (Linux 6.7) and lets us.
    let options = format!(
        "ro,userxattr,lowerdir={}:{}",
        folder.path("upper").display(),
        folder.path("lower").display()
    );
    let merged = folder.path("merged");
    let words = ["-t", "overlay", "overlay", "-o", &options, merged.to_str().unwrap()];
    let mounted = tools::command("mount").args(words).output().unwrap();
    if !mounted.status.success() {
        skip!("overlayfs cannot be mounted here: {}", tools::words(&mounted));
    }
    let is_new = fs::read(merged.join("d/gone")).is_err();
    let built = folder.run(&["mkfs", "merged.img", "--from", "merged"]);
    tools::run("umount", &[merged.to_str().unwrap()]).unwrap();
    built.ok();
    if is_new {
        assert_eq!(lines, files(&folder, "merged.img"));
    }
}

#[test]
fn what_overlayfs_has_elsewhere_is_not_left_out_in_silence() {
    need_tools!("setfattr");
    let folder = Folder::with(&[]);
    write(&folder.path("lower/file"), b"bytes");
    write(&folder.path("lower/old/file"), b"bytes");
    for (name, what) in [("file", "metacopy"), ("new", "redirect")] {
        let _ = fs::remove_dir_all(folder.path("upper"));
        fs::create_dir(folder.path("upper")).unwrap();
        match name {
            "file" => fs::File::create(folder.path("upper/file")).unwrap().set_len(5).unwrap(),
            _ => fs::create_dir(folder.path("upper/new")).unwrap(),
        }
        let (attribute, path) = (format!("user.overlay.{what}"), format!("upper/{name}"));
        if !set_attributes(&folder, &[(&attribute, "old", &path)]) {
            skip!("no extended attributes here");
        }
        let said = folder.run(&["mkfs", "a.img", "--from", "lower", "--from", "upper"]).fails(1);
        assert!(said.contains(&format!("/{name}: ")) && said.contains(what), "{said}");
        assert!(!folder.path("a.img").exists());
    }
}

#[test]
fn what_a_layer_of_overlayfs_lacks_where_it_stands_alone_is_told_of() {
    need_tools!("setfattr", "mknod");
    let folder = Folder::with(&[]);
    fs::create_dir_all(folder.path("upper/new")).unwrap();
    fs::File::create(folder.path("upper/file")).unwrap().set_len(5).unwrap();
    let attributes =
        [("user.overlay.metacopy", "", "upper/file"), ("user.overlay.redirect", "old", "upper/new")];
    if !set_attributes(&folder, &attributes) {
        skip!("no extended attributes here");
    }
    let run = folder.run(&["mkfs", "a.img", "--from", "upper"]);
    assert_eq!(run.code(), 0, "{}", run.err());
    let said = run.err();
    for told in ["/file: has its bytes in a layer below", "/new: has another name in the layers below"] {
        assert!(said.contains(told), "{said}");
    }
    let hole = folder.path("upper/gone");
    if !tools::command("mknod").arg(&hole).args(["c", "0", "0"]).status().unwrap().success() {
        skip!("no devices can be made here");
    }
    let said = folder.run(&["mkfs", "b.img", "--from", "upper"]).err();
    assert!(said.contains("/gone: is a whiteout of overlayfs"), "{said}");
}

#[test]
fn attributes_of_an_overlayfs_within_another_are_what_the_kernel_shows() {
    need_tools!("setfattr", "getfattr", "mount");
    let folder = Folder::with(&[]);
    write(&folder.path("lower/f"), b"below");
    write(&folder.path("upper/f"), b"above");
    fs::create_dir(folder.path("merged")).unwrap();
    let attributes = [
        ("user.overlay.overlay.opaque", "inner", "upper/f"),
        ("user.overlay.overlay.overlay.x", "innermost", "upper/f"),
        ("user.overlay.uuid", "own", "upper/f"),
        ("user.other", "value", "upper/f"),
    ];
    if !set_attributes(&folder, &attributes) {
        skip!("no extended attributes here");
    }
    folder.run(&["mkfs", "layers.img", "--from", "lower", "--from", "upper"]).ok();
    let kept = folder.run(&["xattr", "layers.img:/f"]).ok();
    let mut names: Vec<&str> = kept.lines().filter_map(|line| line.split('=').next()).collect();
    names.sort_unstable();
    assert_eq!(names, ["user.other", "user.overlay.opaque", "user.overlay.overlay.x"], "{kept}");
    // What the kernel makes of them, where it knows them (Linux 6.7) and lets us.
    let (upper, lower) = (folder.path("upper"), folder.path("lower"));
    let options = format!("ro,userxattr,lowerdir={}:{}", upper.display(), lower.display());
    let merged = folder.path("merged");
    let words = ["-t", "overlay", "overlay", "-o", &options, merged.to_str().unwrap()];
    let mounted = tools::command("mount").args(words).output().unwrap();
    if !mounted.status.success() {
        skip!("overlayfs cannot be mounted here: {}", tools::words(&mounted));
    }
    let list = tools::command("getfattr").args(["-m", "-"]).arg(merged.join("f")).output().unwrap();
    tools::run("umount", &[merged.to_str().unwrap()]).unwrap();
    let list = tools::words(&list);
    let mut shown: Vec<&str> = list.lines().filter(|line| line.starts_with("user.")).collect();
    shown.sort_unstable();
    // Before 6.7 none of what begins so is seen.
    assert!(shown == names || shown == ["user.other"], "{list}");
}

#[test]
fn whiteouts_and_images_that_are_taken_as_plain_files_are_told_of() {
    need_tools!("tar", "python3");
    let folder = Folder::with(&[]);
    let layers = layers(&folder);
    fs::write(folder.path("l2.tar"), &layers[1]).unwrap();
    for source in ["l2.tar", "l2"] {
        let run = folder.run(&["mkfs", "x.img", "--force", "--from", source]);
        assert_eq!(run.code(), 0, "{}", run.err());
        let said = run.err();
        assert!(said.contains("/.wh.whole") && said.contains("whiteout"), "{source}: {said}");
        folder.run(&["stat", "x.img:/etc/.wh.gone"]).ok();
    }
    layout(&folder, "image", &layers, Pack::Gzip);
    let said = folder.run(&["mkfs", "y.img", "--from", "image"]).err();
    assert!(said.contains("oci: before its name"), "{said}");
}

#[test]
fn nothing_of_an_image_is_ever_outside_of_it() {
    need_tools!("python3");
    let folder = Folder::with(&[]);
    let make = |script: &str| {
        let start = "import sys, tarfile\nout = tarfile.open(fileobj=sys.stdout.buffer, mode='w|')\n\
                     def add(name, kind=tarfile.REGTYPE, link=''):\n t = tarfile.TarInfo(name)\n t.type, t.linkname = kind, link\n out.addfile(t)\n";
        tools::run("python3", &["-c", &format!("{start}{script}\nout.close()")]).unwrap()
    };
    let below =
        make("add('up', tarfile.SYMTYPE, '../../../../..')\nadd('etc', tarfile.DIRTYPE)\nadd('etc/kept')");
    // Through a link that leads out: inside the root, where there is nothing to hide and something to keep.
    let above = make("add('up/.wh.nothing')\nadd('up/etc/.wh.kept')\nadd('up/etc/added')");
    layout(&folder, "image", &[below.clone(), above], Pack::Gzip);
    folder.run(&["mkfs", "a.img", "--from", "oci:image"]).ok();
    let paths: Vec<String> =
        files(&folder, "a.img").iter().map(|line| line.split(' ').next().unwrap().to_owned()).collect();
    assert_eq!(paths, ["/etc", "/etc/added", "/lost+found", "/up"]);
    for (name, script) in [
        ("out", "add('../out')"),
        ("whiteout", "add('../.wh.x')"),
        ("nameless", "add('etc/.wh.')"),
        ("dots", "add('etc/.wh...')"),
        ("loop", "add('l', tarfile.SYMTYPE, 'l')\nadd('l/x')"),
        ("link", "add('etc/x', tarfile.LNKTYPE, '../../etc/shadow')"),
        ("no-target", "add('etc/x', tarfile.LNKTYPE, 'etc/none')"),
    ] {
        layout(&folder, name, &[below.clone(), make(script)], Pack::Gzip);
        let said = folder.run(&["mkfs", "x.img", "--from", &format!("oci:{name}")]).fails(1);
        assert!(!folder.path("x.img").exists(), "{name}: {said}");
    }
    // Documents that make no sense.
    for (name, text) in [
        ("json", "{"),
        ("list", r#"{"manifests":{}}"#),
        ("none", r#"{"manifests":[]}"#),
        ("digest", r#"{"manifests":[{"digest":"sha256:../../etc/passwd","size":1}]}"#),
        ("short", r#"{"manifests":[{"digest":"sha256:00"}]}"#),
        ("deep", &format!("{}{}", "[".repeat(100_000), "]".repeat(100_000))),
    ] {
        let layout = new_layout(&folder, &format!("bad-{name}"));
        fs::write(layout.join("index.json"), text).unwrap();
        let said = folder.run(&["mkfs", "x.img", "--from", &format!("oci:bad-{name}")]).fails(1);
        assert!(said.contains("index.json"), "{name}: {said}");
    }
    let said = folder.run(&["mkfs", "x.img", "--from", "oci:nowhere"]).fails(1);
    assert!(said.contains("nowhere"), "{said}");
    fs::create_dir(folder.path("empty")).unwrap();
    let said = folder.run(&["mkfs", "x.img", "--from", "oci:empty"]).fails(1);
    assert!(said.contains("no container image"), "{said}");
}

#[test]
fn a_layer_without_a_mark_at_its_end_is_whole_where_its_digest_says_so() {
    need_tools!("tar");
    let folder = Folder::with(&[]);
    write(&folder.path("tree/f"), b"x");
    let tree = folder.path("tree");
    let archive = tools::run("tar", &["-C", tree.to_str().unwrap(), "-cf", "-", "f"]).unwrap();
    // One header and one block.
    layout(&folder, "image", &[archive[..1024].to_vec()], Pack::Gzip);
    folder.run(&["mkfs", "a.img", "--quiet", "--from", "oci:image"]).ok();
    assert_eq!(folder.run(&["cat", "a.img:/f"]).ok(), "x");
}
