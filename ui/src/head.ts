// One head in detail: its measures, its heat map, how far and what it reads, and the text token by token.

import { barChart, lineChart, type Bar } from "./chart";
import { describe } from "./cell";
import { sequential } from "./colour";
import { el, missing, section, select, toggle } from "./dom";
import { zoom } from "./gestures";
import { HeatMap } from "./heatmap";
import type { Head, Lens } from "./lens";
import { measures, worded } from "./measures";
import { ramp } from "./paint";
import { binName } from "./positions";
import { Pyramid } from "./pyramid";
import { LEAST, mean, number, percent, whole } from "./scale";
import type { Store } from "./store";
import { tokenView } from "./tokens";
import { zooms } from "./zooms";

/** The maps of the head that is chosen, decoded once. */
export function chosenPyramid(lens: Lens, store: Store): () => Pyramid | null {
  let [of, pyramid]: [number, Pyramid | null] = [-1, null];
  return () => {
    if (of !== store.get("head"))
      [of, pyramid] = [store.get("head"), Pyramid.of(lens.heads[store.get("head")], lens.texts[0].tokens.length)];
    return pyramid;
  };
}

/** With the text token by token below, where that is not shown elsewhere. */
export function head(lens: Lens, store: Store, withTokens = true): HTMLElement {
  const pyramid = chosenPyramid(lens, store);
  const chosen = (): Head => lens.heads[store.get("head")];
  const table = el("dl", { class: "numbers small" });
  const charts = el("div", { class: "charts" });
  const map = mapView(lens, store, pyramid);
  store.watch(["head"], () => {
    table.replaceChildren(...numbers(lens, chosen()));
    charts.replaceChildren(distances(lens, chosen()), received(lens, chosen()));
    map.show();
  });
  store.watch(["log", "hideSinks", "dark"], map.show);
  return section(
    `${store.place}head`,
    "One head",
    picker(lens, store),
    table,
    el("div", { class: "detail" }, map.element, charts),
    withTokens ? tokenView(lens, store, pyramid) : null,
  );
}

/** Choices of layer and head, and a step back and forth. */
export function picker(lens: Lens, store: Store): HTMLElement {
  const { layers, heads } = lens.model;
  const options = (count: number): { value: string; text: string }[] =>
    Array.from({ length: count }, (_, i) => ({ value: String(i), text: String(i) }));
  const layer = select("Layer", options(layers), "0", value => store.set({ head: Number(value) * heads + (store.get("head") % heads) }));
  const one = select("Head", options(heads), "0", value =>
    store.set({ head: Math.floor(store.get("head") / heads) * heads + Number(value) }),
  );
  const step = (by: number): void => store.set({ head: (store.get("head") + by + lens.heads.length) % lens.heads.length });
  store.watch(["head"], () => {
    layer.querySelector("select")!.value = String(Math.floor(store.get("head") / heads));
    one.querySelector("select")!.value = String(store.get("head") % heads);
  });
  return el(
    "div",
    { class: "controls" },
    layer,
    one,
    el("button", { type: "button", onclick: () => step(-1), "aria-label": "Previous head" }, "←"),
    el("button", { type: "button", onclick: () => step(1), "aria-label": "Next head" }, "→"),
  );
}

/** How weights are coloured, and whether those of the first tokens are. */
export function looks(lens: Lens, store: Store): HTMLElement[] {
  const one = (key: "log" | "hideSinks", text: string): HTMLElement => {
    const label = toggle(text, store.get(key), on => store.set({ [key]: on }));
    store.watch([key], () => (label.querySelector("input")!.checked = store.get(key)));
    return label;
  };
  return [one("log", "log scale"), one("hideSinks", `hide the first ${lens.run.first_tokens} tokens (sinks)`)];
}

function numbers(lens: Lens, chosen: Head): HTMLElement[] {
  return measures(lens)
    .filter(({ of }) => lens.heads.some(head => of(head) !== null))
    .map(measure => {
      const whole = measure.whole?.(chosen.layer) ?? null;
      const layer = whole === null ? "" : `; all of layer ${chosen.layer}: ${worded(measure, whole)}`;
      return el("div", { title: measure.says }, el("dt", {}, measure.name), el("dd", {}, worded(measure, measure.of(chosen)), layer));
    });
}

