// Draws the chart descriptions that Python made: colours for the theme, text to fit the cells, width to fit the card.
window.KD = window.KD || {};
(function (KD) {
  "use strict";
  const CONFIG = { displayModeBar: false, displaylogo: false, responsive: false, showTips: false };

  // Run the script that stands gzipped, as base64, in an element of the page.
  KD.unpack = async function (id) {
    const packed = document.getElementById(id);
    const bytes = Uint8Array.from(atob(packed.textContent), (letter) => letter.charCodeAt(0));
    const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"));
    const script = document.createElement("script");
    script.textContent = await new Response(stream).text();
    packed.remove();
    document.head.append(script);
  };

  KD.complain = function (error) {
    document.getElementById("kd-headline").textContent = "This page needs a browser of 2023 or later: " + error;
  };

  KD.isNarrow = () => matchMedia("(max-width: 520px)").matches;

  KD.isDark = function () {
    const forced = document.documentElement.dataset.theme;
    return forced ? forced === "dark" : matchMedia("(prefers-color-scheme: dark)").matches;
  };

  // A copy of a description in the theme's colours.
  KD.themed = function (value) {
    if (typeof value === "string") return KD.isDark() && KD.data.dark[value] || value;
    if (Array.isArray(value)) return value.map(KD.themed);
    if (value && typeof value === "object") {
      return Object.fromEntries(Object.entries(value).map(([key, item]) => [key, KD.themed(item)]));
    }
    return value;
  };

  // Of a cell's three texts, the longest that fits it.
  function fitHeatmap(spec, width) {
    const words = spec.data.find((trace) => trace.meta && trace.meta.short);
    if (!words) return;
    const margin = spec.layout.margin;
    const cell = (width - margin.l - margin.r) / Math.max(1, spec.data[0].z[0].length);
    const height = (spec.layout.height - margin.t - margin.b) / Math.max(1, spec.data[0].z.length);
    const level = height < 40 ? "tiny" : cell >= 112 ? null : cell >= 50 ? "short" : "tiny";
    if (level) words.text = words.meta[level];
    words.textfont.size = cell >= 112 ? 16 : cell >= 50 ? 14 : 10.5;
  }

  // Draw into an element; nothing is drawn while it has no width (a hidden tab): the next resize does it.
  KD.draw = function (element, spec, onClick) {
    const width = element.clientWidth;
    if (!spec || width < 40) return;
    const copy = KD.themed(spec);
    copy.layout.width = width;
    copy.layout.autosize = false;
    fitHeatmap(copy, width);
    element.style.minHeight = copy.layout.height + "px";
    Plotly.react(element, copy.data, copy.layout, CONFIG);
    if (onClick && !element.kdClick) {
      element.kdClick = true;
      element.on("plotly_click", (event) => onClick(event.points[0]));
    }
  };

  // The learning curves of the cells in `shown`, as traces: a band ± std and a line each.
  KD.learningSpec = function (learning, shown, colourOf) {
    const data = [];
    for (const curve of learning.curves) {
      if (!shown.includes(curve.id)) continue;
      const colour = curve.alone ? KD.data.alone.line : colourOf(curve.id);
      if (curve.std.some((value) => value > 0)) {
        const edge = { type: "scatter", mode: "lines", x: curve.steps, line: { width: 0 }, showlegend: false, hoverinfo: "skip" };
        data.push({ ...edge, y: curve.mean.map((mean, i) => mean - curve.std[i]) });
        data.push({
          ...edge, y: curve.mean.map((mean, i) => mean + curve.std[i]), fill: "tonexty",
          fillcolor: curve.alone ? KD.data.alone.band : colour + "28",
        });
      }
      data.push({
        type: "scatter", mode: "lines", name: escapeText(curve.name), x: curve.steps, y: curve.mean,
        line: { color: colour, width: 2, dash: curve.alone ? "dash" : "solid" },
        hovertemplate: "step %{x}: %{y:.4~g}<extra>%{fullData.name}</extra>",
      });
    }
    return { data, layout: learning.layout };
  };

  function escapeText(text) {
    return text.replaceAll("&", "&amp;").replaceAll("<", "&lt;").replaceAll(">", "&gt;");
  }

  // A second frame, dashed, around every compared cell of a heatmap.
  KD.withFrames = function (spec, compared, chosen, height) {
    const shapes = [...(spec.layout.shapes || [])];
    spec.data[0].customdata.forEach((row, y) => row.forEach(([id], x) => {
      if (id && id !== chosen && compared.includes(id)) {
        const line = { color: "#1d2126", width: 2, dash: "dot" };
        shapes.push({ type: "rect", x0: x - 0.5, x1: x + 0.5, y0: y - 0.5, y1: y + 0.5, line });
      }
    }));
    return { data: spec.data, layout: { ...spec.layout, shapes, height: Math.max(height, spec.layout.height) } };
  };
})(window.KD);
