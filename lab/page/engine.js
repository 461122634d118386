// The engine: the library as WebAssembly. Requests and answers are JSON; see lab/src/api.rs.

/** @type {{exports: any, module: WebAssembly.Module|null}} */
const engine = { exports: null, module: null };
const VERSION = 1;

/** Starts a fresh engine. */
async function start() {
  if (!engine.module) {
    const text = document.getElementById("engine").textContent.trim();
    const packed = Uint8Array.from(atob(text), (c) => c.charCodeAt(0));
    const stream = new Blob([packed]).stream().pipeThrough(new DecompressionStream("gzip"));
    engine.module = await WebAssembly.compile(await new Response(stream).arrayBuffer());
  }
  engine.exports = (await WebAssembly.instantiate(engine.module, {})).exports;
}

/** Puts bytes where the engine takes them. @param {Uint8Array} bytes */
function put(bytes) {
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

/** After a trap: what the panic said, and a new engine. @param {any} trap */
function fresh(trap) {
  let why = String(trap);
  try { why = taken(engine.exports.lab_panic()) || why; } catch { /* the trap itself says it */ }
  engine.exports = new WebAssembly.Instance(engine.module, {}).exports;
  return new Error(`The engine stopped, and was started afresh: ${why}`);
}
