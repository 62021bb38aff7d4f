// The data that a report shows, "regard-lens/1": its types, and the check that JSON from anywhere has them.

import { isBase64, bytesIn } from "./base64";
import { ROOT, type Part } from "./part";

export const FORMAT = "regard-lens/1";

/** A number that may not have been measured. */
export type Maybe = number | null;

export const MEANS = ["entropy", "max_weight", "sink", "self", "recent", "distance", "max_logit", "lse", "special"] as const;
export const SCORES = ["previous", "first", "local", "duplicate", "induction", "retrieval"] as const;
export const ABLATIONS = ["zero", "mean", "resample"] as const;
export const BY_POSITION = ["entropy", "sink", "recent", "distance", "max_weight"] as const;
export type Mean = (typeof MEANS)[number];
export type Score = (typeof SCORES)[number];
export const NUMERICS = ["one_hot", "uniform", "peak_logit"] as const;
export type Numeric = (typeof NUMERICS)[number];
export const TYPES = ["f32", "bf16", "f16"] as const;
export type NumberType = (typeof TYPES)[number];
export type Ablation = (typeof ABLATIONS)[number];
export type ByPosition = (typeof BY_POSITION)[number];

export interface Model {
  name: string | null;
  type: string | null;
  layers: number;
  heads: number;
  kv_heads: Maybe;
  head_dim: Maybe;
  context: Maybe;
  parameters: Maybe;
}

export interface Run {
  kernel: string | null;
  seconds: Maybe;
  texts: Maybe;
  tokens: Maybe;
  /** Keys that count as sinks: the first so many. */
  first_tokens: number;
  /** Keys that count as recent: the last so many, the query's own included. */
  recent_tokens: Maybe;
  /** Weights that are kept of each row. */
  top: Maybe;
  labels: string[];
  /** Named ranges of the first text's tokens; `end` is the first token after. */
  ranges: { name: string; start: number; end: number }[];
}

export interface Text {
  name: string | null;
  tokens: string[];
  /** The tokens as the model reads them. */
  ids: Maybe[] | null;
  loss: Maybe[] | null;
}

export interface MapData {
  /** Tokens to a side of a cell. */
  block: number;
  rows: number;
  columns: number;
  /** Base64 of `rows · columns` bytes, each `round(255·√mass)`. */
  data: string;
}

export interface Head {
  layer: number;
  head: number;
  means: Record<Mean, Maybe>;
  /** With the error against f64 in each type of numbers. */
  numerics: Record<Numeric, Maybe> & { error: Record<NumberType, Maybe> };
  scores: Record<Score, Maybe>;
  cluster: Maybe;
  /** By how much the loss changes without it, nats a token. */
  ablation: Record<Ablation, Maybe>;
  distances: Maybe[] | null;
  /** The mass on each of `Run.ranges`: the mean over rows, and of the last row. */
  ranges: Record<"mass" | "last", Maybe>[];
  by_position: Record<ByPosition, Maybe[] | null>;
  received: Maybe[] | null;
  maps: MapData[];
  top: { keys: string; weights: string } | null;
}

export interface Lens {
  model: Model;
  run: Run;
  texts: Text[];
  heads: Head[];
  /** What the loss changes by without all heads of a layer. */
  layers: { layer: number; ablation: Record<Ablation, Maybe> }[];
  /** Base64 of a byte for each pair of heads, `round(255·similarity)`, row by row. */
  similarities: string | null;
  bins: { count: number; width: number } | null;
  position_loss: Maybe[] | null;
}

/** Reads parsed JSON; throws an `Error` that names the part that is wrong, what it holds and what it needs. */
export function read(json: unknown): Lens {
  const all = ROOT(json);
  if (json === null) all.wrong("holds no data", "be filled by `regard inspect`");
  all.object();
  if (all.at("format").value !== FORMAT) all.at("format").wrong(all.at("format").shown(), `be "${FORMAT}"`);
  const model = readModel(all.at("model"));
  const run = readRun(all.at("run"));
  const texts = all.at("texts").array().map(readText);
  if (texts.length === 0) all.at("texts").wrong("is empty", "hold at least one text");
  const heads = all.at("heads").array();
  const needed = model.layers * model.heads;
  if (heads.length !== needed) {
    all.at("heads").wrong(`holds ${heads.length}`, `hold ${model.layers} layers × ${model.heads} heads = ${needed}`);
  }
  const bins = all.at("bins");
  const tokens = texts[0].tokens.length;
  const layers = all.at("layers");
  return {
    model,
    run,
    texts,
    heads: heads.map((part, index) => readHead(part, model, index, tokens, run)),
    layers: layers.absent ? [] : layers.array().map(part => ({ layer: part.at("layer").whole(0), ablation: readAblation(part) })),
    similarities: readSimilarities(all.at("similarities"), needed),
    bins: bins.absent ? null : { count: bins.at("count").whole(0), width: bins.at("width").whole(1) },
    position_loss: all.at("position_loss").numbers(),
  };
}

