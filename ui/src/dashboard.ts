// The dashboard: one cell for each layer and head, coloured by a measure of the reader's choice.

import { css, ink } from "./colour";
import { el, missing, prose, section, select } from "./dom";
import { headTable, WORDY } from "./grid";
import type { Lens } from "./lens";
import { brief, measures, shades, worded, type Measure, type Shades } from "./measures";
import { number } from "./scale";
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
    const colours = shades(measure, lens.heads);
    says.textContent = measure.says;
    out.textContent = colours ? "Point at a cell, or move with the arrow keys; click or Enter shows the head." : "";
    if (!colours) return place.replaceChildren(missing(`${measure.name}: not measured in this run.`));
    const made = grid(lens, store, measure, colours, out);
    place.replaceChildren(made.table, ...legend(measure, colours, store.get("dark")));
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

function grid(lens: Lens, store: Store, measure: Measure, colours: Shades, out: HTMLElement): { table: HTMLElement; cells: HTMLElement[] } {
  const { heads } = lens.model;
  const dark = store.get("dark");
  const cells = lens.heads.map((head, index) => {
    const value = measure.of(head);
    const colour = value === null ? null : colours.colour(value, dark);
    const words = `Layer ${head.layer}, head ${head.head}: ${measure.name.toLowerCase()} ${worded(measure, value)}`;
    return el(
      "td",
      {
        role: "gridcell",
        tabindex: index === store.get("head") ? 0 : -1,
        "aria-label": words,
        class: colour ? null : "none",
        style: colour && `background:${css(colour)};color:${ink(colour)}`,
        onfocus: () => (out.textContent = words),
        onpointerenter: () => (out.textContent = words),
        onclick: () => open(store, index),
      },
      heads <= WORDY ? brief(measure, value) : "",
    );
  });
  const table = headTable(lens.model, `${measure.name} by layer and head`, cells, index => open(store, index));
  return { table, cells };
}

/** Shows a head in detail, and takes the reader there. */
export function open(store: Store, head: number): void {
  store.set({ head });
  document.getElementById(`${store.place}head-title`)?.scrollIntoView({ block: "start" });
}

function legend(measure: Measure, { low, high, colour }: Shades, dark: boolean): HTMLElement[] {
  if (measure.range === "kinds") return [];
  const stops = Array.from({ length: 17 }, (_, i) => css(colour(low + ((high - low) * i) / 16, dark)));
  const sign = measure.range === "signed" ? "+" : "";
  const ramp = el("span", { class: "ramp", style: `background:linear-gradient(to right,${stops.join(",")})` });
  const [from, to] = [number(low), `${sign}${number(high)} ${measure.unit}`];
  return [
    el(
      "div",
      { class: "legend", "aria-hidden": "true" },
      el("span", {}, from),
      ramp,
      el("span", {}, to),
      el("span", { class: "none-key" }, "not measured"),
    ),
  ];
}
