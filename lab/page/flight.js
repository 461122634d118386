// Flights: a script on machines side by side, step by step.

const COUNTERS = [
  ["calls", "questions to the file system", "calls"], ["pte_faults", "faults of 4 KiB", "faults"],
  ["pmd_faults", "faults of 2 MiB", "faults"], ["fallbacks", "of these fell back", "faults"],
  ["exclusive", "exclusive locks", "locks"], ["shared", "shared locks", "locks"], ["dio", "dio counts", "locks"],
];

/** The viewer of one flight. @param {HTMLElement} place @param {(step: number) => void} moved */
function viewer(place, moved) {
  let flight = null;
  let at = 0;

  function show(step) {
    if (!flight) return;
    at = Math.max(0, Math.min(step, flight.script.length - 1));
    slider.value = String(at);
    slider.setAttribute("aria-valuetext", `step ${at + 1}: ${flight.script[at]}`);
    where.textContent = `step ${at + 1} of ${flight.script.length}`;
    back.disabled = at === 0;
    on.disabled = at === flight.script.length - 1;
    for (const item of steps.querySelectorAll("[aria-current]")) item.removeAttribute("aria-current");
    steps.children[at]?.firstChild.setAttribute("aria-current", "step");
    const item = steps.children[at];
    if (item) steps.scrollTop = Math.max(0, item.offsetTop - steps.offsetTop - steps.clientHeight / 2);
    const differs = flight.differs[at] || [];
    const inMachines = machines.contains(document.activeElement);
    machines.replaceChildren(...flight.machines.map((track) => card(track, track.steps[at], differs)));
    if (inMachines) machines.focus({ preventScroll: true });
    moved(at);
  }

  const slider = h("input", { type: "range", min: 0, "aria-label": "Step", oninput: () => show(+slider.value) });
  const where = h("span", { class: "soft", role: "status" });
  const back = h("button", { onclick: () => show(at - 1), "aria-label": "One step back" }, "◀");
  const on = h("button", { onclick: () => show(at + 1), "aria-label": "One step on" }, "▶");
  const steps = h("ol", { class: "steps", "aria-label": "Operations" });
  const machines = h("div", { class: "machines", tabindex: -1, role: "group", "aria-label": "Machines" });
  place.append(
    h("div", { class: "row" }, back, on, slider, where, h("span", { class: "soft keys" }, "keys: ← → Home End")),
    h("div", { class: "flight" }, h("div", null, steps,
      h("p", { class: "note" }, h("span", { class: "dot bad" }, "●"), " the machines differ in this step")), h("div", null, machines, legend())));

  return {
    load(given, step = 0) {
      flight = given;
      slider.max = String(flight.script.length - 1);
      steps.replaceChildren(...flight.script.map((line, nr) => h("li", null, h("button", { onclick: () => show(nr) },
        flight.differs[nr].length ? h("span", { class: "dot", role: "img", title: `differ: ${flight.differs[nr].join(", ")}`, "aria-label": `differ: ${flight.differs[nr].join(", ")}` }, "●") : null, line))));
      show(step);
    },
    show, at: () => at, length: () => (flight ? flight.script.length : 0),
    key(name) {
      const to = { ArrowLeft: at - 1, ArrowRight: at + 1, Home: 0, End: Infinity }[name];
      if (to === undefined) return false;
      show(to);
      return true;
    },
  };
}

function legend() {
  const item = (style, text) => h("span", { style }, text);
  return h("div", { class: "legend", "aria-label": "Colours" },
    item("--c:var(--data)", "device memory"), item("--c:var(--zero)", "zero page: a hole"), item("--c:var(--copy)", "private copy"),
    item("--c:var(--dir)", "blocks"), item("--b:2px solid var(--text)", "one entry of 2 MiB"),
    item("--b:1px solid var(--line);border-bottom:4px solid var(--dirty)", "dirty, or writable"));
}

/** One machine in one step. */
function card(track, step, differs) {
  const mark = (name) => (differs.includes(name) ? "differs" : null);
  const shown = step.calls.length > 4 ? 2 : 4;
  const counters = COUNTERS.filter(([name]) => step.total[name] > 0 || name === "calls" || name === "pte_faults");
  return h("article", { class: "panel machine", "aria-label": track.name },
    h("h3", null, track.name), h("p", { class: "note" }, track.about),
    h("p", { class: "result" }, h("span", { class: mark("result") }, `→ ${step.result}`)),
    h("div", { class: "scroll" }, h("table", null,
      h("thead", null, h("tr", null, h("th", null, "counted"), h("th", { class: "n" }, "this step"), h("th", { class: "n" }, "in all"))),
      h("tbody", null, counters.map(([name, text, group]) => h("tr", null, h("td", null, text),
        h("td", { class: "n" }, h("span", { class: mark(group) }, String(step.counts[name]))), h("td", { class: "n" }, String(step.total[name]))))))),
    step.calls.length ? h("h3", null, "Who asks whom") : null,
    step.calls.slice(0, shown).map(call),
    step.calls.length > shown ? h("details", null, h("summary", null, `${step.calls.length - shown + step.more_calls} more`), step.calls.slice(shown, 40).map(call),
      step.calls.length + step.more_calls > 40 ? h("p", { class: "note" }, "… and so on") : null) : null,
    step.maps.map((map) => strips(step, map, mark("table"))),
    step.files.filter((file) => !step.maps.some((map) => map.ino === file.ino)).map((file) => fileStrips(file, file.size / 4096)),
    step.events.length ? h("h3", null, "Events, in the kernel's words") : null,
    h("ul", { class: "events", tabindex: step.events.length > 8 ? 0 : null, "aria-label": `Events on ${track.name}` }, step.events.slice(0, 60).map((event) => h("li", { class: `e-${event.class}` }, event.text)),
      step.events.length + step.more_events > 60 ? h("li", null, `… and ${step.events.length + step.more_events - 60} more`) : null));
}

