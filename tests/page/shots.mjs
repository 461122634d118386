// Pictures of every view, for a person to look at: node shots.mjs chromium docs/lab.html FOLDER
import { mkdirSync } from "node:fs";
import { join, resolve } from "node:path";
import { pathToFileURL } from "node:url";
import { browse } from "./browser.mjs";

const [program, page, folder] = process.argv.slice(2);
const url = pathToFileURL(resolve(page)).href;
mkdirSync(folder, { recursive: true });
const browser = await browse(program);
const views = {
  flight: ["?scenario=begin#step=6", ""],
  mail: ["#view=mail&lesson=6", "document.querySelectorAll('#mail .choices button')[2].click()"],
  image: ["#view=image&what=inode:15", "document.querySelector('#image h2').scrollIntoView()"],
  mend: ["#view=mend", "{ const set = () => { const field = document.querySelector('#mend .fields input[aria-label*=i_links_count]'); field.value = '9'; field.dispatchEvent(new Event('change')); }; [...document.querySelectorAll('#mend .tree button')].find((one) => one.textContent === 'direct').click(); set(); }"],
  crash: ["#view=crash", "[...document.querySelectorAll('#crash .panel input')].find((one) => one.value === 'FileSynced').click()"],
};
for (const [width, height, media] of [[1280, 900, ""], [380, 800, ""], [800, 1100, "print"]]) {
  for (const scheme of media ? ["light"] : ["light", "dark"]) {
    await browser.size(width, height, scheme, media);
    for (const [view, [address, script]] of Object.entries(views)) {
      await browser.open(url + address);
      if (script) await browser.run(script);
      await new Promise((done) => setTimeout(done, 150));
      await browser.shot(join(folder, `${view}-${media || width}-${scheme}.png`));
    }
  }
}
console.log(browser.problems.join("\n"));
await browser.close();
