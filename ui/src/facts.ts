// The key facts of a run, in words.

import type { Head, Lens, Maybe } from "./lens";
import { rangeWords } from "./measures";
import { mean, number, percent } from "./scale";

export interface Fact {
  title: string;
  text: string;
  /** Heads that it speaks of, the first first. */
  heads: Head[];
}

export const headName = (head: Head): string => `layer ${head.layer}, head ${head.head}`;

/** A score above which a pattern is called one. */
const CLEAR = 0.4;

type Pick = (head: Head) => Maybe;

/** Heads that have the value, the largest first. */
export function ranked(heads: readonly Head[], pick: Pick): Head[] {
  const value = (head: Head): number => pick(head) as number;
  return heads.filter(head => pick(head) !== null).sort((a, b) => value(b) - value(a));
}

export function facts(lens: Lens): Fact[] {
  return [loss, focus, local, previous, induction, duplicate, retrieval, sinks, ranges, ablation, clusters, logits].flatMap(
    fact => fact(lens) ?? [],
  );
}

function loss(lens: Lens): Fact | null {
  const { name, loss: all } = lens.texts[0];
  const average = mean(all ?? []);
  if (all === null || average === null) return { title: "Loss", text: "The loss was not measured.", heads: [] };
  const quarter = Math.floor(all.length / 4);
  const [start, end] = [mean(all.slice(0, quarter)), mean(all.slice(-quarter))];
  const helps = start !== null && end !== null && end < start ? ": what came before helps" : "";
  const trend =
    quarter >= 8 && start !== null && end !== null
      ? ` It goes from ${number(start)} over the first quarter to ${number(end)} over the last${helps}.`
      : "";
  const where = lens.texts.length > 1 ? ` (${name ?? "the first text"})` : "";
  const choices = number(Math.exp(average));
  const text = `${number(average)} nats a token${where}: on average as unsure as between ${choices} tokens alike.${trend}`;
  return { title: "Loss", text, heads: [] };
}

function focus({ heads }: Lens): Fact | null {
  const order = ranked(heads, head => head.means.entropy);
  if (order.length === 0) return null;
  const [wide, narrow] = [order[0], order[order.length - 1]];
  const tokens = (head: Head): string => number(Math.exp(head.means.entropy as number));
  return {
    title: "Narrowest and widest",
    text:
      `${cap(headName(narrow))} reads most narrowly: its entropy is ${number(narrow.means.entropy)} nats, ` +
      `as if it read ${tokens(narrow)} tokens alike. ` +
      `${cap(headName(wide))} reads most widely: ${number(wide.means.entropy)} nats, ${tokens(wide)} tokens.`,
    heads: [narrow, wide],
  };
}

function local({ heads, run }: Lens): Fact | null {
  const order = ranked(heads, head => head.means.distance);
  if (order.length === 0) return null;
  const [far, near] = [order[0], order[order.length - 1]];
  const recent =
    near.means.recent === null || run.recent_tokens === null
      ? ""
      : `, ${percent(near.means.recent)} of it among the last ${run.recent_tokens}`;
  return {
    title: "Nearest and farthest",
    text:
      `${cap(headName(near))} is the most local: what it reads lies ${number(near.means.distance)} tokens back on average${recent}. ` +
      `${cap(headName(far))} looks farthest: ${number(far.means.distance)} tokens.`,
    heads: [near, far],
  };
}

/** A pattern that heads are scored for: what a score says, and what heads of high scores are called. */
interface Pattern {
  title: string;
  of: Pick;
  says(share: string): string;
  one: string;
  many: string;
}

const PREVIOUS: Pattern = {
  title: "Previous token",
  of: head => head.scores.previous,
  says: share => `${share} of its mass lies on the token just before`,
  one: "is a previous-token head",
  many: "are previous-token heads",
};
const INDUCTION: Pattern = {
  title: "Induction",
  of: head => head.scores.induction,
  says: share => `in random tokens said twice, ${share} of its mass lies on what came next the first time`,
  one: "is an induction head",
  many: "are induction heads",
};
const DUPLICATE: Pattern = {
  title: "Duplicate tokens",
  of: head => head.scores.duplicate,
  says: share => `in random tokens said twice, ${share} of its mass lies on the same token the first time`,
  one: "looks for copies",
  many: "look for copies",
};
const RETRIEVAL: Pattern = {
  title: "Retrieval",
  of: head => head.scores.retrieval,
  says: share => `in ${share} of the steps of repeating a hidden needle, its largest weight is on the needle's next token`,
  one: "is a retrieval head",
  many: "are retrieval heads",
};

const previous = ({ heads }: Lens): Fact => scored(heads, PREVIOUS);
const induction = ({ heads }: Lens): Fact => scored(heads, INDUCTION);
const duplicate = ({ heads }: Lens): Fact => scored(heads, DUPLICATE);
const retrieval = ({ heads }: Lens): Fact => scored(heads, RETRIEVAL);

