"use strict";
/* Filters and sorts the tables of examples. Every row carries its values as data attributes. */
for (const table of document.querySelectorAll("table.examples")) {
  const body = table.tBodies[0];
  const rows = Array.from(body.rows);
  const controls = document.querySelector(`[data-controls="${table.id}"]`);
  const shown = controls && controls.querySelector("output");

  function applies(row) {
    for (const control of controls.querySelectorAll("select")) {
      const wanted = control.value;
      if (wanted && !` ${row.dataset[control.name] || ""} `.includes(` ${wanted} `)) return false;
    }
    const words = controls.querySelector("input[type=search]").value.toLowerCase().split(/\s+/).filter(Boolean);
    return words.every((word) => textOf(row).includes(word));
  }

  /* Times of frames are no words to search for. */
  function textOf(row) {
    const cells = Array.from(row.cells).filter((cell) => !cell.querySelector(".strip"));
    return cells.map((cell) => cell.textContent).join(" ").toLowerCase();
  }

  function filter() {
    let count = 0;
    for (const row of rows) {
      row.hidden = !applies(row);
      count += row.hidden ? 0 : 1;
    }
    shown.textContent = `${count} of ${rows.length} examples`;
  }

  function sort(heading) {
    const key = heading.dataset.sort;
    const down = heading.getAttribute("aria-sort") === "ascending";
    for (const other of table.tHead.querySelectorAll("th[aria-sort]")) other.setAttribute("aria-sort", "none");
    heading.setAttribute("aria-sort", down ? "descending" : "ascending");
    const value = (row) => row.dataset[key] || "";
    const isNumber = rows.every((row) => value(row) === "" || !Number.isNaN(Number(value(row))));
    const compare = isNumber
      ? (a, b) => Number(value(a)) - Number(value(b))
      : (a, b) => value(a).localeCompare(value(b));
    // Rows without a value stay last in both directions.
    rows.sort((a, b) => (value(a) === "") - (value(b) === "") || (down ? compare(b, a) : compare(a, b)));
    body.append(...rows);
  }

  if (controls) {
    controls.addEventListener("input", filter);
    filter();
  }
  for (const heading of table.tHead.querySelectorAll("th[data-sort]")) {
    heading.querySelector("button").addEventListener("click", () => sort(heading));
  }
}
