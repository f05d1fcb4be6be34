// The form of a new job or pipeline: the body from what is filled in, the estimate while it is typed, problems
// beside their fields, and uploads.

import { address, call, say } from "./page.js";

const form = document.getElementById("new");
const estimate = document.getElementById("estimate");
// Not by `form.dataset`: that is the field of this name.
const isRecipe = form.getAttribute("data-recipe") === "yes";
const what = form.getAttribute("data-what");

// The value that a field's text means. Throws an Error for JSON that is none.
function valueOf(field) {
  const text = field.value.trim();
  const number = (one) => (one !== "" && Number.isFinite(Number(one)) ? Number(one) : one);
  const json = () => {
    try {
      return JSON.parse(text);
    } catch {
      throw Object.assign(new Error("This is not JSON."), { path: field.name });
    }
  };
  switch (field.dataset.type) {
    case "number":
    case "auto":
      return number(text);
    case "yes":
      return text === "true";
    case "json":
      return json();
    case "lines":
      return text.startsWith("[") ? json() : text.split(",").map((one) => number(one.trim())).filter((one) => one !== "");
    default:
      return /^[[{]/.test(text) ? json() : text;
  }
}

function bodyOf() {
  const found = {};
  for (const field of form.querySelectorAll("[data-type]")) {
    if (field.value.trim() === "") continue;
    const parts = field.name.split(".");
    const last = parts.pop();
    let place = found;
    for (const part of parts) place = place[part] ??= {};
    place[last] = valueOf(field);
  }
  return found;
}

function ready() {
  return [...form.querySelectorAll("[required]")].every((field) => field.value.trim() !== "");
}

function element(name, text, className) {
  const made = document.createElement(name);
  if (text !== undefined) made.textContent = text;
  if (className) made.className = className;
  return made;
}

function list(sentences, className) {
  const made = element("ul", undefined, className);
  made.append(...sentences.map((sentence) => element("li", sentence)));
  return made;
}

// Problems stand beside the field that their path names; what names none is returned.
function showProblems(problems, whole) {
  for (const place of form.querySelectorAll(".field > .problem")) place.hidden = true;
  const others = [];
  let first = null;
  for (const { path, message } of problems) {
    const parts = path.replace(/^inputs\./, "").split(".");
    let place = null;
    while (parts.length && !place) {
      place = form.querySelector(`.field[data-path="${CSS.escape(parts.join("."))}"] > .problem`);
      parts.pop();
    }
    if (!place || (!whole && message.startsWith("Field required"))) {
      if (!place) others.push(path ? `${path}: ${message}` : message);
      continue;
    }
    place.textContent = message;
    place.hidden = false;
    for (let outer = place.closest("details"); outer; outer = outer.parentElement.closest("details")) outer.open = true;
    first ??= place;
  }
  if (whole && first) first.closest(".field").querySelector("input, select, textarea").focus();
  return others;
}

function showTrouble(problem, whole) {
  const problems = problem.path ? [{ path: problem.path, message: problem.message }] : (problem.errors ?? []);
  const others = showProblems(problems, whole);
  const left = problems.length ? others : [problem.message];
  estimate.replaceChildren(...(left.length ? [list(left, "notice error")] : []));
  if (whole) say(problems.length === 1 ? `${problems[0].path}: ${problems[0].message}` : problem.message);
}

function minutes(seconds) {
  if (seconds === null || seconds === undefined) return "unknown";
  if (seconds < 90) return `about ${Math.max(1, Math.round(seconds))} s`;
  return seconds < 5400 ? `about ${Math.round(seconds / 60)} min` : `about ${(seconds / 3600).toFixed(1)} h`;
}

function tile(name, value) {
  const made = element("div");
  made.append(element("dt", name), element("dd", value));
  return made;
}

function tiles(seconds, memory, others = []) {
  const made = element("dl", undefined, "tiles");
  made.append(tile("time", minutes(seconds)));
  if (memory) made.append(tile("memory", `${(memory / 1e9).toPrecision(2)} GB`));
  made.append(...others.map(([name, value]) => tile(name, value)));
  return made;
}

function showEstimate(found) {
  estimate.replaceChildren(element("h2", "Estimate"));
  if (isRecipe) {
    const memory = Math.max(0, ...Object.values(found.estimates).map((one) => one.memory?.total ?? 0));
    estimate.append(tiles(found.seconds, memory), element("p", Object.keys(found.stages).join(" → ")));
    const table = element("table");
    const body = table.createTBody();
    for (const choice of found.choices) {
      const row = body.insertRow();
      const value = typeof choice.value === "string" ? choice.value : JSON.stringify(choice.value);
      row.append(element("td", `${choice.stage}.${choice.field}`), element("td", value), element("td", choice.why));
    }
    const wide = element("div", undefined, "wide");
    wide.append(table);
    estimate.append(element("h3", "What the recipe chooses, and why"), wide);
    return;
  }
  const others = [["device", `${found.device}, ${found.precision}`]];
  if (found.steps) others.push(["steps", found.steps.toLocaleString("en")]);
  if (found.rows) others.push(["rows", found.rows.toLocaleString("en")]);
  estimate.append(tiles(found.seconds, found.memory?.total, others));
  if (found.notes.length) estimate.append(list(found.notes, "notice"));
}

let asked = 0;

// Asks for the estimate; an answer that a newer question has overtaken is dropped.
async function update() {
  if (!ready()) return;
  const mine = ++asked;
  try {
    const body = bodyOf();
    const found = isRecipe
      ? await call("POST", `recipes/${what}/expand`, { inputs: body })
      : await call("POST", "jobs/estimate", { kind: what, ...body });
    if (mine !== asked) return;
    showProblems([], false);
    showEstimate(found);
  } catch (problem) {
    if (mine === asked) showTrouble(problem, false);
  }
}

let waiting = 0;
form.addEventListener("input", () => {
  clearTimeout(waiting);
  waiting = setTimeout(update, 500);
});

form.addEventListener("submit", async (event) => {
  event.preventDefault();
  clearTimeout(waiting);
  asked++;
  const missing = [...form.querySelectorAll("[required]")].filter((field) => field.value.trim() === "");
  if (missing.length) {
    showProblems(missing.map((field) => ({ path: field.name, message: "This is needed." })), true);
    return;
  }
  const button = document.getElementById("submit");
  button.disabled = true;
  try {
    const body = bodyOf();
    if (isRecipe) {
      const asPipeline = { recipe: what, inputs: body, ...(body.name ? { name: body.name } : {}) };
      const made = await call("POST", "pipelines", asPipeline);
      location.href = address(`ui/pipelines/${made.id}`).href;
    } else {
      const made = await call("POST", "jobs", { kind: what, ...body });
      location.href = address(`ui/jobs/${made.id}`).href;
    }
  } catch (problem) {
    showTrouble(problem, true);
    button.disabled = false;
  }
});

// -- uploads ------------------------------------------------------------------------------------------

const drop = document.getElementById("drop");

if (drop) {
  document.getElementById("file").addEventListener("change", (event) => send([...event.target.files].map((file) => [file.name, file])));
  document.getElementById("folder").addEventListener("change", (event) =>
    send([...event.target.files].map((file) => [file.webkitRelativePath, file])),
  );
  drop.addEventListener("dragover", (event) => {
    event.preventDefault();
    drop.classList.add("over");
  });
  drop.addEventListener("dragleave", () => drop.classList.remove("over"));
  drop.addEventListener("drop", async (event) => {
    event.preventDefault();
    drop.classList.remove("over");
    const entries = [...event.dataTransfer.items].map((item) => item.webkitGetAsEntry()).filter(Boolean);
    send((await Promise.all(entries.map(filesOf))).flat());
  });
}

// The files of what was dropped, each with its path.
async function filesOf(entry) {
  if (entry.isFile) return [[entry.fullPath.slice(1), await new Promise((found, failed) => entry.file(found, failed))]];
  const reader = entry.createReader();
  const found = [];
  for (;;) {
    const some = await new Promise((read, failed) => reader.readEntries(read, failed));
    if (!some.length) return found;
    found.push(...(await Promise.all(some.map(filesOf))).flat());
  }
}

async function send(files) {
  files = files.filter(([path]) => !path.split("/").some((part) => part.startsWith(".")));
  if (!files.length) return tell("There is no file to send.", true);
  const single = files.length === 1 && !files[0][0].includes("/");
  const top = files[0][0].split("/")[0];
  const named = document.getElementById("upload-name").value.trim() || top.replace(/\.[^.]*$/, "");
  const name = named.replace(/[^A-Za-z0-9_.-]+/g, "-").replace(/^[-_.]+|[-_.]+$/g, "") || "data";
  const bar = document.getElementById("upload");
  try {
    const content = single ? files[0][1] : archive(files);
    const filename = single ? files[0][0] : `${name}.tar`;
    bar.hidden = false;
    tell(`Uploading ${single ? filename : `${files.length} files`} …`);
    const made = await post(`datasets?${new URLSearchParams({ name, filename })}`, content, (share) => (bar.value = share));
    const reference = `dataset:${made.name}@${made.version}`;
    const rows = Object.entries(made.metadata.splits ?? {}).map(([split, count]) => `${count.toLocaleString("en")} ${split}`);
    tell(`${reference}: ${rows.join(", ")}`);
    const suggested = document.createElement("option");
    suggested.value = reference;
    document.getElementById("all-dataset").prepend(suggested);
    const place = [...form.querySelectorAll("[data-suggests=dataset]")].find((field) => field.value === "");
    if (place) {
      place.value = reference;
      place.dispatchEvent(new Event("input", { bubbles: true }));
    }
  } catch (problem) {
    tell(problem.message, true);
  }
  bar.hidden = true;
}

function tell(sentence, isProblem = false) {
  const place = document.getElementById("uploaded");
  place.textContent = sentence;
  place.className = isProblem ? "problem" : "quiet";
}

// `fetch` does not tell how much was sent.
function post(path, content, told) {
  return new Promise((done, failed) => {
    const request = new XMLHttpRequest();
    request.open("POST", address(path));
    request.setRequestHeader("Accept", "application/json");
    request.setRequestHeader("Content-Type", "application/octet-stream");
    request.upload.addEventListener("progress", (event) => event.lengthComputable && told(event.loaded / event.total));
    request.addEventListener("error", () => failed(new Error("The service cannot be reached.")));
    request.addEventListener("load", () => {
      let answer = {};
      try {
        answer = JSON.parse(request.responseText);
      } catch {
        // The status says enough.
      }
      if (request.status < 400) done(answer);
      else failed(new Error(answer.detail ?? `${request.status} ${request.statusText}`));
    });
    request.send(content);
  });
}

// Files as a tar (POSIX ustar). Their contents are read only while they are sent.
function archive(files) {
  const parts = [];
  for (const [path, file] of files) {
    parts.push(header(path, file.size), file, new Uint8Array((512 - (file.size % 512)) % 512));
  }
  return new Blob([...parts, new Uint8Array(1024)]);
}

function header(path, size) {
  const bytes = new TextEncoder().encode(path);
  let cut = 0; // where the prefix ends, for a path that the field for names cannot hold
  if (bytes.length > 100) {
    cut = bytes.findIndex((byte, at) => byte === 47 && bytes.length - at - 1 <= 100 && at <= 155);
    if (cut < 0) throw new Error(`The path is too long for an archive: ${path}`);
  }
  const block = new Uint8Array(512);
  const write = (text, at) => block.set(typeof text === "string" ? new TextEncoder().encode(text) : text, at);
  write(cut ? bytes.slice(cut + 1) : bytes, 0);
  write("0000644\0" + "0000000\0" + "0000000\0", 100);
  write(`${size.toString(8).padStart(11, "0")}\0${"0".repeat(11)}\0        0`, 124);
  write("ustar\0" + "00", 257);
  if (cut) write(bytes.slice(0, cut), 345);
  const sum = block.reduce((total, byte) => total + byte, 0);
  write(`${sum.toString(8).padStart(6, "0")}\0 `, 148);
  return block;
}

update();
