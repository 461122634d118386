// The mail of 2016 in lessons: predict, then see, then switch the mutant on.

function mailView(hello) {
  const place = byId("mail");
  const list = h("div", { class: "row", role: "group", "aria-label": "Lessons" });
  const body = h("div");
  let view = null;
  let shown = 0;
  place.append(h("h2", null, "A mail of 26 August 2016"),
    h("p", { class: "prose" }, "Christoph Hellwig had moved DAX from buffer heads to iomap. Ross Zwisler read the patches and answered with six points. Each is a lesson: predict what happens, then see it, then switch on what the point warns of."),
    list, body);
  list.append(...hello.lessons.map((lesson) => h("button", { onclick: () => open(lesson.number), title: lesson.title }, `${lesson.number}. ${lesson.title}`)));

  function open(number) {
    const lesson = hello.lessons.find((one) => one.number === number) || hello.lessons[0];
    [...list.children].forEach((button, nr) => button.setAttribute("aria-pressed", String(hello.lessons[nr] === lesson)));
    shown = lesson.number;
    setAddress({}, { view: "mail", lesson: shown });
    const seen = h("div", { tabindex: -1, role: "group", "aria-label": "What is seen" });
    const choices = h("div", { class: "choices" }, lesson.choices.map((text, nr) => h("button", { onclick: () => attempt(() => reveal(nr)) }, text)));
    view = null;
    body.replaceChildren(h("article", { class: "prose" }, h("h2", null, `${lesson.number}. ${lesson.title}`),
      lesson.quote ? h("blockquote", null, lesson.quote) : null, h("p", null, lesson.before),
      h("p", null, h("b", null, lesson.question))), choices, seen);

    function reveal(choice) {
      const sound = ask({ do: "lesson", number: lesson.number });
      [...choices.children].forEach((button, nr) => {
        button.disabled = true;
        button.className = nr === sound.right ? "right" : nr === choice ? "wrong" : "";
      });
      const verdict = h("p", { role: "status" });
      const after = h("p", { class: "prose" });
      const knows = h("div");
      const flight = h("div");
      const mutant = h("input", { type: "checkbox", id: "mutant", onchange: () => attempt(() => show(ask({ do: "lesson", number: lesson.number, mutant: mutant.checked }))) });
      const next = lesson.number < hello.lessons.length ? h("button", { onclick: () => { open(lesson.number + 1); window.scrollTo(0, 0); } }, "Next lesson") : null;
      seen.replaceChildren(verdict, after, h("div", { class: "row panel" }, mutant, h("label", { for: "mutant" }, "Switch on the mutant: ", h("code", null, lesson.mutant))), knows, flight, h("div", { class: "row" }, next));
      view = viewer(flight, () => {});

      function show(ran) {
        const right = choice === sound.right;
        verdict.replaceChildren(ran.mutant
          ? h("span", { class: "bad" }, `With the mutant: ${ran.measured}. Without: ${sound.measured}.`)
          : h("span", { class: right ? "good" : "bad" }, right ? `✓ As you said: ${sound.measured}.` : `✗ You said ${lesson.choices[choice]}; it is ${sound.measured}.`));
        after.textContent = ran.mutant ? lesson.mutant_after : lesson.after;
        knows.replaceChildren(ran.knowledge.length ? table(["file", "modules of the library that it names", "of these about DAX"],
          ran.knowledge.map((one) => [h("code", null, one.file), one.modules.join(", ") || "none", one.of_dax.length ? h("span", { class: one.file === "rw.rs" ? null : "bad" }, one.of_dax.join(", ")) : "none"])) : "");
        // The last step but unmapping is where lessons show what they are about.
        view.load(ran.flight, ran.flight.machines.length === 1 ? 0 : ran.flight.script.length - 1);
      }
      show(sound);
      // The choices can be chosen no more: reading goes on here.
      seen.focus({ preventScroll: true });
    }
  }
  return {
    begin(params) {
      const lesson = +(params.get("lesson") || 0);
      // Whoever comes back finds the lesson as it was.
      if (lesson || !shown) open(lesson || 1);
      else setAddress({}, { view: "mail", lesson: shown });
    },
    key: (name) => (view ? view.key(name) : false),
  };
}
