// What every head reads at the token that is chosen: a cell for each, with the token that it reads most.

import { css, ink, sequential } from "./colour";
import { el, missing, shown } from "./dom";
import { headName } from "./facts";
import { headTable, WORDY } from "./grid";
import type { Lens } from "./lens";
import { Top } from "./pyramid";
import { percent, shade } from "./scale";
import type { Store } from "./store";

/** Characters of a token that a cell has room for, and weights that are told in words. */
const ROOM = 7;
const TOLD = 3;

export function everyHead(lens: Lens, store: Store): HTMLElement {
  const title = el("h3", {}, "What every head reads at this token");
  const { tokens } = lens.texts[0];
  const tops = lens.heads.map(head => Top.of(head, tokens.length));
  if (tops.every(top => top === null)) {
    return el("div", {}, title, missing("Weights of single tokens are not in this reading: it would be too large with them."));
  }
  const hint =
    "A cell names the token that a head reads most, and is the stronger the more. Arrow keys move, a click or Enter chooses the head.";
  const out = el("p", { class: "readout two", "aria-live": "polite" }, hint);
  const cells = lens.heads.map((_, index) => {
    const say = (): void => void (out.textContent = cells[index].getAttribute("aria-label"));
    return el("td", {
      role: "gridcell",
      tabindex: index === store.get("head") ? 0 : -1,
      onfocus: say,
      onpointerenter: say,
      onclick: () => store.set({ head: index }),
    });
  });
  store.watch(["token", "dark", "log", "hideSinks"], () => {
    const first = store.get("hideSinks") ? lens.run.first_tokens : 0;
    cells.forEach((cell, index) => {
      const read = (tops[index]?.row(store.get("token")) ?? []).filter(([at]) => at >= first);
      const colour = sequential(shade(read[0]?.[1] ?? 0, 1, store.get("log")), store.get("dark"));
      cell.style.cssText = `background:${css(colour)};color:${ink(colour)}`;
      cell.textContent = lens.model.heads <= WORDY && read[0] ? shown(tokens[read[0][0]]).slice(0, ROOM) : "";
      cell.setAttribute("aria-label", words(headName(lens.heads[index]), read, tokens));
    });
    out.textContent = hint;
  });
  store.watch(["head"], () => cells.forEach((cell, index) => cell.setAttribute("aria-selected", String(index === store.get("head")))));
  return el("div", { class: "every" }, title, headTable(lens.model, "What every head reads at the chosen token", cells), out);
}

function words(head: string, read: readonly [number, number][], tokens: readonly string[]): string {
  const told = read.slice(0, TOLD).map(([at, weight]) => `“${shown(tokens[at])}” ${percent(weight)}`);
  return `${head[0].toUpperCase()}${head.slice(1)} reads ${told.length ? told.join(", ") : "nothing that is shown"}`;
}
