// The engine: the library as WebAssembly. Requests and answers are JSON; see lab/src/api.rs.

/** @type {{exports: any, module: WebAssembly.Module|null, started: Promise<void>|null}} */
const engine = { exports: null, module: null, started: null };
const VERSION = 1;
/** The image that the engine holds, by the word of a sample or the name of a file; "" for none. */
const held = { name: "" };

/** Bytes of a text in base64. The browser's own way is ten times faster where it may be gone. @param {string} text */
async function decoded(text) {
  try {
    return await (await fetch(`data:application/octet-stream;base64,${text}`)).blob();
  } catch {
    return new Blob([Uint8Array.from(atob(text), (c) => c.charCodeAt(0))]);
  }
}

/** Starts the engine. The text of it lies behind everything else of the page. */
async function start() {
  if (document.readyState === "loading") await new Promise((done) => document.addEventListener("DOMContentLoaded", done));
  const packed = await decoded(document.getElementById("engine").textContent.trim());
  const plain = new Response(packed.stream().pipeThrough(new DecompressionStream("gzip")));
  engine.module = await WebAssembly.compile(await plain.arrayBuffer());
  engine.exports = (await WebAssembly.instantiate(engine.module, {})).exports;
}

/** Puts bytes where the engine takes them. @param {Uint8Array} bytes */
function put(bytes) {
  if (!engine.exports) throw new Error("The engine did not start.");
  const at = engine.exports.lab_input(bytes.length);
  new Uint8Array(engine.exports.memory.buffer, at, bytes.length).set(bytes);
}

/** The engine's last answer. @param {number} length */
function taken(length) {
  const bytes = new Uint8Array(engine.exports.memory.buffer, engine.exports.lab_output(), length);
  return new TextDecoder().decode(bytes);
}

/** Asks the engine. A panic there is told, and the engine starts afresh. @param {object} request @returns {any} */
function ask(request) {
  let text;
  try {
    put(new TextEncoder().encode(JSON.stringify({ version: VERSION, ...request })));
    text = taken(engine.exports.lab_call());
  } catch (trap) {
    throw fresh(trap);
  }
  const answer = JSON.parse(text);
  if (answer.error !== undefined) throw new Error(answer.error);
  return answer.ok;
}

/** Hands an image to the engine. @param {Uint8Array} bytes */
function handImage(bytes) {
  try {
    put(bytes);
    engine.exports.lab_image();
  } catch (trap) {
    throw fresh(trap);
  }
}

/** The bytes of the image that the engine holds, as they are now. */
function handedImage() {
  try {
    const length = engine.exports.lab_image_back();
    return new Uint8Array(engine.exports.memory.buffer, engine.exports.lab_output(), length).slice();
  } catch (trap) {
    throw fresh(trap);
  }
}

/** After a trap: what the panic said, and a new engine. @param {any} trap */
function fresh(trap) {
  if (!engine.exports) return trap;
  let why = String(trap);
  try { why = taken(engine.exports.lab_panic()) || why; } catch { /* the trap itself says it */ }
  engine.exports = new WebAssembly.Instance(engine.module, {}).exports;
  held.name = "";
  return new Error(`The engine stopped, and was started afresh; an image has to be given to it again. ${why}`);
}
