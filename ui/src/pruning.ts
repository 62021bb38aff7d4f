// Pruning: the loss without more and more heads, those that matter least first.

import { lineChart } from "./chart";
import { el, prose, section, table } from "./dom";
import type { Lens } from "./lens";
import { number, whole } from "./scale";

/** Null where it was not asked for. */
export function pruning({ pruning: points, model }: Lens): HTMLElement | null {
  if (points.length === 0) return null;
  const count = whole(model.layers * model.heads);
  const chart = lineChart({
    title: `Loss, nats a token, against heads taken away, of ${count}`,
    series: [{ name: "loss", values: points.map(({ loss }) => loss), look: "main" }],
    band: null,
    height: 170,
    width: 1,
    at: points.map(({ heads }) => heads),
    by: "by heads taken away",
    zero: true,
    bin: index => without(points[index].heads),
    value: number,
  });
  const rows = points.map(({ heads, loss }) => [whole(heads), number(loss)]);
  return section(
    "pruning",
    "Pruning",
    prose("Heads are taken away together, more and more, in the order of what the loss changes when each alone gives zeros, least first."),
    chart,
    el(
      "details",
      {},
      el("summary", {}, "The numbers"),
      table({ "aria-label": "Loss by heads taken away" }, ["Heads taken away", "Loss, nats a token"], rows),
    ),
  );
}

function without(heads: number): string {
  if (heads === 0) return "With all heads";
  return heads === 1 ? "Without 1 head" : `Without ${whole(heads)} heads`;
}
