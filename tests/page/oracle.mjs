// All scripts of testdata/linux-6.1 in the page's engine, beside the recordings of Linux; and the page's first picture beside it.
// node oracle.mjs docs/lab.html testdata/linux-6.1
import { readFileSync, readdirSync } from "node:fs";
import { gunzipSync } from "node:zlib";
import { join } from "node:path";
import { engineOf } from "./engine.mjs";

const [page, folder] = process.argv.slice(2);
const engine = await engineOf(page);

/** Where an extent is cut depends on the allocator: those that touch are joined. */
function joined(line) {
  return line.replace(/extents=\d+((?: \d+:\d+)*)$/, (_, list) => {
    const ranges = [];
    for (const [start, length] of list.split(" ").filter(Boolean).map((word) => word.split(":").map(BigInt))) {
      const last = ranges[ranges.length - 1];
      if (last && last[0] + last[1] === start) last[1] += length;
      else ranges.push([start, length]);
    }
    return `extents=${ranges.length}${ranges.map(([start, length]) => ` ${start}:${length}`).join("")}`;
  });
}
const lines = (text) => text.split("\n").filter((line) => /^(op |    )/.test(line)).map(joined);

const names = readdirSync(join(folder, "scripts")).filter((name) => name.endsWith(".ops")).map((name) => name.slice(0, -4)).sort();
let wrong = 0;
for (const name of names) {
  const image = gunzipSync(readFileSync(join(folder, "images", name === "12-enospc" ? "base-4m.img.gz" : "base-64m.img.gz")));
  engine.image(image);
  const script = readFileSync(join(folder, "scripts", `${name}.ops`), "utf8");
  const begun = Date.now();
  const ours = lines(engine.ask({ do: "listing", machine: "linux-6.1", taken: true, script }));
  const theirs = lines(readFileSync(join(folder, "ext2", `${name}.txt`), "utf8"));
  const at = theirs.findIndex((line, nr) => line !== ours[nr]);
  const same = at < 0 && ours.length === theirs.length;
  if (!same) {
    wrong += 1;
    console.log(`${name}: line ${at}: ${JSON.stringify(ours[at])}, recorded ${JSON.stringify(theirs[at])}`);
  }
  console.log(`${name}: ${same ? "equal" : "DIFFERENT"}, ${theirs.length} lines, ${Date.now() - begun} ms`);
}
// What the page shows before the engine has started is what the engine says.
const same = (left, right) => JSON.stringify(left) === JSON.stringify(right);
const { hello, flight } = engine.first;
if (!same(hello, engine.ask({ do: "hello" })) || !same(flight, engine.ask({ do: "flight", scenario: hello.scenarios[0].id }))) {
  console.log("the first picture is not what the engine answers");
  wrong += 1;
}
console.log(`${names.length} scripts, ${wrong} different`);
process.exit(wrong || names.length !== 28 ? 1 : 0);
