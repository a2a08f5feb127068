(() => {
  "use strict";
  const LIGHT = { ink: "#1f2a33", soft: "#5d6b76", line: "#e2e4e1", card: "#ffffff", accent: "#0f6e68" };
  const DARK = { ink: "#e3e8ea", soft: "#9aa8b1", line: "#2e383f", card: "#1b2227", accent: "#5cc4b8" };
  const dark = matchMedia("(prefers-color-scheme: dark)");
  const narrow = matchMedia("(max-width: 600px)");
  const touch = matchMedia("(pointer: coarse)");

  const template = (colours) => {
    const axis = {
      gridcolor: colours.line, linecolor: colours.line, zerolinecolor: colours.line, tickcolor: colours.line,
      automargin: true, title: { font: { color: colours.soft, size: 12 }, standoff: 8 },
      tickfont: { color: colours.soft, size: 11 },
    };
    return {
      layout: {
        font: { family: getComputedStyle(document.body).fontFamily, color: colours.ink, size: 12 },
        paper_bgcolor: "rgba(0,0,0,0)", plot_bgcolor: "rgba(0,0,0,0)", xaxis: axis, yaxis: axis,
        hoverlabel: { bgcolor: colours.card, bordercolor: colours.line, align: "left", font: { color: colours.ink } },
        modebar: { bgcolor: "rgba(0,0,0,0)", color: colours.soft, activecolor: colours.accent },
        annotationdefaults: { bgcolor: colours.card, borderpad: 1, font: { color: colours.soft, size: 10.5 } },
        legend: { orientation: "h", x: 0, xanchor: "left", y: -0.2, yanchor: "top", yref: "paper", font: { size: 11 } },
      },
    };
  };

  const plots = [];
  const draw = (source) => {
    const element = document.getElementById(source.dataset.plot);
    const { data, layout } = JSON.parse(source.textContent);
    layout.template = template(dark.matches ? DARK : LIGHT);
    layout.margin = { l: 10, r: 14, t: 10, b: 10, ...layout.margin };
    // A finger that drags over a figure wants to scroll the page.
    if (touch.matches || narrow.matches) layout.dragmode = false;
    const name = element.id;
    plots.push(element);
    return Plotly.newPlot(element, data, layout, {
      // Named one by one: plotly's own set holds a button that uploads the figure to a service.
      responsive: true, displaylogo: false, modeBarButtons: [["toImage", "zoom2d", "resetScale2d"]],
      toImageButtonOptions: { filename: name, scale: 2 },
    }).then(() => { if (layout.meta && layout.meta.trials) linkTrials(element, layout.meta.trials); });
  };

  // Parallel coordinates: the trial under the pointer stands out; a drag along an axis keeps the trials that it covers.
  const linkTrials = (element, count) => {
    const all = [...Array(count).keys()];
    const widths = all.map((index) => element.data[index].line.width);
    const opacities = all.map((index) => element.data[index].opacity);
    element.on("plotly_hover", (event) => {
      const index = event.points[0].curveNumber;
      if (index < count) Plotly.restyle(element, { "line.width": 4 }, [index]);
    });
    element.on("plotly_unhover", (event) => {
      const index = event.points[0].curveNumber;
      if (index < count) Plotly.restyle(element, { "line.width": widths[index] }, [index]);
    });
    element.on("plotly_selected", (event) => {
      const kept = new Set(event ? event.points.map((point) => point.curveNumber) : all);
      const shown = kept.size ? all.map((index) => (kept.has(index) ? 1 : 0.04)) : opacities;
      Plotly.restyle(element, { opacity: event ? shown : opacities }, all);
    });
    element.on("plotly_deselect", () => Plotly.restyle(element, { opacity: opacities }, all));
  };

  const paint = (colours) => plots.forEach((element) => Plotly.relayout(element, { template: template(colours) }));
  dark.addEventListener("change", () => paint(dark.matches ? DARK : LIGHT));
  addEventListener("beforeprint", () => paint(LIGHT));
  addEventListener("afterprint", () => paint(dark.matches ? DARK : LIGHT));

  // A click on a heading sorts; cells sort by data-value where they have one, as numbers where both are.
  const valueOf = (cell) => cell.querySelector("[data-value]")?.dataset.value ?? cell.textContent.trim();
  const compare = (a, b) => {
    const [x, y] = [Number.parseFloat(a), Number.parseFloat(b)];
    if (Number.isNaN(x) !== Number.isNaN(y)) return Number.isNaN(x) ? 1 : -1;
    return Number.isNaN(x) ? a.localeCompare(b) : x - y;
  };
  document.querySelectorAll("th").forEach((head) => head.addEventListener("click", () => {
    const up = head.getAttribute("aria-sort") !== "ascending";
    head.parentElement.querySelectorAll("th").forEach((other) => other.removeAttribute("aria-sort"));
    head.setAttribute("aria-sort", up ? "ascending" : "descending");
    const body = head.closest("table").tBodies[0];
    const rows = [...body.rows].sort((a, b) =>
      (up ? 1 : -1) * compare(valueOf(a.cells[head.cellIndex]), valueOf(b.cells[head.cellIndex])));
    body.append(...rows);
  }));

  // One clip plays at a time.
  document.addEventListener("play", (event) => document.querySelectorAll("audio").forEach((other) => {
    if (other !== event.target) other.pause();
  }), true);

  const sources = [...document.querySelectorAll("script[data-plot]")];
  Promise.all(sources.map(draw)).then(() => { document.documentElement.dataset.drawn = String(plots.length); });
})();
