//! Certificates for the time of a test, made by openssl, in folders as QEMU, nbdkit and libnbd expect them.

use std::path::{Path, PathBuf};

use e2dax_tests::tools;

/// A CA, a server that is `localhost` and 127.0.0.1, and a client. `$1` is the folder.
const MAKE: &str = r#"
cd "$1"
new="openssl req -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes"
$new -x509 -days 2 -subj "/CN=CA of ${1##*/}" -keyout ca-key.pem -out ca-cert.pem \
    -addext keyUsage=critical,keyCertSign,cRLSign
for who in server client; do
    $new -subj "/CN=$who" -keyout $who-key.pem -out $who.csr
    printf 'basicConstraints=critical,CA:FALSE\nkeyUsage=critical,digitalSignature\nextendedKeyUsage=%sAuth\n' $who >$who.ext
    [ $who = client ] || printf 'subjectAltName=DNS:localhost,IP:127.0.0.1\n' >>$who.ext
    openssl x509 -req -in $who.csr -CA ca-cert.pem -CAkey ca-key.pem -CAcreateserial -days 2 -extfile $who.ext \
        -out $who-cert.pem
done
"#;

/// Revokes the client.
const REVOKE: &str = r#"
cd "$1"
touch index
echo 01 >number
cat >ca.conf <<'END'
[ca]
default_ca = own
[own]
database = index
crlnumber = number
crl_extensions = second_version
default_md = sha256
default_crl_days = 2
[second_version]
authorityKeyIdentifier = keyid
END
ca="openssl ca -config ca.conf -cert ca-cert.pem -keyfile ca-key.pem"
$ca -revoke client-cert.pem
$ca -gencrl -out ca-crl.pem
"#;

fn shell(script: &str, folder: &Path) {
    let folder = folder.to_str().unwrap();
    tools::run("sh", &["-euc", &format!("exec 2>&1; {script}"), "sh", folder]).unwrap();
}

/// A folder with all of them below `parent`.
pub(crate) fn make(parent: &Path, name: &str) -> PathBuf {
    let folder = parent.join(name);
    std::fs::create_dir(&folder).unwrap();
    shell(MAKE, &folder);
    folder
}

/// A folder next to another, with some of its files.
pub(crate) fn some(of: &Path, name: &str, files: &[&str]) -> PathBuf {
    let folder = of.with_file_name(name);
    std::fs::create_dir(&folder).unwrap();
    for file in files {
        std::fs::copy(of.join(file), folder.join(file)).unwrap();
    }
    folder
}

/// Lets the client's certificate count no more.
pub(crate) fn revoke(folder: &Path) {
    shell(REVOKE, folder);
}
