// Conveniences of lists. Every list works without them.
"use strict";

// Buttons of a form that changes selected rows are disabled while no row is selected.
function updateButtons(form) {
  const ticked = form.querySelector(`input[name="${form.dataset.needsTicked}"]:checked`);
  for (const button of form.querySelectorAll("button[name=action]")) button.disabled = !ticked;
}

function updateAllButtons() {
  for (const form of document.querySelectorAll("form[data-needs-ticked]")) updateButtons(form);
}

document.addEventListener("change", (event) => {
  const form = event.target.closest("form[data-needs-ticked]");
  // After the handler that ticks all rows at once.
  if (form) setTimeout(() => updateButtons(form));
});

document.addEventListener("htmx:load", updateAllButtons);
document.addEventListener("DOMContentLoaded", updateAllButtons);
// A browser that returns to a page restores its checkboxes.
window.addEventListener("pageshow", updateAllButtons);
