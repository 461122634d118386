// The engine's answers about images beside those of the command: all golden images and damaged copies of them.
// node answers.mjs docs/lab.html e2dax testdata/golden [damaged images] [seed]
import { spawnSync } from "node:child_process";
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { gunzipSync } from "node:zlib";
import { damaged } from "./damage.mjs";
import { engineOf } from "./engine.mjs";

const [page, command, golden, damagedCount = "100", seed = "1"] = process.argv.slice(2);
const engine = await engineOf(page);
const folder = mkdtempSync(join(tmpdir(), "e2dax-page-answers-"));
const failures = [];
let compared = 0;

function e2dax(...words) {
  const { stdout, stderr, status, signal } = spawnSync(command, words, { cwd: folder, encoding: "utf8", maxBuffer: 1 << 28 });
  if (signal) failures.push(`e2dax ${words.join(" ")} was ended by ${signal}`);
  return { status, stderr, lines: stdout.split("\n").filter(Boolean) };
}
const json = (run) => run.lines.map((line) => JSON.parse(line));

/** The text of a name of the command: bytes that are no UTF-8 look as they do in the engine. */
function name(text) {
  if (!text.includes("\\x")) return text;
  const parts = text.split(/\\x([0-9a-f]{2})/).map((part, nr) => (nr % 2 ? Buffer.from(part, "hex") : Buffer.from(part)));
  return new TextDecoder().decode(Buffer.concat(parts));
}

function same(what, ours, theirs) {
  compared += 1;
  const [left, right] = [JSON.stringify(ours), JSON.stringify(theirs)];
  if (left === right) return;
  let at = 0;
  while (left[at] === right[at]) at += 1;
  const around = (text) => text.slice(Math.max(0, at - 60), at + 140);
  failures.push(`${what}: the page says …${around(left)}…, the command …${around(right)}…`);
}

const KINDS = { "char-device": "character device", "block-device": "block device", fifo: "FIFO" };

function findings(label, image, overview, thorough) {
  const run = e2dax("check", "--json", image);
  if (run.status === 8) {
    same(`${label}: what cannot be checked`, overview.findings, null);
    const why = run.stderr.trim();
    if (!why.includes(overview.unchecked)) same(`${label}: why`, overview.unchecked, why);
    return;
  }
  const lines = json(run);
  const summary = lines.pop();
  // The engine tells the first 200.
  const told = overview.findings || [];
  if (thorough) same(`${label}: findings`, told.map((one) => `${one.text} (${one.preen})`), e2dax("check", image).lines.slice(0, -1).slice(0, 200));
  const objects = { superblock: /^superblock/, group: /^group/, inode: /^inode/, block: /^block/, directory: /^directory/ };
  const about = (one, nr) => lines[nr] && objects[lines[nr].object].test(one.text) && [lines[nr].number, lines[nr].found, lines[nr].expected].every((number) => number === null || !Number.isSafeInteger(number) || one.text.includes(String(number)) || one.text.includes(number.toString(16)));
  const odd = told.find((one, nr) => !about(one, nr));
  if (odd) same(`${label}: what a finding is about`, odd, lines[told.indexOf(odd)]);
  same(`${label}: kinds`, told.map((one) => [one.kind, one.preen]), lines.slice(0, 200).map((one) => [one.kind, one.preen]));
  same(`${label}: verdict`, [overview.faults, overview.complete], [summary.faults, summary.complete]);
}

function tree(label, image, overview) {
  const run = e2dax("tree", "--json", image);
  const ours = overview.tree.filter((one) => one.ino);
  if (!run.lines.length) {
    same(`${label}: what does not open`, [ours.length, Boolean(overview.refused)], [0, true]);
    return ours;
  }
  const theirs = json(run).slice(0, overview.more ? ours.length : undefined).map((one) => [name(one.path), one.inode, KINDS[one.type] || one.type, one.size, one.links, one.depth, one.target === null ? "" : `→ ${name(one.target)}`]);
  same(`${label}: tree`, ours.map((one) => [one.path, one.ino, one.kind, one.size, one.links, one.depth, one.kind === "symlink" ? one.note : ""]), theirs);
  return ours;
}

