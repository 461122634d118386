// The crash lab: operations, fences to leave out, and every state that a crash may leave.

function crashView(hello) {
  const place = byId("crash");
  let given = null;
  let at = 0;
  const script = h("textarea", { rows: 8, spellcheck: "false", "aria-label": "Operations" });
  script.value = hello.crash_script;
  const orders = { lines: "persistent memory, 64-byte lines", words: "persistent memory, 8-byte words", program: "a killed process: program order", block: "a disk with a cache: 512-byte sectors" };
  const order = h("select", { "aria-label": "What may be reordered", onchange: () => attempt(run) }, Object.entries(orders).map(([id, text]) => h("option", { value: id }, text)));
  const results = h("p", { class: "note mono" });
  const fences = h("div", { class: "panel", role: "group", "aria-label": "Fences and flushes" });
  const verdict = h("p", { role: "status" });
  const states = h("div", { class: "states", role: "group", "aria-label": "Crash states" });
  const slider = h("input", { type: "range", min: 0, "aria-label": "Crash state", oninput: () => show(+slider.value) });
  const where = h("span", { class: "soft", role: "status" });
  const detail = h("div", { class: "image" });
  place.append(h("h2", null, "Every state that a crash may leave"),
    h("p", { class: "prose" }, "What is stored reaches the media when it likes, until a fence says \"before all that follows\". Here are a few operations, what they store, and all that may be on the media if the power goes. Leave out a fence and look for the state that shows why it was there."),
    h("div", { class: "image" }, h("div", null, h("h3", null, "Operations"), script, results, h("div", { class: "row" }, order, h("button", { onclick: () => attempt(run) }, "Crash"))), fences),
    verdict, h("div", { class: "legend" }, h("span", { style: "--c:var(--good)" }, "sound as it is"), h("span", { style: "--c:var(--bitmap)" }, "repair mends it without a question"), h("span", { style: "--c:var(--bad)" }, "needs a person, or lost what fsync returned for")),
    states, h("div", { class: "row" }, slider, where), detail);

  const fill = (element, ...inside) => element.replaceChildren(...inside.flat(9).filter((part) => part !== null));

  function run() {
    const boxes = [...fences.querySelectorAll("input")];
    const without = boxes.filter((one) => !one.checked).map((one) => one.value);
    // The fences are drawn anew: whoever switched one stays on it.
    const focused = boxes.includes(document.activeElement) ? document.activeElement.value : null;
    try {
      given = ask({ do: "crash", script: script.value, without, order: order.value });
    } catch (error) {
      // An address may name what there is not; then all fences are there.
      if (given) throw error;
      fill(fences);
      run();
      throw error;
    }
    queueMicrotask(() => [...fences.querySelectorAll("input")].find((one) => one.value === focused)?.focus());
    fill(fences, h("h3", null, "Fences and flushes"), given.fences.map((one) => h("div", null, h("label", null,
      h("input", { type: "checkbox", value: one.name, checked: !one.left_out, onchange: () => attempt(run) }), ` ${one.name}`, h("span", { class: "soft" }, ` ×${one.times}: ${one.text}`)))));
    results.textContent = given.script.map((line, nr) => `${line} → ${given.results[nr]}`).join("; ");
    const count = given.states.length;
    verdict.replaceChildren(h("span", { class: given.bad || given.lost ? "bad" : "good" }, given.bad || given.lost
      ? `${count}${given.more ? " (and more)" : ""} states: ${given.bad} need a person, ${given.lost} lost what fsync returned for.`
      : `${count}${given.more ? " (and more)" : ""} states: all are sound or mended without a question, and what fsync returned for is there.`));
    states.replaceChildren(...given.states.map((state, nr) => h("button", { tabindex: -1, "aria-label": `State ${nr + 1}`, class: state.lost.length || state.repair === "halts" ? "s-bad" : `s-${state.repair}`, onclick: () => show(nr) })));
    slider.max = String(Math.max(0, count - 1));
    const first = given.states.findIndex((state) => state.lost.length || state.repair === "halts");
    show(first >= 0 ? first : Math.min(at, count - 1));
    setAddress({}, { view: "crash", ...(without.length ? { without: without.join(",") } : {}), ...(order.value === "lines" ? {} : { order: order.value }) });
  }

  function show(nr) {
    const state = given && given.states[nr];
    if (!state) { detail.replaceChildren(); return; }
    states.children[at]?.removeAttribute("aria-current");
    at = nr;
    states.children[at].setAttribute("aria-current", "true");
    slider.value = String(at);
    slider.setAttribute("aria-valuetext", `state ${at + 1}: ${state.lost.length ? "lost what fsync returned for" : { clean: "sound", mended: "mended without a question", halts: "needs a person" }[state.repair]}`);
    where.textContent = `state ${at + 1} of ${given.states.length}`;
    const line = (one, index) => {
      const text = one.kind === "step" ? `▶ ${one.text}` : one.kind === "done" ? `✓ ${one.text}`
        : one.kind === "fence" || one.kind === "flush" ? `── ${one.kind} ${one.text}` : `   ${one.kind} ${one.len} byte${one.len === 1 ? "" : "s"} at ${one.offset}${one.text ? `: ${one.text}` : ""}`;
      return h("li", { class: `${one.kind} ${index >= state.at ? "after" : ""} ${index === state.at ? "here" : ""}` }, text);
    };
    const from = Math.max(0, state.at - 30);
    const until = Math.min(given.log.length, state.at + 12);
    detail.replaceChildren(h("div", null, h("h3", null, "The crash"),
      h("p", null, state.done ? "After " : "During ", h("code", null, given.script[state.step] || "the beginning"), `; ${state.in_flight} place${state.in_flight === 1 ? "" : "s"} in flight; ${state.how}.`),
      h("ol", { class: "log", tabindex: 0, "aria-label": "What went to the device" }, from ? h("li", { class: "soft" }, `… ${from} before`) : null, given.log.slice(from, until).map((one, nr_) => line(one, from + nr_)))),
    h("div", null, h("h3", null, "What check says"), state.findings.length ? h("ul", null, state.findings.slice(0, 12).map((text) => h("li", null, text)), state.findings.length > 12 ? h("li", null, `and ${state.findings.length - 12} more`) : null) : h("p", { class: "good" }, "✓ nothing"),
      h("h3", null, "What repair does"), h("p", null, { clean: "Nothing: there is nothing to mend.", mended: "It mends all of it without a question.", halts: `Without questions it stops: ${state.halts}` }[state.repair]),
      state.asked.length ? [h("p", null, "With yes to every question it mends:"), h("ul", null, state.asked.slice(0, 12).map((text) => h("li", null, text)), state.asked.length > 12 ? h("li", null, `and ${state.asked.length - 12} more`) : null)] : null,
      state.lost.length ? h("p", { class: "bad" }, `fsync had returned for ${state.lost.join(", ")}, and it is not there as it was.`) : null,
      h("h3", null, "What is in the tree after repair"), state.tree.length ? h("ul", { class: "mono" }, state.tree.map((name) => h("li", null, name))) : h("p", { class: "soft" }, "nothing that can be read")));
    const [log, here] = [detail.querySelector(".log"), detail.querySelector(".here")];
    if (here) log.scrollTop = here.offsetTop - log.offsetTop - log.clientHeight / 2;
  }
  return {
    begin(params) {
      const [without, wanted] = [params.get("without"), params.get("order")];
      if (given && !without && !wanted) { setAddress({}, { view: "crash" }); return; }
      if (orders[wanted]) order.value = wanted;
      // What is left out has to be on the list before it can be left out.
      if (without) fill(fences, without.split(",").map((name) => h("input", { type: "checkbox", value: name, hidden: true })));
      attempt(run);
    },
    key(name) {
      const to = { ArrowLeft: at - 1, ArrowRight: at + 1 }[name];
      if (to === undefined || !given || to < 0 || to >= given.states.length) return false;
      show(to);
      return true;
    },
  };
}
