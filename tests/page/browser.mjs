// A browser, driven through a pipe by the DevTools protocol: nothing needs to be installed but chromium.
import { spawn } from "node:child_process";
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";

/** Starts chromium. @param {string} program */
export async function browse(program) {
  const profile = mkdtempSync(join(tmpdir(), "e2dax-page-"));
  const child = spawn(program, ["--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--no-first-run", "--hide-scrollbars",
    "--remote-debugging-pipe", `--user-data-dir=${profile}`, "about:blank"], { stdio: ["ignore", "ignore", "ignore", "pipe", "pipe"] });
  const [to, from] = [child.stdio[3], child.stdio[4]];
  const waiting = new Map();
  const problems = [];
  let next = 1;
  let rest = "";
  from.setEncoding("utf8");
  from.on("data", (text) => {
    const parts = (rest + text).split("\0");
    rest = parts.pop();
    for (const part of parts) hear(JSON.parse(part));
  });
  function hear(message) {
    if (message.id) {
      const { resolve, reject } = waiting.get(message.id);
      waiting.delete(message.id);
      if (message.error) reject(new Error(message.error.message));
      else resolve(message.result);
    } else if (message.method === "Runtime.exceptionThrown") {
      const details = message.params.exceptionDetails;
      problems.push(details.exception?.description || details.text);
    } else if (message.method === "Runtime.consoleAPICalled" && /error|warning/.test(message.params.type)) {
      problems.push(message.params.args.map((one) => one.value || one.description).join(" "));
    } else if (message.method === "Log.entryAdded" && message.params.entry.level === "error") {
      problems.push(message.params.entry.text);
    }
  }
  const send = (method, params = {}, sessionId) => new Promise((resolve, reject) => {
    waiting.set(next, { resolve, reject });
    to.write(`${JSON.stringify({ id: next, method, params, sessionId })}\0`);
    next += 1;
  });
  const { targetId } = await send("Target.createTarget", { url: "about:blank" });
  const { sessionId } = await send("Target.attachToTarget", { targetId, flatten: true });
  const call = (method, params) => send(method, params, sessionId);
  for (const domain of ["Page", "Runtime", "Log", "DOM"]) await call(`${domain}.enable`);

  const browser = {
    problems, call,
    /** The value of an expression in the page; promises are waited for. */
    async run(expression) {
      const { result, exceptionDetails } = await call("Runtime.evaluate", { expression, awaitPromise: true, returnByValue: true });
      if (exceptionDetails) throw new Error(`${exceptionDetails.exception?.description || exceptionDetails.text} in ${expression}`);
      return result.value;
    },
    async until(expression, seconds = 30) {
      for (const end = Date.now() + 1000 * seconds; Date.now() < end;) {
        if (await browser.run(expression)) return;
        await new Promise((resolve) => setTimeout(resolve, 20));
      }
      throw new Error(`never came true: ${expression}`);
    },
    /** Opens an address and waits for the engine; after how many milliseconds there was a picture, and the engine. */
    async open(url) {
      await call("Page.navigate", { url: "about:blank" });
      await call("Page.navigate", { url });
      await browser.until("!!(document.body && document.body.dataset.ready && document.body.dataset.shown)");
      return { shown: +(await browser.run("document.body.dataset.shown")), ready: +(await browser.run("document.body.dataset.ready")) };
    },
    async size(width, height, scheme = "light", media = "") {
      await call("Emulation.setDeviceMetricsOverride", { width, height, deviceScaleFactor: 1, mobile: width < 600 });
      await call("Emulation.setEmulatedMedia", { media, features: [{ name: "prefers-color-scheme", value: scheme }, { name: "prefers-reduced-motion", value: "reduce" }] });
    },
    async key(key) {
      const params = { key, code: key, windowsVirtualKeyCode: { ArrowRight: 39, ArrowLeft: 37, ArrowUp: 38, ArrowDown: 40, Home: 36, End: 35, Enter: 13, Tab: 9, " ": 32 }[key] };
      if (key === "Enter") params.text = "\r";
      if (key === " ") params.text = " ";
      await call("Input.dispatchKeyEvent", { type: "keyDown", ...params });
      await call("Input.dispatchKeyEvent", { type: "keyUp", ...params });
    },
    /** Gives a file to the input of a view. */
    async file(selector, path) {
      const { root } = await call("DOM.getDocument");
      const { nodeId } = await call("DOM.querySelector", { nodeId: root.nodeId, selector });
      await call("DOM.setFileInputFiles", { nodeId, files: [path] });
    },
    async shot(path, whole = true) {
      const { data } = await call("Page.captureScreenshot", { format: "png", captureBeyondViewport: whole });
      writeFileSync(path, Buffer.from(data, "base64"));
    },
    async close() {
      const ended = new Promise((resolve) => child.on("exit", resolve));
      await send("Browser.close").catch(() => child.kill());
      await ended;
      rmSync(profile, { recursive: true, force: true, maxRetries: 5 });
    },
  };
  return browser;
}
