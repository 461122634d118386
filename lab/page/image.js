// An image as blocks, tree and fields, linked; with editing, check and quiz in "Break and mend".

const USES = {
  free: ["free", "--free"], nobody: ["used, but nobody's", "--nobody"], superblock: ["superblock", "--super"], descriptors: ["descriptors", "--desc"],
  "block-bitmap": ["block bitmap", "--bitmap"], "inode-bitmap": ["inode bitmap", "--bitmap"], "inode-table": ["inode table", "--table"],
  data: ["data of files", "--data"], directory: ["directory", "--dir"], symlink: ["symlink", "--dir"], indirect: ["indirect", "--ind"],
  double: ["double indirect", "--dind"], triple: ["triple indirect", "--tind"], xattrs: ["attributes", "--xattr"], journal: ["journal", "--rest"], reserved: ["reserved", "--rest"],
};

/** The workspace; `edits` lets fields be changed. @param {HTMLElement} place @param {object} hello @param {boolean} edits @param {(what: string) => void} moved */
function workspace(place, hello, edits, moved) {
  let image = null;
  let what = "sb";
  let ino = 0;
  let marks = {};
  let pointed = 1;
  let hovered = 0;
  /** The file that is selected, as the engine described it; null for none. */
  let chosen = null;
  const canvas = h("canvas", { tabindex: 0, role: "application", "aria-label": "Blocks of the image: the arrow keys go from one to the next, Enter opens one" });
  const said = h("p", { class: "note", "aria-live": "polite" });
  const summary = h("p", { class: "note" });
  const colours = h("div", { class: "legend" });
  const groups = h("div", { class: "row" });
  const tree = h("div", { class: "tree", tabindex: 0, role: "region", "aria-label": "Tree" });
  const file = h("div", { tabindex: -1, role: "group", "aria-label": "File" });
  const findings = h("div");
  const title = h("h3");
  const dump = h("div", { class: "hex", tabindex: 0, role: "region", "aria-label": "Bytes" });
  const fields = h("div", { class: "fields scroll", tabindex: 0, role: "region", "aria-label": "Fields" });
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
    drawUnits(pen, style, at);
    const [x, y] = at(Math.floor(pointed / per));
    pen.strokeStyle = style.getPropertyValue("--text");
    pen.lineWidth = 2;
    pen.strokeRect(x, y, size - 1, size - 1);
  }

  /** Frames around the blocks of the selected file's units of 2 MiB: whole where one translation can map them. */
  function drawUnits(pen, style, at) {
    if (!chosen || chosen.size < 2 ** 21) return;
    const blocks = 2 ** 21 / image.geometry.block_size;
    const isWhole = (unit) => chosen.units.some(([first, count, state]) => unit >= first && unit < first + count && state === "mappable");
    for (const [from, count, device] of chosen.runs) {
      for (let block = from; block < from + count;) {
        const unit = Math.floor(block / blocks);
        const end = Math.min((unit + 1) * blocks, from + count);
        const whole = isWhole(unit);
        pen.strokeStyle = style.getPropertyValue(whole ? "--good" : "--bad");
        pen.setLineDash(whole ? [] : [2, 2]);
        pen.lineWidth = 2;
        // Row by row: the frame of a unit goes over several.
        const [first, last] = [Math.floor((device + block - from) / cell.per), Math.floor((device + end - 1 - from) / cell.per)];
        for (let nr = first; nr <= last;) {
          const stop = Math.min(last, (Math.floor(nr / cell.columns) + 1) * cell.columns - 1);
          const [x, y] = at(nr);
          const column = (one) => x + (one - nr) * cell.size;
          const line = (x0, y0, x1, y1) => { pen.moveTo(x0, y0); pen.lineTo(x1, y1); };
          const [top, bottom] = [Math.min(stop, first + cell.columns - 1), Math.max(nr, last - cell.columns + 1)];
          pen.beginPath();
          if (top >= nr) line(x, y, column(top + 1) - 1, y);
          if (bottom <= stop) line(column(bottom), y + cell.size - 1, column(stop + 1) - 1, y + cell.size - 1);
          if (nr === first) line(x, y, x, y + cell.size - 1);
          if (stop === last) line(column(stop + 1) - 1, y, column(stop + 1) - 1, y + cell.size - 1);
          pen.stroke();
          nr = stop + 1;
        }
        block = end;
      }
    }
    pen.setLineDash([]);
  }

  function tell(block) {
    const run = runOf(block);
    if (!run) { said.textContent = ""; return; }
    const owner = run.ino ? image.tree.find((one) => one.ino === run.ino) : null;
    said.textContent = `block ${block}: ${USES[run.used][0]}${run.ino ? ` of inode ${run.ino}` : ""}${owner ? ` (${owner.path})` : ""}`;
  }
  /** Marks the names of the file that has a block. */
  function name(block) {
    const run = runOf(block);
    for (const row of tree.querySelectorAll("tr[data-ino]")) row.classList.toggle("hot", Boolean(run && run.ino && +row.dataset.ino === run.ino));
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
  canvas.addEventListener("mousemove", (event) => { if (image) { tell(under(event)); name(under(event)); } });
  canvas.addEventListener("mouseleave", () => { if (image) { tell(pointed); name(-1); } });
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
    moved(what);
    // What has the focus there goes: its place keeps it.
    const inFields = fields.contains(document.activeElement);
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
          h("td", null, edits ? h("input", { value: field.value, "aria-label": `Value of ${field.name}`, onchange: (event) => change(field.name, event.target.value) }) : h("code", null, field.value)),
          h("td", null, field.meaning), h("td", null, field.to ? h("button", { class: "to", "aria-label": `To what ${field.name} leads to`, onclick: () => attempt(() => go(field.to)) }, "→") : ""))))) : h("p", { class: "soft" }, "No fields: the contents of a file, or free."),
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
    if (inFields) fields.focus({ preventScroll: true });
    const first = fields.querySelector(".marked");
    if (first) fields.scrollTop = first.offsetTop - fields.offsetTop - 40;
  }

  function change(field, value) {
    const before = what;
    // After the focus went where it goes: all fields are drawn anew, and the one that has it then keeps it.
    setTimeout(() => attempt(() => {
      const focused = fields.contains(document.activeElement) ? document.activeElement.getAttribute("aria-label") : null;
      const back = () => [...fields.querySelectorAll("[aria-label]")].find((one) => one.getAttribute("aria-label") === focused)?.focus({ preventScroll: true });
      const top = fields.scrollTop;
      try {
        load(ask({ do: "set", what: before, field, value }), before);
      } catch (error) {
        // What is no value of the field is not kept.
        load(ask({ do: "image" }), before);
        throw error;
      } finally {
        fields.scrollTop = top;
        back();
      }
    }));
  }

  /** Shows the blocks of an inode while the pointer is over its name. */
  function light(number) {
    hovered = number;
    draw();
  }

  function select(number, alsoOpen = true) {
    ino = number;
    chosen = null;
    [...tree.querySelectorAll("tr[data-ino]")].forEach((row) => row.toggleAttribute("aria-current", +row.dataset.ino === ino));
    draw();
    const inFile = file.contains(document.activeElement);
    file.replaceChildren();
    let view;
    try { view = ask({ do: "file", ino: number }); } catch { return; }
    chosen = view;
    draw();
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
      view.units.length ? h("div", null, h("span", { class: "note" }, view.size < 2 ** 21 ? "Units of 2 MiB: " : "Units of 2 MiB, framed in the picture: "), view.units.map(([first, count, state]) => h("span", { class: `u ${/mappable|zero/.test(state) ? "u-yes" : "u-no"}` }, `${count > 1 ? `${first}–${first + count - 1}` : first}: ${state === "past EOF" ? "the file ends in it" : state}`))) : "");
    if (inFile) file.focus({ preventScroll: true });
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
    chosen = null;
    file.replaceChildren();
    draw();
    try { go(then); } catch { fields.replaceChildren(); dump.replaceChildren(); title.textContent = ""; }
  }

  function showFindings() {
    const list = image.findings;
    const parts = [];
    if (image.refused) parts.push(h("p", { class: "bad" }, `It does not open: ${image.refused}`));
    if (image.unchecked) parts.push(h("p", { class: "bad" }, `It cannot be checked: ${image.unchecked}`));
    if (list && image.complete && !image.faults) parts.push(h("p", null, h("span", { class: "good" }, "✓ "), "check finds nothing wrong."));
    if (image.replayed) parts.push(h("p", null, `Its journal is full: this is how it looks to check after ${image.replayed} transaction${image.replayed === 1 ? "" : "s"} of it.`));
    if (list && list.length) {
      parts.push(h("details", { open: edits || list.length < 4, class: "panel" }, h("summary", null, h("span", { class: "bad" }, `check finds ${image.faults} fault${image.faults === 1 ? "" : "s"}${image.complete ? "" : ", and cannot look at the rest"}`)),
        h("ul", { class: "findings" }, list.slice(0, 100).map((one) => h("li", null, h("button", { class: "to", onclick: () => attempt(() => go(one.what)) }, one.text),
          h("span", { class: "soft" }, { mends: " – repair mends it without a question. ", halts: " – repair stops here and asks for a person. ", remark: " – a remark: no fault. " }[one.preen]), one.why)), image.faults > 100 ? h("li", null, `and ${image.faults - 100} more`) : null)));
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

/** Bytes of a file, unpacked if it is packed by gzip. @param {Blob} blob @param {number} most */
async function unpacked(blob, most) {
  const head = new Uint8Array(await blob.slice(0, 2).arrayBuffer());
  if (head[0] !== 0x1f || head[1] !== 0x8b) return new Uint8Array(await blob.arrayBuffer());
  // A small file may unpack to anything: what is too large is noticed on the way.
  const reader = blob.stream().pipeThrough(new DecompressionStream("gzip")).getReader();
  const parts = [];
  let length = 0;
  try {
    for (let part = await reader.read(); !part.done; part = await reader.read()) {
      parts.push(part.value);
      length += part.value.length;
      if (length > most) throw new RangeError(`${blob.name} unpacks to more than 512 MiB, the largest image here.`);
    }
  } catch (error) {
    if (error instanceof RangeError) throw error;
    throw new Error(`${blob.name} is packed by gzip and does not unpack: ${error.message}`);
  } finally {
    reader.cancel().catch(() => { /* it is at its end, or broken */ });
  }
  const whole = new Uint8Array(length);
  let at = 0;
  for (const part of parts) {
    whole.set(part, at);
    at += part.length;
  }
  return whole;
}

/** A place for files, with the samples beside it. @param {object} hello @param {(image: object) => void} load */
function picker(hello, load) {
  const input = h("input", { type: "file", "aria-label": "An image of yours", onchange: () => input.files[0] && take(input.files[0]) });
  async function take(blob) {
    try {
      const most = 512 * 2 ** 20;
      if (blob.size > most) throw new Error(`${blob.name} has ${bytes(blob.size)}; an image here has at most 512 MiB.`);
      const bytes_ = await unpacked(blob, most);
      attempt(() => { handImage(bytes_); held.name = blob.name || "your image"; show(ask({ do: "image" })); });
    } catch (error) {
      attempt(() => { throw error; });
    }
    // The same file can be chosen again.
    input.value = "";
    document.body.dataset.taken = String(+(document.body.dataset.taken || 0) + 1);
  }
  const other = h("option", { value: "", disabled: true }, "");
  const sample = h("select", { "aria-label": "Sample", onchange: () => choose(sample.value) }, hello.samples.map((one) => h("option", { value: one.id }, one.title)), other);
  const choose = (id) => attempt(() => { const image = ask({ do: "image", sample: id }); held.name = id; show(image); });
  function show(image) {
    const isSample = hello.samples.some((one) => one.id === held.name);
    other.textContent = isSample ? "" : held.name;
    sample.value = isSample ? held.name : "";
    load(image);
  }
  const drop = h("div", { class: "drop row" }, h("span", null, "A sample"), sample, h("span", null, "or drop an image of yours (also packed by gzip, broken, or with partitions)"), input);
  const stop = (event) => event.preventDefault();
  drop.addEventListener("dragover", (event) => { stop(event); drop.classList.add("over"); });
  drop.addEventListener("dragleave", () => drop.classList.remove("over"));
  drop.addEventListener("drop", (event) => { stop(event); drop.classList.remove("over"); if (event.dataTransfer.files[0]) take(event.dataTransfer.files[0]); });
  return {
    drop, show,
    /** The image that the engine holds, which another view may have changed; the first sample where it holds none. */
    again() { attempt(() => (held.name ? show(ask({ do: "image" })) : choose(hello.samples[0].id))); },
  };
}

function imageView(hello) {
  const place = byId("image");
  const work = h("div");
  const growth = [0, 1, 2, 6, 12, 13, 14, 40, 140, 268, 269, 270, 400, 524, 525, 526, 1000, 2000, 3000];
  const grown = h("span", { class: "soft", role: "status" }, "move it");
  const slider = h("input", { type: "range", min: 0, max: growth.length - 1, value: 0, "aria-label": "Blocks of the file", oninput: () => attempt(() => {
    const count = growth[+slider.value];
    const text = `${count} block${count === 1 ? "" : "s"} of 1 KiB`;
    grown.textContent = text;
    slider.setAttribute("aria-valuetext", text);
    const image = ask({ do: "grow", number: count });
    held.name = `a file of ${text}`;
    choose.show(image);
    space.go("inode:12");
  }) });
  const choose = picker(hello, (image) => space.load(image));
  place.append(h("h2", null, "An image from three sides"), choose.drop, h("div", { class: "row" }, h("label", null, "Or let a file grow: "), slider, grown), work);
  const space = workspace(work, hello, false, (what) => setAddress({}, { view: "image", what }));
  return {
    begin(params) {
      const what = params.get("what");
      setAddress({}, { view: "image", ...(what ? { what } : {}) });
      choose.again();
      if (what) attempt(() => space.go(what));
    },
    key: () => false,
    paint: space.draw,
  };
}

function mendView(hello) {
  const place = byId("mend");
  const work = h("div");
  const quiz = h("div");
  let asked = "";
  const seed = h("input", { type: "number", min: 0, value: 1, size: 6, id: "seed", onkeydown: (event) => { if (event.key === "Enter") attempt(hide); } });
  const topic = h("select", { "aria-label": "Topic", id: "topic" }, h("option", { value: "" }, "any topic"), hello.topics.map((one) => h("option", { value: one }, one)));
  const choose = picker(hello, (image) => { quiz.replaceChildren(); space.load(image); });
  place.append(h("h2", null, "Break and mend"),
    h("p", { class: "prose" }, "Change any field and see what check says, and where. Or let something be broken for you: the same number gives the same fault to the whole class."),
    choose.drop, h("div", { class: "row" }, h("label", { for: "seed" }, "Quiz number"), seed, topic, h("button", { onclick: () => attempt(hide) }, "Ask me")),
    h("div", { class: "row" }, h("button", { onclick: () => attempt(() => mend(false)) }, "Repair what needs no question"), h("button", { onclick: () => attempt(() => mend(true)) }, "Repair everything"),
      h("button", { onclick: () => attempt(() => save("image.img", handedImage())) }, "Save the image")), quiz, work);
  const space = workspace(work, hello, true, () => {});

  function mend(all) {
    const { mended, stopped, image } = ask({ do: "mend", all });
    space.load(image);
    quiz.replaceChildren(h("div", { class: "panel", role: "status" }, h("h3", null, all ? "Repair, with yes to every question" : "Repair without questions"),
      mended.length ? h("ul", null, mended.map((line) => h("li", null, line))) : stopped ? null : h("p", null, "Nothing to mend."),
      stopped ? h("p", { class: "bad" }, `It stopped: ${stopped}.${all ? "" : " This needs a person."}`) : null));
  }
  function hide() {
    const number = Math.min(Number.MAX_SAFE_INTEGER, Math.max(0, Math.floor(+seed.value || 0)));
    const question = ask({ do: "quiz", seed: number, topic: topic.value });
    held.name = `question ${question.seed}`;
    asked = held.name;
    setAddress({}, { view: "mend", seed: question.seed, ...(topic.value ? { topic: topic.value } : {}) });
    const verdict = h("p", { role: "status" });
    const answer = (nr) => {
      [...buttons.children].forEach((button, at) => { button.className = at === question.right ? "right" : at === nr ? "wrong" : ""; });
      verdict.replaceChildren(h("span", { class: nr === question.right ? "good" : nr < 0 ? null : "bad" }, nr === question.right ? "✓ Right. " : nr < 0 ? "" : `✗ No: ${question.choices[question.right]}. `), question.explanation);
      attempt(() => { if (question.place[0]) { space.load(ask({ do: "image" }), question.place[0]); } });
    };
    const buttons = h("div", { class: "choices" }, question.choices.map((text, nr) => h("button", { onclick: () => answer(nr) }, text)));
    choose.show(ask({ do: "image" }));
    quiz.replaceChildren(h("div", { class: "panel" }, h("h3", null, `Question ${question.seed}: ${question.topic}`), h("p", { class: "prose" }, question.text), buttons,
      h("div", { class: "row" }, h("button", { onclick: () => answer(-1) }, "Show the answer"), question.place[0] ? h("button", { onclick: () => attempt(() => space.load(ask({ do: "image" }))) }, "Let check look") : null,
        h("button", { onclick: () => { seed.value = String(number + 1); attempt(hide); } }, "Next")), verdict));
    // What check says comes when it is asked for.
    space.hideFindings();
  }
  return {
    begin(params) {
      if (params.get("seed")) { seed.value = params.get("seed"); topic.value = hello.topics.includes(params.get("topic")) ? params.get("topic") : ""; attempt(hide); return; }
      setAddress({}, { view: "mend" });
      // A question that waits for its answer is not given away by a look.
      if (quiz.firstChild && asked && held.name === asked) return;
      attempt(() => { quiz.replaceChildren(); choose.again(); });
    },
    key: () => false,
    paint: space.draw,
  };
}
