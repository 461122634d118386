#!/bin/bash
# Makes docs/lab.html: the engine, the style and the scripts in one file.
#
# With --check nothing is written. What is drawn has to be lab/page; exit 1 where it is not. The page holds a digest of the
# sources of its engine: where theirs is another that is said, and with E2DAX_CI_PAGE=1 the engine is built and compared;
# exit 1 where it differs, 3 where no compiler here can build it.
set -euo pipefail
cd "$(dirname "$0")/.."

digest() {
    find lab/src lab/Cargo.toml lab/engine.sh blockdev/src ext2-format/src ext2-core/src ext2-image/src ext2-dax/src \
        testdata/linux-6.1/scripts Cargo.toml Cargo.lock -type f -print0 | LC_ALL=C sort -z | xargs -0 sha256sum | sha256sum | cut -d' ' -f1
}

# Puts the page together: around the engine of a module, or around that of the page that is there.
put_together() {
    python3 - "$@" <<'PYTHON'
import base64, pathlib, re, subprocess, sys
page = pathlib.Path("lab/page")
module, sources, made = sys.argv[1:]
if module == "docs/lab.html":
    there = pathlib.Path(module).read_text()
    engine = re.search(r'<script id="engine" type="text/plain">([^<]*)</script>', there).group(1)
    sources = re.search(r'<meta name="sources" content="([^"]*)">', there).group(1)
else:
    packed = subprocess.run(["gzip", "-9", "-n", "-c", module], check=True, capture_output=True).stdout
    engine = base64.b64encode(packed).decode()
scripts = "\n".join((page / name).read_text() for name in
                    ["engine.js", "dom.js", "flight.js", "mail.js", "image.js", "crash.js", "main.js"])
text = (page / "index.html").read_text()
for place, inside in [("/*SOURCES*/", sources), ("/*STYLE*/", (page / "style.css").read_text()),
                      ("/*ENGINE*/", engine), ("/*SCRIPT*/", scripts)]:
    assert text.count(place) == 1, place
    text = text.replace(place, inside)
assert len(text.encode()) < 1 << 20, f"{len(text.encode())} bytes: the page has to stay below 1 MiB"
pathlib.Path(made).write_text(text)
PYTHON
}

differs() {
    echo "docs/lab.html is not what the sources give: run lab/build.sh" >&2
    return 1
}

check() {
    put_together docs/lab.html - "$made" && cmp -s "$made" docs/lab.html || differs || return 1
    if grep -q "<meta name=\"sources\" content=\"$1\">" docs/lab.html; then
        echo "docs/lab.html was made from these sources"
    elif [ -z "${E2DAX_CI_PAGE:-}" ]; then
        echo "docs/lab.html: its engine was built from other sources; lab/build.sh brings it up to date"
    else
        local module
        module=$(lab/engine.sh) || return $?
        put_together "$module" "$1" "$made" || return 1
        cmp -s <(grep -v '<meta name="sources"' "$made") <(grep -v '<meta name="sources"' docs/lab.html) || differs
    fi
}

main() {
    local sources module
    sources=$(digest)
    made=$(mktemp)
    trap 'rm -f "$made"' EXIT
    if [ "${1:-}" = --check ]; then
        check "$sources"
        return
    fi
    # For work on the page alone an engine that was built before can be named.
    module=${E2DAX_LAB_ENGINE:-$(lab/engine.sh)} || return $?
    put_together "$module" "$sources" "$made" || return 1
    cat "$made" >docs/lab.html
    echo "docs/lab.html: $(stat -c %s docs/lab.html) bytes"
}

main "$@"
