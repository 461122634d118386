// Walks the page in a browser: every lesson to its end, every scenario, all golden images and damaged ones, what is no image or
// no script, the crash lab, the quiz. No error may be told where none is wanted.
// node walk.mjs chromium docs/lab.html testdata/golden [damaged images]
import { mkdtempSync, readFileSync, rmSync, truncateSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join, resolve } from "node:path";
import { pathToFileURL } from "node:url";
import { gzipSync } from "node:zlib";
import { browse } from "./browser.mjs";
import { damaged } from "./damage.mjs";

const [program, page, golden, damagedCount = "12"] = process.argv.slice(2);
const url = pathToFileURL(resolve(page)).href;
const browser = await browse(program);
const folder = mkdtempSync(join(tmpdir(), "e2dax-page-images-"));
let checks = 0;
const failures = [];
function check(what, holds) {
  checks += 1;
  if (!holds) failures.push(what);
}
/** No message, no console error since the last look. */
async function quiet(where) {
  const message = await browser.run("byId('message').hidden ? '' : byId('message').textContent");
  check(`${where}: ${message}`, message === "");
  check(`${where}: ${browser.problems.join("; ")}`, browser.problems.length === 0);
  browser.problems.length = 0;
  await browser.run("byId('message').hidden = true");
}
const click = (selector) => browser.run(`document.querySelector(${JSON.stringify(selector)}).click()`);
const text = (selector) => browser.run(`document.querySelector(${JSON.stringify(selector)})?.textContent || ""`);

