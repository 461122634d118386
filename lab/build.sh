#!/bin/bash
# Makes docs/lab.html: the engine, the style and the scripts in one file.
#
# With --check nothing is written, and the file has to be what would be made. It holds a digest of all sources; where that is
# theirs nothing is built. Where it is not, the page is built and compared: exit 1 where it differs, 3 where no compiler here
# can build it.
set -euo pipefail
cd "$(dirname "$0")/.."

digest() {
    find lab/src lab/page lab/Cargo.toml lab/engine.sh lab/build.sh blockdev/src ext2-core/src ext2-image/src ext2-dax/src \
        testdata/linux-6.1/scripts Cargo.toml Cargo.lock -type f -print0 | LC_ALL=C sort -z | xargs -0 sha256sum | sha256sum | cut -d' ' -f1
}

main() {
    local sources module made code=0
    sources=$(digest)
    if [ "${1:-}" = --check ] && grep -q "<meta name=\"sources\" content=\"$sources\">" docs/lab.html; then
        echo "docs/lab.html was made from these sources"
        return 0
    fi
    # For work on the page alone an engine that was built before can be named.
    module=${E2DAX_LAB_ENGINE:-$(lab/engine.sh)} || return $?
    made=$(mktemp)
    put_together "$module" "$sources" "$made" || { rm -f "$made"; return 1; }
    if [ "${1:-}" = --check ]; then
        cmp -s <(grep -v '<meta name="sources"' "$made") <(grep -v '<meta name="sources"' docs/lab.html) || code=1
        [ $code = 0 ] || echo "docs/lab.html is not what the sources give: run lab/build.sh" >&2
    else
        cat "$made" >docs/lab.html
        echo "docs/lab.html: $(stat -c %s docs/lab.html) bytes"
    fi
    rm -f "$made"
    return $code
}

put_together() {
    python3 - "$@" <<'PYTHON'
import base64, pathlib, subprocess, sys
page = pathlib.Path("lab/page")
module, sources, made = sys.argv[1:]
packed = subprocess.run(["gzip", "-9", "-n", "-c", module], check=True, capture_output=True).stdout
scripts = "\n".join((page / name).read_text() for name in
                    ["engine.js", "dom.js", "flight.js", "mail.js", "image.js", "crash.js", "main.js"])
text = (page / "index.html").read_text()
for place, inside in [("/*SOURCES*/", sources), ("/*STYLE*/", (page / "style.css").read_text()),
                      ("/*ENGINE*/", base64.b64encode(packed).decode()), ("/*SCRIPT*/", scripts)]:
    assert text.count(place) == 1, place
    text = text.replace(place, inside)
assert len(text.encode()) < 1 << 20, f"{len(text.encode())} bytes: the page has to stay below 1 MiB"
pathlib.Path(made).write_text(text)
PYTHON
}

main "$@"
