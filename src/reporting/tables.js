// Tables that sort at a click on a heading, and a table of runs that opens to all its columns.
"use strict";

for (const table of document.querySelectorAll("table.sortable")) {
  table.querySelectorAll("thead th").forEach((heading, column) => {
    const button = heading.querySelector("button");
    if (!button) return;
    button.addEventListener("click", () => {
      const falling = heading.getAttribute("aria-sort") !== "descending";
      table.querySelectorAll("th[aria-sort]").forEach((other) => other.removeAttribute("aria-sort"));
      heading.setAttribute("aria-sort", falling ? "descending" : "ascending");
      for (const body of table.tBodies) {
        const rows = [...body.rows].sort((a, b) => compare(a.cells[column].textContent, b.cells[column].textContent));
        body.append(...(falling ? rows.reverse() : rows));
      }
    });
  });
}

function compare(a, b) {
  const [left, right] = [parseFloat(a), parseFloat(b)];
  if (Number.isNaN(left) && Number.isNaN(right)) return a.localeCompare(b);
  if (Number.isNaN(left) || Number.isNaN(right)) return Number.isNaN(left) ? -1 : 1;
  return left - right;
}

for (const box of document.querySelectorAll("input.all-columns")) {
  box.addEventListener("change", () => document.getElementById(box.dataset.table).classList.toggle("all", box.checked));
}
