// Data of "regard-lens/1" to test with: heads of known patterns over a short text, every fact computed from their weights in f64,
// and a text of 100,000 tokens that has pooled maps only.

import { span, type Area } from "../src/area";
import { BY_POSITION, FORMAT, type ByPosition, type Head, type Lens, type MapData, type Zoom } from "../src/lens";

const LAYERS = 6;
const HEADS = 8;
const TOP = 8;
const FIRST = 4;
const RECENT = 32;

export const TOKENS = (
  "Once| upon| a| time| there| lived| an| old| fox| and| a| young| crow|.| The| old| fox| had| a| piece| of| cheese|,|" +
  " and| the| young| crow| had| none|.|\n|" +
  "“|Give| me| the| cheese|,|”| said| the| young| crow|,| “|and| I| will| sing|.|”|" +
  " The| old| fox| laughed|,| for| no| crow| could| sing|,| and| the| old| fox| ate| the| cheese|."
).split("|");

/** Named ranges, of texts that are long enough. */
const RANGES = [
  { name: "The meal", start: 18, end: 22 },
  { name: "fox", start: 8, end: 9 },
];
const rangesOf = (tokens: readonly string[]): Lens["run"]["ranges"] => RANGES.filter(({ end }) => end <= tokens.length);

/** Weights of one head, query by key, each row summing to one. */
export type Weights = Float64Array;

export interface Fixture {
  lens: Lens;
  /** The truth that the lens was made of, for each head. */
  weights: Weights[];
}

/** Uniform numbers from 0 to 1, the same ones for the same seed (mulberry32). */
function random(seed: number): () => number {
  let state = seed >>> 0;
  return () => {
    state = (state + 0x6d2b79f5) >>> 0;
    let t = Math.imul(state ^ (state >>> 15), 1 | state);
    t = (t + Math.imul(t ^ (t >>> 7), 61 | t)) ^ t;
    return ((t ^ (t >>> 14)) >>> 0) / 2 ** 32;
  };
}

/** The scores of a pattern, by the distance and what the tokens are. */
const PATTERNS: ((q: number, k: number, tokens: readonly string[]) => number)[] = [
  (q, k) => (k === q - 1 ? 6 : 0), // previous token
  (_, k) => (k === 0 ? 5.5 : 0), // sink
  (q, k) => -(q - k) / 3, // local
  () => 0, // wide
  (q, k, tokens) => (k > 0 && tokens[k - 1] === tokens[q] && k - 1 !== q ? 6 : k === 0 ? 3 : 0), // induction
  (q, k, tokens) => (k !== q && tokens[k] === tokens[q] ? 5 : 0), // duplicate
  (q, k) => (k === q ? 4 : 0), // self
  (q, k) => (k < FIRST ? 2 : 0) + (q - k) / 30, // far
];

function attend(tokens: readonly string[], index: number): Weights {
  const [n, next] = [tokens.length, random(1 + index)];
  const pattern = PATTERNS[(index * 5 + Math.floor(index / HEADS)) % PATTERNS.length];
  const noise = 0.4 + 0.25 * Math.floor(index / HEADS);
  const out = new Float64Array(n * n);
  for (let q = 0; q < n; q++) {
    const row = Array.from({ length: q + 1 }, (_, k) => Math.exp(pattern(q, k, tokens) + noise * (2 * next() - 1)));
    const sum = row.reduce((a, b) => a + b, 0);
    row.forEach((value, k) => (out[q * n + k] = value / sum));
  }
  return out;
}

const mean = (values: readonly number[]): number => values.reduce((a, b) => a + b, 0) / values.length;
const log2 = (distance: number): number => (distance === 0 ? 0 : 1 + Math.floor(Math.log2(distance)));

/** The facts of each row, in the order of the rows. */
function rows(weights: Weights, n: number): Record<ByPosition | "self", number[]> {
  const over = (of: (row: Float64Array, q: number) => number): number[] =>
    Array.from({ length: n }, (_, q) => of(weights.subarray(q * n, q * n + n), q));
  const sum = (row: Float64Array, keep: (k: number) => number): number => row.reduce((total, p, k) => total + p * keep(k), 0);
  return {
    entropy: over(row => -row.reduce((total, p) => total + (p > 0 ? p * Math.log(p) : 0), 0)),
    sink: over(row => sum(row, k => Number(k < FIRST))),
    recent: over((row, q) => sum(row, k => Number(k > q - RECENT))),
    distance: over((row, q) => sum(row, k => q - k)),
    max_weight: over(row => Math.max(...row)),
    self: over((row, q) => row[q]),
  };
}