try {
  await browser.size(1280, 900);
  // The best of three: what else the machine does is not the page's.
  const times = [await browser.open(url), await browser.open(url), await browser.open(url)];
  const best = (name) => Math.min(...times.map((time) => time[name]));
  console.log(`first picture after ${best("shown")} ms, engine after ${best("ready")} ms; each time ${times.map((time) => `${time.shown} and ${time.ready}`).join(", ")}`);
  check(`first picture after ${best("shown")} ms`, best("shown") < 1000);
  await quiet("beginning");

  const scenarios = await browser.run("[...document.querySelectorAll('#flight select option')].map((one) => one.value).filter(Boolean)");
  for (const scenario of scenarios) {
    // The random ones are long: one of them, or all where that is asked for.
    if (/^rand-/.test(scenario) && scenario > "rand-01" && !process.env.E2DAX_PAGE_ALL) continue;
    await browser.run(`{ const choose = document.querySelector('#flight select'); choose.value = ${JSON.stringify(scenario)}; choose.dispatchEvent(new Event('change')); }`);
    const steps = await browser.run("document.querySelectorAll('#flight .steps li').length");
    check(`${scenario} has steps`, steps > 0);
    await browser.run("for (const button of document.querySelectorAll('#flight .steps button')) button.click()");
    check(`${scenario} was flown to its end`, (await text("#flight .row .soft:nth-of-type(1)")) !== null && (await browser.run("document.querySelectorAll('#flight .machine').length")) === 3);
    await quiet(scenario);
  }
  // Keys, there and back.
  await browser.open(`${url}?scenario=01-hole-then-write#step=2`);
  await browser.run("document.activeElement.blur()");
  const current = () => browser.run("[...document.querySelectorAll('#flight .steps button')].findIndex((one) => one.hasAttribute('aria-current'))");
  check("an address opens its step", (await current()) === 1);
  await browser.key("ArrowRight");
  check("→ goes on", (await current()) === 2);
  await browser.key("End");
  await browser.key("ArrowLeft");
  await browser.key("Home");
  check("Home is the first step", (await current()) === 0);
  check("the address follows", /step=1$/.test(await browser.run("location.href")));
  await browser.run("{ const area = document.querySelector('#flight textarea'); area.value = 'create f\\nfly f'; [...document.querySelectorAll('#flight button')].find((one) => one.textContent === 'Fly').click(); }");
  check("a mistake is named with its line", /line 2/.test(await text("#message")));
  // Whatever is typed there is flown, or told of.
  for (const typed of ["", "#", "\u0000", "create", "write f -1 1 1", "write f 0 99999999999999999999 1", "map m f 0 0 shared rw", "create f\nwrite f 0xffffffffffffffff 9 1", "create f\ntruncate f 0x7fffffffffffffff\nmap m f 0 0x7ffffffffffff000 shared rw\ntouch m 0 0x1000\nfiemap f", "create f\nwrite f 0 0x7fffffff 1", "create \u00e9\u4f60\nstat \u00e9\u4f60", "mkdir d\n".repeat(500), "load m 0\nunmap m\nmsync m 0 1", "symlink a a\nread a 0 1\nstat a", "rename / /", "x".repeat(100000)]) {
    await browser.run(`{ byId('message').hidden = true; document.querySelector('#flight textarea').value = ${JSON.stringify(typed)}; [...document.querySelectorAll('#flight button')].find((one) => one.textContent === 'Fly').click(); }`);
    const told = await text("#message");
    check(`${JSON.stringify(typed.slice(0, 40))}: ${told.slice(0, 200)}`, !/started afresh/.test(told) && (await browser.run("document.querySelectorAll('#flight .machine').length")) === 3);
    check(`${JSON.stringify(typed.slice(0, 40))}: ${browser.problems.join("; ")}`, browser.problems.length === 0);
    browser.problems.length = 0;
  }
  await browser.run("byId('message').hidden = true");

  await click("#tab-mail");
  const lessons = await browser.run("document.querySelectorAll('#mail .row button').length");
  check("seven lessons", lessons === 7);
  for (let lesson = 1; lesson <= lessons; lesson += 1) {
    await browser.run(`document.querySelectorAll('#mail .row')[0].children[${lesson - 1}].click()`);
    await click("#mail .choices button");
    check(`lesson ${lesson} has a right answer`, (await browser.run("document.querySelectorAll('#mail .choices .right').length")) === 1);
    const sound = await text("#mail [role=status]");
    await click("#mutant");
    check(`lesson ${lesson}: the mutant shows`, /With the mutant/.test(await text("#mail [role=status]")) && sound !== "");
    await browser.run("for (const button of document.querySelectorAll('#mail .steps button')) button.click()");
    await click("#mutant");
    await quiet(`lesson ${lesson}`);
  }

  await click("#tab-image");
  await quiet("image");
  await browser.run("{ const slider = document.querySelector('#image input[type=range]'); for (let at = 0; at <= +slider.max; at += 1) { slider.value = at; slider.dispatchEvent(new Event('input')); } }");
  await quiet("a file grows");
  let taken = 0;
  async function drop(path, name, sound) {
    await browser.file("#image input[type=file]", path);
    taken += 1;
    await browser.until(`document.body.dataset.taken === '${taken}'`);
    await browser.run("for (const button of [...document.querySelectorAll('#image .tree button')].slice(0, 4)) button.click()");
    await browser.run("for (const button of [...document.querySelectorAll('#image .pointers button:not(:disabled)')].slice(-4)) button.click()");
    if (sound) check(`${name} is sound`, /finds nothing wrong/.test(await text("#image")));
    // A broken inode that is opened may be told of; a trap may not.
    const message = await browser.run("byId('message').hidden ? '' : byId('message').textContent");
    check(`${name}: ${message}`, !/started afresh/.test(message) && (!sound || message === ""));
    await browser.run("byId('message').hidden = true");
    await quiet(name);
  }
  const list = readFileSync(join(golden, "LIST"), "utf8").split("\n").filter((line) => line && !line.startsWith("#")).map((line) => line.split(/\s+/));
  check("the golden images are there", list.length >= 30);
  for (const [name, state] of list) await drop(resolve(golden, `${name}.img.gz`), name, state === "reads");
  const path = join(folder, "image");
  for (const { label, bytes } of damaged(golden, list, +damagedCount, 2n)) {
    writeFileSync(path, bytes);
    await drop(path, label, false);
  }
  // What is no image at all.
  async function refused(bytes, wanted) {
    if (bytes) writeFileSync(path, bytes);
    await browser.file("#image input[type=file]", path);
    taken += 1;
    await browser.until(`document.body.dataset.taken === '${taken}'`);
    const told = `${await text("#image")} ${await text("#message")}`;
    check(`${wanted}: ${told}`, wanted.test(told) && !/started afresh/.test(told));
    await browser.run("byId('message').hidden = true");
    await quiet(String(wanted));
  }
  const noise = Buffer.from(Array.from({ length: 200000 }, (_, nr) => (nr * nr * 31 + nr * 17) >> 3 & 255));
  await refused(Buffer.alloc(0), /does not open/);
  await refused(Buffer.from("hello"), /does not open/);
  await refused(noise, /does not open/);
  await refused(Buffer.concat([Buffer.from([0x1f, 0x8b, 8, 0]), noise]), /does not unpack/);
  await refused(gzipSync(Buffer.alloc(513 << 20), { level: 1 }), /unpacks to more than 512 MiB/);
  truncateSync(path, 2 ** 31);
  await refused(null, /at most 512 MiB/);
  await drop(resolve(golden, "block-1k.img.gz"), "an image after all that", true);
  // Another view has the same image.
  await click("#tab-mend");
  check("break and mend has the image that was dropped", (await browser.run("document.querySelector('#mend .drop select').selectedOptions[0].textContent")) === "block-1k.img.gz");
  await browser.run("{ const choose = document.querySelector('#mend .drop select'); choose.value = 'small'; choose.dispatchEvent(new Event('change')); }");

  await click("#tab-mend");
  await quiet("break and mend");
  await browser.run("{ const set = document.querySelector('#mend .fields input[aria-label*=s_inodes_count]'); set.value = '99'; set.dispatchEvent(new Event('change')); }");
  await browser.until("/check finds/.test(byId('mend').textContent)");
  for (let seed = 0; seed < 12; seed += 1) {
    await browser.run(`byId('seed').value = '${seed}'; [...document.querySelectorAll('#mend button')].find((one) => one.textContent === 'Ask me').click()`);
    const before = await text("#mend .choices");
    check(`question ${seed} has choices`, before.length > 0);
    await click("#mend .choices button");
    check(`question ${seed} has an answer`, (await browser.run("document.querySelectorAll('#mend .choices .right').length")) === 1);
    await quiet(`question ${seed}`);
  }

  await click("#tab-crash");
  await browser.until("document.querySelectorAll('#crash .states button').length > 0");
  check("no crash harms", /all are sound or mended/.test(await text("#crash [role=status]")));
  await browser.run("[...document.querySelectorAll('#crash .panel input')].find((one) => one.value === 'FileSynced').click()");
  check("a fence that is missing harms", /lost what fsync returned for/.test(await text("#crash [role=status]")));
  await browser.run("for (const button of [...document.querySelectorAll('#crash .states button')].slice(0, 200)) button.click()");
  await quiet("crash lab");

  // A panic in the engine is told in its words, and a fresh engine answers.
  const told = await browser.run("(() => { try { engine.exports.lab_input(-1); return 'no trap'; } catch (trap) { return fresh(trap).message; } })()");
  check(`a panic is told: ${told}`, /started afresh.*capacity overflow/s.test(told));
  check("a fresh engine answers", (await browser.run("ask({ do: 'hello' }).lessons.length")) === 7);
  await click("#tab-mend");
  check("and has an image again", (await browser.run("document.querySelectorAll('#mend .tree button').length")) > 4);
  await quiet("after a panic");

  // Small, dark: nothing wider than the screen.
  await browser.size(380, 800, "dark");
  for (const view of ["flight", "mail", "image", "mend", "crash"]) {
    await browser.open(`${url}#view=${view}`);
    check(`${view} is dark where it is wished`, (await browser.run("document.documentElement.dataset.theme")) === "dark");
    const width = await browser.run("document.documentElement.scrollWidth");
    check(`${view} is ${width} pixels wide on a screen of 380`, width <= 380);
    await quiet(`${view}, small`);
  }
} catch (error) {
  failures.push(error.stack);
} finally {
  await browser.close();
  rmSync(folder, { recursive: true, force: true });
}
console.log(`${checks} checks, ${failures.length} failed`);
for (const failure of failures) console.log(`FAILED: ${failure}`);
process.exit(failures.length ? 1 : 0);
