// Tabs, keys, colours, and the beginning.

(() => {
  const dark = matchMedia("(prefers-color-scheme: dark)");
  const root = document.documentElement;
  root.dataset.theme = dark.matches ? "dark" : "light";
  dark.addEventListener("change", () => paint(dark.matches));
  // What the engine answers to the first two requests is in the page, so that something is seen before it has started.
  const first = JSON.parse(byId("first").textContent);
  const hello = first.hello;
  engine.started = start();
  engine.started.then(() => { document.body.dataset.ready = String(Math.round(performance.now())); }, (error) => {
    engine.started = null;
    attempt(() => { throw new Error(`This browser cannot run the page: ${error.message}. It needs WebAssembly and DecompressionStream.`); });
  });
  const views = { flight: flightView(hello, first.flight), mail: mailView(hello), image: imageView(hello), mend: mendView(hello), crash: crashView(hello) };
  let now = "";

  function open(name, params) {
    now = views[name] ? name : "flight";
    for (const view of Object.keys(views)) {
      byId(view).hidden = view !== now;
      byId(`tab-${view}`).setAttribute("aria-selected", String(view === now));
      byId(`tab-${view}`).tabIndex = view === now ? 0 : -1;
    }
    views[now].begin(params || new URLSearchParams());
  }
  /** Opens a view because somebody asked for it. */
  function turn(name) {
    keepAddress();
    open(name);
  }
  const names = Object.keys(views);
  for (const name of names) byId(`tab-${name}`).addEventListener("click", () => turn(name));
  byId("tabs").addEventListener("keydown", (event) => {
    const at = names.indexOf(now);
    const next = { ArrowLeft: at - 1, ArrowRight: at + 1, Home: 0, End: names.length - 1 }[event.key];
    if (next === undefined || event.target.id === "theme") return;
    const name = names[(next + names.length) % names.length];
    turn(name);
    byId(`tab-${name}`).focus();
    event.stopPropagation();
    event.preventDefault();
  });
  // Back, forward, and an address that somebody typed.
  const follow = () => {
    if (location.href === known) return;
    known = location.href;
    open(address().get("view") || "flight", address());
  };
  window.addEventListener("popstate", follow);
  window.addEventListener("hashchange", follow);
  function paint(isDark) {
    root.dataset.theme = isDark ? "dark" : "light";
    for (const view of Object.values(views)) view.paint?.();
  }
  byId("theme").addEventListener("click", () => paint(root.dataset.theme !== "dark"));
  document.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.altKey || event.metaKey || /^(INPUT|TEXTAREA|SELECT)$/.test(event.target.tagName)) return;
    if (views[now].key(event.key)) event.preventDefault();
  });
  const params = address();
  open(params.get("view") || "flight", params);
  // The frame that shows it is done when the next one begins.
  requestAnimationFrame(() => setTimeout(() => { document.body.dataset.shown = String(Math.round(performance.now())); }));
})();
