// The dashboard: one cell for each layer and head, coloured by a measure of the reader's choice.

import { css, ink } from "./colour";
import { el, missing, prose, section, select } from "./dom";
import { headName } from "./facts";
import { headTable, WORDY } from "./grid";
import type { Lens, Maybe } from "./lens";
import { brief, measures, shades, within, worded, type Measure, type Shades } from "./measures";
import { ramp } from "./paint";
import { number, power } from "./scale";
import type { Store } from "./store";

export function dashboard(lens: Lens, store: Store): HTMLElement {
  const all = measures(lens);
  const options = all.map(({ key, name, group }) => ({ value: key, text: name, group }));
  const says = el("p", { class: "prose says" });
  const place = el("div", { class: "grid-place" });
  const out = el("p", { class: "readout", "aria-live": "polite" });
  let cells: HTMLElement[] = [];
  const mark = (): void => cells.forEach((cell, index) => cell.setAttribute("aria-selected", String(index === store.get("head"))));
  store.watch(["measure", "dark"], () => {
    const measure = all.find(({ key }) => key === store.get("measure")) ?? all[0];
    const colours = shades(measure, lens.heads.map(measure.of));
    says.textContent = measure.says;
    out.textContent = colours ? "Point at a cell, or move with the arrow keys; click or Enter shows the head." : "";
    if (!colours) return place.replaceChildren(missing(`${measure.name}: ${measure.none ?? "not measured in this run"}.`));
    const made = grid(lens, store, measure, colours, out);
    place.replaceChildren(...made.parts);
    cells = made.cells;
    mark();
  });
  store.watch(["head"], mark);
  return section(
    `${store.place}dashboard`,
    "Heads at a glance",
    prose("Each row is a layer, from the input down to the output; each column a head."),
    select("Colour by", options, store.get("measure"), key => store.set({ measure: key })),
    says,
    place,
    out,
  );
}

/** The table and its legends; and the cells of single heads. */
function grid(
  lens: Lens,
  store: Store,
  measure: Measure,
  colours: Shades,
  out: HTMLElement,
): { parts: HTMLElement[]; cells: HTMLElement[] } {
  const { layers, heads } = lens.model;
  const dark = store.get("dark");
  const cell = (of: string, value: Maybe, { colour }: Shades, kind: string, more: object): HTMLElement => {
    const paint = value === null ? null : colour(value, dark);
    const words = `${of}: ${within(measure)} ${worded(measure, value)}`;
    return el(
      "td",
      {
        role: "gridcell",
        "aria-label": words,
        class: paint ? kind : `none ${kind}`,
        style: paint && `background:${css(paint)};color:${ink(paint)}`,
        onfocus: () => (out.textContent = words),
        onpointerenter: () => (out.textContent = words),
        ...more,
      },
      heads <= WORDY ? brief(measure, value) : "",
    );
  };
  const cells = lens.heads.map((head, index) =>
    cell(`Layer ${head.layer}, head ${head.head}`, measure.of(head), colours, "head", {
      tabindex: index === store.get("head") ? 0 : -1,
      onclick: () => open(store, index),
    }),
  );
  const all = Array.from({ length: layers }, (_, layer) => measure.whole?.(layer) ?? null);
  // A layer changes more than a head does: its colours have a range of their own.
  const wholes = shades(measure, all);
  const last = wholes ? all.map((value, layer) => cell(`Layer ${layer}, all heads`, value, wholes, "whole", { tabindex: -1 })) : [];
  const table = headTable(lens.model, `${measure.name} by layer and head`, cells, last);
  const more = wholes ? legend(measure, wholes, dark, el("span", {}, "all heads of a layer")) : [];
  return { parts: [table, ...legend(measure, colours, dark), ...more], cells };
}

/** A button with a head's name, which opens it. */
export function toHead(lens: Lens, store: Store, index: number): HTMLElement {
  const head = lens.heads[index];
  const label = `Show ${headName(head)}`;
  return el(
    "button",
    { type: "button", class: "to-head", onclick: () => open(store, index), "aria-label": label },
    `${head.layer}·${head.head}`,
  );
}

/** Shows a head in detail, and takes the reader there. */
export function open(store: Store, head: number): void {
  store.set({ head });
  document.getElementById(`${store.place}head-title`)?.scrollIntoView({ block: "start" });
}

const none = (measure: Measure): HTMLElement => el("span", { class: "none-key" }, measure.none ?? "not measured");

function legend(measure: Measure, { low, high, colour }: Shades, dark: boolean, last = none(measure)): HTMLElement[] {
  if (measure.range === "kinds") return [];
  const sign = measure.range === "signed" ? "+" : "";
  const most = measure.range === "tiny" ? power(high, 1) : number(high);
  const [from, to] = [number(low), `${sign}${most} ${measure.unit}`];
  return [
    el(
      "div",
      { class: "legend", "aria-hidden": "true" },
      el("span", {}, from),
      ramp(t => colour(low + (high - low) * t, dark)),
      el("span", {}, to),
      last,
    ),
  ];
}
