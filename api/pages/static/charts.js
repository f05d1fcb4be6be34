// Curves, drawn by uPlot in the colours of the page.

const COLOURS = ["#2f6fed", "#e0672e", "#1d9a6c", "#a34fd1", "#c0392b", "#0f97a8", "#8a6d1f", "#d14f93", "#5b6b7b", "#6b8e23"];

function colour(name) {
  return getComputedStyle(document.documentElement).getPropertyValue(name).trim();
}

// Exponential moving average, corrected for its start. Gaps stay gaps.
export function smooth(values, weight) {
  if (!weight) return values;
  let mean = 0, share = 0;
  return values.map((value) => {
    if (value === null || value === undefined) return value;
    mean = weight * mean + (1 - weight) * value;
    share = weight * share + (1 - weight);
    return mean / share;
  });
}

// Several curves with steps of their own, on one axis.
export function align(curves) {
  const steps = [...new Set(curves.flatMap((curve) => curve.x))].sort((a, b) => a - b);
  const place = new Map(steps.map((step, index) => [step, index]));
  const columns = curves.map((curve) => {
    const column = new Array(steps.length).fill(undefined);
    curve.x.forEach((step, index) => (column[place.get(step)] = curve.y[index]));
    return column;
  });
  return [steps, ...columns];
}

function label(value) {
  if (value === null || value === undefined) return "";
  if (value !== 0 && Math.abs(value) < 1e-3) return value.toExponential(1);
  return Math.abs(value) >= 10_000 ? `${Math.round(value / 1000).toLocaleString("en")}k` : String(Number(value.toPrecision(4)));
}

// A figure with a chart. `series`: [{label, faint, colour}]. Returns {update(data), remove()}.
export function chart(parent, title, series, { height = 220, seconds = false } = {}) {
  const figure = document.createElement("figure");
  const caption = document.createElement("figcaption");
  caption.textContent = title;
  const place = document.createElement("div");
  figure.append(caption, place);
  parent.append(figure);
  let plot, data = [[]];

  function draw() {
    plot?.destroy();
    const axis = { stroke: colour("--quiet"), grid: { stroke: colour("--line"), width: 1 }, ticks: { stroke: colour("--line") } };
    plot = new window.uPlot(
      {
        width: place.clientWidth || 320,
        height,
        legend: { live: true },
        cursor: { points: { size: 6 } },
        scales: { x: { time: false } },
        axes: [{ ...axis, values: seconds ? (_, ticks) => ticks.map((tick) => `${Math.round(tick / 60)} min`) : undefined }, { ...axis, size: 60, values: (_, ticks) => ticks.map(label) }],
        series: [
          { label: seconds ? "seconds" : "step" },
          ...series.map((one, index) => ({
            label: one.label,
            value: (_, value) => label(value),
            stroke: COLOURS[(one.colour ?? index) % COLOURS.length] + (one.faint ? "55" : ""),
            width: one.faint ? 1 : 2,
            spanGaps: true,
            points: { show: (self, at) => self.data[at].filter((value) => value !== undefined).length < 30, size: 5 },
          })),
        ],
      },
      data,
      place,
    );
  }
  const sized = new ResizeObserver(() => plot && place.clientWidth && plot.setSize({ width: place.clientWidth, height }));
  const system = matchMedia("(prefers-color-scheme: dark)");
  sized.observe(place);
  document.addEventListener("themechange", draw);
  system.addEventListener("change", draw);
  return {
    update(next) {
      data = next;
      if (plot) plot.setData(data);
      else draw();
    },
    remove() {
      sized.disconnect();
      document.removeEventListener("themechange", draw);
      system.removeEventListener("change", draw);
      plot?.destroy();
      figure.remove();
    },
  };
}
