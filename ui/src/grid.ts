// A table with a cell for each layer and head, walked with the arrow keys.

import { el } from "./dom";
import type { Model } from "./lens";

/** Names and values are written out up to so many heads a layer. */
export const WORDY = 16;

/** `cells` are layer-major, one of them with a `tabindex` of 0; `choose` hears which one Enter or space is pressed at. */
export function headTable({ layers, heads }: Model, label: string, cells: HTMLElement[], choose: (index: number) => void): HTMLElement {
  const wordy = heads <= WORDY;
  const names = Array.from({ length: heads }, (_, head) => el("th", { scope: "col" }, wordy || head % 4 === 0 ? String(head) : ""));
  const rows = Array.from({ length: layers }, (_, layer) =>
    el("tr", { role: "row" }, el("th", { scope: "row" }, String(layer)), ...cells.slice(layer * heads, (layer + 1) * heads)),
  );
  const table = el(
    "table",
    { class: wordy ? "heads" : "heads many", role: "grid", "aria-label": label },
    el("thead", {}, el("tr", {}, el("th", {}, el("span", { class: "unseen" }, "layer")), ...names)),
    el("tbody", {}, ...rows),
  );
  keys(table, cells, heads, choose);
  return el("div", { class: "scroll" }, table);
}

/** Arrow keys move the focus from cell to cell; Enter and space choose. */
function keys(table: HTMLElement, cells: HTMLElement[], heads: number, choose: (index: number) => void): void {
  table.addEventListener("keydown", event => {
    const here = cells.indexOf(event.target as HTMLTableCellElement);
    if (here < 0 || event.ctrlKey || event.metaKey || event.altKey) return;
    if (event.key === "Enter" || event.key === " ") return (event.preventDefault(), choose(here));
    const start = here - (here % heads);
    const to = {
      ArrowLeft: Math.max(start, here - 1),
      ArrowRight: Math.min(start + heads - 1, here + 1),
      ArrowUp: here - heads,
      ArrowDown: here + heads,
      Home: start,
      End: start + heads - 1,
    }[event.key];
    if (to === undefined || !cells[to]) return;
    event.preventDefault();
    for (const cell of cells) cell.tabIndex = -1;
    cells[to].tabIndex = 0;
    cells[to].focus();
  });
}
