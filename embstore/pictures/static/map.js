"use strict";
(() => {
  const PALETTE = ["#4e79a7", "#f28e2b", "#59a14f", "#e15759", "#76b7b2", "#c9a227", "#b07aa1", "#ff8fab", "#9c755f",
    "#6b7fd7", "#2a9d8f", "#d1495b"];
  const OTHERS = "#838b98", NONE = "#b4bac5";
  const SCALE = ["#440154", "#414487", "#2a788e", "#22a884", "#7ad151", "#fde725"];
  const LISTED = 200;
  const $ = (id) => document.getElementById(id);
  const data = JSON.parse($("data").textContent);
  const unpack = (text, Kind) => new Kind(Uint8Array.from(atob(text), (char) => char.charCodeAt(0)).buffer);
  const x = unpack(data.x, Float32Array), y = unpack(data.y, Float32Array), n = x.length;
  const columns = data.columns.map((column) => column.codes
    ? { ...column, codes: unpack(column.codes, Int32Array) }
    : { ...column, numbers: unpack(column.numbers, Float32Array) });
  const plot = $("plot"), card = $("card");
  const number = (value) => value.toLocaleString("en");
  const counted = (count) => `${number(count)} document${count === 1 ? "" : "s"}`;
  const size = n <= 300 ? 11 : n <= 3000 ? 7 : n <= 30000 ? 5 : 3;
  const many = n > 20000;

  // Each point is drawn with soft edges as it is. Multisampling on top shows nowhere, and takes as long again where the
  // processor draws; plotly has no option for it.
  if (many) {
    const getContext = HTMLCanvasElement.prototype.getContext;
    HTMLCanvasElement.prototype.getContext = function (kind, wanted) {
      return getContext.call(this, kind, { ...wanted, antialias: false });
    };
  }

  // --- groups of one colour: a trace each -------------------------------------------------------------
  let groups = [], chosen = null, said = "", query = "";

  const all = () => Int32Array.from({ length: n }, (_, row) => row);
  const shown = (value) => String(Math.round(value * 1000) / 1000);

  function grouped(column) {
    if (!column) return [{ label: "", color: PALETTE[0], rows: all() }];
    if (column.numbers) return scaled(column);
    const rows = new Map();
    column.codes.forEach((code, row) => { if (!rows.has(code)) rows.set(code, []); rows.get(code).push(row); });
    const none = rows.get(-1);
    rows.delete(-1);
    const most = [...rows].sort((a, b) => column.ordered ? a[0] - b[0] : b[1].length - a[1].length || a[0] - b[0]);
    const kept = most.slice(0, most.length > PALETTE.length ? PALETTE.length - 1 : PALETTE.length);
    const others = most.slice(kept.length);
    const made = kept.map(([code, of], at) =>
      ({ label: column.values[code], color: PALETTE[at], rows: Int32Array.from(of) }));
    // What has no colour of its own lies under what has one, and comes last in the legend.
    if (others.length) {
      const of = Int32Array.from(others.flatMap((other) => other[1])).sort();
      made.unshift({ label: `${number(others.length)} others`, color: OTHERS, rows: of, last: true });
    }
    if (none) made.unshift({ label: "(none)", color: NONE, rows: Int32Array.from(none), last: true });
    return made;
  }

  function scaled(column) {
    const there = all().filter((row) => Number.isFinite(column.numbers[row]));
    const others = all().filter((row) => !Number.isFinite(column.numbers[row]));
    const values = Float32Array.from(there, (row) => column.numbers[row]);
    const low = values.reduce((a, b) => Math.min(a, b), Infinity);
    const high = values.reduce((a, b) => Math.max(a, b), -Infinity);
    const made = [{ label: "", values, low, high, rows: there }];
    if (others.length) made.unshift({ label: "(none)", color: NONE, rows: others, last: true });
    return made;
  }

  // Of a few among many, each has to be seen.
  const chosenSize = () => chosen && chosen.size <= 300 ? Math.max(size, 9) : size;

  function trace(group) {
    const colors = group.values
      ? { color: group.values, cmin: group.low, cmax: group.high,
          colorscale: SCALE.map((color, i) => [i / (SCALE.length - 1), color]) }
      : { color: group.color };
    return {
      type: "scattergl", mode: "markers", hoverinfo: "none", showlegend: false,
      x: Float32Array.from(group.rows, (row) => x[row]), y: Float32Array.from(group.rows, (row) => y[row]),
      marker: { ...colors, size, opacity: n > 30000 ? 0.6 : 0.85, line: { width: 0 } },
      selected: { marker: { opacity: 1, size: chosenSize() } }, unselected: { marker: { opacity: 0.07 } },
      selectedpoints: positions(group),
    };
  }

  const positions = (group) => {
    if (!chosen) return null;
    const found = [];
    group.rows.forEach((row, at) => { if (chosen.has(row)) found.push(at); });
    return found;
  };
  const rowOf = (point) => groups[point.curveNumber].rows[point.pointNumber];

  // --- the picture ---------------------------------------------------------------------------------
  const axis = { visible: false, showgrid: false, zeroline: false };
  const layout = {
    margin: { l: 0, r: 0, t: 0, b: 0 }, paper_bgcolor: "rgba(0,0,0,0)", plot_bgcolor: "rgba(0,0,0,0)",
    xaxis: axis, yaxis: { ...axis, scaleanchor: "x" }, hovermode: "closest", hoverdistance: 12, dragmode: "pan",
    selectdirection: "any", uirevision: "kept", showlegend: false,
    modebar: { bgcolor: "rgba(0,0,0,0)", color: "#8b93a1", activecolor: "#4e79d6", orientation: "h" },
    newselection: { line: { color: "#8b93a1", width: 1.5 } },
  };
  const config = {
    // Twice the screen's pixels, plotly's default, is four times the work, and shows in large points alone.
    plotGlPixelRatio: many ? 1 : 2,
    scrollZoom: true, displaylogo: false, displayModeBar: true, responsive: true, doubleClick: "reset",
    modeBarButtons: [["pan2d", "lasso2d"], ["zoomIn2d", "zoomOut2d", "resetScale2d"], ["toImage"]],
    toImageButtonOptions: { filename: data.name, scale: 2 },
  };

  function draw() {
    const column = columns.find(({ name }) => name === $("by").value);
    groups = grouped(column);
    legend(column);
    return Plotly.react(plot, groups.map(trace), layout, config);
  }

  function legend(column) {
    $("legend-part").hidden = !column;
    $("legend-title").textContent = column ? column.name : "";
    const entries = groups.map((group, at) => ({ last: group.last, parts: column ? entry(group, at) : [] }));
    const sorted = [...entries.filter(({ last }) => !last), ...entries.filter(({ last }) => last).reverse()];
    $("legend").replaceChildren(...sorted.flatMap(({ parts }) => parts));
  }

  function entry(group, at) {
    if (group.values) {
      const scale = element("div", "scale"), ends = element("div", "ends");
      scale.style.background = `linear-gradient(90deg, ${SCALE.join(", ")})`;
      ends.append(element("span", "", shown(group.low)), element("span", "", shown(group.high)));
      return [scale, ends];
    }
    const button = element("button"), dot = element("i"), label = element("span", "", group.label);
    dot.style.background = group.color;
    label.dir = "auto";
    button.title = group.label;
    button.setAttribute("aria-pressed", "true");
    button.append(dot, label, element("b", "", number(group.rows.length)));
    button.addEventListener("click", () => {
      const visible = button.getAttribute("aria-pressed") !== "true";
      button.setAttribute("aria-pressed", String(visible));
      Plotly.restyle(plot, { visible }, [at]);
    });
    return [button];
  }

  // --- what is chosen: by search, lasso or click ---------------------------------------------------------
  function choose(rows, what, keepLasso = false) {
    chosen = rows && new Set(rows);
    said = what;
    list();
    const update = { selectedpoints: groups.map(positions), "selected.marker.size": chosenSize() };
    return Plotly.update(plot, update, keepLasso ? {} : { selections: [] });
  }

  function list() {
    $("actions").hidden = !chosen || !chosen.size;
    $("count").textContent = chosen ? said : "Nothing selected";
    const rows = chosen ? [...chosen] : [];
    const items = rows.slice(0, LISTED).map((row) => {
      const item = element("li");
      item.append(...described(row));
      item.classList.toggle("open", rows.length === 1);
      item.addEventListener("click", () => item.classList.toggle("open"));
      return item;
    });
    if (rows.length > LISTED) items.push(element("li", "more", `and ${number(rows.length - LISTED)} more`));
    if (!chosen) items.push(element("li", "more", "Search, draw a lasso, or click a point: what you choose is listed here."));
    $("list").replaceChildren(...items);
  }

  function described(row) {
    const parts = [element("div", "id", data.ids[row])];
    if (data.texts[row]) {
      const text = element("div", "text");
      text.append(...marked(data.texts[row]));
      parts.push(text);
    }
    const facts = element("dl");
    for (const column of columns) {
      const value = column.codes ? column.values[column.codes[row]] : shown(column.numbers[row]);
      if (value !== undefined && value !== "NaN") {
        facts.append(element("dt", "", column.name), element("dd", "", value));
      }
    }
    if (facts.childElementCount) parts.push(facts);
    for (const part of parts) part.dir = "auto";
    return parts;
  }

  function marked(text) {
    const lower = text.toLowerCase();
    // Where lower case has another length, places in it are not places in the text.
    if (!query || lower.length !== text.length) return [text];
    const parts = [];
    let from = 0;
    for (let at = lower.indexOf(query); at >= 0; at = lower.indexOf(query, from)) {
      parts.push(text.slice(from, at), element("mark", "", text.slice(at, at + query.length)));
      from = at + query.length;
    }
    return [...parts, text.slice(from)];
  }

  function element(kind, name = "", text = "") {
    const made = document.createElement(kind);
    if (name) made.className = name;
    made.textContent = text;  // never as HTML: texts are anybody's
    return made;
  }

  let searched = null;
  function search() {
    query = $("search").value.trim().toLowerCase();
    if (!query) return choose(null, "");
    searched ??= data.texts.map((text, row) => `${data.ids[row]}\n${text}`.toLowerCase());
    const found = [];
    searched.forEach((text, row) => { if (text.includes(query)) found.push(row); });
    return choose(found, `${counted(found.length)} match${found.length === 1 ? "es" : ""}`);
  }

  function clear() {
    $("search").value = query = "";
    return choose(null, "");
  }

  function save() {
    const link = element("a");
    link.href = URL.createObjectURL(new Blob([[...chosen].map((row) => data.ids[row]).join("\n") + "\n"]));
    link.download = `${data.name}-ids.txt`;
    link.click();
    setTimeout(() => URL.revokeObjectURL(link.href), 1000);
  }

  function showCard({ points, event }) {
    if (event.buttons) return;  // in the middle of a lasso
    card.replaceChildren(...described(rowOf(points[0])));
    card.hidden = false;
    const { width, height } = card.getBoundingClientRect(), gap = 14;
    const left = event.clientX + gap + width > innerWidth ? event.clientX - gap - width : event.clientX + gap;
    const top = Math.min(event.clientY + gap, innerHeight - height - 8);
    card.style.left = `${Math.max(8, left)}px`;
    card.style.top = `${Math.max(8, top)}px`;
  }

  // --- begin ---------------------------------------------------------------------------------------
  const by = $("by");
  for (const name of ["", ...columns.map((column) => column.name)]) {
    const option = element("option", "", name || "nothing");
    option.value = name;
    by.append(option);
  }
  by.value = data.colorBy ?? "";
  $("by-label").hidden = !columns.length;
  draw().then(() => {
    plot.on("plotly_hover", showCard);
    plot.on("plotly_unhover", () => { card.hidden = true; });
    for (const moving of ["plotly_relayouting", "plotly_selecting"]) plot.on(moving, () => { card.hidden = true; });
    plot.on("plotly_click", ({ points }) => choose([rowOf(points[0])], "1 document clicked"));
    plot.on("plotly_selected", (event) => {
      if (!event || !(event.lassoPoints || event.range)) return;
      query = $("search").value = "";
      const rows = event.points.map(rowOf).sort((a, b) => a - b);
      choose(rows, `${counted(rows.length)} in the lasso`, true);
    });
    plot.on("plotly_deselect", clear);
    document.body.dataset.ready = "";
  });
  by.addEventListener("change", draw);
  let waiting = 0;
  $("search").addEventListener("input", () => {
    clearTimeout(waiting);
    waiting = setTimeout(search, many ? 250 : 80);
  });
  $("clear").addEventListener("click", clear);
  $("save").addEventListener("click", save);
  document.addEventListener("keydown", (event) => {
    if (event.key === "/" && document.activeElement !== $("search")) { event.preventDefault(); $("search").focus(); }
    if (event.key === "Escape") { $("search").blur(); clear(); }
  });
  list();
})();
