"use strict";
// Show times in the time zone of the browser. Pages work without this: then they show UTC.
(function () {
  const format = new Intl.DateTimeFormat(document.documentElement.lang, { dateStyle: "medium", timeStyle: "short" });
  function localise(root) {
    for (const time of root.querySelectorAll("time[data-local]")) {
      const when = new Date(time.dateTime);
      if (!isNaN(when)) {
        time.title = time.textContent;
        time.textContent = format.format(when);
        time.removeAttribute("data-local");
      }
    }
  }
  localise(document);
  document.addEventListener("htmx:load", (event) => localise(event.detail.elt));
  // On a narrow page, drawings begin with what is newest, at their right end.
  for (const drawing of document.querySelectorAll("figure.chart .scroll:has(img)")) {
    const image = drawing.querySelector("img");
    const scroll = () => { drawing.scrollLeft = drawing.scrollWidth; };
    if (image.complete) scroll();
    else image.addEventListener("load", scroll);
  }
  // A row that is named in several tables is left out in all of them, or in none.
  document.addEventListener("change", (event) => {
    const box = event.target;
    if (box.name !== "drop") return;
    for (const other of document.getElementsByName("drop")) if (other.value === box.value) other.checked = box.checked;
  });
  // Buttons that copy a field are shown where scripts run. The clipboard is there only over HTTPS and on this machine.
  for (const button of document.querySelectorAll("button[data-copy]")) {
    const field = document.getElementById(button.dataset.copy);
    button.hidden = false;
    button.addEventListener("click", async () => {
      const written = navigator.clipboard ? navigator.clipboard.writeText(field.value).then(() => true, () => false) : false;
      field.select();
      if ((await written) || document.execCommand("copy")) button.textContent = button.dataset.copied;
    });
  }
  // Forms are sent once, however often the button is pressed.
  document.addEventListener("submit", (event) => {
    const form = event.target;
    if (event.defaultPrevented || form.method !== "post") return;
    if (form.dataset.sent) event.preventDefault();
    form.dataset.sent = "yes";
    const button = event.submitter;
    if (button && button.dataset.busy) {
      button.textContent = button.dataset.busy;
      button.setAttribute("aria-busy", "true");
    }
  });
  window.addEventListener("pageshow", () => {
    for (const form of document.querySelectorAll("form[data-sent]")) delete form.dataset.sent;
  });
})();
