// The data that a report shows, "regard-lens/1": its types, and the check that JSON from anywhere has them.

import { span, type Area, type Span } from "./area";
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

/** A part of the first text's map that was computed again; its blocks are counted from where it starts. */
export interface Zoom extends Area {
  map: MapData;
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
  zooms: Zoom[];
  top: { keys: string; weights: string } | null;
}

/** What a row of the first text draws from each of its tokens through all layers. */
export interface Through {
  row: number;
  rollout: Maybe[];
  flow: Maybe[];
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
  /** The loss without so many of the heads that matter least, nats a token: from 0 of them on, rising. */
  pruning: { heads: number; loss: Maybe }[];
  through: Through | null;
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
    pruning: readPruning(all.at("pruning"), needed),
    through: readThrough(all.at("through"), tokens),
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
  const tokens = part.at("tokens").strings();
  if (tokens.length === 0) part.at("tokens").wrong("is empty", "hold at least one token");
  const each = (key: string): Maybe[] | null => readEach(part.at(key), tokens.length);
  return { name: part.at("name").text(), tokens, ids: each("ids"), loss: each("loss") };
}

/** A number for each token, where there are any. */
function readEach(part: Part, tokens: number): Maybe[] | null {
  const all = part.numbers();
  if (all && all.length !== tokens) part.wrong(`holds ${all.length} numbers`, `hold one for each of the ${tokens} tokens`);
  return all;
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
  const [maps, zooms, ranges] = [part.at("maps"), part.at("zooms"), part.at("ranges")];
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
    zooms: zooms.absent ? [] : zooms.array().map(zoom => readZoom(zoom, tokens)),
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

function readZoom(part: Part, tokens: number): Zoom {
  part.object();
  const [rows, keys] = [readSpan(part.at("rows"), tokens), readSpan(part.at("keys"), tokens)];
  const map = readMap(part.at("map"));
  for (const [name, length] of [
    ["rows", span(rows)],
    ["columns", span(keys)],
  ] as const) {
    const needed = Math.ceil(length / map.block);
    const [given, tokens] = [part.at("map").at(name), length === 1 ? "1 token" : `${length} tokens`];
    if (map[name] !== needed) given.wrong(given.shown(), `be ${needed}: ${tokens} in blocks of ${map.block}`);
  }
  return { rows, keys, map };
}

function readSpan(part: Part, tokens: number): Span {
  const ends = part.array();
  if (ends.length !== 2) part.wrong(`holds ${ends.length} numbers`, "hold 2: the first token, and the first after the last");
  const start = ends[0].whole(0);
  const end = ends[1].whole(start + 1);
  if (end > tokens) ends[1].wrong(ends[1].shown(), `be at most ${tokens}, the tokens of the text`);
  return [start, end];
}

function readPruning(part: Part, heads: number): Lens["pruning"] {
  let next = 0;
  return (part.absent ? [] : part.array()).map((point, index) => {
    const [given, loss] = [point.at("heads"), point.at("loss").number()];
    if (index === 0 && given.value !== 0) given.wrong(given.shown(), "be 0: the first loss is that with all heads");
    const without = given.whole(next);
    if (without > heads) given.wrong(given.shown(), `be at most ${heads}, the heads of the model`);
    next = without + 1;
    return { heads: without, loss };
  });
}

function readThrough(part: Part, tokens: number): Through | null {
  if (part.absent) return null;
  part.object();
  const row = part.at("row").whole(0);
  if (row >= tokens) part.at("row").wrong(part.at("row").shown(), `be less than ${tokens}, the tokens of the text`);
  const each = (key: string): Maybe[] => {
    const given = part.at(key);
    return readEach(given, tokens) ?? given.wrong(given.shown(), `hold one number for each of the ${tokens} tokens`);
  };
  return { row, rollout: each("rollout"), flow: each("flow") };
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
