// An image as blocks, tree and fields, linked; with editing, check and quiz in "Break and mend".

const USES = {
  free: ["free", "--free"], nobody: ["used, but nobody's", "--nobody"], superblock: ["superblock", "--super"], descriptors: ["descriptors", "--desc"],
  "block-bitmap": ["block bitmap", "--bitmap"], "inode-bitmap": ["inode bitmap", "--bitmap"], "inode-table": ["inode table", "--table"],
  data: ["data of files", "--data"], directory: ["directory", "--dir"], symlink: ["symlink", "--dir"], indirect: ["indirect", "--ind"],
  double: ["double indirect", "--dind"], triple: ["triple indirect", "--tind"], xattrs: ["attributes", "--xattr"], journal: ["journal", "--rest"], reserved: ["reserved", "--rest"],
};

/** The workspace; `edits` lets fields be changed. @param {HTMLElement} place @param {object} hello @param {boolean} edits */
function workspace(place, hello, edits) {
  let image = null;
  let what = "sb";
  let ino = 0;
  let marks = {};
  let pointed = 1;
  let hovered = 0;
  const canvas = h("canvas", { tabindex: 0, role: "img", "aria-label": "Blocks of the image" });
  const said = h("p", { class: "note", "aria-live": "polite" });
  const summary = h("p", { class: "note" });
  const colours = h("div", { class: "legend" });
  const groups = h("div", { class: "row" });
  const tree = h("div", { class: "tree", tabindex: 0 });
  const file = h("div");
  const findings = h("div");
  const title = h("h3");
  const dump = h("div", { class: "hex", tabindex: 0, "aria-label": "Bytes" });
  const fields = h("div", { class: "fields scroll", tabindex: 0, "aria-label": "Fields" });
  const jump = h("input", { size: 12, "aria-label": "Structure", placeholder: "inode:12, block:77", onchange: () => attempt(() => go(jump.value.trim())) });
  place.append(findings, summary, h("div", { class: "image" },
    h("div", null, h("h3", null, "Blocks"), canvas, said, colours, groups, h("h3", null, "Tree"), tree, file),
    h("div", null, title, h("div", { class: "row" }, h("button", { onclick: () => attempt(() => go("sb")) }, "superblock"), h("button", { onclick: () => attempt(() => go("inode:2")) }, "root inode"), jump), fields, h("h3", null, "Bytes"), dump)));

  /** The run of a block. */
  const runOf = (block) => image.runs.find((run) => block >= run.first && block < run.first + run.count);
  let cell = { size: 8, columns: 1, per: 1 };

  function draw() {
    if (!image || !place.clientWidth) return;
    const blocks = image.geometry ? image.geometry.blocks : 0;
    const width = Math.max(200, canvas.parentElement.clientWidth);
    const per = Math.max(1, Math.ceil(blocks / 8192));
    const count = Math.ceil(blocks / per);
    let size = 14;
    while (size > 3 && Math.ceil(count / Math.floor(width / size)) * size > 340) size -= 1;
    cell = { size, columns: Math.max(1, Math.floor(width / size)), per };
    const scale = window.devicePixelRatio || 1;
    canvas.width = width * scale;
    const rows = Math.max(1, Math.ceil(count / cell.columns));
    canvas.height = rows * size * scale;
    const pen = canvas.getContext("2d");
    pen.scale(scale, scale);
    const style = getComputedStyle(document.documentElement);
    const colour = Object.fromEntries(Object.entries(USES).map(([use, [, name]]) => [use, style.getPropertyValue(name)]));
    const lit = hovered || ino;
    const at = (nr) => [(nr % cell.columns) * size, Math.floor(nr / cell.columns) * size];
    for (const run of image.runs) {
      for (let nr = Math.floor(run.first / per); nr <= Math.floor((run.first + run.count - 1) / per); nr += 1) {
        const [x, y] = at(nr);
        pen.fillStyle = colour[run.used];
        pen.globalAlpha = lit && run.ino !== lit ? 0.3 : 1;
        pen.fillRect(x, y, size - 1, size - 1);
      }
    }
    pen.globalAlpha = 1;
    if (image.groups.length > 1 && size > 3) {
      pen.fillStyle = style.getPropertyValue("--text");
      for (const group of image.groups) { const [x, y] = at(Math.floor(group.first / per)); pen.fillRect(x, y, 2, size); }
    }
    const [x, y] = at(Math.floor(pointed / per));
    pen.strokeStyle = style.getPropertyValue("--text");
    pen.lineWidth = 2;
    pen.strokeRect(x, y, size - 1, size - 1);
  }

  function tell(block) {
    const run = runOf(block);
    if (!run) { said.textContent = ""; return; }
    const owner = run.ino ? image.tree.find((one) => one.ino === run.ino) : null;
    said.textContent = `block ${block}: ${USES[run.used][0]}${run.ino ? ` of inode ${run.ino}` : ""}${owner ? ` (${owner.path})` : ""}`;
  }
  function point(block) {
    pointed = Math.max(0, Math.min(block, (image.geometry ? image.geometry.blocks : 1) - 1));
    tell(pointed);
    draw();
  }
  const under = (event) => {
    const box = canvas.getBoundingClientRect();
    return (Math.floor((event.clientY - box.top) / cell.size) * cell.columns + Math.floor((event.clientX - box.left) / cell.size)) * cell.per;
  };
  canvas.addEventListener("mousemove", (event) => image && tell(under(event)));
  canvas.addEventListener("mouseleave", () => image && tell(pointed));
  canvas.addEventListener("click", (event) => image && attempt(() => { point(under(event)); openBlock(pointed); }));
  canvas.addEventListener("keydown", (event) => {
    const by = { ArrowLeft: -1, ArrowRight: 1, ArrowUp: -cell.columns, ArrowDown: cell.columns }[event.key];
    if (by) { point(pointed + by * cell.per); event.preventDefault(); event.stopPropagation(); }
    if (event.key === "Enter") attempt(() => openBlock(pointed));
  });

  function openBlock(block) {
    const run = runOf(block);
    if (run && run.ino) select(run.ino, false);
    const view = run && run.used === "inode-table" ? inodeAt(block) : ask({ do: "block", number: block });
    showStructure(view);
  }
  /** The first inode in a block of a table. */
  function inodeAt(block) {
    const run = runOf(block);
    const { inodes_per_group: per, inode_size: size, block_size: bs } = image.geometry;
    return ask({ do: "structure", what: `inode:${run.group * per + ((block - run.first) * bs) / size + 1}` });
  }
  /** Opens a structure by its word. */
  function go(word) {
    if (word.startsWith("?")) { point(+word.slice(1)); openBlock(+word.slice(1)); return; }
    if (/^block:\d+$/.test(word)) { point(+word.slice(6)); openBlock(+word.slice(6)); return; }
    if (word.startsWith("inode:")) select(+word.slice(6), false);
    showStructure(ask({ do: "structure", what: word }));
  }

  function showStructure(view) {
    what = view.what;
    const bs = image.geometry ? image.geometry.block_size : 1024;
    title.replaceChildren(nameOf(what), h("span", { class: "soft" }, ` at byte ${view.offset}, ${view.hex.length / 2} bytes`));
    point(Math.floor(view.offset / bs));
    const wanted = new Set(marks[what] || []);
    const shown = view.fields.slice(0, 256);
    const hot = (nr, on) => place.querySelectorAll(`[data-field="${nr}"]`).forEach((one) => one.classList.toggle("hot", on));
    const over = (nr) => ({ onmouseenter: () => hot(nr, true), onmouseleave: () => hot(nr, false) });
    fields.replaceChildren(view.impossible ? h("p", { class: "bad" }, `Impossible: ${view.impossible}`) : "",
      shown.length ? h("table", null, h("thead", null, h("tr", null, ["field", "value", "meaning", ""].map((text) => h("th", null, text)))),
        h("tbody", null, shown.map((field, nr) => h("tr", { "data-field": nr, class: wanted.has(field.name) ? "marked" : null, ...over(nr) },
          h("td", null, h("code", null, field.name)),
          h("td", null, edits ? h("input", { value: field.value, "aria-label": `Value of ${field.name}`, onchange: (event) => attempt(() => change(field.name, event.target.value)) }) : h("code", null, field.value)),
          h("td", null, field.meaning), h("td", null, field.to ? h("button", { class: "to", onclick: () => attempt(() => go(field.to)) }, "→") : ""))))) : h("p", { class: "soft" }, "No fields: the contents of a file, or free."),
      view.fields.length > shown.length ? h("p", { class: "note" }, `and ${view.fields.length - shown.length} more`) : "");
    const owner = new Array(view.hex.length / 2).fill(-1);
    shown.forEach((field, nr) => owner.fill(nr, field.offset, field.offset + field.length));
    const rows = [];
    const most = Math.min(owner.length, 1024);
    for (let row = 0; row < most; row += 16) {
      const line = [h("i", { class: "soft" }, (view.offset + row).toString(16).padStart(8, "0"), "  ")];
      for (let at = row; at < Math.min(row + 16, owner.length);) {
        let end = at + 1;
        while (end < Math.min(row + 16, owner.length) && owner[end] === owner[at]) end += 1;
        const text = view.hex.slice(2 * at, 2 * end).replace(/../g, "$& ");
        const nr = owner[at];
        line.push(nr < 0 ? text : h("span", { "data-field": nr, title: shown[nr].name, class: `f${nr % 2}${wanted.has(shown[nr].name) ? " marked" : ""}`, ...over(nr) }, text));
        at = end;
      }
      rows.push(...line, "\n");
    }
    if (owner.length > most) rows.push(`… ${owner.length - most} bytes more`);
    dump.replaceChildren(...rows);
    const first = fields.querySelector(".marked");
    if (first) fields.scrollTop = first.offsetTop - fields.offsetTop - 40;
  }

  function change(field, value) {
    const before = what;
    load(ask({ do: "set", what: before, field, value }), before);
  }

  /** Shows the blocks of an inode while the pointer is over its name. */
  function light(number) {
    hovered = number;
    draw();
  }

  function select(number, alsoOpen = true) {
    ino = number;
    [...tree.querySelectorAll("tr[data-ino]")].forEach((row) => row.toggleAttribute("aria-current", +row.dataset.ino === ino));
    draw();
    file.replaceChildren();
    let view;
    try { view = ask({ do: "file", ino: number }); } catch { return; }
    const slots = view.pointers.map((pointer, nr) => h("button", {
      class: pointer === 0 ? "p-none" : nr < 12 ? "p-direct" : `p-${nr - 11}`, disabled: pointer === 0, title: `i_block[${nr}]`,
      onclick: () => attempt(() => go(nr < 12 ? `?${pointer}` : `ind:${pointer}:${nr - 11}`)),
    }, nr < 12 ? `${nr}` : ["ind", "dind", "tind"][nr - 12], h("br"), pointer === 0 ? "–" : String(pointer)));
    const isTree = view.kind !== "symlink" && !/device|FIFO|socket/.test(view.kind);
    file.replaceChildren(h("h3", null, `Inode ${number}: ${view.kind}, ${bytes(view.size)}`),
      isTree ? h("div", { class: "pointers" }, slots) : "",
      isTree ? h("p", { class: "note" }, `12 direct pointers; then blocks of ${view.per_block} pointers each: indirect, double, triple.`) : "",
      view.refused ? h("p", { class: "bad" }, view.refused) : "",
      view.runs.length ? h("p", { class: "note" }, "Stored: ", view.runs.slice(0, 12).map(([from, count, device]) => `${from}–${from + count - 1} at ${device}–${device + count - 1}`).join("; "), view.runs.length > 12 ? " …" : "") : "",
      view.units.length ? h("div", null, h("span", { class: "note" }, "Units of 2 MiB: "), view.units.map(([first, count, state]) => h("span", { class: `u ${/mappable|zero/.test(state) ? "u-yes" : "u-no"}` }, `${count > 1 ? `${first}–${first + count - 1}` : first}: ${state === "past EOF" ? "the file ends in it" : state}`))) : "");
    if (alsoOpen) showStructure(ask({ do: "structure", what: `inode:${number}` }));
  }

  function load(given, then = "sb") {
    image = given;
    marks = {};
    for (const finding of image.findings || []) marks[finding.what] = [...(marks[finding.what] || []), ...finding.fields];
    const geo = image.geometry;
    summary.textContent = geo ? `${bytes(image.bytes)}${image.offset ? `, in a partition at byte ${image.offset}` : ""}: ${geo.blocks} blocks of ${bytes(geo.block_size)} in ${geo.groups} group${geo.groups === 1 ? "" : "s"}, ${geo.inodes} inodes of ${geo.inode_size} bytes` : `${bytes(image.bytes)}, no file system that can be described`;
    const used = new Set(image.runs.map((run) => run.used));
    colours.replaceChildren(...Object.entries(USES).filter(([use]) => used.has(use)).map(([, [text, name]]) => h("span", { style: `--c:var(${name})` }, text)));
    groups.replaceChildren(...image.groups.slice(0, 8).map((group) => h("span", { class: "row" }, h("button", { onclick: () => attempt(() => go(`group:${group.number}`)) }, `group ${group.number}`),
      h("button", { onclick: () => attempt(() => go(`bbitmap:${group.number}`)) }, "its block bitmap"), h("button", { onclick: () => attempt(() => go(`ibitmap:${group.number}`)) }, "its inode bitmap"))));
    tree.replaceChildren(table(["name", "inode", "kind", "size", "links"], image.tree.map((one) => [
      [h("span", null, "\u00a0\u00a0".repeat(one.depth)), one.ino ? h("button", { onclick: () => attempt(() => select(one.ino)) }, one.path.split("/").pop() || "/") : one.path, one.note ? ` ${one.note}` : ""],
      String(one.ino || ""), one.kind, one.kind === "directory" ? "" : bytes(one.size), String(one.links)]), [1, 3, 4]));
    [...tree.querySelectorAll("tbody tr")].forEach((row, nr) => { row.dataset.ino = image.tree[nr].ino; row.addEventListener("mouseenter", () => light(image.tree[nr].ino)); row.addEventListener("mouseleave", () => light(0)); });
    if (image.more) tree.append(h("p", { class: "note" }, "and more"));
    showFindings();
    ino = 0;
    file.replaceChildren();
    draw();
    try { go(then); } catch { fields.replaceChildren(); dump.replaceChildren(); title.textContent = ""; }
  }

  function showFindings() {
    const list = image.findings;
    const parts = [];
    if (image.refused) parts.push(h("p", { class: "bad" }, `It does not open: ${image.refused}`));
    if (image.unchecked) parts.push(h("p", { class: "bad" }, `It cannot be checked: ${image.unchecked}`));
    if (list && !list.length) parts.push(h("p", null, h("span", { class: "good" }, "✓ "), "check finds nothing wrong."));
    if (list && list.length) {
      parts.push(h("details", { open: edits || list.length < 4, class: "panel" }, h("summary", null, h("span", { class: "bad" }, `check finds ${list.length} thing${list.length === 1 ? "" : "s"}`)),
        h("ul", { class: "findings" }, list.slice(0, 40).map((one) => h("li", null, h("button", { class: "to", onclick: () => attempt(() => go(one.what)) }, one.text),
          h("span", { class: "soft" }, one.mends ? " – repair mends it without a question. " : " – repair stops here and asks for a person. "), one.why)))));
    }
    findings.replaceChildren(...parts);
  }
  new ResizeObserver(draw).observe(place);
  return { load, draw, go, has: () => image !== null, findings, hideFindings: () => findings.replaceChildren() };
}

