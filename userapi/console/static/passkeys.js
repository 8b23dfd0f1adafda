// Passkeys (WebAuthn Level 3): asks for the options of a ceremony, and sends the form with what the
// browser returns. Pages without it, and browsers without passkeys, show no button.
"use strict";

const AUTOFILL_SECONDS = 240; // The service accepts a challenge for 300 seconds.
const LOOPBACK = ["127.0.0.1", "[::1]"];

let autofill = null;

function hasPasskeys() {
  return Boolean(window.PublicKeyCredential?.parseRequestOptionsFromJSON);
}

// Returns the options; null if the browser was sent to another page.
async function optionsFor(form) {
  const body = new URLSearchParams({ csrf_token: form.elements.csrf_token.value });
  const url = form.dataset.passkeyOptions;
  const response = await fetch(url, { method: "POST", body, redirect: "manual" });
  if (response.type === "opaqueredirect") {
    location.assign(form.dataset.passkeyStale ?? location.href);
    return null;
  }
  if (!response.ok) throw new Error(`status ${response.status}`);
  return (await response.json()).public_key;
}

function send(form, credential) {
  form.elements.credential.value = JSON.stringify(credential);
  const remember = document.querySelector("input[name=remember_me]:checked");
  if (remember && form.dataset.passkeyAutofill !== undefined) {
    const input = document.createElement("input");
    Object.assign(input, { type: "hidden", name: "remember_me", value: "true" });
    form.append(input);
  }
  form.submit();
}

async function use(form) {
  autofill?.abort();
  const options = await optionsFor(form);
  if (!options) return;
  if (form.dataset.passkeyKind === "create") {
    const publicKey = PublicKeyCredential.parseCreationOptionsFromJSON(options);
    send(form, await navigator.credentials.create({ publicKey }));
  } else {
    const publicKey = PublicKeyCredential.parseRequestOptionsFromJSON(options);
    send(form, await navigator.credentials.get({ publicKey }));
  }
}

// Offers passkeys in the list that the browser shows for the field of the user name.
async function offer(form) {
  if (!(await PublicKeyCredential.isConditionalMediationAvailable?.())) return;
  for (;;) {
    const attempt = new AbortController();
    autofill = attempt;
    const options = await optionsFor(form);
    if (!options || attempt.signal.aborted) return;
    const renewal = setTimeout(() => attempt.abort("renewal"), AUTOFILL_SECONDS * 1000);
    try {
      const publicKey = PublicKeyCredential.parseRequestOptionsFromJSON(options);
      const { signal } = attempt;
      const used = await navigator.credentials.get({ publicKey, signal, mediation: "conditional" });
      send(form, used);
      return;
    } catch {
      // The user has chosen another way, or the challenge is too old and a new one is needed.
      if (attempt.signal.reason !== "renewal") return;
    } finally {
      clearTimeout(renewal);
    }
  }
}

function showForms() {
  for (const place of document.querySelectorAll("[data-passkey]")) {
    const form = place.querySelector("form");
    const message = place.querySelector("[data-passkey-error]");
    place.hidden = false;
    form.addEventListener("submit", async (event) => {
      event.preventDefault();
      const button = form.querySelector("button");
      button.disabled = true;
      message.hidden = true;
      try {
        await use(form);
      } catch {
        message.hidden = false;
      } finally {
        button.disabled = false;
      }
    });
    if ("passkeyAutofill" in form.dataset) offer(form).catch(() => {});
  }
}

// Browsers know no passkeys of an address, but of localhost.
function showOtherAddress() {
  const url = new URL(location.href);
  url.hostname = "localhost";
  for (const place of document.querySelectorAll("[data-passkey-elsewhere]")) {
    const link = place.querySelector("a");
    link.href = url.href;
    link.textContent = url.origin;
    place.hidden = false;
  }
}

// Removes passkeys that the service no longer has from the list of the browser.
function signal() {
  const place = document.querySelector("[data-signal]");
  if (!place) return;
  const { method, details } = JSON.parse(place.dataset.signal);
  window.PublicKeyCredential?.[method]?.(details).catch(() => {});
}

if (LOOPBACK.includes(location.hostname)) {
  showOtherAddress();
} else if (hasPasskeys()) {
  showForms();
  signal();
}
