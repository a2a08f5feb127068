(() => {
  "use strict";
  const LIGHT = { ink: "#1f2a33", soft: "#5d6b76", line: "#e2e4e1", card: "#ffffff", accent: "#0f6e68" };
  const DARK = { ink: "#e3e8ea", soft: "#9aa8b1", line: "#2e383f", card: "#1b2227", accent: "#5cc4b8" };
  // Of shares from 0 to 1: each begins near the paper, so that what is rare stays quiet in either mode.
  const LIGHT_SCALE = [[0, "#eef5f3"], [0.25, "#b9dcd6"], [0.5, "#6fb8ae"], [0.75, "#2a8f86"], [1, "#0b4f4a"]];
  const DARK_SCALE = [[0, "#1d282c"], [0.25, "#1d4b4a"], [0.5, "#26756f"], [0.75, "#45a99e"], [1, "#9fe3d9"]];
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
    data.filter((trace) => trace.type === "heatmap").forEach((trace) => {
      trace.colorscale = dark.matches ? DARK_SCALE : LIGHT_SCALE;
    });
    layout.margin = { l: 10, r: 14, t: 10, b: 10, ...layout.margin };
    // A finger that drags over a figure wants to scroll the page.
    if (touch.matches || narrow.matches) layout.dragmode = false;
    const name = element.id;
    plots.push(element);
    return Plotly.newPlot(element, data, layout, {
      // Named one by one: plotly's own set holds a button that uploads the figure to a service.
      responsive: true, displaylogo: false, doubleClick: layout.meta && layout.meta.axes ? false : "reset+autosize",
      modeBarButtons: [layout.meta && layout.meta.axes ? ["toImage"] : ["toImage", "zoom2d", "select2d", "resetScale2d"]],
      toImageButtonOptions: { filename: name, scale: 2 },
    }).then(() => {
      if (data.some(holdsTrials)) link(element);
      if (layout.meta && layout.meta.axes) brushes(element, layout.meta.axes);
    });
  };

  // Trials that are picked in one figure or table of a run stand out in all of them. A point carries its trial's number
  // in customdata, a line in meta.trial, a row in data-trial.
  const holdsTrials = (trace) => trace.customdata !== undefined || (trace.meta && trace.meta.trial !== undefined);
  const picked = new Map(); // article to the set of its picked trials; missing: none are, and all stand alike
  const clearers = new Map(); // article to what forgets the ranges on axes

  const pick = (article, numbers, keepsRanges = false) => {
    if (numbers === null) picked.delete(article); else picked.set(article, numbers);
    if (!keepsRanges) (clearers.get(article) ?? []).forEach((clear) => clear());
    plots.filter((element) => article.contains(element)).forEach((element) => mark(element, numbers));
    article.querySelectorAll("tr[data-trial]").forEach((row) => {
      row.classList.toggle("faded", numbers !== null && !numbers.has(Number(row.dataset.trial)));
    });
    const bar = article.querySelector(".picked");
    bar.hidden = numbers === null;
    if (numbers !== null) {
      const named = [...numbers].sort((a, b) => a - b).slice(0, 12).map((number) => `#${number}`).join(" ");
      const many = numbers.size === 1 ? "1 trial" : `${numbers.size} trials`;
      bar.querySelector("span").textContent = `${many} picked${numbers.size ? ": " : ""}${named}${numbers.size > 12 ? " …" : ""}`;
    }
  };

  const toggle = (article, number) => {
    const numbers = new Set(picked.get(article) ?? []);
    if (!numbers.delete(number)) numbers.add(number);
    pick(article, numbers.size ? numbers : null);
  };

  const mark = (element, numbers) => {
    element.data.forEach((trace, index) => {
      if (trace.customdata !== undefined) {
        const chosen = numbers === null ? null
          : [trace.customdata.flatMap((number, place) => (numbers.has(number) ? [place] : []))];
        Plotly.restyle(element, { selectedpoints: chosen ?? [null], "unselected.marker.opacity": 0.07 }, [index]);
      } else if (holdsTrials(trace)) {
        const usual = trace.meta.opacity ?? 1;
        const opacity = numbers === null ? usual : numbers.has(trace.meta.trial) ? 1 : 0.06;
        if ((trace.opacity ?? 1) !== opacity) Plotly.restyle(element, { opacity }, [index]);
      }
    });
  };

  const trialOf = (point) => point.customdata ?? point.data.meta?.trial;

  const link = (element) => {
    const article = element.closest("article");
    element.on("plotly_click", (event) => {
      const number = trialOf(event.points[0]);
      if (number !== undefined) toggle(article, number);
    });
    element.on("plotly_selected", (event) => {
      if (!event || !event.points.length) return;
      const numbers = new Set(event.points.map(trialOf).filter((number) => number !== undefined));
      Plotly.relayout(element, { selections: [] });
      pick(article, numbers);
    });
    element.on("plotly_deselect", () => pick(article, null));
  };

  // Parallel coordinates: a drag along an axis keeps the trials that pass there, and what is kept must pass on every
  // axis that has a range. A strip over each axis takes the pointer, whether mouse, pen or finger.
  const brushes = (element, count) => {
    const article = element.closest("article");
    const lines = element.data.flatMap((trace, index) => (trace.meta && trace.meta.trial !== undefined ? [index] : []));
    const ranges = new Map(); // axis to [low, high]
    const strips = [...Array(count).keys()].map((axis) => {
      const strip = document.createElement("div");
      strip.className = "strip";
      strip.append(document.createElement("i"));
      element.append(strip);
      return strip;
    });
    const scale = () => ({ x: element._fullLayout.xaxis, y: element._fullLayout.yaxis });
    const show = (axis) => {
      const range = ranges.get(axis), bar = strips[axis].firstChild, { y } = scale();
      bar.hidden = !range;
      if (range) {
        bar.style.top = `${y.d2p(range[1])}px`;
        bar.style.height = `${y.d2p(range[0]) - y.d2p(range[1])}px`;
      }
    };
    const place = () => strips.forEach((strip, axis) => {
      const { x, y } = scale();
      Object.assign(strip.style, {
        left: `${x._offset + x.d2p(axis)}px`, top: `${y._offset}px`, height: `${y._length}px`,
      });
      show(axis);
    });
    const apply = () => {
      const all = lines.filter((index) => [...ranges].every(([axis, [low, high]]) => {
        const value = element.data[index].y[axis];
        return value >= low && value <= high;
      }));
      pick(article, ranges.size ? new Set(all.map((index) => element.data[index].meta.trial)) : null, true);
    };
    const forget = () => { ranges.clear(); strips.forEach((strip, axis) => show(axis)); };
    clearers.set(article, [...(clearers.get(article) ?? []), forget]);
    let hovered = -1;
    const stand = (index, width) => index >= 0 && Plotly.restyle(element, { "line.width": width }, [index]);
    const hover = (axis, value) => {
      const near = lines.reduce((best, index) => {
        const distance = Math.abs(element.data[index].y[axis] - value);
        return distance < best[1] ? [index, distance] : best;
      }, [-1, 0.04]);
      if (near[0] === hovered) return;
      stand(hovered, element.data[hovered]?.meta.width);
      hovered = near[0];
      stand(hovered, 4);
      if (hovered >= 0) Plotly.Fx.hover(element, [{ curveNumber: hovered, pointNumber: axis }]); else Plotly.Fx.unhover(element);
    };
    strips.forEach((strip, axis) => {
      let from = null;
      const value = (event) => scale().y.p2d(event.clientY - strip.getBoundingClientRect().top);
      strip.addEventListener("pointerdown", (event) => {
        strip.setPointerCapture(event.pointerId);
        from = event.clientY;
        event.preventDefault();
      });
      strip.addEventListener("pointermove", (event) => {
        if (from === null) { hover(axis, value(event)); return; }
        if (Math.abs(event.clientY - from) < 4) return;
        const start = scale().y.p2d(from - strip.getBoundingClientRect().top), end = value(event);
        ranges.set(axis, [Math.min(start, end), Math.max(start, end)]);
        show(axis);
      });
      strip.addEventListener("pointerup", (event) => {
        if (from !== null && Math.abs(event.clientY - from) < 4) ranges.delete(axis);
        from = null;
        show(axis);
        apply();
      });
      strip.addEventListener("pointercancel", () => { from = null; });
      strip.addEventListener("pointerleave", () => { if (from === null) hover(axis, Infinity); });
    });
    element.addEventListener("dblclick", () => pick(article, null));
    element.on("plotly_afterplot", place);
    place();
  };

  document.querySelectorAll("tr[data-trial]").forEach((row) => row.addEventListener("click", () => {
    if (!String(getSelection())) toggle(row.closest("article"), Number(row.dataset.trial));
  }));
  document.querySelectorAll(".picked button").forEach((button) => button.addEventListener("click", () => {
    pick(button.closest("article"), null);
  }));

  const paint = (isDark) => plots.forEach((element) => {
    Plotly.relayout(element, { template: template(isDark ? DARK : LIGHT) });
    const heat = element.data.flatMap((trace, index) => (trace.type === "heatmap" ? [index] : []));
    if (heat.length) Plotly.restyle(element, { colorscale: [isDark ? DARK_SCALE : LIGHT_SCALE] }, heat);
  });
  dark.addEventListener("change", () => paint(dark.matches));
  addEventListener("beforeprint", () => paint(false));
  addEventListener("afterprint", () => paint(dark.matches));

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