/** Half as fine: masses of key blocks add up, rows of a block are averaged. */
export function halve(cells: Float64Array, size: number, tokens: number, block: number): Float64Array {
  const half = Math.ceil(size / 2);
  const out = new Float64Array(half * half);
  const height = (row: number): number => Math.max(0, Math.min(block, tokens - row * block));
  for (let row = 0; row < size; row++) {
    const first = row - (row % 2);
    const share = height(row) / (height(first) + height(first + 1));
    for (let column = 0; column < size; column++) out[(row >> 1) * half + (column >> 1)] += cells[row * size + column] * share;
  }
  return out;
}

const masses = (cells: ArrayLike<number>): string =>
  Buffer.from(Uint8Array.from(cells, mass => Math.round(255 * Math.sqrt(mass)))).toString("base64");

/** Maps from `cells`, whose blocks have `block` tokens: from at most 256 rows down to 16. */
function maps(cells: Float64Array, tokens: number, block: number): MapData[] {
  const out: MapData[] = [];
  for (let size = Math.ceil(tokens / block); ; cells = halve(cells, size, tokens, block), size = Math.ceil(size / 2), block *= 2) {
    if (size > 256) continue;
    out.push({ block, rows: size, columns: size, data: masses(cells) });
    if (size <= 16) return out;
  }
}

/** A part of a map again, in blocks that start where it does: keys add up, rows are averaged. */
export function zoomed(weights: Weights, { rows, keys }: Area, block = 1): Zoom {
  const n = Math.sqrt(weights.length);
  const [down, across] = [Math.ceil(span(rows) / block), Math.ceil(span(keys) / block)];
  const cells = new Float64Array(down * across);
  for (let q = rows[0]; q < rows[1]; q++) {
    const row = Math.floor((q - rows[0]) / block);
    const height = Math.min(block, span(rows) - row * block);
    for (let k = keys[0]; k < keys[1]; k++) cells[row * across + Math.floor((k - keys[0]) / block)] += weights[q * n + k] / height;
  }
  return { rows, keys, map: { block, rows: down, columns: across, data: masses(cells) } };
}

/** The lens with the parts that are only there when they were asked for. */
export function asked({ lens, weights }: Fixture, areas: readonly Area[] = [], block = 1): Lens {
  const next = random(31);
  const [{ tokens }, count] = [lens.texts[0], lens.heads.length];
  const shares = tokens.map(() => next() ** 4);
  const all = shares.reduce((a, b) => a + b, 0);
  return {
    ...lens,
    heads: lens.heads.map((head, index) => ({ ...head, zooms: areas.map(area => zoomed(weights[index], area, block)) })),
    pruning: [...[0, 3, 7, 16, 40].filter(heads => heads < count), count].map(heads => ({
      heads,
      loss: 2 + 0.03 * heads + (heads / count) ** 3,
    })),
    through: { row: tokens.length - 1, rollout: shares.map(share => share / all), flow: tokens.map(() => next() / 2) },
  };
}

function top(weights: Weights, n: number): { keys: string; weights: string } {
  const keys = new Uint32Array(n * TOP).fill(0xffffffff);
  const values = new Float32Array(n * TOP);
  for (let q = 0; q < n; q++) {
    const order = Array.from({ length: q + 1 }, (_, k) => k).sort((a, b) => weights[q * n + b] - weights[q * n + a]);
    order.slice(0, TOP).forEach((k, i) => ([keys[q * TOP + i], values[q * TOP + i]] = [k, weights[q * n + k]]));
  }
  const base64 = (array: Uint32Array | Float32Array): string => Buffer.from(array.buffer).toString("base64");
  return { keys: base64(keys), weights: base64(values) };
}

