// What a head can be coloured by: each measure with its name, its meaning in one sentence, and its range.

import { diverging, kind, sequential, type Rgb } from "./colour";
import type { Head, Lens, Maybe } from "./lens";
import { number, percent } from "./scale";

export interface Measure {
  key: string;
  name: string;
  group: "Means over all rows" | "Head scores" | "Ablation" | "Alike";
  says: string;
  of(head: Head): Maybe;
  /** How the range of colours is found: fixed from 0 to 1, from 0 or the least to the most, around 0, or kinds without order. */
  range: "share" | "zero" | "spread" | "signed" | "kinds";
  unit: string;
}

/** All measures; what they say depends on what counts as first and recent in this run. */
export function measures(lens: Lens): Measure[] {
  const { first_tokens: first, recent_tokens: recent } = lens.run;
  const means = "Means over all rows" as const;
  const scores = "Head scores" as const;
  return [
    {
      key: "entropy",
      name: "Entropy",
      group: means,
      of: h => h.means.entropy,
      range: "zero",
      unit: "nats",
      says: "How widely a row spreads its attention: 0 when it reads one token, ln n when it reads n tokens alike.",
    },
    {
      key: "max_weight",
      name: "Largest weight",
      group: means,
      of: h => h.means.max_weight,
      range: "share",
      unit: "",
      says: "The largest single weight of a row.",
    },
    {
      key: "sink",
      name: "Sink mass",
      group: means,
      of: h => h.means.sink,
      range: "share",
      unit: "",
      says: `The share that goes to the first ${first} tokens, whatever they say.`,
    },
    {
      key: "self",
      name: "Self mass",
      group: means,
      of: h => h.means.self,
      range: "share",
      unit: "",
      says: "The share that a token gives to itself.",
    },
    {
      key: "recent",
      name: "Recent mass",
      group: means,
      of: h => h.means.recent,
      range: "share",
      unit: "",
      says: `The share that goes to the last ${recent ?? "few"} tokens.`,
    },
    {
      key: "distance",
      name: "Distance",
      group: means,
      of: h => h.means.distance,
      range: "zero",
      unit: "tokens",
      says: "How far away what is read lies, on average.",
    },
    {
      key: "max_logit",
      name: "Largest logit",
      group: means,
      of: h => h.means.max_logit,
      range: "spread",
      unit: "",
      says: "The largest score of a row before the softmax. Very large ones leave little to learn from.",
    },
    {
      key: "lse",
      name: "Log-sum-exp",
      group: means,
      of: h => h.means.lse,
      range: "spread",
      unit: "",
      says: "The logarithm of the softmax's denominator.",
    },
    {
      key: "previous",
      name: "Previous token",
      group: scores,
      of: h => h.scores.previous,
      range: "share",
      unit: "",
      says: "The weight on the token just before.",
    },
    {
      key: "first",
      name: "First token",
      group: scores,
      of: h => h.scores.first,
      range: "share",
      unit: "",
      says: "The weight on the very first token. Much of it mostly means that a head found nothing to read.",
    },
    {
      key: "local",
      name: "Local",
      group: scores,
      of: h => h.scores.local,
      range: "share",
      unit: "",
      says: `The share that goes to the last ${recent ?? "few"} tokens, over rows that see more than those.`,
    },
    {
      key: "duplicate",
      name: "Duplicate token",
      group: scores,
      of: h => h.scores.duplicate,
      range: "share",
      unit: "",
      says: "In random tokens said twice: the weight on the same token the first time.",
    },
    {
      key: "induction",
      name: "Induction",
      group: scores,
      of: h => h.scores.induction,
      range: "share",
      unit: "",
      says: "In random tokens said twice: the weight on the token that came after this one the first time.",
    },
    {
      key: "retrieval",
      name: "Retrieval",
      group: scores,
      of: h => h.scores.retrieval,
      range: "share",
      unit: "",
      says: "When a needle hidden in random tokens is repeated: the share of steps in which the largest weight is on its next token.",
    },
    {
      key: "zero",
      name: "Loss without it (zero)",
      group: "Ablation",
      of: h => h.ablation.zero,
      range: "signed",
      unit: "nats",
      says:
        "How much the loss of a token grows, on average, when the head's output is set to zero. " +
        "Below 0 the text is predicted better without it.",
    },
    {
      key: "mean",
      name: "Loss without it (mean)",
      group: "Ablation",
      of: h => h.ablation.mean,
      range: "signed",
      unit: "nats",
      says: "How much the loss of a token grows, on average, when the head's output is replaced by its mean.",
    },
    {
      key: "cluster",
      name: "Cluster",
      group: "Alike",
      of: h => h.cluster,
      range: "kinds",
      unit: "",
      says: "Heads with the same number attend alike. The numbers have no order.",
    },
  ];
}

/** Value and unit, in words. */
export function worded(measure: Measure, value: Maybe): string {
  if (value === null) return "not measured";
  if (measure.range === "share") return percent(value);
  if (measure.range === "kinds") return String(value);
  const sign = measure.range === "signed" && value > 0 ? "+" : "";
  return `${sign}${number(value)}${measure.unit ? " " + measure.unit : ""}`;
}

/** Value alone, as short as fits a cell. */
export function brief(measure: Measure, value: Maybe): string {
  if (value === null) return "–";
  if (measure.range === "kinds") return String(value);
  if (measure.range === "share") return value >= 0.995 ? "1.0" : value.toFixed(2).slice(1);
  return number(value).replace(/^(−?)0\./, "$1.");
}

export interface Shades {
  low: number;
  high: number;
  colour(value: number, dark: boolean): Rgb;
}

/** The range of a measure over all heads, and its colours; null when no head has the measure. */
export function shades(measure: Measure, heads: readonly Head[]): Shades | null {
  const values = heads.map(measure.of).filter((value): value is number => value !== null);
  if (values.length === 0) return null;
  let [low, high] = [values.reduce((a, b) => Math.min(a, b)), values.reduce((a, b) => Math.max(a, b))];
  if (measure.range === "kinds") return { low, high, colour: (value, dark) => kind(value, dark) };
  if (measure.range === "signed") {
    high = Math.max(Math.abs(low), Math.abs(high)) || 1;
    return { low: -high, high, colour: (value, dark) => diverging(value / high, dark) };
  }
  if (measure.range === "share") [low, high] = [0, 1];
  if (measure.range === "zero") low = Math.min(0, low);
  const span = high - low || 1;
  return { low, high, colour: (value, dark) => sequential((value - low) / span, dark) };
}
