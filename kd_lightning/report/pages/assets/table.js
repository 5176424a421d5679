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

  // Every column says what it sorts by; `extra` ones are shown on demand, `wide` ones not on a phone.
  function columns(study, metric) {
    const titles = Object.fromEntries(study.metrics.map((other) => [other.id, other.title + (other.unit.trim() ? " [" + other.unit.trim() + "]" : "")]));
    const list = [{ id: "label", title: "configuration", text: true, value: (row) => row.label }];
    list.push({ id: metric, title: titles[metric], hint: metric, value: (row) => row.stats[metric]?.mean, main: true, metric });
    if (study.rows.some((row) => row.gains[metric])) {
      list.push({ id: "gain", title: "better than alone by (95 % CI)", value: (row) => row.gains[metric]?.mean, gain: true });
    }
    const usual = [study.validation, study.comparison];
    const rest = study.metrics.filter((other) => other.id !== metric);
    for (const other of [...rest.filter((m) => usual.includes(m.id)), ...rest.filter((m) => !usual.includes(m.id))]) {
      const extra = !usual.includes(other.id);
      list.push({ id: other.id, title: titles[other.id], hint: other.id, value: (row) => row.stats[other.id]?.mean, metric: other.id, extra, wide: true });
    }
    list.push({ id: "runs", title: "runs", value: (row) => row.runs, cell: (row) => row.runs, wide: true });
    return list;
  }

  // Rows that hold every word of the filter: in their name, their notes, or as key=value.
  function matching(row, study, filter) {
    const words = filter.toLowerCase().split(/\s+/).filter(Boolean);
    const pairs = (row.params || []).map((value, i) => study.factors[i].short + "=" + value + " " + study.factors[i].key + "=" + value + " ");
    const text = (row.label + " " + row.notes + " " + pairs.join(" ") + (row.chosen ? " chosen" : "")).toLowerCase() + " ";
    return words.every((word) => text.includes(word.includes("=") ? word + " " : word));
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
    const every = columns(study, state.metric);
    const all = every.filter((column) => state.wide || !column.extra);
    table.classList.toggle("all", state.wide);
    const sorted = all.find((column) => column.id === state.sort.column) || all.find((column) => column.main);
    const high = sorted.gain || (study.metrics.find((metric) => metric.id === (sorted.metric || state.metric))?.high ?? true);
    const direction = state.sort.column === sorted.id && state.sort.direction ? state.sort.direction : sorted.text ? 1 : high ? -1 : 1;
    let rows = [...study.rows].sort((a, b) => compare(a, b, sorted, direction));
    rows = rows.filter((row) => matching(row, study, state.filter));
    const place = study.factors.findIndex((factor) => factor.key === state.group);
    const groupOf = (row) => place < 0 ? "" : row.kind !== "cell" ? "references" : study.factors[place].short + " = " + row.params[place];
    const ends = study.rows.flatMap((row) => {
      const gain = row.gains[state.metric];
      return gain ? [gain.low ?? gain.mean, gain.high ?? gain.mean] : [];
    });
    const [low, most] = [Math.min(0, ...ends), Math.max(0, ...ends)];
    const best = bestCells(study);
    const head = make("tr");
    head.append(make("th", "text wide-only", "#"));
    for (const column of all) {
      const arrow = column === sorted ? (direction < 0 ? " ↓" : " ↑") : "";
      const th = make("th", "sortable" + (column.text ? " text" : "") + (column.wide ? " wide-only" : "") + (arrow ? " sorted" : ""), column.title + arrow);
      th.title = column.hint || "sort by " + column.title;
      th.tabIndex = 0;
      th.setAttribute("aria-sort", arrow ? (direction < 0 ? "descending" : "ascending") : "none");
      const sort = () => actions.sort(column.id, column === sorted ? -direction : undefined);
      th.onclick = sort;
      th.onkeydown = (event) => { if (event.key === "Enter" || event.key === " ") { event.preventDefault(); sort(); } };
      head.append(th);
      if (column.gain) head.append(make("th", "wide-only"));
    }
    const body = make("tbody");
    const shown = rows.slice(0, state.all ? rows.length : FIRST);
    const groups = [...new Set(shown.map(groupOf))];
    for (const group of groups) {
      if (group) {
        const tr = make("tr", "group");
        const th = make("th", "", group);
        th.colSpan = all.length + 2;
        tr.append(th);
        body.append(tr);
      }
      for (const row of shown.filter((candidate) => groupOf(candidate) === group)) {
        const tr = make("tr");
        tr.dataset.id = row.id;
        tr.append(make("td", "text small wide-only", rows.indexOf(row) + 1));
        for (const column of all) fill(tr, row, column, { state, low, most, best });
        if (row.kind !== "teacher") {
          tr.classList.add("clickable");
          tr.onclick = () => actions.toggle(row.id);
          const colour = actions.colour(row.id);
          if (colour) { tr.classList.add("compared"); tr.style.setProperty("--mark", colour); }
        }
        body.append(tr);
      }
    }
    const thead = make("thead");
    thead.append(head);
    table.replaceChildren(thead, body);
    return { hidden: rows.length > FIRST ? rows.length : 0, extra: every.some((column) => column.extra) };
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
    const td = make("td", (column.text ? "text name" : "") + (column.wide ? " wide-only" : ""));
    if (column.text) {
      const dot = make("span", "dot");
      dot.style.background = KD.themed(row.colour);
      td.append(dot);
      td.append(row.label || "distilled");
      if (row.chosen) td.append(make("span", "tag chosen", "chosen"));
      if (row.kind !== "cell") td.append(make("span", "tag", "reference"));
      for (const tag of row.tags) td.append(make("span", "tag", tag));
      if (row.notes) td.append(make("span", "note", row.notes));
    } else if (column.gain) {
      const gain = row.gains[context.state.metric];
      td.textContent = gain ? gain.text : row.kind === "cell" ? "–" : "";
      if (gain && gain.half) td.append(make("span", "half", " ± " + gain.half));
      if (gain && gain.mean < 0) td.classList.add("bad");
      const picture = make("td", "wide-only");
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

  // The keys in which the compared rows differ, one column a row.
  KD.differenceTable = function (table, study, ids) {
    const rows = ids.map((id) => study.rows.find((row) => row.id === id)).filter((row) => row && study.differences[row.id]);
    const keys = [...new Set(rows.flatMap((row) => Object.keys(study.differences[row.id])))]
      .filter((key) => new Set(rows.map((row) => study.differences[row.id][key])).size > 1);
    const head = make("tr"), body = make("tbody"), thead = make("thead");
    head.append(make("th", "text", "key"), ...rows.map((row) => make("th", "text", row.label || "distilled")));
    for (const key of keys) {
      const tr = make("tr");
      tr.append(make("td", "text", key), ...rows.map((row) => make("td", "text", study.differences[row.id][key])));
      body.append(tr);
    }
    thead.append(head);
    table.replaceChildren(thead, body);
    return rows.length > 1 && keys.length > 0;
  };

  KD.importanceTable = function (table, shares) {
    const body = make("tbody");
    for (const { label, share } of shares) {
      const tr = make("tr"), fill = make("td", "fill"), bar = make("span", "bar");
      bar.style.width = 100 * share + "%";
      fill.append(bar);
      tr.append(make("td", "text", label), fill, make("td", "", Math.round(100 * share) + " %"));
      body.append(tr);
    }
    table.replaceChildren(body);
  };

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

  KD.frontTable = function (table, front) {
    const head = make("tr");
    front.columns.forEach((title, i) => head.append(make("th", i ? "" : "text", title)));
    const body = make("tbody");
    for (const row of front.rows) {
      const tr = make("tr");
      row.forEach((text, i) => tr.append(make("td", i ? "" : "text", text)));
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
