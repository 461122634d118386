// Walks the page in a browser: every lesson to its end, every scenario, all golden images and damaged ones, the crash lab,
// the quiz. No error may be told anywhere.
// node walk.mjs chromium docs/lab.html testdata/golden [damaged images]
import { mkdtempSync, readFileSync, readdirSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join, resolve } from "node:path";
import { pathToFileURL } from "node:url";
import { gunzipSync } from "node:zlib";
import { browse } from "./browser.mjs";

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
  const ready = await browser.open(url);
  console.log(`first picture after ${ready} ms`);
  // Well below a second on a machine that has nothing else to do.
  check(`first picture after ${ready} ms`, ready < 5000);
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
  // Damaged: bytes changed where structures are.
  const small = list.filter(([name]) => readFileSync(join(golden, `${name}.img.gz`)).length < 60000).map(([name]) => name);
  let random = 1n;
  const below = (end) => { random = (random * 6364136223846793005n + 1442695040888963407n) & ((1n << 64n) - 1n); return Number((random >> 33n) % BigInt(end)); };
  for (let nr = 0; nr < +damagedCount; nr += 1) {
    const name = small[nr % small.length];
    const image = gunzipSync(readFileSync(join(golden, `${name}.img.gz`)));
    if (image.length > 8 << 20) continue;
    for (let count = 1 + below(20); count > 0; count -= 1) image[1024 + below(Math.min(image.length - 1024, 120000))] = below(256);
    const path = join(folder, `damaged-${nr}.img`);
    writeFileSync(path, image.subarray(0, nr % 10 ? image.length : below(image.length)));
    await drop(path, `damaged ${nr}, of ${name}`, false);
  }

  await click("#tab-mend");
  await quiet("break and mend");
  await browser.run("{ const set = document.querySelector('#mend .fields input[aria-label*=s_inodes_count]'); set.value = '99'; set.dispatchEvent(new Event('change')); }");
  check("a change is found", /check finds/.test(await text("#mend")));
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
  check(`a panic is told: ${told}`, /started afresh: .*capacity overflow/s.test(told));
  check("a fresh engine answers", (await browser.run("ask({ do: 'hello' }).lessons.length")) === 7);

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
