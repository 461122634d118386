// Tabs, keys, colours, and the beginning.

(async () => {
  const dark = matchMedia("(prefers-color-scheme: dark)");
  const root = document.documentElement;
  root.dataset.theme = dark.matches ? "dark" : "light";
  try {
    await start();
  } catch (error) {
    attempt(() => { throw new Error(`This browser cannot run the page: ${error.message}. It needs WebAssembly and DecompressionStream.`); });
    return;
  }
  const hello = ask({ do: "hello" });
  const views = { flight: flightView(hello), mail: mailView(hello), image: imageView(hello), mend: mendView(hello), crash: crashView(hello) };
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
  for (const name of Object.keys(views)) byId(`tab-${name}`).addEventListener("click", () => open(name));
  byId("tabs").addEventListener("keydown", (event) => {
    const names = Object.keys({ flight: 1, mail: 1, image: 1, mend: 1, crash: 1 });
    const by = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
    if (!by || event.target.id === "theme") return;
    const next = names[(names.indexOf(now) + by + names.length) % names.length];
    open(next);
    byId(`tab-${next}`).focus();
    event.stopPropagation();
    event.preventDefault();
  });
  byId("theme").addEventListener("click", () => {
    root.dataset.theme = root.dataset.theme === "dark" ? "light" : "dark";
    window.dispatchEvent(new Event("resize"));
    if (now === "image" || now === "mend") open(now);
  });
  document.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.altKey || event.metaKey || /^(INPUT|TEXTAREA|SELECT)$/.test(event.target.tagName)) return;
    if (views[now].key(event.key)) event.preventDefault();
  });
  const params = address();
  open(params.get("view") || "flight", params);
  document.body.dataset.ready = String(Math.round(performance.now()));
})();
