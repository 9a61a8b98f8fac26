// Draws the overview's charts with uPlot, from the numbers in the page's table. Without this the server's drawing stays.
"use strict";

(() => {
  const table = () => document.querySelector("table[data-charts]");
  const drawn = new Map(); // id of the figure → {plot, host}
  const dark = matchMedia("(prefers-color-scheme: dark)");

  const colour = (name) => getComputedStyle(document.documentElement).getPropertyValue(`--${name}`).trim();

  const column = (field) => [...table().tBodies[0].rows].map((row) => {
    const cell = row.querySelector(`[data-${field}]`);
    const text = cell.getAttribute(`data-${field}`);
    return text === "" ? null : Number(text);
  });
  const instants = () => [...table().tBodies[0].rows].map((row) => Number(row.dataset.at));
  const isDaily = () => table().dataset.span === "day";

  const count = (value) => value.toLocaleString("en").replaceAll(",", "\u202f");
  const length = (seconds) => {
    if (seconds == null) return "—";
    for (const [unit, size] of [["d", 86400], ["h", 3600], ["min", 60]]) {
      if (seconds >= size) return `${trimmed(seconds / size)} ${unit}`;
    }
    return seconds >= 1 ? `${trimmed(seconds)} s` : `${Math.round(seconds * 1000)} ms`;
  };
  const trimmed = (value) => (value >= 10 ? Math.round(value).toString() : value.toFixed(1).replace(/\.0$/, ""));
  // Days are those of UTC; hours are shown as on the viewer's clock.
  const when = (seconds) => new Intl.DateTimeFormat("en-GB", isDaily()
    ? { timeZone: "UTC", weekday: "short", day: "numeric", month: "short" }
    : { weekday: "short", day: "numeric", month: "short", hour: "2-digit", minute: "2-digit" },
  ).format(new Date(seconds * 1000));

  const figures = {
    "graph-throughput": { series: [["completed", "good"], ["other", "wait"], ["failed", "bad"]], isStacked: true, write: count },
    "graph-waited": { series: [["waited-p95", "warn", "p95"], ["waited-p50", "busy", "p50"]], write: length },
    "graph-took": { series: [["took-p95", "warn", "p95"], ["took-p50", "busy", "p50"]], write: length },
  };

  // The parts of a column as heights from the ground, the whole column first, since each is drawn over the one before.
  const stacked = (columns) => {
    const sums = [];
    columns.reduce((below, own) => {
      const sum = own.map((value, place) => value + (below[place] ?? 0));
      sums.unshift(sum);
      return sum;
    }, []);
    return sums;
  };

  const values = (figure) => {
    const columns = figure.series.map(([field]) => column(field));
    return { columns, data: [instants(), ...(figure.isStacked ? stacked(columns) : columns)] };
  };

  const seriesOf = (figure) => {
    const own = figure.series.map(([field, name]) => (figure.isStacked
      ? { label: field, fill: colour(name), width: 0, points: { show: false }, paths: uPlot.paths.bars({ size: [0.8, 60] }) }
      : { label: field, stroke: colour(name), width: 2, spanGaps: false }));
    return [{}, ...(figure.isStacked ? own.reverse() : own)];
  };

  const bubble = (figure, shown) => {
    const box = document.createElement("div");
    box.className = "bubble";
    box.hidden = true;
    const text = (tag, content) => Object.assign(document.createElement(tag), { textContent: content });
    return {
      hooks: {
        init: (plot) => plot.over.append(box),
        setCursor: (plot) => {
          const place = plot.cursor.idx;
          box.hidden = place == null || plot.cursor.left < 0;
          if (box.hidden) return;
          const list = document.createElement("dl");
          figure.series.forEach(([field, , label], index) => list.append(
            text("dt", label ?? field), text("dd", figure.write(shown.columns[index][place]))));
          box.replaceChildren(text("b", when(plot.data[0][place])), list);
          const left = plot.cursor.left + 12;
          box.style.left = `${left + box.offsetWidth > plot.over.clientWidth ? plot.cursor.left - box.offsetWidth - 12 : left}px`;
        },
      },
    };
  };

  // Where the axis of time may have words, in seconds.
  const marks = () => (instants().length > 24 ? [1, 2, 3, 5, 7, 10, 15].map((days) => days * 86400) : [1, 2, 3, 4, 6, 12].map((hours) => hours * 3600));

  const options = (figure, host, shown) => ({
    width: host.clientWidth,
    height: host.clientHeight,
    ...(isDaily() ? { tzDate: (seconds) => uPlot.tzDate(new Date(seconds * 1000), "Etc/UTC") } : {}),
    legend: { show: false },
    cursor: { drag: { x: false, y: false }, points: { size: 6 }, sync: { key: "overview" } },
    padding: [8, 14, 0, 0],
    scales: {
      x: { range: (_, least, most) => { const half = isDaily() ? 43200 : 1800; return [least - half, most + half]; } },
      y: { range: (_, __, most) => [0, most > 0 ? most * 1.05 : 1] },
    },
    axes: [
      { stroke: colour("soft"), grid: { show: false }, incrs: marks(), ticks: { stroke: colour("line"), size: 4 }, font: "12px system-ui", size: 26,
        values: [[86400, "{D} {MMM}", null, null, null, null, null, null, 1], [3600, "{HH}:{mm}", "\n{D} {MMM}", null, "\n{D} {MMM}", null, null, null, 1]] },
      { stroke: colour("soft"), grid: { stroke: colour("line"), width: 1 }, ticks: { show: false }, font: "12px system-ui", size: 58,
        space: 40, incrs: figure.isStacked ? [1, 2, 5, 10, 20, 50, 100, 200, 500, 1e3, 2e3, 5e3, 1e4, 2e4, 5e4, 1e5, 2e5, 5e5, 1e6, 2e6, 5e6, 1e7]
          : [0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200, 14400, 43200, 86400, 172800, 432000],
        values: (_, splits) => splits.map((value) => (value === 0 ? "0" : figure.write(value))) },
    ],
    series: seriesOf(figure),
    plugins: [bubble(figure, shown)],
  });

  const draw = (id) => {
    const element = document.getElementById(id);
    const known = drawn.get(id);
    if (known?.host.isConnected) {
      Object.assign(known.shown, values(figures[id]));
      known.plot.setData(known.shown.data);
      return;
    }
    const host = Object.assign(document.createElement("div"), { className: "plot" });
    host.setAttribute("aria-hidden", "true"); // the table says the same
    element.querySelector(".frame").before(host);
    const shown = values(figures[id]);
    const plot = new uPlot(options(figures[id], host, shown), shown.data, host);
    drawn.set(id, { host, plot, shown });
    resizes.observe(host);
  };

  const forget = () => {
    for (const { host, plot } of drawn.values()) {
      resizes.unobserve(host);
      plot.destroy();
      host.remove();
    }
    drawn.clear();
  };

  const resizes = new ResizeObserver((entries) => {
    for (const { host, plot } of drawn.values()) {
      if (entries.some((entry) => entry.target === host) && host.clientWidth) {
        plot.setSize({ width: host.clientWidth, height: host.clientHeight });
      }
    }
  });

  const drawAll = () => { if (table()) Object.keys(figures).forEach(draw); };

  document.addEventListener("DOMContentLoaded", () => {
    if (!window.uPlot || !table()) return;
    drawAll();
    dark.addEventListener("change", () => { forget(); drawAll(); });
    document.body.addEventListener("htmx:afterSettle", drawAll);
    // What is drawn here is not in what the server sends, and stays; so does what the reader has opened.
    const callbacks = window.Idiomorph?.defaults.callbacks;
    if (!callbacks) return;
    callbacks.beforeNodeRemoved = (node) => !(node instanceof Element && node.classList.contains("plot"));
    callbacks.beforeAttributeUpdated = (name, node) => !(name === "open" && node.localName === "details");
  });
})();
