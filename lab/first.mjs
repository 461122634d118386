// What an engine answers to the first requests of the page, so that the page shows something before its engine has started:
// node first.mjs e2dax_lab.wasm
import { readFileSync } from "node:fs";

const { instance } = await WebAssembly.instantiate(readFileSync(process.argv[2]), {});
const engine = instance.exports;

function ask(request) {
  const bytes = new TextEncoder().encode(JSON.stringify({ version: 1, ...request }));
  const at = engine.lab_input(bytes.length);
  new Uint8Array(engine.memory.buffer, at, bytes.length).set(bytes);
  const length = engine.lab_call();
  const answer = JSON.parse(new TextDecoder().decode(new Uint8Array(engine.memory.buffer, engine.lab_output(), length)));
  if (answer.error !== undefined) throw new Error(answer.error);
  return answer.ok;
}

const hello = ask({ do: "hello" });
const flight = ask({ do: "flight", scenario: hello.scenarios[0].id });
// Inside a script nothing may end it.
process.stdout.write(JSON.stringify({ hello, flight }).replaceAll("<", "\\u003c"));
