// Conveniences. Every page works without them.
"use strict";

const TO = {
  day: { dateStyle: "medium" },
  minute: { dateStyle: "medium", timeStyle: "short" },
  second: { dateStyle: "medium", timeStyle: "medium" },
};

// The viewer's language, and the time zone of the profile, otherwise of the browser.
const LOCALE = document.documentElement.dataset.locale;
const ZONE = document.documentElement.dataset.zone || browserZone();

function browserZone() {
  return Intl.DateTimeFormat().resolvedOptions().timeZone || "UTC";
}

// Tells the service the browser's time zone, in which it writes the times of the next page.
function keepBrowserZone() {
  const secure = location.protocol === "https:" ? "; Secure" : "";
  document.cookie = `browser_zone=${browserZone()}; Path=/console; Max-Age=31536000; SameSite=Strict${secure}`;
}

// A browser can be older than the time zone of the profile.
function isKnown(zone) {
  try {
    return Boolean(new Intl.DateTimeFormat("en", { timeZone: zone }));
  } catch {
    return false;
  }
}

// Shows times in the viewer's time zone, and names it. The time in UTC is the tooltip.
function showTimes(root) {
  if (!isKnown(ZONE)) return;
  for (const time of root.querySelectorAll("time[data-to]:not([title])")) {
    const moment = new Date(time.dateTime);
    const to = TO[time.dataset.to];
    time.textContent = new Intl.DateTimeFormat(LOCALE, { ...to, timeZone: ZONE }).format(moment);
    const exact = new Intl.DateTimeFormat(LOCALE, { ...TO.second, timeZone: "UTC" });
    time.title = `${exact.format(moment)} UTC`;
  }
  for (const name of document.querySelectorAll("[data-zone-name]")) name.textContent = ZONE;
}

// Copies the token from the fragment of a mail's link, which browsers never send, into the form.
function takeTokenFromLink() {
  const form = document.querySelector("[data-token-form]");
  const token = new URLSearchParams(location.hash.slice(1)).get("token");
  if (!form || !token) return;
  const input = form.querySelector("[name=token]");
  input.value = token;
  input.closest(".field").hidden = true;
  // Removes the token from the history, for shared computers.
  history.replaceState(null, "", location.pathname);
}

// Closes a menu when another place is clicked, and with Escape.
document.addEventListener("click", (event) => {
  for (const menu of document.querySelectorAll("details.menu[open], details.who[open]")) {
    if (!menu.contains(event.target)) menu.open = false;
  }
});
document.addEventListener("keydown", (event) => {
  const menu = event.key === "Escape" && event.target.closest("details.menu[open], details.who[open]");
  if (!menu) return;
  menu.open = false;
  menu.querySelector("summary").focus();
});

// Buttons that close a message, show what is typed in a field, and copy a text.
document.addEventListener("click", async (event) => {
  const button = event.target.closest("button");
  if (!button) return;
  if ("close" in button.dataset) {
    button.closest(".note").remove();
    document.querySelector("main").focus();
  } else if (button.dataset.reveal) {
    const input = document.getElementById(button.dataset.reveal);
    input.type = input.type === "password" ? "text" : "password";
    button.setAttribute("aria-pressed", String(input.type === "text"));
  } else if ("print" in button.dataset) {
    window.print();
  } else if (button.dataset.copy) {
    await navigator.clipboard.writeText(button.dataset.copy);
    button.classList.add("copied");
    setTimeout(() => button.classList.remove("copied"), 2000);
  }
});

// A field is submitted as a password, so that browsers do not store it among other texts.
document.addEventListener("submit", (event) => {
  for (const button of event.target.querySelectorAll("[data-reveal]")) {
    document.getElementById(button.dataset.reveal).type = "password";
  }
});

// Asks for confirmation before actions that cannot be undone, and ignores the second click of a
// double click.
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

// The checkbox that selects all rows of a table, and the number of selected rows.
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

// "/" moves the focus to the search field; a page without one leads to the search for users.
function search() {
  const field = document.querySelector("input[type=search]");
  const elsewhere = document.querySelector("a[data-search]");
  if (field) {
    field.focus();
    field.select();
  } else if (elsewhere) {
    location.assign(elsewhere.href);
  }
}

// "?" and its buttons open the list of keys.
function showKeys() {
  const dialog = document.querySelector("dialog.keys");
  if (dialog && !dialog.open) dialog.showModal();
}

document.addEventListener("keydown", (event) => {
  const action = { "/": search, "?": showKeys }[event.key];
  if (!action || event.ctrlKey || event.metaKey || event.altKey) return;
  if (event.target.closest("input, textarea, select, [contenteditable], dialog")) return;
  event.preventDefault();
  action();
});

document.addEventListener("click", (event) => {
  if (!event.target.closest("[data-keys]")) return;
  for (const menu of document.querySelectorAll("details.who[open]")) menu.open = false;
  showKeys();
});

function begin(root) {
  showTimes(root);
  for (const all of root.querySelectorAll("[data-tick-all]")) all.hidden = false;
}

document.addEventListener("htmx:load", (event) => begin(event.detail.elt));
document.addEventListener("DOMContentLoaded", () => {
  // Browsers offer the clipboard only over https and on this machine.
  if (!navigator.clipboard) document.documentElement.classList.add("no-clipboard");
  // On a phone, the current tab can be outside of the window.
  const tab = document.querySelector(".tabs .active");
  if (tab) tab.scrollIntoView({ block: "nearest", inline: "nearest" });
  if (location.hash === "#search") search();
  keepBrowserZone();
  begin(document);
  takeTokenFromLink();
});
