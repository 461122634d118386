// The engine of docs/lab.html in Node, as the page has it.
import { readFileSync } from "node:fs";
import { gunzipSync } from "node:zlib";

/** The engine inside a page. @param {string} page */
export async function engineOf(page) {
  const text = readFileSync(page, "utf8");
  const packed = text.match(/<script id="engine" type="text\/plain">([^<]*)<\/script>/)[1];
  const module = await WebAssembly.compile(gunzipSync(Buffer.from(packed, "base64")));
  if (WebAssembly.Module.imports(module).length) throw new Error("the engine wants something of its host");
  const { exports } = await WebAssembly.instantiate(module, {});
  const put = (bytes) => {
    // Memory may grow in the call, and is another buffer then.
    const at = exports.lab_input(bytes.length);
    new Uint8Array(exports.memory.buffer, at, bytes.length).set(bytes);
  };
  return {
    /** What the page shows before its engine has started. */
    first: JSON.parse(text.match(/<script id="first" type="application\/json">([^<]*)<\/script>/)[1]),
    ask(request) {
      put(new TextEncoder().encode(JSON.stringify({ version: 1, ...request })));
      const length = exports.lab_call();
      const at = exports.lab_output();
      const answer = JSON.parse(new TextDecoder().decode(new Uint8Array(exports.memory.buffer, at, length)));
      if (answer.error !== undefined) throw new Error(answer.error);
      return answer.ok;
    },
    image(bytes) {
      put(bytes);
      exports.lab_image();
    },
  };
}