/** Means of runs of `width`. */
const pool = (values: readonly number[], width: number): number[] =>
  Array.from({ length: Math.ceil(values.length / width) }, (_, i) => mean(values.slice(i * width, (i + 1) * width)));

/** f16 has no room for what the first head gives. */
const errorOf = (index: number): Head["numerics"]["error"] => ({
  f32: (1 + index) * 1e-8,
  bf16: (1 + index) * 1e-4,
  f16: index === 0 ? null : (1 + index) * 1e-5,
});

function head(tokens: readonly string[], index: number, weights: Weights): Head {
  const n = tokens.length;
  const facts = rows(weights, n);
  const [next, pattern] = [random(500 + index), (index * 5 + Math.floor(index / HEADS)) % PATTERNS.length];
  const on = (keep: (q: number, k: number) => boolean, from: number): number =>
    mean(
      Array.from({ length: n - from }, (_, i) =>
        weights.subarray((i + from) * n, (i + from + 1) * n).reduce((sum, p, k) => sum + (keep(i + from, k) ? p : 0), 0),
      ),
    );
  const distances = Array.from({ length: log2(n - 1) + 1 }, () => 0);
  weights.forEach((p, at) => p > 0 && (distances[log2(Math.floor(at / n) - (at % n))] += p / n));
  return {
    layer: Math.floor(index / HEADS),
    head: index % HEADS,
    means: {
      entropy: mean(facts.entropy),
      max_weight: mean(facts.max_weight),
      sink: mean(facts.sink),
      self: mean(facts.self),
      recent: mean(facts.recent),
      distance: mean(facts.distance),
      max_logit: 2 + 9 * next(),
      lse: 3 + 4 * next(),
      special: null,
    },
    numerics: { one_hot: (index % 8) / 8, uniform: (index % 5) / 8, peak_logit: 12.5 + index, error: errorOf(index) },
    scores: {
      previous: on((q, k) => k === q - 1, 1),
      first: on((_, k) => k === 0, 1),
      local: on((q, k) => q - k < 8, 1),
      duplicate: on((q, k) => k < q && tokens[k] === tokens[q], 1),
      induction: pattern === 4 ? 0.55 + 0.3 * next() : 0.1 * next(),
      retrieval: null,
    },
    cluster: pattern,
    ablation: {
      zero: 0.06 * next() ** 3 - 0.004 * next(),
      mean: 0.03 * next() ** 3 - 0.002 * next(),
      resample: 0.05 * next() ** 3 - 0.006 * next(),
    },
    distances,
    ranges: rangesOf(tokens).map(({ start, end }) => {
      const on = (q: number): number => weights.subarray(q * n + start, q * n + end).reduce((a, b) => a + b, 0);
      return { mass: mean(Array.from({ length: n - end + 1 }, (_, i) => on(end - 1 + i))), last: on(n - 1) };
    }),
    by_position: Object.fromEntries(BY_POSITION.map(name => [name, facts[name]])) as Record<ByPosition, number[]>,
    received: Array.from({ length: n }, (_, k) => weights.reduce((sum, p, at) => sum + (at % n === k ? p : 0), 0)),
    maps: maps(weights, n, 1),
    zooms: [],
    top: top(weights, n),
  };
}

/** Layers (6) of 8 heads over some tokens (69). */
export function small(tokens: readonly string[] = TOKENS, layers = LAYERS): Fixture {
  const weights = Array.from({ length: layers * HEADS }, (_, index) => attend(tokens, index));
  const next = random(9);
  const loss = tokens.map((_, at) => (at === 0 ? null : 0.3 + 4.5 * next() ** 2 * (1.4 - at / tokens.length)));
  return {
    lens: lens(
      tokens,
      loss,
      weights.map((each, index) => head(tokens, index, each)),
      1,
      weights,
    ),
    weights,
  };
}

