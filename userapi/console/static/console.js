// What makes pages pleasanter; each works without it.
"use strict";

const TO = {
  day: { dateStyle: "medium" },
  minute: { dateStyle: "medium", timeStyle: "short" },
  second: { dateStyle: "medium", timeStyle: "medium" },
};

// Times in the browser's own zone; the server's, in UTC, stays as the tooltip.
function showTimes(root) {
  for (const time of root.querySelectorAll("time[data-to]:not([title])")) {
    const format = new Intl.DateTimeFormat(undefined, TO[time.dataset.to]);
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

// A question before what cannot be undone; browsers without scripts get none. The second click of
// a double click does nothing.
document.addEventListener("submit", (event) => {
  const question = event.submitter && event.submitter.dataset.confirm;
  const form = event.target;
  if ("sent" in form.dataset || (question && !window.confirm(question))) {
    event.preventDefault();
  } else if (form.method === "post") {
    form.dataset.sent = "";
    setTimeout(() => delete form.dataset.sent, 2000);
  }
});

// One tick for all rows of a table, and how many there are.
document.addEventListener("change", (event) => {
  if (!event.target.matches("input[type=checkbox]")) return;
  const form = event.target.closest("form");
  const all = event.target.closest("[data-tick-all]");
  if (all) {
    const boxes = form.querySelectorAll(`input[name="${all.dataset.tickAll}"]`);
    for (const box of boxes) box.checked = all.checked;
  }
  const count = form && form.querySelector("[data-ticked]");
  if (count) {
    const ticked = form.querySelectorAll("tbody input[type=checkbox]:checked").length;
    count.textContent = ticked ? ` (${ticked})` : "";
  }
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

function begin(root) {
  showTimes(root);
  for (const all of root.querySelectorAll("[data-tick-all]")) all.hidden = false;
}

document.addEventListener("htmx:load", (event) => begin(event.detail.elt));
document.addEventListener("DOMContentLoaded", () => {
  begin(document);
  takeTokenFromLink();
});