function mapView(lens: Lens, store: Store, all: () => Pyramid | null): { element: HTMLElement; show(): void } {
  const { tokens } = lens.texts[0];
  const out = el("p", { class: "readout two", "aria-live": "polite" });
  const legend = el("div", { class: "legend" });
  const none = missing("This report holds no heat map of this head.");
  const map: HeatMap = new HeatMap(
    tokens,
    cell => say(cell),
    ({ row }) => store.set({ token: row }),
    () => scale(),
  );
  const hint =
    "Rows read, columns are read. Drag to move; Ctrl and wheel, pinch, + and − zoom, 0 shows all; arrow keys read single cells; " +
    "a click or Enter shows what the row's token reads.";
  const say = (cell: Parameters<HeatMap["say"]>[0]): void => {
    const [levels, level] = [parts.pyramid(), map.level];
    out.textContent = cell && levels && level ? describe(levels, level, cell, tokens) : hint;
  };
  const scale = (): void => {
    const [dark, log, block] = [store.get("dark"), store.get("log"), map.level?.block ?? 1];
    const size =
      block === 1
        ? "a token"
        : `${whole(block)} × ${whole(block)} tokens${map.singles ? "; over them, the largest weights of single tokens" : ""}`;
    const text = `${log ? LEAST.toFixed(5) : "0"} | ${number(map.full)} of a row's mass; a cell is ${size}`;
    if (legend.dataset.text === text + dark) return;
    legend.dataset.text = text + dark;
    const [from, to] = text.split(" | ");
    legend.replaceChildren(
      el("span", {}, from),
      ramp(t => sequential(t, dark)),
      el("span", {}, to),
    );
  };
  const button = (label: string, text: string, act: () => void): HTMLElement =>
    el("button", { type: "button", "aria-label": label, onclick: act }, text);
  const parts = zooms(lens, store, all, () => show());
  const controls = el(
    "div",
    { class: "controls" },
    parts.element,
    ...looks(lens, store),
    el(
      "span",
      { class: "buttons" },
      button("Zoom in", "+", () => zoom(map, 1.6)),
      button("Zoom out", "−", () => zoom(map, 1 / 1.6)),
      button("Show all", "all", () => (map.view.fit(), map.draw())),
    ),
  );
  const show = (): void => {
    const levels = parts.pyramid();
    none.hidden = levels !== null;
    for (const part of [map.element, controls, legend, out]) part.hidden = levels === null;
    if (!levels) return;
    const { layer, head } = lens.heads[store.get("head")];
    map.canvas.setAttribute(
      "aria-label",
      `Heat map of layer ${layer}, head ${head}${parts.name() && `: ${parts.name()}`}. Arrow keys read cells, plus and minus zoom, 0 shows all, Enter chooses a token.`,
    );
    map.show(levels, { log: store.get("log"), dark: store.get("dark"), hidden: store.get("hideSinks") ? lens.run.first_tokens : 0 });
    say(map.cursor);
  };
  return { element: el("div", { class: "map-view" }, none, controls, map.element, legend, out), show };
}

/** Mass by distance: 0, 1, 2–3, 4–7, and on by doubling. */
function distances(lens: Lens, chosen: Head): HTMLElement {
  if (!chosen.distances) return missing("How far it reads was not measured.");
  const bars = chosen.distances.map((value, index): Bar => {
    const [from, to] = index < 2 ? [index, index] : [2 ** (index - 1), 2 ** index - 1];
    const all = mean(lens.heads.map(head => head.distances?.[index] ?? null));
    const where = from === 0 ? "on the token itself" : from === to ? "on the token before" : `${whole(from)} to ${whole(to)} tokens back`;
    return {
      label: from === to ? String(from) : `${whole(from)}–`,
      value,
      other: all,
      says: `${percent(value)} ${where}; all heads: ${percent(all)}`,
    };
  });
  return barChart("How far back it reads: share of the mass by distance in tokens. Ticks are the mean of all heads.", bars, 170);
}

function received(lens: Lens, chosen: Head): HTMLElement {
  if (!chosen.received || !lens.bins) return missing("How much each token is read was not measured.");
  return lineChart({
    title: "How much each token is read: the mass that it receives from all rows together",
    series: [{ name: "received", values: chosen.received, look: "main" }],
    band: null,
    height: 170,
    width: lens.bins.width,
    zero: true,
    bin: binName(lens),
    value: number,
  });
}
