// The page: keeps what the reader chose (study, metric, keys, compared rows, sorting) and redraws from the data.
(function (KD) {
  "use strict";
  const get = (id) => document.getElementById("kd-" + id);
  const state = { study: 0, metric: null, pair: 0, tag: null, price: null, compared: null, sort: {}, all: false, wide: false, filter: "", group: "" };
  KD.state = state;
  let wired = false;

  const study = () => KD.data.studies[state.study];
  const titleOf = (name) => study().metrics.find((metric) => metric.id === name)?.title || name;
  const capital = (text) => text.charAt(0).toUpperCase() + text.slice(1);

  // Show a (newer) content; what the reader chose stays where it still exists.
  KD.show = function (data) {
    const before = KD.data && study()?.name;
    KD.data = data;
    const same = data.studies.findIndex((candidate) => candidate.name === before);
    if (same >= 0) state.study = same; else reset(0);
    const ids = study().rows.map((row) => row.id);
    if (state.compared) state.compared = state.compared.filter((id) => ids.includes(id));
    if (!wired) wire();
    KD.render();
  };

  function reset(index) {
    Object.assign(state, { study: index, metric: null, pair: 0, tag: null, price: null, compared: null, sort: {}, all: false, filter: "", group: "" });
  }

  function options(select, names, selected, label) {
    const texts = names.map((name, i) => label ? label(name, i) : name);
    if (select.kdNames !== JSON.stringify(texts)) {
      select.replaceChildren(...texts.map((text, i) => new Option(text, String(names[i]))));
      select.kdNames = JSON.stringify(texts);
    }
    select.value = String(selected);
  }

  const shown = () => state.compared || study().shown;

  // Compared configurations take the colours in turn, the chosen one first; the student alone is always grey.
  function colourOf(id) {
    const place = shown().filter((other) => !other.startsWith("a")).indexOf(id);
    if (id.startsWith("a")) return shown().includes(id) ? KD.themed(KD.data.alone.line) : null;
    return place < 0 ? null : KD.data.compared[place % KD.data.compared.length];
  }

  function toggle(id) {
    state.compared = shown().includes(id) ? shown().filter((other) => other !== id) : [...shown(), id];
    drawHeatmaps(); drawLearning(); drawBoard(); drawDifferences();
  }

  KD.render = function () {
    const now = study();
    const names = now.metrics.map((metric) => metric.id);
    if (!names.includes(state.metric)) state.metric = now.metric;
    const tags = Object.keys(now.learning);
    if (!tags.includes(state.tag)) state.tag = tags[0];
    const prices = Object.keys(now.prices[state.metric] || {});
    if (!prices.includes(state.price)) state.price = prices[0];
    const views = now.views[state.metric];
    if (state.pair >= views.length) state.pair = 0;

    get("title").textContent = now.title;
    get("headline").textContent = now.headline;
    document.title = now.title;
    options(get("study"), KD.data.studies.map((_, i) => i), state.study, (i) => KD.data.studies[i].name);
    get("study-box").hidden = KD.data.studies.length < 2;
    options(get("metric"), names, state.metric, titleOf);
    options(get("pair"), views.map((_, i) => i), state.pair, (i) => now.pairs[i]);
    get("pair-box").hidden = views.length < 2;
    options(get("tag"), tags, state.tag);
    options(get("price-of"), prices, state.price, (name) => ({ latency_ms: "latency", parameters: "parameters", bytes: "bytes" })[name]);
    get("price-of").hidden = prices.length < 2;
    options(get("group"), ["", ...now.factors.map((factor) => factor.key)], state.group, (key) => now.factors.find((factor) => factor.key === key)?.short || "nothing");
    get("group-box").hidden = !now.factors.length;
    get("filter").value = state.filter;
    get("warnings").replaceChildren(...now.warnings.map((warning) => KD.make("li", "", warning)));
    get("warnings-card").hidden = !now.warnings.length;
    get("remark").textContent = now.remark;
    get("importance-card").hidden = !(now.importance[state.metric] || []).length;
    get("parallel-card").hidden = !now.parallel[state.metric];
    get("learning-card").hidden = !tags.length;
    get("fidelity-card").hidden = !now.fidelity[state.metric];
    get("price-card").hidden = !prices.length;
    get("front-card").hidden = !now.front;
    get("against-card").hidden = !views[state.pair].against.data.length;
    get("board-card").hidden = !now.rows.length;
    get("best-card").hidden = !now.best;

    drawCards(now);
    drawHeatmaps(); drawLearning(); drawCharts(); drawBoard(); drawDifferences(); drawOwn();
    KD.importanceTable(get("importance"), now.importance[state.metric] || []);
    KD.problemTable(get("problems"), now.problems);
    get("problems-card").hidden = !now.problems.length;
    get("problems-note").textContent = now.problems.length + (now.problems.length === 1 ? " run" : " runs");
    KD.command(get("rerun"), "Started again, the sweep skips what is finished and continues the rest:", now.problems.length ? now.rerun : "");
    KD.command(get("best"), "The chosen configuration, with the same seeds:", now.best);
    get("notes").replaceChildren(...now.notes.map((note) => KD.make("li", "", note)));
    get("footer").textContent = "kd-lightning report, written " + KD.data.generated;
    for (const row of document.querySelectorAll("#kd .row")) {
      const cards = [...row.children].filter((card) => !card.hidden);
      for (const card of cards) card.classList.toggle("only", cards.length === 1);
    }
  };

  function drawCards(now) {
    get("cards").replaceChildren(...now.cards[state.metric].map((card) => {
      const box = KD.make("div", "card");
      box.append(KD.make("div", "label", card.label), KD.make("div", "value " + (card.tone || ""), card.value), KD.make("div", "note", card.note));
      return box;
    }));
  }

  function drawHeatmaps() {
    const now = study(), view = now.views[state.metric][state.pair], box = get("heatmaps");
    get("heatmap-card").hidden = !view.heatmaps.length;
    get("heatmap-title").textContent = view.title;
    const relative = now.rows.some((row) => row.gains[state.metric]);
    get("heatmap-note").textContent = "mean ± std; " + (relative ? "blue is better than the student alone, ●: it holds (Holm, 5 %); " : "") +
      now.seeds + "; frame: chosen by validation; click to compare";
    while (box.children.length > view.heatmaps.length) box.lastChild.remove();
    while (box.children.length < view.heatmaps.length) box.append(KD.make("div"));
    const chosen = now.rows.find((row) => row.chosen)?.id;
    const height = view.heatmaps.length === 1 ? 336 : 0; // a lone panel is as high as the chart beside it
    view.heatmaps.forEach((spec, i) => KD.draw(box.children[i], KD.withFrames(spec, shown(), chosen, height), (point) => {
      const id = point.customdata && point.customdata[0];
      if (id) toggle(id);
    }));
  }

  function drawLearning() {
    const learning = study().learning[state.tag];
    if (learning) KD.draw(get("learning"), KD.learningSpec(learning, shown(), colourOf));
  }

  function drawCharts() {
    const now = study(), view = now.views[state.metric][state.pair];
    const [first] = (view.title || "").split(" × ");
    get("against-title").textContent = now.factors.length ? capital(titleOf(state.metric)) + " against " + first.charAt(0).toLowerCase() + first.slice(1) : view.title;
    get("against-note").textContent = view.held;
    const title = titleOf(state.metric);
    get("fidelity-title").textContent = "Fidelity against " + (now.fidelity[state.metric]?.layout.yaxis.title?.text || title);
    get("price-title").textContent = (state.price === "latency_ms" ? "Latency" : "Size") + " against " + title;
    const beside = view.heatmaps.length === 1 ? Math.max(336, Math.min(480, view.heatmaps[0].layout.height)) : 336;
    KD.draw(get("against"), { data: view.against.data, layout: { ...view.against.layout, height: Math.max(beside, view.against.layout.height) } });
    KD.draw(get("fidelity"), now.fidelity[state.metric]);
    KD.draw(get("parallel"), now.parallel[state.metric]);
    if (now.front) {
      get("front-note").textContent = now.front.note;
      KD.draw(get("front"), now.front.chart);
      KD.frontTable(get("front-table"), now.front);
    }
    KD.draw(get("price"), (now.prices[state.metric] || {})[state.price]);
  }

  function drawOwn() {
    const box = get("own"), cards = study().own;
    while (box.children.length > cards.length) box.lastChild.remove();
    cards.forEach((card, i) => {
      const place = box.children[i] || box.appendChild(KD.make("section", "card"));
      const head = KD.make("div", "head"), table = KD.make("table"), chart = place.querySelector(".chart") || KD.make("div", "chart");
      head.append(KD.make("h2", "", card.title));
      card.table.forEach((row, line) => {
        const cells = row.map((cell) => KD.make(line ? "td" : "th", "", cell));
        table.appendChild(KD.make("tr")).append(...cells);
      });
      place.replaceChildren(head, KD.make("p", "", card.text), table, chart);
      if (card.figure) KD.draw(chart, card.figure);
    });
  }

  function drawBoard() {
    const { hidden, extra } = KD.board(get("board"), study(), state, {
      toggle, colour: colourOf,
      sort: (column, direction) => { state.sort = { column, direction }; drawBoard(); },
    });
    get("board-note").textContent = "click a column to sort, a row to compare; bold: the best configuration, references apart";
    get("more").hidden = !hidden || state.all;
    get("more").textContent = "show all " + hidden + " rows";
    get("wide").hidden = !extra && !KD.isNarrow();
    get("wide").textContent = state.wide ? "fewer columns" : "all columns";
    const box = get("board").parentElement;
    get("swipe").hidden = box.scrollWidth <= box.clientWidth + 1;
  }

  function drawDifferences() {
    get("differences-card").hidden = !KD.differenceTable(get("differences"), study(), shown());
  }

  function wire() {
    wired = true;
    const on = (id, change) => { get(id).onchange = (event) => { change(event.target.value); KD.render(); }; };
    on("study", (value) => reset(Number(value)));
    on("metric", (value) => { state.metric = value; state.sort = {}; });
    on("pair", (value) => { state.pair = Number(value); });
    on("tag", (value) => { state.tag = value; });
    on("price-of", (value) => { state.price = value; });
    get("more").onclick = () => { state.all = true; drawBoard(); };
    get("wide").onclick = () => { state.wide = !state.wide; drawBoard(); };
    get("filter").oninput = (event) => { state.filter = event.target.value; drawBoard(); };
    on("group", (value) => { state.group = value; });
    get("theme").onclick = () => KD.setTheme(KD.isDark() ? "light" : "dark");
    matchMedia("(prefers-color-scheme: dark)").addEventListener("change", KD.render);
    let width = 0, timer = 0;
    new ResizeObserver(() => {
      const now = document.getElementById("kd").clientWidth;
      if (now === width) return;
      width = now;
      clearTimeout(timer);
      timer = setTimeout(KD.render, 60);
    }).observe(document.getElementById("kd"));
  }

  KD.setTheme = function (theme) {
    document.documentElement.dataset.theme = theme;
    KD.render();
  };
})(window.KD);
