// Loss along the first text, and below it one fact of attention along the same positions: all heads, and the one chosen.

import { lineChart, type Series } from "./chart";
import { el, missing, prose, section, select } from "./dom";
import { headName } from "./facts";
import { BY_POSITION, type ByPosition, type Lens, type Maybe } from "./lens";
import { mean, number, percent, quantile, whole } from "./scale";
import type { Store } from "./store";

const NAMES: Record<ByPosition, string> = {
  entropy: "Entropy, nats",
  sink: "Sink mass",
  recent: "Recent mass",
  distance: "Distance, tokens",
  max_weight: "Largest weight",
};

export function positions(lens: Lens, store: Store): HTMLElement {
  const title = "Along the text";
  if (!lens.bins || lens.bins.count === 0) return section("positions", title, missing("Nothing was measured by position."));
  const place = el("div", {});
  let fact: ByPosition = "entropy";
  const draw = (): void => place.replaceChildren(byPosition(lens, fact, store.get("head")));
  const options = BY_POSITION.map(value => ({ value, text: NAMES[value] }));
  const choice = select("Below, show", options, fact, value => ((fact = value as ByPosition), draw()));
  store.watch(["head"], draw);
  const { width } = lens.bins;
  const each = width === 1 ? "Every token is a point." : `Every point is the mean of ${whole(width)} tokens.`;
  return section("positions", title, prose(`From the first token of the text to its last. ${each}`), lossChart(lens), choice, place);
}

function lossChart(lens: Lens): HTMLElement {
  const values = lens.position_loss;
  if (!values || mean(values) === null) return missing("The loss by position was not measured.");
  const series: Series[] = [{ name: "loss", values, look: "main" }];
  if (binWidth(lens) === 1 && values.length > 12) series.push({ name: "its running mean", values: running(values), look: "other" });
  return lineChart({
    title: "Loss, nats a token",
    series,
    band: null,
    height: 150,
    width: binWidth(lens),
    zero: true,
    bin: binName(lens),
    value: number,
  });
}

function byPosition(lens: Lens, fact: ByPosition, head: number): HTMLElement {
  const all = lens.heads.map(({ by_position }) => by_position[fact]).filter(values => values !== null);
  if (all.length === 0) return missing(`${NAMES[fact]}: not measured by position.`);
  const bins = Array.from({ length: Math.max(...all.map(values => values.length)) }, (_, bin) =>
    all.map(values => values[bin] ?? null).filter((value): value is number => value !== null),
  );
  const at = (share: number): Maybe[] => bins.map(values => (values.length ? quantile(values, share) : null));
  const chosen = lens.heads[head];
  const series: Series[] = [{ name: "median of all heads", values: at(0.5), look: "plain" }];
  const own = chosen.by_position[fact];
  if (own) series.push({ name: headName(chosen), values: own, look: "main" });
  const band = all.length > 4 ? { name: "eight heads of ten", low: at(0.1), high: at(0.9) } : null;
  const share = fact === "sink" || fact === "recent" || fact === "max_weight";
  const value = share ? percent : number;
  return lineChart({ title: NAMES[fact], series, band, height: 180, width: binWidth(lens), zero: true, bin: binName(lens), value });
}

/** The mean of the values up to each, so far back as an eighth of all. */
function running(values: readonly Maybe[]): Maybe[] {
  const window = Math.max(8, Math.ceil(values.length / 8));
  return values.map((_, index) => (index + 1 < 8 ? null : mean(values.slice(Math.max(0, index + 1 - window), index + 1))));
}

const binWidth = (lens: Lens): number => lens.bins?.width ?? 1;

/** What a bin covers: its token, or the first and the last of them. */
export function binName(lens: Lens): (bin: number) => string {
  const width = binWidth(lens);
  const { tokens } = lens.texts[0];
  return bin => {
    const last = Math.min(tokens.length, (bin + 1) * width) - 1;
    return width === 1 ? `Token ${whole(bin)} “${tokens[bin] ?? ""}”` : `Tokens ${whole(bin * width)} to ${whole(last)}`;
  };
}
