// Making elements, telling errors, and the address.

/** @param {string} tag @param {object|null} set attributes; on… are listeners @param {...any} inside @returns {HTMLElement} */
function h(tag, set, ...inside) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(set || {})) {
    if (value === null || value === undefined || value === false) continue;
    if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else element.setAttribute(name, value === true ? "" : value);
  }
  element.append(...inside.flat(9).filter((part) => part !== null && part !== undefined && part !== false));
  return element;
}

const byId = (id) => document.getElementById(id);

/** Does what may fail, and tells why it did. What comes before the engine has started waits for it. @param {() => any} body */
function attempt(body) {
  const message = byId("message");
  if (!engine.exports && engine.started) {
    engine.started.then(() => attempt(body), () => { /* told where it was started */ });
    return undefined;
  }
  try {
    message.hidden = true;
    return body();
  } catch (error) {
    message.textContent = error.message;
    message.hidden = false;
    return undefined;
  }
}

/** A table. @param {string[]} head @param {any[][]} rows @param {number[]} numbers columns that are numbers */
function table(head, rows, numbers = []) {
  const cell = (tag, text, at) => h(tag, { class: numbers.includes(at) ? "n" : null }, text);
  return h("div", { class: "scroll" }, h("table", null,
    head.length ? h("thead", null, h("tr", null, head.map((text, at) => cell("th", text, at)))) : null,
    h("tbody", null, rows.map((row) => h("tr", null, row.map((text, at) => cell("td", text, at)))))));
}

/** Bytes as people say them. @param {number} count */
function bytes(count) {
  for (const [unit, name] of [[2 ** 40, "TiB"], [2 ** 30, "GiB"], [2 ** 20, "MiB"], [1024, "KiB"]]) {
    if (count >= unit) return `${+(count / unit).toFixed(2)} ${name}`;
  }
  return `${count} B`;
}

const hex = (number) => `0x${number.toString(16)}`;

/** What the address says: ?scenario=… and #step=…, in either place. */
function address() {
  return new URLSearchParams([location.search.slice(1), location.hash.slice(1)].filter(Boolean).join("&"));
}

/** The address as the page last knew it: what differs from it was changed by somebody else. */
let known = location.href;

/** Changes the address without loading anything. @param {Object<string, any>} where @param {Object<string, any>} what */
function setAddress(where, what) {
  const query = new URLSearchParams(where).toString();
  const hash = new URLSearchParams(what).toString();
  try {
    history.replaceState(null, "", `${query ? `?${query}` : location.pathname}#${hash}`);
  } catch {
    // Some browsers keep the address of a file as it is, or let it change so often and not oftener.
    try { location.replace(`#${new URLSearchParams({ ...where, ...what })}`); } catch { /* it stays */ }
  }
  known = location.href;
}

/** Keeps where the page is for the browser's way back. */
function keepAddress() {
  try { history.pushState(null, "", location.href); } catch { /* the way back leaves the page then */ }
}

/** Lets the user keep a text or bytes as a file. @param {string} name @param {string|Uint8Array} contents */
function save(name, contents) {
  const link = h("a", { href: URL.createObjectURL(new Blob([contents])), download: name });
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 1000);
}
