// The page as people use it: by keyboard alone, with a screen reader, on paper, on a small screen, dark, going back and forward.
// node use.mjs chromium docs/lab.html
import { resolve } from "node:path";
import { pathToFileURL } from "node:url";
import { browse } from "./browser.mjs";

const [program, page] = process.argv.slice(2);
const url = pathToFileURL(resolve(page)).href;
const browser = await browse(program);
let checks = 0;
const failures = [];
function check(what, holds) {
  checks += 1;
  if (!holds) failures.push(what);
}
function quiet(where) {
  check(`${where}: ${browser.problems.join("; ")}`, browser.problems.length === 0);
  browser.problems.length = 0;
}
/** Each view, with what is only there after something was done. */
const VIEWS = {
  flight: ["#view=flight", "document.querySelector('#flight details').open = true"],
  mail: ["#view=mail&lesson=6", "document.querySelectorAll('#mail .choices button')[2].click(); document.querySelector('#mutant').click()"],
  image: ["#view=image&what=inode:15", "[...document.querySelectorAll('#image .tree button')].find((one) => one.textContent === 'indirect').click()"],
  mend: ["#view=mend&seed=3", "document.querySelectorAll('#mend .choices button')[0].click()"],
  crash: ["#view=crash&without=FileSynced", ""],
};

async function opened(view) {
  const [address, script] = VIEWS[view];
  await browser.open(url + address);
  if (script) await browser.run(script);
}

