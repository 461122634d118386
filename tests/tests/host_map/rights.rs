//! The same without any rights.

use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::process::Command;

const MARK: &str = "E2DAX_HOST_NOBODY";

#[test]
fn nobody_s_rights_suffice() {
    if std::env::var_os(MARK).is_some() {
        return;
    }
    if !rustix::process::geteuid().is_root() {
        e2dax_tests::skip!("not root: the tests beside this one run without rights already");
    }
    let folder = tempfile::Builder::new().tempdir_in("/dev/shm").unwrap();
    std::fs::set_permissions(folder.path(), std::fs::Permissions::from_mode(0o777)).unwrap();
    let copy = folder.path().join("test");
    // By another process: what this one has open for writing, its children have for a moment, and then it cannot be run.
    let from = std::env::current_exe().unwrap();
    e2dax_tests::tools::run("cp", &[from.as_os_str(), copy.as_os_str()]).unwrap();
    let mut command = Command::new(&copy);
    command.args(["shared::", "holes::", "ends::", "private::", "tracking::", "budget::", "same::"]);
    command.args(["--skip", "blocks_that_are_no_pages"]);
    command.env(MARK, "1").env("TMPDIR", folder.path()).current_dir(folder.path()).uid(65534).gid(65534);
    let output = command.output().unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{said}{}", String::from_utf8_lossy(&output.stderr));
    assert!(said.contains("test result: ok") && !said.contains(" 0 passed"), "{said}");
}
