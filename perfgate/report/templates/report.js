"use strict";
// Sorts and filters the table of cases. Without it the page holds everything, worst first.
(() => {
  const table = document.querySelector("table.cases");
  const tools = document.querySelector(".tools");
  if (!table || !tools) return;
  const body = table.tBodies[0];
  const rows = Array.from(body.rows);
  const heads = Array.from(table.tHead.rows[0].cells);
  const words = new Intl.Collator(document.documentElement.lang, { numeric: true });
  const key = (row, column) => row.cells[column].dataset.v;
  const compare = (a, b, column, way) => {
    const [x, y] = [key(a, column), key(b, column)];
    if (x === undefined) return way * words.compare(a.cells[column].textContent, b.cells[column].textContent);
    if (x === "" || y === "") return (x === "") - (y === "");
    return way * (Number(x) - Number(y));
  };
  heads.forEach((head, column) => {
    if (!head.hasAttribute("data-sort")) return;
    const button = document.createElement("button");
    button.type = "button";
    button.append(...head.childNodes);
    head.append(button);
    button.addEventListener("click", () => {
      const way = head.getAttribute("aria-sort") === "ascending" ? -1 : 1;
      heads.forEach((other) => other.removeAttribute("aria-sort"));
      head.setAttribute("aria-sort", way === 1 ? "ascending" : "descending");
      const order = rows.map((row, place) => [row, place]);
      order.sort((a, b) => compare(a[0], b[0], column, way) || a[1] - b[1]);
      body.append(...order.map(([row]) => row));
    });
  });
  heads[0].setAttribute("aria-sort", "ascending");

  const find = tools.querySelector("input");
  const verdict = tools.querySelector("select");
  const status = tools.querySelector("[role=status]");
  const sections = new Map(
    Array.from(document.querySelectorAll("details.case"), (one) => [one.dataset.n, one]),
  );
  const filter = () => {
    const text = find.value.trim().toLowerCase();
    let shown = 0;
    for (const row of rows) {
      const fits = row.cells[1].textContent.toLowerCase().includes(text)
        && (!verdict.value || row.dataset.t === verdict.value);
      row.hidden = !fits;
      const section = sections.get(row.dataset.n);
      if (section) section.hidden = !fits;
      shown += fits;
    }
    status.textContent = status.dataset.words.replace("%1", shown).replace("%2", rows.length);
  };
  find.addEventListener("input", filter);
  verdict.addEventListener("change", filter);
  tools.hidden = false;

  for (const button of document.querySelectorAll("button[data-open]")) {
    button.addEventListener("click", () => {
      for (const one of sections.values()) one.open = button.dataset.open === "1";
    });
    button.parentElement.hidden = false;
  }
})();
