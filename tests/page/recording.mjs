// A page with a recording in it, in a browser: what is recorded is seen first and can be saved, and the rest of the page works.
// node recording.mjs chromium out.html NAME STEPS
import { resolve } from "node:path";
import { pathToFileURL } from "node:url";
import { browse } from "./browser.mjs";

const [program, page, name, steps] = process.argv.slice(2);
const browser = await browse(program);
const failures = [];
const check = (what, holds) => { if (!holds) failures.push(what); };
const text = (selector) => browser.run(`document.querySelector(${JSON.stringify(selector)})?.textContent || ""`);
try {
  await browser.size(1280, 900);
  await browser.open(pathToFileURL(resolve(page)).href);
  check(`it is named: ${await text("#flight")}`, (await text("#flight")).includes(`A recording: ${name}`));
  check("each operation is a step", (await browser.run("document.querySelectorAll('#flight .steps li').length")) === +steps);
  check("on three machines", (await browser.run("document.querySelectorAll('#flight .machine').length")) === 3);
  await browser.run("for (const button of document.querySelectorAll('#flight .steps button')) button.click()");
  // What would be saved is caught in place of being stored.
  await browser.run("window.saved = []; save = (name, contents) => saved.push([name, contents])");
  await browser.run("for (const button of document.querySelectorAll('#flight .row button')) if (/Perfetto|ftrace|Markdown/.test(button.textContent)) button.click()");
  const saved = await browser.run("saved");
  check(`three files: ${saved.map(([file]) => file)}`, saved.length === 3);
  check("Perfetto's has events", JSON.parse(saved[0][1]).traceEvents.length > 0);
  check("ftrace's has events", /dax_/.test(saved[1][1]));
  check("Markdown has a line for each step", saved[2][1].trim().split("\n").length === +steps + 2);
  await browser.run("{ const choose = document.querySelector('#flight select'); choose.value = 'grow'; choose.dispatchEvent(new Event('change')); }");
  check("another flight can be chosen", /File grows|A file grows/i.test(await text("#flight .row .soft")));
  check("no error is told", (await browser.run("byId('message').hidden")) === true);
  check(`no error in the console: ${browser.problems}`, browser.problems.length === 0);
} catch (error) {
  failures.push(error.stack);
} finally {
  await browser.close();
}
for (const failure of failures) console.log(`FAILED: ${failure}`);
console.log(`${failures.length} failed`);
process.exit(failures.length ? 1 : 0);
