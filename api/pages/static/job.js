// One job, live: curves, values, progress and log follow its events.

import { address, call, refresh } from "./page.js";
import { align, chart, smooth } from "./charts.js";

const root = document.getElementById("job");
const path = `jobs/${root.dataset.job}`;
const final = root.dataset.final === "yes";
const smoothing = document.getElementById("smoothing");
const curves = new Map(); // name -> {x, y}
const charts = new Map(); // title -> {drawn, names}

// Measures of quality share a chart for each dataset; others have one of their own.
function titleOf(name) {
  if (!name.includes("@")) return name;
  return name.includes("/") ? name.slice(0, name.lastIndexOf("/")) : "evaluation";
}

// The loss first, then what is evaluated, then the rest.
function rank(title) {
  if (title === "loss") return 0;
  return [...curves.keys()].some((name) => name.includes("@") && titleOf(name) === title) ? 1 : 2;
}

function draw(titles) {
  document.getElementById("curves").hidden = curves.size === 0;
  for (const title of [...titles].sort((one, other) => rank(one) - rank(other))) {
    const names = [...curves.keys()].filter((name) => titleOf(name) === title);
    const several = names.length > 1 || names[0].includes("@");
    let known = charts.get(title);
    if (known && known.names.length !== names.length) {
      known.drawn.remove();
      known = undefined;
    }
    if (!known) {
      const series = several ? names.map((label) => ({ label })) : [{ label: "as measured", faint: true, colour: 0 }, { label: "smoothed", colour: 0 }];
      known = { names, drawn: chart(document.getElementById("charts"), title, series) };
      charts.set(title, known);
    }
    if (several) known.drawn.update(align(names.map((name) => curves.get(name))));
    else {
      const { x, y } = curves.get(names[0]);
      known.drawn.update([x, y, smooth(y, Number(smoothing.value))]);
    }
  }
}

function drawAll() {
  draw(new Set([...curves.keys()].map(titleOf)));
}

function add(step, values) {
  const titles = new Set();
  for (const [name, value] of Object.entries(values)) {
    let curve = curves.get(name);
    if (!curve) curves.set(name, (curve = { x: [], y: [] }));
    // A resumed attempt measures steps again.
    while (curve.x.length && curve.x.at(-1) >= step) {
      curve.x.pop();
      curve.y.pop();
    }
    curve.x.push(step);
    curve.y.push(value);
    titles.add(titleOf(name));
    tile(name, value === null ? "not a number" : short(value));
  }
  return titles;
}

function short(value) {
  if (value && (Math.abs(value) < 1e-3 || Math.abs(value) >= 1e9)) return value.toExponential(2);
  return Math.abs(value) >= 1000 ? Math.round(value).toLocaleString("en") : String(Number(value.toPrecision(4)));
}

function tile(name, text) {
  const tiles = document.getElementById("latest");
  let found = tiles.querySelector(`[data-metric="${CSS.escape(name)}"]`);
  if (!found) {
    found = document.createElement("div");
    found.dataset.metric = name;
    found.append(document.createElement("dt"), document.createElement("dd"));
    found.firstChild.textContent = name;
    tiles.append(found);
  }
  found.lastChild.textContent = text;
}

function span(seconds) {
  const minutes = Math.floor(seconds / 60);
  if (minutes >= 60) return `${Math.floor(minutes / 60)} h ${minutes % 60} min`;
  return minutes ? `${minutes} min ${Math.round(seconds % 60)} s` : `${Math.round(seconds)} s`;
}

// -- what is there already, and what comes ----------------------------------------------------------

let waiting = new Set();
function drawSoon(titles) {
  if (!waiting.size) requestAnimationFrame(() => { draw(waiting); waiting = new Set(); });
  for (const title of titles) waiting.add(title);
}

function listen() {
  const url = address(`${path}/stream`);
  url.searchParams.set("after", root.dataset.seen);
  const source = new EventSource(url);
  const on = (type, act) => source.addEventListener(type, (event) => act(JSON.parse(event.data).data));
  on("metric", (data) => drawSoon(add(data.step, data.values)));
  on("progress", (data) => {
    const bar = document.getElementById("bar");
    if (!bar) return;
    bar.value = data.fraction;
    const of = data.total_steps ? ` of ${data.total_steps}` : "";
    const left = data.eta_seconds ? `, ${span(data.eta_seconds)} left` : "";
    document.getElementById("step").textContent = `step ${data.step}${of}${left}`;
  });
  on("memory", (data) => data.rss_bytes && tile("memory", `${(data.rss_bytes / 1e9).toPrecision(3)} GB`));
  for (const type of ["phase", "notice", "checkpoint", "output"]) on(type, refreshSoon);
  on("state", (data) => {
    refreshSoon();
    if (["succeeded", "failed", "cancelled"].includes(data.state)) {
      source.close();
      document.querySelector(".progress")?.remove();
      setTimeout(readLog, 1500);
    }
  });
}

let asked;
function refreshSoon() {
  clearTimeout(asked);
  asked = setTimeout(refresh, 400);
}

// -- log --------------------------------------------------------------------------------------------

const log = document.getElementById("log");
const find = document.getElementById("find");
let text = log.textContent;
let seen = root.dataset.log;

function showLog() {
  const wanted = find.value.toLowerCase();
  if (!wanted) log.textContent = text;
  else {
    const lines = text.split("\n").filter((line) => line.toLowerCase().includes(wanted));
    log.replaceChildren(...lines.flatMap((line) => [...marked(line, wanted), "\n"]));
  }
  if (document.getElementById("follow").checked) log.scrollTop = log.scrollHeight;
}

function marked(line, wanted) {
  const parts = [];
  let from = 0;
  for (let at; (at = line.toLowerCase().indexOf(wanted, from)) >= 0; from = at + wanted.length) {
    const mark = document.createElement("mark");
    mark.textContent = line.slice(at, at + wanted.length);
    parts.push(line.slice(from, at), mark);
  }
  return [...parts, line.slice(from)];
}

async function readLog() {
  if (document.hidden) return;
  try {
    const answer = await fetch(address(`${path}/logs?after=${seen}`));
    if (!answer.ok) return;
    seen = answer.headers.get("x-log-cursor") ?? seen;
    const more = await answer.text();
    if (more) {
      text = (text ? `${text}\n` : "") + more.replace(/\n$/, "");
      showLog();
    }
  } catch {
    // The service is away for a moment: the next look tells.
  }
}

async function begin() {
  const known = await call("GET", `${path}/metrics?max_points=2000`);
  for (const one of known.items) {
    curves.set(one.name, { x: one.points.map((point) => point.step), y: one.points.map((point) => point.value) });
  }
  drawAll();
  if (!final) {
    listen();
    setInterval(readLog, 3000);
  }
}

smoothing.addEventListener("input", drawAll);
find.addEventListener("input", showLog);
showLog();
begin();