function nameOf(word) {
  const [kind, number, level] = word.split(":");
  const names = { sb: "Superblock", group: "Descriptor of group", bbitmap: "Block bitmap of group", ibitmap: "Inode bitmap of group", inode: "Inode", dir: "Directory block", xattr: "Attribute block", journal: "Journal block", block: "Block" };
  if (kind === "ind") return `${["", "Indirect", "Double indirect", "Triple indirect"][+level]} block ${number}`;
  return kind === "sb" && !+number ? "Superblock" : `${names[kind]} ${number}`;
}

/** Bytes of a file, unpacked if it is packed by gzip. @param {Blob} blob */
async function unpacked(blob) {
  const head = new Uint8Array(await blob.slice(0, 2).arrayBuffer());
  const packed = head[0] === 0x1f && head[1] === 0x8b;
  const from = packed ? new Response(blob.stream().pipeThrough(new DecompressionStream("gzip"))) : blob;
  return new Uint8Array(await from.arrayBuffer());
}

/** A place for files, with the samples beside it. */
function picker(hello, load) {
  const input = h("input", { type: "file", "aria-label": "An image of yours", onchange: () => input.files[0] && take(input.files[0]) });
  async function take(blob) {
    try {
      const bytes_ = await unpacked(blob);
      if (bytes_.length > 512 * 2 ** 20) throw new Error("An image here has at most 512 MiB.");
      attempt(() => { handImage(bytes_); load(ask({ do: "image" })); });
    } catch (error) {
      attempt(() => { throw error; });
    }
    document.body.dataset.taken = String(+(document.body.dataset.taken || 0) + 1);
  }
  const sample = h("select", { "aria-label": "Sample", onchange: () => attempt(() => load(ask({ do: "image", sample: sample.value }))) }, hello.samples.map((one) => h("option", { value: one.id }, one.title)));
  const drop = h("div", { class: "drop row" }, h("span", null, "A sample"), sample, h("span", null, "or drop an image of yours (also packed by gzip, broken, or with partitions)"), input);
  const stop = (event) => event.preventDefault();
  drop.addEventListener("dragover", (event) => { stop(event); drop.classList.add("over"); });
  drop.addEventListener("dragleave", () => drop.classList.remove("over"));
  drop.addEventListener("drop", (event) => { stop(event); drop.classList.remove("over"); if (event.dataTransfer.files[0]) take(event.dataTransfer.files[0]); });
  return { drop, first: () => load(ask({ do: "image", sample: hello.samples[0].id })) };
}