/** A structure's bytes and fields. */
function structure(label, image, what, ...words) {
  const run = e2dax("hex", "--json", image, ...words);
  let ours = null;
  try { ours = engine.ask({ do: "structure", what }); } catch { /* neither has it */ }
  if (run.status !== 0) {
    same(`${label}: ${what}, which there is not`, ours, null);
    return;
  }
  const [theirs] = json(run);
  same(`${label}: ${what}`, ours && [ours.offset, ours.hex], [theirs.offset, theirs.bytes]);
  // JSON has numbers where the page shows octal modes and hexadecimal flags, and the bytes of a text where it has quotes.
  const value = (shown, nr) => (typeof theirs.fields[nr]?.value === "number" ? Number(shown) : shown.startsWith('"') ? name(shown.slice(1, -1)) : shown);
  const said = (one) => (typeof one.value === "number" ? one.value : name(one.value));
  same(`${label}: fields of ${what}`, ours && ours.fields.map((one, nr) => [one.offset, one.length, one.name, value(one.value, nr), one.meaning]), theirs.fields.map((one) => [one.offset, one.length, one.name, said(one), one.meaning]));
}

function map(label, image, file, blockSize) {
  const ours = engine.ask({ do: "file", ino: file.ino });
  const run = e2dax("map", "--json", `${image}:${file.path}`);
  if (run.status !== 0) {
    same(`${label}: map of ${file.path}, which cannot be read`, Boolean(ours.refused), true);
    return;
  }
  const [theirs] = json(run);
  const mapped = theirs.mappings.filter((one) => one.kind === "mapped");
  const short = ours.runs.length === 600;
  same(`${label}: map of ${file.path}`, ours.runs.map(([from, count, device]) => [from * blockSize, count * blockSize, device * blockSize]), mapped.slice(0, short ? 600 : undefined).map((one) => [one.logical, one.length, one.physical]));
  same(`${label}: units of ${file.path}`, ours.units, theirs.unit_runs.slice(0, 600).map((one) => [one.first, one.count, one.state]));
}

/** All questions about one image. */
function compare(label, bytes, at, thorough) {
  writeFileSync(join(folder, "image"), bytes);
  const image = `image${at}`;
  engine.image(bytes);
  let overview;
  try {
    overview = engine.ask({ do: "image" });
  } catch (trap) {
    failures.push(`${label}: the engine stopped: ${trap.stack}`);
    throw trap;
  }
  findings(label, image, overview, thorough);
  const files = tree(label, image, overview);
  structure(label, image, "sb", "--superblock");
  if (thorough) structure(label, image, "group:0", "--group", "0");
  for (const ino of thorough ? [2, 8, 12, 20] : [2]) structure(label, image, `inode:${ino}`, "--inode", String(ino));
  if (thorough) {
    structure(label, image, "bbitmap:0", "--block-bitmap", "0");
    structure(label, image, "ibitmap:0", "--inode-bitmap", "0");
    structure(label, image, "sb:1", "--superblock=group:1");
  }
  // Names that a shell can say, and that are one path of the command.
  const plain = files.filter((one) => one.kind === "file" && /^[\w/.-]+$/.test(one.path));
  for (const file of plain.slice(0, thorough ? 6 : 2)) map(label, image, file, overview.geometry.block_size);
}

function questions() {
  const topics = engine.ask({ do: "hello" }).topics;
  for (let nr = 0; nr < 40; nr += 1) {
    const topic = nr < 12 ? null : topics[nr % topics.length];
    const [theirs] = json(e2dax("quiz", "--json", "-c", "--seed", String(nr * 7919), ...(topic ? [topic] : [])));
    const ours = engine.ask({ do: "quiz", seed: nr * 7919, topic });
    same(`question ${nr * 7919}`, [ours.seed, ours.topic, ours.text, ours.choices, ours.choices[ours.right], ours.explanation], [theirs.seed, theirs.topic, theirs.text, theirs.choices, theirs.answer, theirs.explanation]);
  }
}

const list = readFileSync(join(golden, "LIST"), "utf8").split("\n").filter((line) => line && !line.startsWith("#")).map((line) => line.split(/\s+/));
for (const [label, , where] of list) compare(label, gunzipSync(readFileSync(join(golden, `${label}.img.gz`))), where ? `@${where.split("+")[0]}` : "", true);
let nr = 0;
for (const { label, bytes } of damaged(golden, list, +damagedCount, BigInt(seed))) compare(label, bytes, "", (nr += 1) <= 15);
questions();
rmSync(folder, { recursive: true, force: true });
console.log(`${list.length} golden and ${damagedCount} damaged images: ${compared} answers compared, ${failures.length} different`);
for (const failure of failures.slice(0, 40)) console.log(`DIFFERENT: ${failure}`);
process.exit(failures.length || list.length < 36 ? 1 : 0);
