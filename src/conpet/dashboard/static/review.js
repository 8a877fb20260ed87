"use strict";
// Single keys answer an item. The page works without this; the keys can be turned off.
(function () {
  const box = document.getElementById("keys");
  if (!box) return;
  const STORED = "conpet-review-keys";
  const root = document.documentElement;
  box.closest(".keys").hidden = false;
  try { box.checked = localStorage.getItem(STORED) !== "off"; } catch { /* storage is not allowed */ }
  root.classList.toggle("keys-on", box.checked);
  box.addEventListener("change", () => {
    root.classList.toggle("keys-on", box.checked);
    try { localStorage.setItem(STORED, box.checked ? "on" : "off"); } catch { /* storage is not allowed */ }
  });
  document.addEventListener("keydown", (event) => {
    if (!box.checked || event.ctrlKey || event.metaKey || event.altKey || event.isComposing || event.repeat) return;
    const at = event.target;
    if (at.closest("input, select, textarea")) {
      if (event.key === "Escape") at.blur();
      return;
    }
    if (event.key === "Enter" && at.closest("a, button, summary")) return;
    for (const field of document.querySelectorAll("[data-focus]")) {
      if (field.dataset.focus === event.key) {
        event.preventDefault();
        field.focus();
        field.select();
        return;
      }
    }
    for (const button of document.querySelectorAll("button[data-key]")) {
      if (button.dataset.key.split(" ").includes(event.key)) {
        event.preventDefault();
        button.click();
        return;
      }
    }
  });
})();
