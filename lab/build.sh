#!/bin/bash
# Makes docs/lab.html: the engine, the style and the scripts in one file.
#
# The page holds a digest of everything that its engine is made of: the sources, what of Cargo.lock and Cargo.toml they use,
# and the scripts that come with it. With --check nothing is written: exit 1 where that digest, or what lab/page draws, is not
# what the page holds. That takes a second. With E2DAX_CI_PAGE=1 --check builds the engine, too, and compares its bytes;
# exit 3 where no compiler here can build it. Compilers differ in the bytes that they make: the page names its own.
set -euo pipefail
cd "$(dirname "$0")/.."
page=docs/lab.html

# What the engine is made of. Of Cargo.lock only the packages that it uses: those of the other crates do not change it.
digest() {
    python3 - <<'PYTHON'
import hashlib, pathlib, tomllib
crates = ["lab", "blockdev", "ext2-format", "ext2-sync", "ext2-cache", "ext2-core", "ext2-image", "ext2-dax"]
files = [pathlib.Path("lab/engine.sh")]
for crate in crates:
    files += [pathlib.Path(crate, "Cargo.toml"), *(path for path in pathlib.Path(crate, "src").rglob("*") if path.is_file())]
files += pathlib.Path("testdata/linux-6.1/scripts").glob("*.ops")
total = hashlib.sha256()
for path in sorted(files, key=lambda path: path.as_posix()):
    total.update(f"{path.as_posix()}\0{hashlib.sha256(path.read_bytes()).hexdigest()}\n".encode())
lock = {}
for package in tomllib.loads(pathlib.Path("Cargo.lock").read_text())["package"]:
    lock.setdefault(package["name"], []).append(package)
used, waiting = set(), ["e2dax-lab"]
while waiting:
    # A name, and a version where there are several.
    name, _, version = waiting.pop().partition(" ")
    for package in lock[name]:
        key = f"{name} {package['version']} {package.get('checksum', '')}"
        if key not in used and (not version or version.split()[0] == package["version"]):
            used.add(key)
            waiting += package.get("dependencies", [])
total.update("\n".join(sorted(used)).encode())
workspace = tomllib.loads(pathlib.Path("Cargo.toml").read_text())
names = {key.split()[0] for key in used}
shared = workspace["workspace"]["dependencies"]
wanted = {name: what for name, what in shared.items() if name in names or (isinstance(what, dict) and what.get("package") in names)}
profiles = [workspace["profile"].get(name) for name in ("release", "lab")]
common = {key: workspace["workspace"]["package"].get(key) for key in ("version", "edition", "rust-version")}
total.update(repr([sorted(wanted.items(), key=lambda one: one[0]), profiles, common]).encode())
print(total.hexdigest())
PYTHON
}

# Puts the page together: around the engine of a module, or around that of the page that is there.
put_together() {
    python3 - "$@" <<'PYTHON'
import base64, gzip, pathlib, re, subprocess, sys
folder = pathlib.Path("lab/page")
module, sources, compiler, made = sys.argv[1:]
there = pathlib.Path("docs/lab.html").read_text() if pathlib.Path("docs/lab.html").exists() else ""

def taken(pattern):
    found = re.search(pattern, there)
    if not found:
        sys.exit("docs/lab.html is not a page of lab/build.sh")
    return found.group(1)

ENGINE = r'<script id="engine" type="text/plain">([^<]*)</script>'
if module == "docs/lab.html":
    engine = taken(ENGINE)
    first = taken(r'<script id="first" type="application/json">([^<]*)</script>')
    sources = taken(r'<meta name="sources" content="([^"]*)">')
    compiler = taken(r'<meta name="compiler" content="([^"]*)">')
else:
    plain = pathlib.Path(module).read_bytes()
    # One engine, one text: versions of gzip pack the same bytes differently.
    engine = (re.search(ENGINE, there) or [None, ""])[1]
    try:
        is_it = gzip.decompress(base64.b64decode(engine)) == plain
    except Exception:  # Whatever is there instead is not it.
        is_it = False
    if not is_it:
        engine = base64.b64encode(subprocess.run(["gzip", "-9", "-n", "-c", module], check=True, capture_output=True).stdout).decode()
    first = subprocess.run(["node", "lab/first.mjs", module], check=True, capture_output=True, text=True).stdout
scripts = "\n".join((folder / name).read_text() for name in
                    ["engine.js", "dom.js", "flight.js", "mail.js", "image.js", "crash.js", "main.js"])
text = (folder / "index.html").read_text()
for place, inside in [("/*SOURCES*/", sources), ("/*COMPILER*/", compiler), ("/*STYLE*/", (folder / "style.css").read_text()),
                      ("/*FIRST*/", first), ("/*SCRIPT*/", scripts), ("/*ENGINE*/", engine)]:
    assert text.count(place) == 1, place
    text = text.replace(place, inside)
size = len(text.encode())
if size >= 1 << 20:
    sys.exit(f"{size} bytes: the page has to stay below 1 MiB")
pathlib.Path(made).write_text(text)
PYTHON
}

differs() {
    echo "$page is not what the sources give ($1): run lab/build.sh" >&2
    return 1
}

# --check: what is drawn, and what the engine was made of; with E2DAX_CI_PAGE=1 its bytes.
check() {
    put_together "$page" - - "$made" || return 1
    cmp -s "$made" "$page" || differs "lab/page draws something else" || return 1
    grep -q "<meta name=\"sources\" content=\"$1\">" "$page" || differs "its engine is of other sources" || return 1
    if [ -z "${E2DAX_CI_PAGE:-}" ]; then
        echo "$page holds the digest of these sources"
        return
    fi
    local module compiler
    module=$(lab/engine.sh) || return $?
    compiler=$(lab/engine.sh --compiler) || return $?
    put_together "$module" "$1" "$compiler" "$made" || return 1
    if ! cmp -s "$made" "$page"; then
        local theirs
        theirs=$(sed -n 's/.*<meta name="compiler" content="\([^"]*\)">.*/\1/p' "$page")
        [ "$compiler" = "$theirs" ] || { echo "$page was made with $theirs; here is $compiler" >&2; return 3; }
        differs "its engine has other bytes"
        return
    fi
    echo "$page is what these sources give, byte for byte"
}

main() {
    local sources module compiler
    sources=$(digest)
    made=$(mktemp)
    trap 'rm -f "$made"' EXIT
    case ${1:-} in
        --check) check "$sources"; return ;;
        --digest) echo "$sources"; return ;;
        "") ;;
        *) echo "usage: lab/build.sh [--check | --digest]" >&2; return 2 ;;
    esac
    # For work on the page alone an engine that was built before can be named.
    module=${E2DAX_LAB_ENGINE:-$(lab/engine.sh)} || return $?
    compiler=$(lab/engine.sh --compiler) || return $?
    put_together "$module" "$sources" "$compiler" "$made" || return 1
    cat "$made" >"$page"
    echo "$page: $(stat -c %s "$page") bytes"
}

main "$@"
