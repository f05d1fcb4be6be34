// Several jobs on one chart, by step or by time.

import { call, say } from "./page.js";
import { align, chart, smooth } from "./charts.js";

const place = document.getElementById("chart");
const jobs = place.dataset.jobs.split(" ");
const names = place.dataset.names.split("\t");
const [metric, axis, smoothing] = ["metric", "axis", "smoothing"].map((id) => document.getElementById(id));
const known = new Map();
let drawn;

async function curve(job) {
  const key = `${job} ${metric.value}`;
  if (!known.has(key)) {
    const has = metric.selectedOptions[0].dataset.of.split(" ").includes(job);
    const path = `jobs/${job}/metrics?max_points=2000&name=${encodeURIComponent(metric.value)}`;
    known.set(key, has ? (await call("GET", path)).items[0].points : []);
  }
  return known.get(key);
}

async function draw() {
  const points = await Promise.all(jobs.map(curve));
  const seconds = axis.value === "time";
  const curves = points.map((some) => ({
    x: some.map((point) => (seconds ? (Date.parse(point.at) - Date.parse(some[0].at)) / 1000 : point.step)),
    y: smooth(some.map((point) => point.value), Number(smoothing.value)),
  }));
  drawn?.remove();
  const series = jobs.map((job, index) => ({ label: names[index] || job }));
  drawn = chart(place, metric.value, series, { height: 380, seconds });
  drawn.update(align(curves));
}

const drawOrSay = () => draw().catch((problem) => say(problem.message));
for (const field of [metric, axis, smoothing]) field.addEventListener("change", drawOrSay);
if (metric.value) drawOrSay();