function call(one) {
  const fields = (list, marked) => list.map(([name, value], nr) => [nr ? ", " : "", h("span", { class: marked.includes(name) ? "differs" : null }, h("span", { class: "soft" }, `${name} `), value)]);
  return h("div", { class: "call" }, h("code", null, one.who), " asks ", h("code", null, `${one.what}(`), fields(one.asked, one.differs[0]), h("code", null, ")"),
    h("div", null, "→ ", fields(one.answered, one.differs[1])), h("div", { class: "meaning" }, one.meaning));
}

/** A bar of runs over pages. @param {number} first @param {number} pages @param {{from: number, count: number, kind: string, title: string}[]} runs */
function strip(label, right, first, pages, runs, marked) {
  const part = (pages_) => `${(100 * pages_) / Math.max(pages, 1)}%`;
  const lines = [];
  if (pages <= 512 * 24) for (let unit = Math.ceil((first + 1) / 512) * 512; unit < first + pages; unit += 512) lines.push(h("b", { style: `left:${part(unit - first)}` }));
  return h("div", null, h("div", { class: "striplabel" }, h("span", { class: marked }, label), h("span", null, right)),
    h("div", { class: "strip", role: "img", "aria-label": `${label}: ${runs.length ? runs.map((run) => run.title).slice(0, 8).join("; ") : "nothing"}` },
      runs.map((run) => h("i", { class: run.kind, title: run.title, style: `left:${part(run.from - first)};width:${part(run.count)}` })), lines));
}

function strips(step, map, marked) {
  const file = step.files.find((one) => one.ino === map.ino);
  const runs = map.runs.map((run) => ({
    from: run.page, count: run.count * (run.size === "pmd" ? 512 : 1), kind: `k-${run.kind} ${run.size} ${run.writable ? "writable" : ""}`,
    title: `${run.count} × ${run.size === "pmd" ? "2 MiB" : "4 KiB"} at page ${run.page}: ${run.kind}${run.device === null ? "" : `, device page ${run.device}`}${run.writable ? ", writable" : ""}`,
  }));
  const count = (size) => map.runs.filter((run) => run.size === size).reduce((sum, run) => sum + run.count, 0);
  const pages = Math.max(map.pages, file && map.pgoff === 0 ? Math.min(file.size / 4096, map.pages * 2) : 0);
  return [h("h3", null, `Mapping ${map.name} of ${file ? file.name : `inode ${map.ino}`}`),
    strip("page table", `${count("pmd")} × 2 MiB, ${count("pte")} × 4 KiB`, map.pgoff, pages, runs, marked), file ? fileStrips(file, pages, map.pgoff) : null];
}

function fileStrips(file, pages, first = 0) {
  const last = (list, size) => list.reduce((most, run) => Math.max(most, size(run)), 1);
  if (!first) pages = Math.max(pages, last(file.entries, (run) => run.page + run.count * (run.size === "pmd" ? 512 : 1)));
  const entries = file.entries.map((run) => ({
    from: run.page, count: run.count * (run.size === "pmd" ? 512 : 1), kind: `k-${run.kind} ${run.size} ${run.dirty ? "dirty" : ""}`,
    title: `${run.count} × ${run.size === "pmd" ? "2 MiB" : "4 KiB"} at page ${run.page}: ${run.kind}${run.dirty ? ", dirty" : ""}`,
  }));
  const blocks = file.map.map(([from, count, device]) => ({ from, count, kind: "k-block", title: `file blocks ${from} to ${from + count - 1} at device blocks ${device} to ${device + count - 1}${device % 512 === 0 ? ", aligned to 2 MiB" : ""}` }));
  return [first === 0 && pages <= 1 && !entries.length && !blocks.length ? null : [
    strip(`entries of ${file.name}`, `${entries.length ? "" : "none"}`, first, pages, entries),
    strip(`block map of ${file.name}`, `size ${bytes(file.size)}, ${bytes(file.blocks * 512)} stored`, first, pages, blocks)]];
}