// In the page: what can be reached, and what has the focus.
const CONTROLS = `[...document.querySelectorAll("button, select, input, textarea, summary, [tabindex='0']")].filter((one) => !one.disabled && one.tabIndex >= 0 && one.checkVisibility({ visibilityProperty: true }) && one.getClientRects().length)`;
await browser.size(1280, 900);
try {
  for (const view of Object.keys(VIEWS)) {
    await opened(view);
    // From the beginning, by Tab alone, through all of it and out again.
    await browser.run("document.body.tabIndex = -1; document.body.focus(); document.body.removeAttribute('tabindex'); window.met = new Map(); window.controls = new Set()");
    const count = await browser.run(`{ window.controls = new Set(${CONTROLS}); controls.size }`);
    let unseen = "";
    let left = false;
    for (let press = 0; press < 2 * count + 10 && !left; press += 1) {
      await browser.key("Tab");
      const [at, seen] = await browser.run(`(() => { const one = document.activeElement; if (one === document.body || !one) return ["", true]; met.set(one, met.size);
        const style = getComputedStyle(one); const box = one.getBoundingClientRect();
        return [one.outerHTML.slice(0, 90), style.outlineStyle !== "none" && parseFloat(style.outlineWidth) >= 2 && box.bottom > 0 && box.top < innerHeight]; })()`);
      left = at === "";
      if (!seen && !unseen) unseen = at;
    }
    const missed = await browser.run("[...controls].filter((one) => !met.has(one)).map((one) => one.outerHTML.slice(0, 90)).slice(0, 4).join(' | ')");
    check(`${view}: Tab does not reach ${missed}`, missed === "");
    check(`${view}: the focus is not seen on ${unseen}`, unseen === "");
    check(`${view}: the focus leaves the page after its ${count} controls`, left);
    // What a screen reader says of them.
    const { nodes } = await browser.call("Accessibility.getFullAXTree");
    const property = (node, name) => node.properties?.find((one) => one.name === name)?.value?.value;
    const nameless = nodes.filter((node) => !node.ignored && property(node, "focusable") && !/RootWebArea/.test(node.role?.value) && !node.name?.value).map((node) => node.role?.value);
    check(`${view}: without a name: ${nameless}`, nameless.length === 0);
    check(`${view}: nothing moves`, (await browser.run("document.getAnimations().length")) === 0);
    quiet(view);
  }

  // The tabs, by their keys.
  await browser.open(url);
  await browser.run("byId('tab-flight').focus()");
  const selected = () => browser.run("document.querySelector('[role=tab][aria-selected=true]').id");
  await browser.key("ArrowRight");
  check("→ opens the next view", (await selected()) === "tab-mail");
  await browser.key("End");
  check("End opens the last", (await selected()) === "tab-crash");
  await browser.key("ArrowRight");
  check("→ goes round", (await selected()) === "tab-flight");
  // A lesson without a mouse: predict, see, mutant, steps.
  await browser.key("ArrowRight");
  for (let press = 0; press < 40 && !(await browser.run("document.activeElement.matches('#mail .choices button')")); press += 1) await browser.key("Tab");
  await browser.key("Enter");
  check("Enter predicts", (await browser.run("document.querySelectorAll('#mail .choices .right').length")) === 1);
  check("and the focus is where it goes on", await browser.run("document.activeElement.matches('#mail *')"));
  for (let press = 0; press < 40 && (await browser.run("document.activeElement.id")) !== "mutant"; press += 1) await browser.key("Tab");
  await browser.key(" ");
  check("space switches the mutant on", /With the mutant/.test(await browser.run("document.querySelector('#mail [role=status]').textContent")));
  check("and stays there", (await browser.run("document.activeElement.id")) === "mutant");
  // A field, by keyboard; then the blocks.
  await browser.open(`${url}#view=mend`);
  await browser.run("document.querySelector('#mend .fields input').focus()");
  check("a field is named", /s_inodes_count/.test(await browser.run("document.activeElement.getAttribute('aria-label')")));
  await browser.call("Input.insertText", { text: "9" });
  await browser.key("Enter");
  await browser.until("/check finds/.test(byId('mend').textContent)");
  check("and the focus stays on the field", /s_inodes_count/.test(await browser.run("document.activeElement.getAttribute('aria-label')")));
  await browser.open(`${url}#view=image`);
  await browser.run("document.querySelector('#image canvas').focus()");
  for (const key of ["ArrowRight", "ArrowDown", "ArrowLeft", "Enter"]) await browser.key(key);
  check("a block is told", /^block \d+/.test(await browser.run("document.querySelector('#image [aria-live]').textContent")));
  quiet("keys");

  // Back and forward, and faster than anybody looks.
  await browser.open(`${url}?scenario=grow#step=3`);
  for (const view of ["mail", "image", "crash"]) await browser.run(`byId('tab-${view}').click()`);
  const went = async (where, wanted) => {
    await browser.run(`history.${where}()`);
    await browser.until(`document.querySelector('[role=tab][aria-selected=true]').id === 'tab-${wanted}'`, 5).catch(() => check(`${where} leads to ${wanted}, not ${""}`, false));
  };
  await went("back", "image");
  await went("back", "mail");
  await went("back", "flight");
  check("back leads to the step", (await browser.run("[...document.querySelectorAll('#flight .steps button')].findIndex((one) => one.hasAttribute('aria-current'))")) === 2);
  await went("forward", "mail");
  await browser.run("for (let times = 0; times < 15; times += 1) { history.back(); history.forward(); }");
  await browser.run("for (let times = 0; times < 10; times += 1) for (const tab of document.querySelectorAll('[role=tab]')) tab.click()");
  await browser.run("new Promise((done) => setTimeout(done, 300))");
  await browser.run("location.hash = 'view=mail&lesson=4'");
  await browser.until("/4\\./.test(document.querySelector('#mail [aria-pressed=true]')?.textContent)", 5).catch(() => check("an address that is typed is followed", false));
  for (const wrong of ["?scenario=none", "#view=none", "#view=mail&lesson=99", "#view=image&what=nothing:7", "#view=mend&seed=x&topic=weather", "#view=crash&without=Nothing&order=chaos", "?scenario=begin#step=9999", "?scenario=begin#step=-3", "?%ff"]) {
    await browser.open(url + wrong);
    check(`${wrong} shows something`, (await browser.run("document.querySelector('[role=tabpanel]:not([hidden])').textContent.length")) > 100);
    check(`${wrong}: ${await browser.run("byId('message').textContent")}`, !/started afresh|undefined|TypeError/.test(await browser.run("byId('message').textContent")));
    quiet(wrong);
  }

  // Small, and dark: nothing wider than the screen, also where something was opened.
  for (const scheme of ["light", "dark"]) {
    await browser.size(380, 800, scheme);
    for (const view of Object.keys(VIEWS)) {
      await opened(view);
      const width = await browser.run("document.documentElement.scrollWidth");
      check(`${view} is ${width} pixels wide on a screen of 380`, width <= 380);
      // Text on what lies behind it: 4.5 to 1, large or not.
      const faint = await browser.run(`(() => {
        const parse = (text) => { const part = text.match(/[\\d.]+/g).map(Number); return text.startsWith("color(") ? part.slice(0, 3).map((one) => one * 255).concat(part[3] ?? 1) : part; };
        const light = (colour) => colour.slice(0, 3).map((one) => one / 255).map((one) => (one <= 0.03928 ? one / 12.92 : ((one + 0.055) / 1.055) ** 2.4)).reduce((sum, one, nr) => sum + one * [0.2126, 0.7152, 0.0722][nr], 0);
        const found = new Map();
        for (const one of document.querySelectorAll("[role=tabpanel]:not([hidden]) *, header *")) {
          if (![...one.childNodes].some((node) => node.nodeType === 3 && node.textContent.trim()) || !one.checkVisibility() || one.matches(":disabled, option")) continue;
          // The nearest that is not see-through; what is half see-through lies on the page's ground.
          let behind = [0, 0, 0, 0];
          for (let under = one; under && (behind[3] ?? 1) < 1; under = under.parentElement) { const next = parse(getComputedStyle(under).backgroundColor); if ((next[3] ?? 1) > 0.9) behind = next.slice(0, 3); }
          const [front, back] = [light(parse(getComputedStyle(one).color)), light(behind)].sort((a, b) => b - a);
          const ratio = (front + 0.05) / (back + 0.05);
          if (ratio < 4.5) found.set(one.tagName + "." + one.className, ratio.toFixed(1));
        }
        return [...found].slice(0, 6).join(" | ");
      })()`);
      check(`${view}, ${scheme}: faint: ${faint}`, faint === "");
      quiet(`${view}, small`);
    }
    check("dark where it is wished", (await browser.run("document.documentElement.dataset.theme")) === scheme);
  }

  // On paper: what is only for the hand is gone, what scrolls is whole, the rest is black on white.
  await browser.size(800, 1100, "dark", "print");
  for (const view of Object.keys(VIEWS)) {
    await opened(view);
    const told = await browser.run(`(() => {
      const seen = (one) => one.checkVisibility();
      const cut = [...document.querySelectorAll("[role=tabpanel]:not([hidden]) *")].filter((one) => seen(one) && one.scrollHeight > one.clientHeight + 2 && /auto|scroll/.test(getComputedStyle(one).overflowY) && one.clientHeight > 0);
      return { tools: [...document.querySelectorAll("nav, textarea, .drop, input[type=range]")].filter(seen).length, cut: cut.map((one) => one.className).join(" "), ground: getComputedStyle(document.body).backgroundColor, text: getComputedStyle(document.body).color };
    })()`);
    check(`${view}: ${told.tools} tools on paper`, told.tools === 0);
    check(`${view}: cut off on paper: ${told.cut}`, told.cut === "");
    check(`${view}: ${told.text} on ${told.ground}`, told.ground === "rgb(255, 255, 255)" && told.text === "rgb(0, 0, 0)");
  }
  quiet("paper");
} catch (error) {
  failures.push(error.stack);
} finally {
  await browser.close();
}
console.log(`${checks} checks, ${failures.length} failed`);
for (const failure of failures) console.log(`FAILED: ${failure}`);
process.exit(failures.length ? 1 : 0);
