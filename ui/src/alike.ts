// How alike any two heads attend: a map in order of clusters, and what is most like the head that is chosen.

import { bytes } from "./base64";
import { toHead } from "./dashboard";
import { el, missing, prose, section } from "./dom";
import { cap, headName } from "./facts";
import type { Cell } from "./cell";
import { HeatMap } from "./heatmap";
import { sequential } from "./colour";
import type { Lens } from "./lens";
import { ramp } from "./paint";
import { Level, Pyramid } from "./pyramid";
import type { Store } from "./store";

/** Heads that are named as most like the chosen one. */
const NEAR = 8;

export function alike(lens: Lens, store: Store): HTMLElement {
  const [id, title] = ["alike", "Heads alike"];
  if (!lens.similarities) return section(id, title, missing("How alike any two heads attend is not in this report."));
  const { heads } = lens;
  const count = heads.length;
  const pairs = bytes(lens.similarities);
  const cluster = (index: number): number => heads[index].cluster ?? Infinity;
  const order = heads.map((_, index) => index).sort((a, b) => (cluster(a) < cluster(b) ? -1 : Number(cluster(a) > cluster(b)) || a - b));
  const names = order.map(index => `${heads[index].layer}·${heads[index].head}`);
  const data = Uint8Array.from(pairs, (_, at) => pairs[order[Math.floor(at / count)] * count + order[at % count]]);
  const pyramid = new Pyramid([new Level({ block: 1, rows: count, columns: count, data }, byte => byte / 255)], null, count);
  const hint =
    "Frames hold heads of one cluster. Drag to move; + and − zoom, 0 shows all; arrow keys read single pairs; " +
    "a click or Enter chooses the row's head.";
  const out = el("p", { class: "readout two", "aria-live": "polite" });
  const say = (cell: Cell | null): void => {
    if (!cell) return void (out.textContent = hint);
    const [a, b] = [order[cell.row], order[cell.column]];
    const both =
      a !== b && heads[a].cluster !== null && heads[a].cluster === heads[b].cluster ? `; both are of cluster ${heads[a].cluster}` : "";
    out.textContent = `${cap(headName(heads[a]))} and ${headName(heads[b])}: similarity ${told(pairs[a * count + b])}${both}`;
  };
  const choose = ({ row }: Cell): void => store.set({ head: order[row] });
  const map = new HeatMap(names, say, choose, () => {}, false);
  map.frames = frames(order.map(cluster));
  map.canvas.setAttribute(
    "aria-label",
    "How alike any two heads attend, in order of clusters. Arrow keys read pairs, plus and minus zoom, 0 shows all, Enter chooses a head.",
  );
  say(null);
  const legend = el("div", { class: "legend" });
  store.watch(["dark"], () => {
    const dark = store.get("dark");
    map.show(pyramid, { log: false, dark, hidden: 0 });
    legend.replaceChildren(
      "0, no key in common",
      ramp(t => sequential(t, dark)),
      "1, alike in every row",
    );
  });
  const near = el("p", { class: "to-heads near" });
  store.watch(["head"], () => {
    const chosen = store.get("head");
    const row = pairs.subarray(chosen * count, (chosen + 1) * count);
    const others = order.filter(index => index !== chosen).sort((a, b) => row[b] - row[a]);
    near.replaceChildren(
      `Most like ${headName(heads[chosen])}: `,
      ...others.slice(0, NEAR).map(index => el("span", {}, toHead(lens, store, index), told(row[index]))),
    );
  });
  return section(
    id,
    title,
    prose(
      "Every head with every other: 1 where the rows of both spread their weights alike, 0 where they share no key. ",
      "Heads that look at the same tokens may read different things there.",
    ),
    map.element,
    legend,
    out,
    near,
  );
}

const told = (byte: number): string => (byte / 255).toFixed(2);

/** Where clusters of two heads or more begin, and the first place after each. */
function frames(clusters: readonly number[]): [number, number][] {
  const starts = clusters.map((_, at) => at).filter(at => clusters[at] !== clusters[at - 1] && clusters[at] !== Infinity);
  return starts.map((from): [number, number] => [from, clusters.lastIndexOf(clusters[from]) + 1]).filter(([from, to]) => to - from > 1);
}
