// A switch for each head: which take part when the text is read again.

import { el } from "./dom";
import { headName } from "./facts";
import { headTable, WORDY } from "./grid";
import type { Lens } from "./lens";

/** Switches for the heads of a model; `change` hears which are left out, layer-major. */
export function switches(lens: Lens, change: (without: number[]) => void): HTMLElement {
  const out = new Set<number>();
  const all = el("button", { type: "button", disabled: true, onclick: () => (out.clear(), tell()) }, "Put all back");
  const turn = (index: number): void => {
    if (!out.delete(index)) out.add(index);
    tell();
  };
  const cells = lens.heads.map((head, index) =>
    el(
      "td",
      { role: "gridcell", tabindex: index === 0 ? 0 : -1, onclick: () => turn(index) },
      el("span", { class: "mark", "aria-hidden": "true" }),
      el("span", { class: lens.model.heads <= WORDY ? null : "unseen" }, `${head.layer}·${head.head}`),
    ),
  );
  const show = (): void => {
    cells.forEach((cell, index) => {
      cell.classList.toggle("out", out.has(index));
      cell.setAttribute("aria-label", `${headName(lens.heads[index])}, ${out.has(index) ? "left out" : "takes part"}`);
      cell.setAttribute("aria-selected", String(out.has(index)));
    });
    all.disabled = out.size === 0;
  };
  const tell = (): void => {
    show();
    change([...out].sort((a, b) => a - b));
  };
  show();
  return el(
    "details",
    { class: "switches" },
    el("summary", {}, "Leave heads out"),
    el(
      "p",
      { class: "note" },
      "A click, Enter or space leaves a head out or puts it back. The text is read again with zeros in its place, and the loss tells ",
      "how much the model relied on it. Other heads may stand in for a missing one.",
    ),
    headTable(lens.model, "Heads that take part", cells),
    el("div", { class: "controls" }, all),
  );
}
