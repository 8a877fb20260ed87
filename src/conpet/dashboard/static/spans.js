"use strict";
// Mark words with the mouse or the keyboard. Pages work without this: then words are marked by their numbers.
(function () {
  const form = document.getElementById("try");
  if (!form) return;
  const text = form.querySelector("[name=text]");
  const kinds = form.querySelectorAll("[name=kind]");

  function chosenKind() {
    for (const one of kinds) if (one.type !== "radio" || one.checked) return one.value;
    return "";
  }

  function setUp(box) {
    const list = box.querySelector(".words");
    const spans = [...box.querySelectorAll("[data-span]")].map((span) => ({
      name: span.dataset.span,
      from: span.querySelector("[name$=_from]"),
      to: span.querySelector("[name$=_to]"),
    }));
    let active = 0;
    let begun = false;

    function paint() {
      [...list.children].forEach((item, place) => {
        for (const span of spans) {
          const first = Number(span.from.value), last = Number(span.to.value) || first;
          item.classList.toggle(span.name, first > 0 && place + 1 >= first && place + 1 <= Math.max(first, last));
        }
      });
    }

    function pick(number) {
      const span = spans[active];
      if (!begun) {
        span.from.value = span.to.value = number;
        begun = true;
      } else {
        if (number < Number(span.from.value)) span.from.value = number;
        else span.to.value = number;
        begun = false;
        active = (active + 1) % spans.length;
      }
      paint();
    }

    function rebuild() {
      const words = text.value.trim().split(/\s+/).filter(Boolean);
      list.replaceChildren(
        ...words.map((word, place) => {
          const item = document.createElement("li");
          const button = document.createElement("button");
          button.type = "button";
          button.textContent = word;
          button.setAttribute(
            "aria-label",
            list.dataset.pick.replace("{number}", String(place + 1)).replace("{word}", () => word)
          );
          button.addEventListener("click", () => pick(place + 1));
          item.append(button);
          return item;
        })
      );
      paint();
    }

    for (const span of spans) {
      span.from.addEventListener("focus", () => { active = spans.indexOf(span); begun = false; });
      for (const input of [span.from, span.to]) input.addEventListener("input", paint);
    }
    text.addEventListener("input", rebuild);
    rebuild();
  }

  function show() {
    for (const box of form.querySelectorAll(".spans")) box.hidden = box.dataset.kind !== chosenKind();
  }

  for (const box of form.querySelectorAll(".spans")) setUp(box);
  for (const one of kinds) one.addEventListener("change", show);
  show();
})();