/** `round(255·(1 − JSD / ln 2))` of any two heads, JSD the Jensen–Shannon divergence of their rows, in the mean. */
export function similarities(weights: readonly Weights[]): Uint8Array {
  const n = weights.length;
  const out = new Uint8Array(n * n).fill(255);
  const part = (p: number, m: number): number => (p > 0 ? p * Math.log(p / m) : 0);
  for (let a = 0; a < n; a++) {
    for (let b = 0; b < a; b++) {
      let sum = 0;
      weights[a].forEach((p, at) => {
        const q = weights[b][at];
        if (p + q > 0) sum += (part(p, (p + q) / 2) + part(q, (p + q) / 2)) / 2;
      });
      out[a * n + b] = out[b * n + a] = Math.round(255 * (1 - sum / Math.sqrt(weights[a].length) / Math.LN2));
    }
  }
  return out;
}

function lens(tokens: readonly string[], loss: (number | null)[], heads: Head[], width: number, weights: readonly Weights[] = []): Lens {
  const there = loss.map(value => value ?? (loss[1] as number));
  const all = {
    ...({ format: FORMAT } as object),
    model: {
      name: "fixture",
      type: "llama",
      layers: heads.length / HEADS,
      heads: HEADS,
      kv_heads: 4,
      head_dim: 32,
      context: 131072,
      parameters: 3_400_000,
    },
  };
  return {
    ...all,
    run: {
      kernel: "f32 avx512",
      seconds: 0.42,
      texts: 1,
      tokens: tokens.length,
      first_tokens: FIRST,
      recent_tokens: RECENT,
      top: TOP,
      labels: ["Induction is measured on 4 random sequences of 64 tokens, each said twice."],
      ranges: heads[0].ranges.length ? rangesOf(tokens) : [],
    },
    texts: [{ name: "The fox and the crow", tokens: [...tokens], ids: tokens.map((_, at) => 10 + at), loss }],
    heads,
    layers: Array.from({ length: heads.length / HEADS }, (_, layer) => {
      const next = random(900 + layer);
      return { layer, ablation: { zero: 0.1 + 0.5 * next(), mean: 0.4 * next() - 0.1, resample: 0.5 * next() - 0.1 } };
    }),
    similarities: weights.length ? Buffer.from(similarities(weights)).toString("base64") : null,
    pruning: [],
    through: null,
    bins: { count: Math.ceil(tokens.length / width), width },
    position_loss: width === 1 ? loss : pool(there, width),
  };
}

const LONG = 100_000;
const LONG_BLOCK = 512;

/** Mass of blocks that fades with distance, the wider the larger the head's number, and a sink. */
function blurred(head: number): Float64Array {
  const [size, next] = [Math.ceil(LONG / LONG_BLOCK), random(70 + head)];
  const cells = new Float64Array(size * size);
  for (let q = 0; q < size; q++) {
    const row = Array.from(
      { length: q + 1 },
      (_, k) => Math.exp((k - q) / (2 + head * 6)) + (k === 0 ? (head % 5) / 4 : 0) + 0.02 * next(),
    );
    const sum = row.reduce((a, b) => a + b, 0);
    row.forEach((value, k) => (cells[q * size + k] = value / sum));
  }
  return cells;
}

/** 100,000 tokens: maps of 196 × 196 blocks and coarser ones, no single weights. */
export function long(): Lens {
  const next = random(77);
  const tokens = Array.from({ length: LONG }, (_, i) => TOKENS[i % TOKENS.length]);
  const loss = tokens.map((_, at) => (at === 0 ? null : 1.5 + next() + 2 / (1 + at / 2000)));
  const all = Array.from({ length: HEADS }, (_, head) => maps(blurred(head), LONG, LONG_BLOCK));
  const size = Math.ceil(LONG / LONG_BLOCK);
  const heads = small(TOKENS.slice(0, 20)).lens.heads.map((short, index): Head => {
    const along = Array.from({ length: size }, (_, i) => 1 + Math.log1p(i * (1 + (index % 8))) + 0.2 * next());
    const by_position = {
      entropy: along,
      sink: along.map(v => 1 / (1 + v)),
      recent: along.map(v => 1 / v),
      distance: along.map(v => 50 * v),
      max_weight: null,
    };
    return {
      ...short,
      by_position,
      received: along.map(v => 1 / (1 + v)),
      distances: Array.from({ length: 18 }, () => 1 / 18),
      maps: all[index % HEADS],
      ranges: [],
      top: null,
    };
  });
  return lens(tokens, loss, heads, LONG_BLOCK);
}