/** The view. @param {object} hello @param {object} first the flight of the first scenario, which needs no engine */
function flightView(hello, first) {
  const place = byId("flight");
  let scenario = null;
  /** What the engine was asked for the flight that is shown; null for a recording. */
  let current = null;
  let record = null;
  const choose = h("select", { "aria-label": "Scenario", onchange: () => (choose.value ? open(choose.value) : own()) },
    hello.scenarios.map((one) => h("option", { value: one.id }, one.title)), h("option", { value: "" }, "A script of your own"));
  const script = h("textarea", { rows: 9, spellcheck: "false", "aria-label": "Script", "aria-describedby": "language" });
  const help = h("div", { class: "note", id: "language" },
    h("p", null, "One operation a line; # begins a comment; numbers as in C, in bytes."),
    h("p", { class: "mono" }, "create F · write F AT LENGTH SEED · read F AT LENGTH · truncate F SIZE · fallocate F KEEP AT LENGTH · fsync F · stat F · fiemap F · seekhole F AT · seekdata F AT · mkdir D · rmdir D · unlink F · rename FROM TO · link OLD NEW · symlink TARGET F"),
    h("p", { class: "mono" }, "map M F AT LENGTH shared|private|sync ro|rw · unmap M · load M AT · store M AT VALUE · touch M AT LENGTH · mcrc M AT LENGTH · msync M AT LENGTH"));
  const taken = h("input", { type: "checkbox", id: "taken" });
  const run = h("button", { onclick: () => attempt(() => {
    const request = { script: script.value, taken: taken.checked };
    fly(request);
    scenario = null;
    choose.value = "";
    name.textContent = taken.checked ? `on ${held.name}` : "";
    setAddress({}, { view: "flight" });
  }) }, "Fly");
  const details = h("details", null, h("summary", null, "The script"), script, help,
    h("div", { class: "row" }, run, h("label", { for: "taken" }, taken, " on the image of the Image view, in place of an empty one")));
  const machine = h("select", { "aria-label": "Machine to save" });
  const formats = { chrome: ["Perfetto JSON", "json"], ftrace: ["ftrace text", "txt"], markdown: ["Markdown", "md"] };
  const exports = Object.entries(formats).map(([format, [text, end]]) => h("button", { onclick: () => attempt(() =>
    save(`flight${format === "markdown" ? "" : `-${machine.value}`}.${end}`, exported(format))) }, text));
  const name = h("span", { class: "soft" });
  const cut = h("p", { class: "note", role: "status" });
  place.append(h("h2", null, "One script, three machines"),
    h("p", { class: "note" }, "The path by which Linux 4.8 read ext2 through DAX, what became of it in 6.1, and what this library does. Each has its own disk, with the same bytes on it at the start."),
    h("div", { class: "row" }, choose, name), details, cut);
  const view = viewer(place, (step) => setAddress(scenario ? { scenario } : {}, { view: "flight", step: step + 1 }));
  place.append(h("div", { class: "row" }, h("span", { class: "soft" }, "Save what"), machine, h("span", { class: "soft" }, "did as"), exports.slice(0, 2), h("span", { class: "soft" }, "or all three as"), exports[2]));

  function exported(format) {
    if (record) return format === "markdown" ? record.markdown : record[format][machine.value];
    return ask({ do: "export", format, machine: machine.value, ...current });
  }
  function shown(flight, step) {
    machine.replaceChildren(...flight.machines.map((one) => h("option", { value: one.id }, one.name)));
    machine.value = flight.machines[flight.machines.length - 1].id;
    cut.textContent = flight.cut ? `The last ${flight.cut} lines of the script are left out: a flight has at most ${flight.script.length} steps.` : "";
    view.load(flight, step);
  }
  function fly(request, step = 0) {
    const flight = ask({ do: "flight", ...request });
    if (!flight.script.length) throw new Error("There is no operation in the script.");
    current = request;
    record = null;
    shown(flight, step);
  }
  function own() {
    details.open = true;
    script.focus();
  }
  function open(id, step = 0) {
    const chosen = hello.scenarios.find((one) => one.id === id);
    if (!chosen) {
      if (!current && !record) open(hello.scenarios[0].id);
      attempt(() => { throw new Error(`There is no scenario "${id}".`); });
      return;
    }
    const told = () => {
      scenario = id;
      choose.value = id;
      taken.checked = false;
      script.value = chosen.script;
      name.textContent = chosen.script.startsWith("#") ? chosen.script.split("\n")[0].slice(2) : "";
    };
    if (chosen === hello.scenarios[0]) {
      told();
      current = { scenario: id };
      record = null;
      shown(first, step);
      return;
    }
    attempt(() => { told(); fly({ scenario: id }, step); });
  }
  return {
    begin(params) {
      const step = Math.max(0, Math.floor(+(params.get("step") || 1)) - 1 || 0);
      const recording = byId("recording").textContent.trim();
      const wanted = params.get("scenario");
      if (wanted && wanted !== scenario) { open(wanted, step); return; }
      if (current || record) { view.show(params.has("step") ? step : view.at()); return; }
      if (!recording) { open(hello.scenarios[0].id, step); return; }
      record = JSON.parse(recording);
      name.textContent = `A recording: ${record.name}`;
      script.value = record.flight.script.join("\n");
      choose.value = "";
      shown(record.flight, step);
    },
    key: view.key,
  };
}
