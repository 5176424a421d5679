// The leaderboard and the list of runs without a result. Text is set as text, never as markup.
(function (KD) {
  "use strict";
  const FIRST = 60; // rows shown before "show all"

  KD.make = function (tag, className, text) {
    const element = document.createElement(tag);
    if (className) element.className = className;
    if (text !== undefined && text !== null) element.textContent = text;
    return element;
  };
  const make = KD.make;

  function columns(study, metric) {
    const list = study.factors.length ? [{ id: "label", title: "", text: true, value: (row) => row.label }]
      : [{ id: "label", title: "configuration", text: true, value: (row) => row.label }];
    study.factors.forEach((factor, i) => list.push({
      id: "p" + i, title: factor.short, hint: factor.key, factor: true, value: (row) => row.values[i], cell: (row) => row.params[i],
    }));
    const titles = Object.fromEntries(study.metrics.map((other) => [other.id, other.title]));
    list.push({ id: metric, title: titles[metric], hint: metric, value: (row) => row.stats[metric]?.mean, main: true, metric });
    if (study.rows.some((row) => row.gains[metric])) {
      list.push({ id: "gain", title: "better than alone by (95 % CI)", value: (row) => row.gains[metric]?.mean, gain: true });
    }
    for (const other of study.metrics) {
      if (other.id === metric) continue;
      list.push({ id: other.id, title: other.title, hint: other.id, value: (row) => row.stats[other.id]?.mean, metric: other.id });
    }
    list.push({ id: "runs", title: "runs", value: (row) => row.runs, cell: (row) => row.runs });
    return list;
  }

  function compare(a, b, column, direction) {
    const [x, y] = [column.value(a), column.value(b)];
    const [noX, noY] = [x === undefined || x === null || x === "", y === undefined || y === null || y === ""];
    if (noX || noY) return noX - noY; // what is missing stays at the end
    const order = typeof x === "number" && typeof y === "number" ? x - y : String(x).localeCompare(String(y), undefined, { numeric: true });
    return direction * order;
  }

  // A small picture of the interval: the line at zero, the mean, its 95 % interval.
  function intervalPicture(gain, low, high) {
    const space = "http://www.w3.org/2000/svg";
    const svg = document.createElementNS(space, "svg");
    svg.setAttribute("width", 92); svg.setAttribute("height", 14); svg.setAttribute("aria-hidden", "true");
    const place = (value) => 4 + 84 * (value - low) / (high - low || 1);
    const add = (name, attributes) => {
      const element = document.createElementNS(space, name);
      for (const [key, value] of Object.entries(attributes)) element.setAttribute(key, value);
      svg.append(element);
    };
    const colour = !gain.sure ? "var(--alone)" : gain.mean > 0 ? "var(--accent)" : "var(--bad)";
    add("line", { x1: place(0), x2: place(0), y1: 0, y2: 14, stroke: "var(--line)" });
    if (gain.low !== null) add("line", { x1: place(gain.low), x2: place(gain.high), y1: 7, y2: 7, stroke: colour, "stroke-width": 1.6 });
    add("circle", { cx: place(gain.mean), cy: 7, r: 3.6, fill: colour });
    return svg;
  }

  KD.board = function (table, study, state, actions) {
    const all = columns(study, state.metric);
    const sorted = all.find((column) => column.id === state.sort.column) || all.find((column) => column.main);
    const high = study.metrics.find((metric) => metric.id === (sorted.metric || state.metric))?.high;
    const direction = state.sort.column === sorted.id && state.sort.direction ? state.sort.direction : high ? -1 : 1;
    const rows = [...study.rows].sort((a, b) => compare(a, b, sorted, direction));
    const ends = study.rows.flatMap((row) => {
      const gain = row.gains[state.metric];
      return gain ? [gain.low ?? gain.mean, gain.high ?? gain.mean] : [];
    });
    const [low, most] = [Math.min(0, ...ends), Math.max(0, ...ends)];
    const best = bestCells(study);
    const head = make("tr");
    head.append(make("th", "text", "#"));
    for (const column of all) {
      const arrow = column === sorted ? (direction < 0 ? " ↓" : " ↑") : "";
      const th = make("th", "sortable" + (column.text || column.factor ? " text" : "") + (arrow ? " sorted" : ""), column.title + arrow);
      th.title = column.hint || "sort by " + column.title;
      th.tabIndex = 0;
      th.setAttribute("aria-sort", arrow ? (direction < 0 ? "descending" : "ascending") : "none");
      if (column.gain) th.colSpan = 2;
      const sort = () => actions.sort(column.id, column === sorted ? -direction : undefined);
      th.onclick = sort;
      th.onkeydown = (event) => { if (event.key === "Enter" || event.key === " ") { event.preventDefault(); sort(); } };
      head.append(th);
    }
    const body = make("tbody");
    rows.slice(0, state.all ? rows.length : FIRST).forEach((row, i) => {
      const tr = make("tr");
      tr.dataset.id = row.id;
      tr.append(make("td", "text small", i + 1));
      for (const column of all) fill(tr, row, column, { state, low, most, best });
      if (row.kind !== "teacher") {
        tr.classList.add("clickable");
        tr.onclick = () => actions.toggle(row.id);
        const colour = actions.colour(row.id);
        if (colour) { tr.classList.add("compared"); tr.style.setProperty("--mark", colour); }
      }
      body.append(tr);
    });
    const thead = make("thead");
    thead.append(head);
    table.replaceChildren(thead, body);
    return rows.length > FIRST ? rows.length : 0;
  };

  function bestCells(study) {
    const best = {};
    for (const metric of study.metrics) {
      const means = study.rows.filter((row) => row.kind === "cell" && row.stats[metric.id]).map((row) => row.stats[metric.id].mean);
      if (means.length > 1) best[metric.id] = metric.high ? Math.max(...means) : Math.min(...means);
    }
    return best;
  }

  function fill(tr, row, column, context) {
    if (column.factor && row.kind !== "cell") return; // a reference's name spans these columns
    const td = make("td", column.text || column.factor ? "text" : "");
    if (column.text) {
      const dot = make("span", "dot");
      dot.style.background = KD.themed(row.colour);
      td.append(dot);
      if (row.kind !== "cell" || !row.params.length) td.append(row.label || "distilled");
      if (row.kind !== "cell") td.colSpan = 1 + row.params.length;
      if (row.chosen) td.append(make("span", "tag chosen", "chosen"));
      if (row.kind !== "cell") td.append(make("span", "tag", "reference"));
    } else if (column.gain) {
      const gain = row.gains[context.state.metric];
      td.textContent = gain ? gain.text + (gain.half ? " ± " + gain.half : "") : row.kind === "cell" ? "–" : "";
      if (gain && gain.mean < 0) td.classList.add("bad");
      const picture = make("td");
      if (gain) picture.append(intervalPicture(gain, context.low, context.most));
      tr.append(td, picture);
      return;
    } else if (column.metric) {
      const stats = row.stats[column.metric];
      const strong = column.main || (stats && row.kind === "cell" && stats.mean === context.best[column.metric]);
      td.append(make(strong ? "b" : "span", "", stats ? stats.text : "–"));
      if (stats && column.main) td.append(make("span", "small", stats.spread ? " ± " + stats.spread : " (n = " + stats.n + ")"));
    } else {
      td.textContent = column.cell(row);
    }
    tr.append(td);
  }

  KD.problemTable = function (table, problems) {
    const head = make("tr");
    for (const title of ["run", "status", "what is known"]) head.append(make("th", "text", title));
    const body = make("tbody");
    for (const problem of problems) {
      const tr = make("tr");
      const status = make("td", "text");
      status.append(make("span", "status " + problem.status, problem.status));
      tr.append(make("td", "text", problem.name), status, make("td", "text detail", problem.detail));
      body.append(tr);
    }
    const thead = make("thead");
    thead.append(head);
    table.replaceChildren(thead, body);
  };

  KD.command = function (box, lead, command) {
    box.replaceChildren();
    if (!command) return;
    const wrap = make("div", "command");
    const button = make("button", "", "copy");
    button.type = "button";
    button.onclick = () => navigator.clipboard?.writeText(command).then(() => { button.textContent = "copied"; }, () => { button.textContent = "select it"; });
    wrap.append(make("pre", "", command), button);
    box.append(make("div", "muted", lead), wrap);
  };
})(window.KD);