function scored(heads: readonly Head[], { title, of, says, one, many }: Pattern): Fact {
  const order = ranked(heads, of);
  if (order.length === 0) return { title, text: "Not measured.", heads: [] };
  const clear = order.filter(head => (of(head) as number) >= CLEAR);
  const best = order[0];
  if (of(best) === 0) return { title, text: "No head does it at all.", heads: [] };
  const score = says(percent(of(best)));
  if (clear.length === 0) return { title, text: `No head stands out. The nearest is ${headName(best)}: ${score}.`, heads: [best] };
  const also = clear.length > 1 ? ` In all, ${clear.length} of ${heads.length} heads ${many}, with at least ${percent(CLEAR)}.` : "";
  return { title, text: `${cap(headName(best))} ${one}: ${score}.${also}`, heads: clear.slice(0, 4) };
}

function sinks({ heads, run }: Lens): Fact | null {
  const order = ranked(heads, head => head.means.sink);
  if (order.length === 0) return null;
  const most = order.filter(head => (head.means.sink as number) >= 0.5);
  const best = `${cap(headName(order[0]))} gives the first ${run.first_tokens} tokens ${percent(order[0].means.sink)}.`;
  const text = most.length
    ? `${most.length} of ${heads.length} heads rest more than half of their mass on the first ${run.first_tokens} tokens, ` +
      `often a way to do nothing. ${best}`
    : `No head rests more than half of its mass on the first ${run.first_tokens} tokens. ${best}`;
  const short = (run.tokens ?? 0) < 10 * run.first_tokens ? " In so short a text that says little." : "";
  return { title: "Sinks", text: text + short, heads: (most.length ? most : order).slice(0, 4) };
}

/** Who reads each named range most, in the mean and in the last row. */
function ranges(lens: Lens): Fact[] {
  return lens.run.ranges.map((range, at) => {
    const title = `Mass on “${range.name}”`;
    const [mass, last] = (["mass", "last"] as const).map(of => ranked(lens.heads, head => head.ranges[at]?.[of] ?? null)[0]);
    if (!mass || !last) return { title, text: "Not measured.", heads: [] };
    const text =
      `${cap(headName(mass))} gives most to ${rangeWords(lens, range)}: ${percent(mass.ranges[at].mass)} of its mass, ` +
      `over the rows from its last token on. In the text's last row it is ${headName(last)}: ${percent(last.ranges[at].last)}.`;
    return { title, text, heads: mass === last ? [mass] : [mass, last] };
  });
}

function ablation({ heads, layers }: Lens): Fact {
  const order = ranked(heads, head => head.ablation.zero);
  if (order.length === 0) return { title: "What is needed", text: "Ablation was not measured.", heads: [] };
  const [best, worst] = [order[0], order[order.length - 1]];
  const change = (head: Head): number => head.ablation.zero as number;
  if (change(best) <= 0)
    return { title: "What is needed", text: "No head is missed: the loss does not grow without any one of them.", heads: [] };
  const idle = order.filter(head => Math.abs(change(head)) < 0.001).length;
  const other = change(worst) < -0.001 ? ` Without ${headName(worst)} it falls by ${number(-change(worst))}.` : "";
  const most = layers.reduce((a, b) => ((b.ablation.zero ?? 0) > (a?.ablation.zero ?? 0) ? b : a), layers[0]);
  const whole =
    (most?.ablation.zero ?? 0) > 0 ? ` Without all heads of layer ${most.layer} it grows by ${number(most.ablation.zero)}.` : "";
  const instead = (
    [
      ["mean", "its mean in its place"],
      ["resample", "what it gives elsewhere"],
    ] as const
  ).flatMap(([by, what]) => {
    const missed = ranked(heads, head => head.ablation[by])[0];
    const change = missed?.ablation[by] ?? 0;
    return change > 0 ? ` With ${what}, ${headName(missed)} is missed most (${number(change)}).` : [];
  });
  const spare = idle ? ` ${idle} of ${heads.length} heads change it by less than 0.001.` : "";
  return {
    title: "What is needed",
    text:
      `Without ${headName(best)} the loss grows by ${number(change(best))} nats a token, ` +
      `more than without any other head.${other}${spare}${whole}${instead.join("")}`,
    heads: other ? [best, worst] : [best],
  };
}

function clusters({ heads }: Lens): Fact | null {
  const sizes = new Map<number, number>();
  for (const head of heads) if (head.cluster !== null) sizes.set(head.cluster, (sizes.get(head.cluster) ?? 0) + 1);
  if (sizes.size === 0) return null;
  const most = Math.max(...sizes.values());
  const alone = [...sizes.values()].filter(size => size === 1).length;
  const lonely = alone === 0 ? "" : alone === 1 ? " One head is like no other." : ` ${alone} heads are like no other.`;
  const kinds = sizes.size === 1 ? "one cluster" : `${sizes.size} clusters`;
  const text = `${heads.length} heads fall into ${kinds} that attend alike; the largest holds ${most}.${lonely}`;
  return { title: "Heads alike", text, heads: [] };
}

function logits({ heads }: Lens): Fact | null {
  const best = ranked(heads, head => head.means.max_logit)[0];
  if (!best) return null;
  const size = number(best.means.max_logit);
  const text = `The scores of ${headName(best)} grow largest: a row's largest is ${size} on average, before the softmax.`;
  return { title: "Logits", text, heads: [best] };
}

export const cap = (text: string): string => text[0].toUpperCase() + text.slice(1);
