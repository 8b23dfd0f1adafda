// What makes pages pleasanter; each works without it.
"use strict";

// Times in the browser's own zone; the server's, in UTC, stays as the tooltip.
function showTimes(root) {
  const format = new Intl.DateTimeFormat(undefined, { dateStyle: "medium", timeStyle: "short" });
  for (const time of root.querySelectorAll("time[datetime]:not([title])")) {
    time.title = time.textContent;
    time.textContent = format.format(new Date(time.dateTime));
  }
}

// The token of a mail's link stands in the fragment, which is never sent by itself.
function takeTokenFromLink() {
  const form = document.querySelector("[data-token-form]");
  const token = new URLSearchParams(location.hash.slice(1)).get("token");
  if (!form || !token) return;
  const input = form.querySelector("[name=token]");
  input.value = token;
  input.closest(".field").hidden = true;
  // Not left behind in the history of a shared machine.
  history.replaceState(null, "", location.pathname);
}

// A question before what cannot be undone; browsers without scripts get none.
document.addEventListener("submit", (event) => {
  const question = event.submitter && event.submitter.dataset.confirm;
  if (question && !window.confirm(question)) event.preventDefault();
});

// One tick for all rows of a table.
document.addEventListener("change", (event) => {
  const all = event.target.closest("[data-tick-all]");
  if (!all) return;
  const boxes = all.closest("form").querySelectorAll(`input[name="${all.dataset.tickAll}"]`);
  for (const box of boxes) box.checked = all.checked;
});

// "/" goes to the search field, as on many sites.
document.addEventListener("keydown", (event) => {
  if (event.key !== "/" || event.ctrlKey || event.metaKey || event.altKey) return;
  if (event.target.closest("input, textarea, select, [contenteditable]")) return;
  const search = document.querySelector("input[type=search]");
  if (search) {
    event.preventDefault();
    search.focus();
    search.select();
  }
});

document.addEventListener("htmx:load", (event) => showTimes(event.detail.elt));
document.addEventListener("DOMContentLoaded", () => {
  showTimes(document);
  takeTokenFromLink();
  for (const all of document.querySelectorAll("[data-tick-all]")) all.hidden = false;
});
