// Shows instants as the clocks of whoever looks show them. Without this there are the schedule's zone and UTC.
"use strict";

(() => {
  const { timeZone } = Intl.DateTimeFormat().resolvedOptions();
  const form = new Intl.DateTimeFormat(undefined, { dateStyle: "medium", timeStyle: "medium" });

  function show() {
    for (const head of document.querySelectorAll("[data-viewer-zone]")) {
      head.textContent = `Here (${timeZone})`;
      head.hidden = false;
    }
    for (const cell of document.querySelectorAll("[data-viewer-time]")) {
      cell.textContent = form.format(new Date(cell.dataset.viewerTime));
      cell.hidden = false;
    }
  }

  document.addEventListener("htmx:afterSwap", show); // as the server sends them, they are empty
  show();
})();