function imageView(hello) {
  const place = byId("image");
  const work = h("div");
  const growth = [0, 1, 2, 6, 12, 13, 14, 40, 140, 268, 269, 270, 400, 524, 525, 526, 1000, 2000, 3000];
  const grown = h("span", { class: "soft" }, "move it");
  const slider = h("input", { type: "range", min: 0, max: growth.length - 1, value: 0, "aria-label": "Blocks of the file", oninput: () => attempt(() => {
    const count = growth[+slider.value];
    grown.textContent = `${count} block${count === 1 ? "" : "s"} of 1 KiB`;
    space.load(ask({ do: "grow", number: count }), "inode:12");
  }) });
  const choose = picker(hello, (image) => space.load(image));
  place.append(h("h2", null, "An image from three sides"), choose.drop, h("div", { class: "row" }, h("label", null, "Or let a file grow: "), slider, grown), work);
  const space = workspace(work, hello, false);
  return {
    begin(params) {
      setAddress({}, { view: "image", ...(params.get("what") ? { what: params.get("what") } : {}) });
      // The engine holds one image: what another view did to it is not shown here.
      attempt(() => { choose.first(); if (params.get("what")) space.go(params.get("what")); });
    },
    key: () => false,
  };
}

function mendView(hello) {
  const place = byId("mend");
  const work = h("div");
  const quiz = h("div");
  const seed = h("input", { type: "number", min: 0, value: 1, size: 6, id: "seed" });
  const topic = h("select", { "aria-label": "Topic", id: "topic" }, h("option", { value: "" }, "any topic"), hello.topics.map((one) => h("option", { value: one }, one)));
  const choose = picker(hello, (image) => { quiz.replaceChildren(); space.load(image); });
  place.append(h("h2", null, "Break and mend"),
    h("p", { class: "prose" }, "Change any field and see what check says, and where. Or let something be broken for you: the same number gives the same fault to the whole class."),
    choose.drop, h("div", { class: "row" }, h("label", { for: "seed" }, "Quiz number"), seed, topic, h("button", { onclick: () => attempt(hide) }, "Ask me"),
      h("button", { onclick: () => attempt(mend) }, "Repair")), quiz, work);
  const space = workspace(work, hello, true);

  function mend() {
    const { mended, image } = ask({ do: "mend" });
    space.load(image);
    quiz.replaceChildren(h("div", { class: "panel" }, h("h3", null, "Repair"), mended.length ? h("ul", null, mended.map((line) => h("li", null, line))) : h("p", null, "Nothing to mend.")));
  }
  function hide() {
    const question = ask({ do: "quiz", seed: Math.max(0, Math.floor(+seed.value || 0)), topic: topic.value });
    setAddress({}, { view: "mend", seed: question.seed, topic: topic.value });
    const verdict = h("p", { role: "status" });
    const answer = (nr) => {
      [...buttons.children].forEach((button, at) => { button.className = at === question.right ? "right" : at === nr ? "wrong" : ""; });
      verdict.replaceChildren(h("span", { class: nr === question.right ? "good" : "bad" }, nr === question.right ? "✓ Right. " : nr < 0 ? "" : "✗ No. "), question.explanation);
      attempt(() => { if (question.place[0]) { space.load(ask({ do: "image" }), question.place[0]); } });
    };
    const buttons = h("div", { class: "choices" }, question.choices.map((text, nr) => h("button", { onclick: () => answer(nr) }, text)));
    quiz.replaceChildren(h("div", { class: "panel" }, h("h3", null, `Question ${question.seed}: ${question.topic}`), h("p", { class: "prose" }, question.text), buttons,
      h("div", { class: "row" }, h("button", { onclick: () => answer(-1) }, "Show the answer"), h("button", { onclick: () => attempt(() => space.load(ask({ do: "image" }))) }, "Let check look"),
        h("button", { onclick: () => { seed.value = String(+seed.value + 1); attempt(hide); } }, "Next")), verdict));
    space.load(ask({ do: "image" }));
    // What check says comes when it is asked for.
    space.hideFindings();
  }
  return {
    begin(params) {
      setAddress({}, { view: "mend" });
      if (params.get("seed")) { seed.value = params.get("seed"); topic.value = params.get("topic") || ""; attempt(hide); return; }
      attempt(() => { quiz.replaceChildren(); choose.first(); });
    },
    key: () => false,
  };
}