function readModel(part: Part): Model {
  part.object();
  return {
    name: part.at("name").text(),
    type: part.at("type").text(),
    layers: part.at("layers").whole(1),
    heads: part.at("heads").whole(1),
    kv_heads: part.at("kv_heads").number(),
    head_dim: part.at("head_dim").number(),
    context: part.at("context").number(),
    parameters: part.at("parameters").number(),
  };
}

function readRun(part: Part): Run {
  const [labels, ranges] = [part.at("labels"), part.at("ranges")];
  return {
    kernel: part.at("kernel").text(),
    seconds: part.at("seconds").number(),
    texts: part.at("texts").number(),
    tokens: part.at("tokens").number(),
    first_tokens: part.at("first_tokens").number() ?? 0,
    recent_tokens: part.at("recent_tokens").number(),
    top: part.at("top").number(),
    labels: labels.absent ? [] : labels.strings(),
    ranges: ranges.absent ? [] : ranges.array().map(readRange),
  };
}

function readRange(part: Part): Run["ranges"][number] {
  const start = part.at("start").whole(0);
  return { name: part.at("name").text() ?? "", start, end: part.at("end").whole(start + 1) };
}

function readText(part: Part): Text {
  const text = {
    name: part.at("name").text(),
    tokens: part.at("tokens").strings(),
    ids: part.at("ids").numbers(),
    loss: part.at("loss").numbers(),
  };
  if (text.tokens.length === 0) part.at("tokens").wrong("is empty", "hold at least one token");
  for (const key of ["ids", "loss"] as const) {
    const given = text[key]?.length ?? text.tokens.length;
    if (given !== text.tokens.length) {
      part.at(key).wrong(`holds ${given} numbers`, `hold one for each of the ${text.tokens.length} tokens`);
    }
  }
  return text;
}

function readHead(part: Part, model: Model, index: number, tokens: number, run: Run): Head {
  const [layer, head] = [Math.floor(index / model.heads), index % model.heads];
  part.object();
  for (const [name, value] of [
    ["layer", layer],
    ["head", head],
  ] as const) {
    const given = part.at(name);
    if (!given.absent && given.value !== value) given.wrong(given.shown(), `be ${value}: heads are ordered by layer, then head`);
  }
  const [maps, ranges] = [part.at("maps"), part.at("ranges")];
  const masses = ranges.absent ? [] : ranges.array();
  if (!ranges.absent && masses.length !== run.ranges.length) {
    ranges.wrong(`holds ${masses.length}`, `hold one for each of the ${run.ranges.length} ranges of the run`);
  }
  return {
    layer,
    head,
    means: part.at("means").record(MEANS, value => value.number()),
    numerics: readNumerics(part.at("numerics")),
    scores: part.at("scores").record(SCORES, value => value.number()),
    cluster: part.at("cluster").number(),
    ablation: readAblation(part),
    distances: part.at("distances").numbers(),
    ranges: masses.map(mass => mass.record(["mass", "last"] as const, value => value.number())),
    by_position: part.at("by_position").record(BY_POSITION, value => value.numbers()),
    received: part.at("received").numbers(),
    maps: maps.absent ? [] : maps.array().map(readMap),
    top: readTop(part.at("top"), tokens, run.top),
  };
}

const readAblation = (part: Part): Record<Ablation, Maybe> => part.at("ablation").record(ABLATIONS, value => value.number());

function readNumerics(part: Part): Head["numerics"] {
  const numerics = part.record(NUMERICS, value => value.number());
  return { ...numerics, error: part.at("error").record(TYPES, value => value.number()) };
}

/** Null where they were left out, for which there may be an empty string. */
function readSimilarities(part: Part, heads: number): string | null {
  const text = part.text();
  if (!text) return null;
  needBytes(part, heads * heads, `${heads} heads × ${heads} heads`);
  return text;
}

function readMap(part: Part): MapData {
  const map = {
    block: part.at("block").whole(1),
    rows: part.at("rows").whole(1),
    columns: part.at("columns").whole(1),
    data: part.at("data").text() ?? "",
  };
  needBytes(part.at("data"), map.rows * map.columns, `${map.rows} rows × ${map.columns} columns`);
  return map;
}

function readTop(part: Part, tokens: number, top: Maybe): Head["top"] {
  if (part.absent) return null;
  const kept = top ?? Math.floor(bytesIn(part.at("keys").text() ?? "") / (4 * tokens));
  const count = tokens * kept;
  needBytes(part.at("keys"), 4 * count, `${count} keys of 4 bytes`);
  needBytes(part.at("weights"), 4 * count, `${count} weights of 4 bytes`);
  return { keys: part.at("keys").text() ?? "", weights: part.at("weights").text() ?? "" };
}

function needBytes(part: Part, bytes: number, what: string): void {
  const text = part.text() ?? "";
  if (!isBase64(text)) part.wrong("is not base64", `hold ${bytes} bytes: ${what}`);
  if (bytesIn(text) !== bytes) part.wrong(`holds ${bytesIn(text)} bytes`, `hold ${bytes}: ${what}`);
}
