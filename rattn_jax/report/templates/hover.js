// Shows the values of a chart's lines at the pointer, each at its nearest point.
for (const chart of document.querySelectorAll(".chart")) {
  const box = chart.querySelector(".values");
  const lines = [...chart.querySelectorAll(".legend li")].map(({ dataset }) => ({
    name: dataset.name, xs: dataset.x.split(" "), ys: dataset.y.split("|"),
  }));
  const where = (x) => {
    const epoch = chart.dataset.epoch;
    return `${chart.dataset.across} ${x}${epoch ? `, epoch ${(x / epoch).toFixed(2)}` : ""}`;
  };
  for (const plot of chart.querySelectorAll(".plot")) {
    const cursor = plot.querySelector(".cursor");
    const show = (event) => {
      const at = new DOMPoint(event.clientX, event.clientY)
        .matrixTransform(plot.getScreenCTM().inverse()).x;
      const found = [...plot.querySelectorAll("polyline")].map(({ points }, line) => {
        let best = 0;
        for (let i = 1; i < points.numberOfItems; i++)
          if (Math.abs(points.getItem(i).x - at) < Math.abs(points.getItem(best).x - at)) best = i;
        const { name, xs, ys } = lines[line];
        return { name, x: xs[best], y: ys[best], place: points.getItem(best).x };
      });
      const first = found.reduce((a, b) =>
        Math.abs(b.place - at) < Math.abs(a.place - at) ? b : a);
      const values = found.map(({ name, x, y }) =>
        `${name} ${y}${x === first.x ? "" : ` at ${x}`}`);
      box.textContent = `${where(first.x)}: ${values.join("; ")}`;
      cursor.setAttribute("x1", first.place);
      cursor.setAttribute("x2", first.place);
      cursor.setAttribute("visibility", "visible");
    };
    const hide = () => {
      box.textContent = "";
      cursor.setAttribute("visibility", "hidden");
    };
    plot.addEventListener("pointermove", show);
    plot.addEventListener("pointerdown", show);
    plot.addEventListener("pointerleave", hide);
  }
}
