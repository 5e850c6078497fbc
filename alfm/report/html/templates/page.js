"use strict";
(() => {
  const read = (id) => JSON.parse(document.getElementById(id).textContent);
  const palettes = read("palettes"), figures = read("figures");
  const dark = matchMedia("(prefers-color-scheme: dark)");
  const places = [...document.querySelectorAll("[data-figure]")];
  const hidden = new Set(); // curves that nobody wants to see, in all figures alike
  const PRINTED = 690; // pixels: the width between the margins of A4
  let theme = "auto", bands = true, printing = false, Plotly = null;

  const palette = () => palettes[!printing && (theme === "dark" || (theme === "auto" && dark.matches)) ? "dark" : "light"];

  /* "$c3/0.2" -> a colour of the palette, at that opacity. */
  function coloured(node, colours) {
    if (Array.isArray(node)) return node.map((one) => coloured(one, colours));
    if (node && typeof node === "object") return Object.fromEntries(Object.entries(node).map(([key, one]) => [key, key === "meta" ? one : coloured(one, colours)]));
    if (typeof node !== "string" || node[0] !== "$") return node;
    const [name, opacity] = node.slice(1).split("/");
    const hex = colours[name];
    if (!hex) return node;
    if (!opacity) return hex;
    const [r, g, b] = [1, 3, 5].map((at) => parseInt(hex.slice(at, at + 2), 16));
    return `rgba(${r},${g},${b},${opacity})`;
  }

  function laid(layout, colours, width, height) {
    const axis = { gridcolor: colours.line, zerolinecolor: colours.line, linecolor: colours.line, tickcolor: colours.line };
    const narrow = width < 520;
    const text = (one) => ({ ...axis, ...one, title: { ...one.title, font: { size: narrow ? 11 : 13 } }, tickfont: { size: narrow ? 10 : 12 } });
    return {
      ...layout, xaxis: text(layout.xaxis), yaxis: text(layout.yaxis), width, height, autosize: false,
      paper_bgcolor: "rgba(0,0,0,0)", plot_bgcolor: "rgba(0,0,0,0)",
      font: { family: "system-ui, 'Segoe UI', 'Noto Sans', 'DejaVu Sans', sans-serif", color: colours.ink, size: 12 },
      margin: { l: narrow ? 42 : 60, r: 14, t: 16, b: 46 },
      hoverlabel: { bgcolor: colours.card, bordercolor: colours.line, font: { color: colours.ink } },
    };
  }

  function shown([name, kind]) {
    if (name && hidden.has(name)) return false;
    return kind !== "band" || bands;
  }

  function paint(place) {
    if (!Plotly) return;
    const { data, layout, height } = figures[place.dataset.figure], plot = place.querySelector(".plot");
    const colours = palette(), width = printing ? PRINTED : plot.clientWidth;
    if (!width) return;
    const traces = coloured(data, colours).map((one) => ({ ...one, visible: shown(one.meta) }));
    const legend = layout.showlegend ? Math.ceil((traces.length * 130) / width) * 20 : 0;
    plot.style.height = `${height + legend}px`;
    Plotly.react(plot, traces, laid(coloured(layout, colours), colours, width, height + legend), { displaylogo: false, displayModeBar: false, responsive: false });
    place.dataset.painted = `${width}`;
  }

  const painted = () => places.filter((place) => place.dataset.painted);
  const repaint = () => painted().forEach(paint);

  /* Figures are drawn when they come into sight; a report of many data sets has a hundred. */
  const sight = new IntersectionObserver((seen) => seen.forEach((one) => {
    if (one.isIntersecting && !one.target.dataset.painted) paint(one.target);
  }), { rootMargin: "400px" });

  async function load() {
    const packed = document.getElementById("library").textContent;
    if (typeof DecompressionStream === "undefined") throw new Error("no DecompressionStream");
    const bytes = Uint8Array.from(atob(packed), (one) => one.charCodeAt(0));
    const text = await new Response(new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"))).text();
    const script = document.createElement("script");
    script.textContent = text;
    document.head.append(script);
    Plotly = window.Plotly;
    places.forEach((place) => sight.observe(place));
    document.documentElement.dataset.ready = "";
  }

  function press() {
    document.querySelectorAll(".key").forEach((key) => key.setAttribute("aria-pressed", String(!hidden.has(key.dataset.series))));
    document.querySelectorAll("[data-bands]").forEach((one) => one.setAttribute("aria-pressed", String(bands)));
    repaint();
  }

  document.addEventListener("click", ({ target }) => {
    const button = target.closest("button");
    if (!button) return;
    if (button.dataset.series !== undefined) {
      const name = button.dataset.series;
      if (!hidden.delete(name)) hidden.add(name);
      press();
    } else if (button.dataset.bands !== undefined) {
      bands = !bands;
      press();
    } else if (button.dataset.all !== undefined) {
      const names = [...button.parentElement.querySelectorAll(".key")].map((key) => key.dataset.series);
      const none = names.every((name) => !hidden.has(name));
      names.forEach((name) => (none ? hidden.add(name) : hidden.delete(name)));
      press();
    } else if (button.dataset.themeIs) {
      theme = button.dataset.themeIs;
      document.documentElement.dataset.theme = theme;
      document.querySelectorAll("[data-theme-is]").forEach((one) => one.setAttribute("aria-pressed", String(one === button)));
      repaint();
    }
  });

  let waiting = 0;
  addEventListener("resize", () => {
    clearTimeout(waiting);
    waiting = setTimeout(() => painted().filter((place) => Number(place.dataset.painted) !== place.querySelector(".plot").clientWidth).forEach(paint), 120);
  });
  dark.addEventListener("change", repaint);
  addEventListener("beforeprint", () => { printing = true; places.forEach(paint); });
  addEventListener("afterprint", () => { printing = false; places.forEach(paint); });
  if (innerWidth < 992) document.querySelector("nav details").open = false;
  load().catch(() => { document.getElementById("old-browser").hidden = false; });
})();
