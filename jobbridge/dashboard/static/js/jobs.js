// Conveniences of the pages of jobs; all of it works without, but for the copying.
"use strict";

(() => {
  const list = () => document.getElementById("list");
  const picks = () => [...document.querySelectorAll('input[name="job"][form="bulk"]')];
  const all = () => document.querySelector("[data-select-all]");

  // On a wide screen the filter is open from the start.
  const filter = document.querySelector("details[data-wide-open]");
  if (filter && matchMedia("(min-width: 60rem)").matches) filter.open = true;

  function showSelection() {
    const chosen = picks().filter((pick) => pick.checked).length;
    const text = document.querySelector("[data-selected]");
    if (text) text.textContent = chosen ? `${chosen} selected:` : "Selected jobs:";
    const box = all();
    if (!box) return;
    box.hidden = false;
    box.checked = chosen > 0 && chosen === picks().length;
    box.indeterminate = chosen > 0 && !box.checked;
  }

  document.addEventListener("change", (event) => {
    if (event.target === all()) picks().forEach((pick) => { pick.checked = event.target.checked; });
    if (event.target === all() || event.target.name === "job") showSelection();
  });

  // The list is not pulled away from under somebody who selects jobs in it.
  document.addEventListener("htmx:beforeRequest", (event) => {
    if (event.target !== list() || !picks().some((pick) => pick.checked)) return;
    event.preventDefault();
    document.querySelector("[data-held]").hidden = false;
  });
  document.addEventListener("htmx:afterSwap", showSelection);
  if (list()) showSelection();

  // Commands to copy. A page that is fetched again may have new ones; those that have a button keep it (keep.js).
  function addCopyButtons() {
    if (!navigator.clipboard) return;
    for (const code of document.querySelectorAll("[data-copy]")) {
      if (!code.nextElementSibling?.classList.contains("copy")) code.after(copyButton(code));
    }
  }

  function copyButton(code) {
    const button = document.createElement("button");
    button.type = "button";
    button.className = "quiet copy";
    button.textContent = "Copy";
    button.setAttribute("aria-label", `Copy: ${code.textContent.trim()}`);
    button.addEventListener("click", async () => {
      await navigator.clipboard.writeText(code.textContent.trim());
      button.textContent = "Copied";
      setTimeout(() => { button.textContent = "Copy"; }, 2000);
    });
    return button;
  }

  document.addEventListener("htmx:afterSettle", addCopyButtons);
  addCopyButtons();
})();
