// Golden images, damaged: the same seed gives the same damage.
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { gunzipSync } from "node:zlib";

/**
 * So many images. Each way of breaking one takes its turn: a few bytes where structures are, a block of garbage, zeros, a block
 * that lies over another, and an end that is missing.
 * @param {string} golden @param {string[][]} list @param {number} count @param {bigint} seed
 */
export function* damaged(golden, list, count, seed) {
  let random = seed;
  const below = (end) => { random = (random * 6364136223846793005n + 1442695040888963407n) & ((1n << 64n) - 1n); return Number((random >> 33n) % BigInt(Math.max(1, Math.floor(end)))); };
  const sound = [];
  for (const [name, , where] of list) {
    const packed = readFileSync(join(golden, `${name}.img.gz`));
    if (packed.length > 60000 || where) continue;
    const image = gunzipSync(packed);
    if (image.length <= 8 << 20) sound.push([name, image]);
  }
  for (let nr = 0; nr < count; nr += 1) {
    const [name, image] = sound[nr % sound.length];
    let bytes = Buffer.from(image);
    const near = Math.min(bytes.length - 1024, 120000);
    const place = () => 1024 * (1 + below(near / 1024));
    const length = [16, 512, 1024, 4096][below(4)];
    const way = ["bytes", "garbage", "zeros", "doubled", "cut"][below(nr % 3 ? 4 : 5)];
    if (way === "bytes") for (let times = 1 + below(20); times > 0; times -= 1) bytes[1024 + below(near)] = below(256);
    if (way === "garbage") for (let at = place(), end = Math.min(at + length, bytes.length); at < end; at += 1) bytes[at] = below(256);
    if (way === "zeros") { const at = place(); bytes.fill(0, at, at + length); }
    if (way === "doubled") { const from = place(); bytes.copy(bytes, place(), from, from + length); }
    if (way === "cut") bytes = bytes.subarray(0, below(bytes.length));
    yield { label: `damaged ${nr} (${way}) of ${name}`, bytes };
  }
}
