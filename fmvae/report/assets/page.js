// What the report's page does beyond showing: sort, filter and hide in tables, tooltips on charts, copied commands.
// The page is complete without it. Everything is reached by keyboard.
"use strict";

function made(tag, properties, ...children) {
  const node = Object.assign(document.createElement(tag), properties);
  node.append(...children);
  return node;
}

// the first number of a text, as in "255.22 ± 0.10" or "91.3%"; NaN if it does not begin with one
const number = (text) => (/^[-+]?[\d.]/.test(text) ? parseFloat(text.replace(/,/g, "")) : NaN);

function before(a, b) { // texts after numbers, empty cells last whatever the order
  const [x, y] = [number(a), number(b)];
  if (!isNaN(x) && !isNaN(y)) return x - y;
  if (isNaN(x) !== isNaN(y)) return isNaN(x) ? 1 : -1;
  return a.localeCompare(b, undefined, { numeric: true });
}

function setUp(table, index) {
  const body = table.tBodies[0], rows = [...body.rows], heads = [...table.tHead.rows[0].cells];
  const texts = rows.map((row) => row.textContent.toLowerCase());
  const cell = (row, column) => row.cells[column].textContent.trim();

  const say = made("span", { role: "status", className: "count" });
  const input = made("input", { type: "search", autocomplete: "off" });
  const label = made("label", {}, "Filter rows: ", input);
  const tell = (count) => { say.textContent = `${count} of ${rows.length} rows`; };
  input.addEventListener("input", () => {
    const words = input.value.toLowerCase().split(/\s+/).filter(Boolean);
    let count = 0;
    rows.forEach((row, i) => {
      row.hidden = !words.every((word) => texts[i].includes(word));
      count += !row.hidden;
    });
    tell(count);
  });
  tell(rows.length);

  const boxes = heads.map((head, column) => {
    const box = made("input", { type: "checkbox", checked: true });
    box.addEventListener("change", () => {
      for (const row of [table.tHead.rows[0], ...rows]) row.cells[column].hidden = !box.checked;
    });
    return made("label", {}, box, head.textContent);
  });
  const columns = made("details", {}, made("summary", {}, "Columns"),
    made("fieldset", {}, made("legend", { className: "hidden" }, "Columns to show"), ...boxes));
  const tools = made("div", { className: "tools" }, label, columns, say);
  table.parentElement.before(tools);

  heads.forEach((head, column) => {
    const button = made("button", { type: "button" }, ...head.childNodes);
    head.append(button);
    button.addEventListener("click", () => {
      const order = { ascending: "descending", descending: "none" }[head.getAttribute("aria-sort")] || "ascending";
      heads.forEach((other) => other.removeAttribute("aria-sort"));
      let sorted = rows;
      if (order !== "none") {
        head.setAttribute("aria-sort", order);
        const sign = order === "ascending" ? 1 : -1;
        const full = rows.filter((row) => cell(row, column)), empty = rows.filter((row) => !cell(row, column));
        sorted = [...full.sort((a, b) => sign * before(cell(a, column), cell(b, column))), ...empty];
      }
      body.append(...sorted);
    });
  });
}

function tips(chart, tip) {
  const marks = [...chart.querySelectorAll(".marks a")];
  const hide = () => { tip.hidden = true; };
  const show = (mark) => {
    const box = mark.getBoundingClientRect();
    tip.textContent = mark.getAttribute("aria-label");
    tip.hidden = false;
    const room = document.documentElement.clientWidth - tip.offsetWidth - 8;
    tip.style.left = `${Math.max(8, Math.min(box.right + 6, room)) + scrollX}px`;
    const under = box.bottom + 6, over = box.top - 6 - tip.offsetHeight;
    tip.style.top = `${(over < 0 ? under : over) + scrollY}px`;
  };
  marks.forEach((mark, i) => {
    mark.querySelector("title")?.remove(); // the browser's own tooltip would come second
    mark.setAttribute("tabindex", i ? "-1" : "0"); // one stop for Tab; the arrows go on from there
    mark.addEventListener("pointerenter", () => show(mark));
    mark.addEventListener("pointerleave", hide);
    mark.addEventListener("focus", () => show(mark));
    mark.addEventListener("blur", hide);
    mark.addEventListener("keydown", (event) => {
      const step = { ArrowRight: 1, ArrowDown: 1, ArrowLeft: -1, ArrowUp: -1 }[event.key];
      if (event.key === "Escape") hide();
      if (!step) return;
      event.preventDefault();
      const next = marks[(i + step + marks.length) % marks.length];
      marks.forEach((other) => other.setAttribute("tabindex", other === next ? "0" : "-1"));
      next.focus();
    });
  });
}

document.querySelectorAll("table").forEach(setUp);
const tip = made("div", { className: "tip", hidden: true });
tip.setAttribute("aria-hidden", "true"); // it repeats the mark's label
document.body.append(tip);
document.querySelectorAll(".chart").forEach((chart) => tips(chart, tip));
document.querySelectorAll("pre").forEach((pre) => {
  const button = made("button", { type: "button" }, "Copy");
  button.addEventListener("click", async () => {
    const code = pre.querySelector("code");
    try {
      await navigator.clipboard.writeText(code.textContent);
      button.textContent = "Copied";
    } catch { // no clipboard: select the text instead
      getSelection().selectAllChildren(code);
      button.textContent = "Selected";
    }
  });
  pre.append(button);
});
