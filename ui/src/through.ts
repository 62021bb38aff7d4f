// Through all layers: how much of the text's last row comes from each token, by rollout and by flow.

import { lineChart } from "./chart";
import { el, prose, section, select, shown, table } from "./dom";
import { cap } from "./facts";
import type { Lens, Maybe, Through } from "./lens";
import { number, whole } from "./scale";

/** Tokens that are named. */
const NAMED = 10;

const WAYS = { rollout: "Rollout", flow: "Flow" } as const;
type Way = keyof typeof WAYS;

/** Null where it was not asked for. */
export function through(lens: Lens): HTMLElement | null {
  const [found, { tokens }] = [lens.through, lens.texts[0]];
  if (!found) return null;
  const place = el("div", {});
  const fill = (way: Way): void => place.replaceChildren(largest(found, way, tokens));
  const options = Object.entries(WAYS).map(([value, text]) => ({ value, text: text.toLowerCase() }));
  const choice = select("Largest by", options, "rollout", value => fill(value as Way));
  fill("rollout");
  return section(
    "through",
    "Through all layers",
    prose(
      `How much comes to ${name(tokens, found.row)} from each token of the text. `,
      "Rollout multiplies the weights along all ways through the layers, and its shares sum to 1. ",
      "Flow is the most that can come from a token where no step carries more than its weight: from 0 to 1 for each.",
    ),
    prose(
      el("strong", {}, "An approximation:"),
      " it knows nothing of values, projections and feed-forward layers (Abnar & Zuidema 2020).",
    ),
    along("Attention rollout, share", "rollout", found, tokens),
    along("Attention flow", "flow", found, tokens),
    choice,
    place,
  );
}

const name = (tokens: readonly string[], at: number): string => `token ${whole(at)} “${shown(tokens[at])}”`;

/** Both numbers are told at each token, under either chart. */
function along(title: string, way: Way, found: Through, tokens: readonly string[]): HTMLElement {
  const other = way === "rollout" ? "flow" : "rollout";
  return lineChart({
    title,
    series: [{ name: way, values: found[way], look: way === "rollout" ? "main" : "other" }],
    band: null,
    height: 130,
    width: 1,
    zero: true,
    bin: at => cap(name(tokens, at)),
    value: number,
    more: at => `, ${other} ${number(found[other][at])}`,
  });
}

function largest(found: Through, way: Way, tokens: readonly string[]): HTMLElement {
  const size = (at: number): number => found[way][at] ?? -Infinity;
  const order = tokens.map((_, at) => at).sort((a, b) => size(b) - size(a) || a - b);
  const rows = order.slice(0, NAMED).map(at => [shown(tokens[at]), whole(at), ...both(found, at).map(number)]);
  return table({ "aria-label": `The tokens of most ${way}` }, ["Token", "Position", ...Object.values(WAYS)], rows);
}

const both = (found: Through, at: number): Maybe[] => (Object.keys(WAYS) as Way[]).map(way => found[way][at]);
