// A table with a cell for each layer and head, walked with the arrow keys.

import { el } from "./dom";
import type { Model } from "./lens";

/** Names and values are written out up to so many heads a layer. */
export const WORDY = 16;

/**
 * `cells` are layer-major, one of them with a `tabindex` of 0; Enter and space click the one that has the focus. `whole` are cells of all heads
 * of each layer, which end its row.
 */
export function headTable({ layers, heads }: Model, label: string, cells: HTMLElement[], whole: HTMLElement[] = []): HTMLElement {
  const wordy = heads <= WORDY;
  const names = Array.from({ length: heads }, (_, head) => el("th", { scope: "col" }, wordy || head % 4 === 0 ? String(head) : ""));
  if (whole.length) names.push(el("th", { scope: "col", class: "whole" }, "all"));
  const rows = Array.from({ length: layers }, (_, layer) => [
    ...cells.slice(layer * heads, (layer + 1) * heads),
    ...whole.slice(layer, layer + 1),
  ]);
  const table = el(
    "table",
    {
      class: wordy ? "heads" : "heads many",
      style: wordy && whole.length ? `min-width:${3.6 * names.length}rem` : null,
      role: "grid",
      "aria-label": label,
    },
    el("thead", {}, el("tr", {}, el("th", {}, el("span", { class: "unseen" }, "layer")), ...names)),
    el("tbody", {}, ...rows.map((row, layer) => el("tr", { role: "row" }, el("th", { scope: "row" }, String(layer)), ...row))),
  );
  keys(table, rows.flat(), names.length);
  return el("div", { class: "scroll" }, table);
}

/** Arrow keys move the focus from cell to cell; Enter and space choose. */
function keys(table: HTMLElement, cells: HTMLElement[], columns: number): void {
  table.addEventListener("keydown", event => {
    const here = cells.indexOf(event.target as HTMLTableCellElement);
    if (here < 0 || event.ctrlKey || event.metaKey || event.altKey) return;
    if (event.key === "Enter" || event.key === " ") return (event.preventDefault(), cells[here].click());
    const start = here - (here % columns);
    const to = {
      ArrowLeft: Math.max(start, here - 1),
      ArrowRight: Math.min(start + columns - 1, here + 1),
      ArrowUp: here - columns,
      ArrowDown: here + columns,
      Home: start,
      End: start + columns - 1,
    }[event.key];
    if (to === undefined || !cells[to]) return;
    event.preventDefault();
    for (const cell of cells) cell.tabIndex = -1;
    cells[to].tabIndex = 0;
    cells[to].focus();
  });
}
