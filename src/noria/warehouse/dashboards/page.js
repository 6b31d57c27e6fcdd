"use strict";
(() => {
  const { charts, themes } = JSON.parse(document.getElementById("charts").textContent);
  const dark = matchMedia("(prefers-color-scheme: dark)");
  const views = new Map();

  const rows = ({ columns, rows }) =>
    rows.map((row) => Object.fromEntries(columns.map((name, place) => [name, row[place]])));

  const nothing = { // charts have their data with them; whatever else they ask for is refused
    load: () => Promise.reject(new Error("a chart fetches nothing")),
    sanitize: () => Promise.reject(new Error("a chart links nowhere")),
  };

  async function draw(place) {
    const chart = charts[place.dataset.panel];
    const spec = { ...chart.spec, data: { values: rows(chart) } };
    const drawn = await vegaEmbed(place, spec, {
      actions: false,
      ast: true, // expressions are interpreted: the page allows no eval
      config: themes[dark.matches ? "dark" : "light"],
      defaultStyle: false,
      loader: nothing,
      logLevel: 1, // errors
      renderer: "svg",
      tooltip: { disableDefaultStyle: true },
    });
    views.get(place)?.finalize();
    views.set(place, drawn);
    place.parentElement.querySelector("details")?.removeAttribute("open");
  }

  async function drawAll() {
    const places = [...document.querySelectorAll(".drawing")];
    await Promise.all(places.map((place) => draw(place).catch((error) => {
      place.textContent = "";
      const told = document.createElement("p");
      told.className = "error";
      told.textContent = `the chart cannot be drawn: ${error.message}`;
      place.replaceChildren(told);
      document.documentElement.dataset.broken = "true";
    })));
    document.documentElement.dataset.drawn = dark.matches ? "dark" : "light";
  }

  dark.addEventListener("change", drawAll);
  drawAll();
})();
