// What every page has: calls of the API by buttons, a list that stays fresh, light and dark.

const base = document.body.dataset.base;
const said = document.getElementById("said");

export function address(path) {
  return new URL(base + path, document.baseURI);
}

export function say(message) {
  const notice = document.createElement("p");
  notice.className = "notice error";
  notice.textContent = message;
  said.replaceChildren(notice);
  setTimeout(() => notice.remove(), 12_000);
}

// Calls the API. Throws an Error with the sentence of its answer, and its `errors`, each with the path of a field.
export async function call(method, path, body) {
  const options = { method, headers: { Accept: "application/json" } };
  if (body !== undefined) {
    options.headers["Content-Type"] = "application/json";
    options.body = JSON.stringify(body);
  }
  let answer;
  try {
    answer = await fetch(address(path), options);
  } catch {
    throw new Error("The service cannot be reached.");
  }
  if (answer.status === 401) {
    location.href = address("ui/sign-in").href;
  }
  const text = await answer.text();
  const found = (answer.headers.get("content-type") ?? "").includes("json") ? JSON.parse(text) : text;
  if (!answer.ok) {
    throw Object.assign(new Error(found.detail ?? `${answer.status} ${answer.statusText}`), { errors: found.errors });
  }
  return found;
}

// Renders again, from the server, the part of the page that says it can; it names the others of the same answer.
export function refresh() {
  if (!window.htmx) return location.reload();
  const part = document.querySelector("[hx-trigger='refresh']");
  if (part) window.htmx.trigger(part, "refresh");
}

async function act(button) {
  if (button.dataset.ask && !confirm(button.dataset.ask)) return;
  const [method, path] = button.dataset.call.split(" ");
  button.disabled = true;
  try {
    await call(method, path);
    if (method === "DELETE" && !button.classList.contains("stay")) location.href = address("ui/jobs").href;
    else refresh();
  } catch (problem) {
    say(problem.message);
    button.disabled = false;
  }
}

async function actOnChosen(button) {
  const chosen = [...document.querySelectorAll("input[form=chosen]:checked")];
  if (button.dataset.ask && !confirm(button.dataset.ask)) return;
  const [method, path] = button.dataset.bulk.split(" ");
  const problems = [];
  for (const box of chosen) {
    try {
      await call(method, path.replace("{}", box.value));
      box.checked = false;
    } catch (problem) {
      problems.push(problem.message);
    }
  }
  if (problems.length) say(problems.slice(0, 3).join(" "));
  countChosen();
  refresh();
}

function countChosen() {
  const count = document.querySelectorAll("input[form=chosen]:checked").length;
  for (const button of document.querySelectorAll("[data-needs]")) {
    const [least, most] = button.dataset.needs.split(" ").map(Number);
    button.disabled = count < least || count > most;
  }
}

// A form that is a call: its fields are the body. What the answer shows only once stays until it is copied.
async function send(form) {
  const [method, path] = form.getAttribute("data-send").split(" ");
  const body = {};
  for (const field of form.elements) {
    if (field.type === "checkbox") body[field.name] = [...(body[field.name] ?? []), ...(field.checked ? [field.value] : [])];
    else if (field.name && field.value !== "") body[field.name] = field.value;
  }
  try {
    const answer = await call(method, path, body);
    const shown = form.getAttribute("data-show");
    const secret = shown && answer[shown];
    if (secret) showOnce(`${shown}, shown only now: `, secret);
    form.reset();
    refresh();
  } catch (problem) {
    say(problem.message);
  }
}

function showOnce(before, secret) {
  const place = document.getElementById("shown-once");
  const code = document.createElement("code");
  code.textContent = secret;
  place.replaceChildren(before, code);
  place.hidden = false;
  place.scrollIntoView({ block: "nearest" });
}

document.addEventListener("submit", (event) => {
  if (!event.target.hasAttribute("data-send")) return;
  event.preventDefault();
  send(event.target);
});

document.addEventListener("click", (event) => {
  const button = event.target.closest("button");
  if (!button) return;
  if (button.dataset.call) act(button);
  else if (button.dataset.bulk) actOnChosen(button);
  else if ("copy" in button.dataset) copy(button);
  else if ("themeSwitch" in button.dataset) switchTheme();
});

document.addEventListener("change", async (event) => {
  const field = event.target;
  if (field.matches("input[form=chosen]")) countChosen();
  if (field.dataset.patch && field.reportValidity()) {
    try {
      await call("PATCH", field.dataset.patch, { [field.name]: Number(field.value) });
    } catch (problem) {
      say(problem.message);
    }
  }
});

async function copy(button) {
  const text = button.parentElement.querySelector("pre").textContent;
  try {
    await navigator.clipboard.writeText(text);
    button.textContent = "Copied";
  } catch {
    // Without a secure connection there is no clipboard: the text is marked instead.
    getSelection().selectAllChildren(button.parentElement.querySelector("pre"));
    button.textContent = "Press Ctrl+C";
  }
  setTimeout(() => (button.textContent = "Copy"), 2000);
}

function switchTheme() {
  const system = matchMedia("(prefers-color-scheme: dark)").matches ? "dark" : "light";
  const next = (document.documentElement.dataset.theme ?? system) === "dark" ? "light" : "dark";
  document.documentElement.dataset.theme = next;
  localStorage.setItem("theme", next);
  document.dispatchEvent(new Event("themechange"));
}

// A list that is watched: not while it is hidden, or while something of it is chosen.
function keepFresh() {
  const found = () => document.querySelector("[data-live][hx-get]");
  if (!found()) return;
  const busy = () =>
    document.hidden ||
    document.querySelector("input[form=chosen]:checked") !== null ||
    found()?.contains(document.activeElement);
  setInterval(() => busy() || refresh(), 1000 * found().dataset.live);
  document.addEventListener("visibilitychange", () => busy() || refresh());
}

countChosen();
keepFresh();
document.body.addEventListener("htmx:responseError", (event) => {
  if (event.detail.xhr.status !== 401) say(`The page cannot be refreshed: ${event.detail.xhr.status}.`);
});
