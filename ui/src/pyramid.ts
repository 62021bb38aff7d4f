// A head's heat map at several levels, finest first: cell (r, c) holds the mass that a row of block r puts on block c, on average.

import { square, type Area } from "./area";
import { bytes, floats, words } from "./base64";
import type { Head, MapData, Zoom } from "./lens";

const NO_KEY = 0xffffffff;

export class Level {
  readonly block: number;
  readonly rows: number;
  readonly columns: number;
  private decoded: Uint8Array | null = null;
  private known: { hidden: number; most: number } | null = null;

  /** `of` is what a byte stands for; `row` and `key` are the tokens at which the first cell begins. */
  constructor(
    private readonly data: Omit<MapData, "data"> & { data: string | Uint8Array },
    readonly of: (byte: number) => number = massOf,
    readonly row = 0,
    readonly key = 0,
  ) {
    ({ block: this.block, rows: this.rows, columns: this.columns } = data);
  }

  /** `round(255·√mass)`, row by row. */
  get bytes(): Uint8Array {
    const { data } = this.data;
    return (this.decoded ??= typeof data === "string" ? bytes(data) : data);
  }

  mass(row: number, column: number): number {
    return this.of(this.bytes[row * this.columns + column]);
  }

  /** The cell that holds a row and a key of the text. */
  cell(row: number, key: number): [row: number, column: number] {
    return [Math.floor((row - this.row) / this.block), Math.floor((key - this.key) / this.block)];
  }

  /** Blocks of keys that hold one of the first `tokens`. */
  hidden(tokens: number): number {
    return Math.min(this.columns, Math.max(0, Math.ceil((tokens - this.key) / this.block)));
  }

  /** The largest mass right of the first `hidden` columns. */
  most(hidden: number): number {
    if (this.known?.hidden !== hidden) this.known = { hidden, most: this.largest(hidden) };
    return this.known.most;
  }

  private largest(hidden: number): number {
    let most = 0;
    for (let row = 0; row < this.rows; row++) {
      for (let column = hidden; column < this.columns; column++) most = Math.max(most, this.bytes[row * this.columns + column]);
    }
    return this.of(most);
  }
}

export const massOf = (byte: number): number => (byte / 255) ** 2;

/** The largest weights of each row, exactly. */
export class Top {
  private constructor(
    readonly rows: number,
    readonly count: number,
    private readonly keys: Uint32Array,
    private readonly weights: Float32Array,
  ) {}

  static of(head: Head, tokens: number): Top | null {
    if (!head.top) return null;
    const keys = words(head.top.keys);
    return new Top(tokens, keys.length / tokens, keys, floats(head.top.weights));
  }

  /** The keys that a row reads most, and their weights; the largest first. */
  row(row: number): [key: number, weight: number][] {
    const out: [number, number][] = [];
    for (let i = row * this.count; i < (row + 1) * this.count; i++) {
      if (this.keys[i] !== NO_KEY && this.keys[i] < this.rows) out.push([this.keys[i], this.weights[i]]);
    }
    return out.sort((a, b) => b[1] - a[1]);
  }

  /** The rows that have a key among their largest, and its weight there; the largest first. */
  column(key: number): [row: number, weight: number][] {
    const out: [number, number][] = [];
    this.keys.forEach((found, i) => {
      if (found === key) out.push([Math.floor(i / this.count), this.weights[i]]);
    });
    return out.sort((a, b) => b[1] - a[1]);
  }

  weight(row: number, key: number): number | null {
    return this.row(row).find(([found]) => found === key)?.[1] ?? null;
  }
}

export class Pyramid {
  constructor(
    readonly levels: Level[],
    readonly top: Top | null,
    readonly tokens: number,
    readonly area: Area = square(tokens),
  ) {}

  /** A part of the map, which has one level; the weights are those of the whole. */
  static part({ rows, keys, map }: Zoom, top: Top | null, tokens: number): Pyramid {
    return new Pyramid([new Level(map, massOf, rows[0], keys[0])], top, tokens, { rows, keys });
  }

  /** Null when the report holds no map of the head. */
  static of(head: Head, tokens: number): Pyramid | null {
    const levels = head.maps.map(map => new Level(map)).sort((a, b) => a.block - b.block);
    return levels.length ? new Pyramid(levels, Top.of(head, tokens), tokens) : null;
  }

  /** The finest level whose cells are at least `least` pixels wide at `scale` pixels a token; else the coarsest. */
  level(scale: number, least: number): Level {
    return this.levels.find(level => level.block * scale >= least) ?? this.levels[this.levels.length - 1];
  }
}
