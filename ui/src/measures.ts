// What a head can be coloured by: each measure with its name, its meaning in one sentence, and its range.

import { diverging, kind, sequential, type Rgb } from "./colour";
import { ABLATIONS, TYPES, type Ablation, type Head, type Lens, type Maybe, type Run } from "./lens";
import { minus, number, percent, power, whole } from "./scale";

/** Characters of a range that are shown. */
const MOST = 40;

export interface Measure {
  key: string;
  name: string;
  group: "Means over all rows" | "Numerics" | "Head scores" | "Ablation" | "Named ranges" | "Alike";
  says: string;
  of(head: Head): Maybe;
  /** The same of all heads of a layer at once, where that is measured too. */
  whole?(layer: number): Maybe;
  /**
   * How the range of colours is found: a share from 0 to 1 or to the most, from 0 or the least to the most, around 0, or kinds without order.
   * What is tiny goes from 0 to the most, and is told with a power of ten.
   */
  range: "share" | "part" | "zero" | "tiny" | "spread" | "signed" | "kinds";
  unit: string;
  /** What it means that there is no number, if not that it was not measured. */
  none?: string;
}

/** What is done to a head, in words. */
const INSTEAD: Record<Ablation, string> = {
  zero: "the head's output is set to zero. Below 0 the text is predicted better without it.",
  mean: "the head's output is replaced by its mean.",
  resample: "the head gives in each position what it gives in another one, drawn at random.",
};

/** Which tokens a range holds, and what they say. */
export function rangeWords(lens: Lens, { start, end }: Run["ranges"][number]): string {
  const text = lens.texts[0].tokens.slice(start, end).join("").trim();
  const tokens = end - start === 1 ? `token ${whole(start)}` : `tokens ${whole(start)} to ${whole(end - 1)}`;
  return `${tokens}, “${text.length > MOST ? text.slice(0, MOST - 1) + "…" : text}”`;
}

/** The name within a sentence: what a reader named keeps its capitals. */
export const within = ({ name }: Measure): string => name[0].toLowerCase() + name.slice(1);

/** All measures; what they say depends on what counts as first and recent in this run. */
export function measures(lens: Lens): Measure[] {
  const { first_tokens: first, recent_tokens: recent } = lens.run;
  const means = "Means over all rows" as const;
  const numerics = "Numerics" as const;
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
      key: "special",
      name: "Special-token mass",
      group: means,
      of: h => h.means.special,
      range: "share",
      unit: "",
      says: "The share that goes to marks of the text's beginning, end or parts, wherever they stand.",
      none: "no special token, or not measured",
    },
    {
      key: "one_hot",
      name: "Rows on one token",
      group: numerics,
      of: h => h.numerics.one_hot,
      range: "share",
      unit: "",
      says: "The share of rows that put 99 % of their weight on one token. Where it and the peak logit are high, the softmax saturates.",
    },
    {
      key: "uniform",
      name: "Rows that read alike",
      group: numerics,
      of: h => h.numerics.uniform,
      range: "share",
      unit: "",
      says: "The share of rows that read all they read alike: no weight stands out.",
    },
    {
      key: "peak_logit",
      name: "Peak logit",
      group: numerics,
      of: h => h.numerics.peak_logit,
      range: "spread",
      unit: "",
      says: "The largest score of all rows of all texts.",
    },
    ...TYPES.map((type): Measure => ({
      key: `error_${type}`,
      name: `Error in ${type}`,
      group: numerics,
      of: h => h.numerics.error[type],
      range: "tiny",
      unit: "",
      says:
        `How far the output lies from that in f64 when queries, keys and values are rounded to ${type} and attention is computed in it: ` +
        "the root mean square of the error over that of the output. Of attention alone, not of the whole model.",
      none: `not measured, or beyond the range of ${type}`,
    })),
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
    ...ABLATIONS.map((by): Measure => ({
      key: by,
      name: `Loss without it (${by})`,
      group: "Ablation",
      of: h => h.ablation[by],
      whole: layer => lens.layers.find(each => each.layer === layer)?.ablation[by] ?? null,
      range: "signed",
      unit: "nats",
      says: `How much the loss of a token grows, on average, when ${INSTEAD[by]}`,
    })),
    ...lens.run.ranges.flatMap((range, at): Measure[] => {
      const where = `“${range.name}” (${rangeWords(lens, range)})`;
      const one = { group: "Named ranges", range: "part", unit: "" } as const;
      return [
        {
          ...one,
          key: `range ${at}`,
          name: `Mass on “${range.name}”`,
          of: h => h.ranges[at]?.mass ?? null,
          says: `The share that goes to ${where}, over the rows from its last token on.`,
        },
        {
          ...one,
          key: `range ${at} last`,
          name: `Last row's mass on “${range.name}”`,
          of: h => h.ranges[at]?.last ?? null,
          says: `The share that goes to ${where} in the last row of the text, from which the next token is predicted.`,
        },
      ];
    }),
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

const isShare = ({ range }: Measure): boolean => range === "share" || range === "part";

/** Value and unit, in words. */
export function worded(measure: Measure, value: Maybe): string {
  if (value === null) return measure.none ?? "not measured";
  if (isShare(measure)) return percent(value);
  if (measure.range === "kinds") return String(value);
  if (measure.range === "tiny") return power(value, 1);
  const sign = measure.range === "signed" && value > 0 ? "+" : "";
  return `${sign}${number(value)}${measure.unit ? " " + measure.unit : ""}`;
}

/** Value alone, as short as fits a cell. */
export function brief(measure: Measure, value: Maybe): string {
  if (value === null) return "–";
  if (measure.range === "kinds") return String(value);
  if (measure.range === "tiny") return power(value, 0);
  if (isShare(measure)) return value >= 0.995 ? "1.0" : value.toFixed(2).slice(1);
  const text = value !== 0 && Math.abs(value) < 0.0005 ? minus(value.toFixed(3)) : number(value);
  return text.replace(/^(−?)0\./, "$1.");
}

export interface Shades {
  low: number;
  high: number;
  colour(value: number, dark: boolean): Rgb;
}

/** The range of some values of a measure, and their colours; null when none was measured. */
export function shades(measure: Measure, all: readonly Maybe[]): Shades | null {
  const values = all.filter((value): value is number => value !== null);
  if (values.length === 0) return null;
  let [low, high] = [values.reduce((a, b) => Math.min(a, b)), values.reduce((a, b) => Math.max(a, b))];
  if (measure.range === "kinds") return { low, high, colour: (value, dark) => kind(value, dark) };
  if (measure.range === "signed") {
    high = Math.max(Math.abs(low), Math.abs(high)) || 1;
    return { low: -high, high, colour: (value, dark) => diverging(value / high, dark) };
  }
  if (measure.range === "share") [low, high] = [0, 1];
  if (["zero", "part", "tiny"].includes(measure.range)) low = Math.min(0, low);
  const span = high - low || 1;
  return { low, high, colour: (value, dark) => sequential((value - low) / span, dark) };
}
