// What a heat map says of one of its cells, in words.

import { shown } from "./dom";
import { massOf, type Level, type Pyramid } from "./pyramid";
import { mass, whole } from "./scale";

export interface Cell {
  row: number;
  column: number;
}

/** Rows, keys and mass of the cell of a level that holds a row and a column of tokens. */
export function describe(pyramid: Pyramid, level: Level, cell: Cell, tokens: readonly string[]): string {
  const text = words(pyramid, level, cell, tokens);
  return text[0].toUpperCase() + text.slice(1);
}

function words(pyramid: Pyramid, level: Level, cell: Cell, tokens: readonly string[]): string {
  const { block } = level;
  const [row, column] = [Math.floor(cell.row / block), Math.floor(cell.column / block)];
  if (block === 1) {
    const weight = pyramid.top?.weight(cell.row, cell.column) ?? null;
    const share = weight === null ? about(level.bytes[row * level.columns + column]) : mass(weight);
    return `${one(cell.row, tokens)} reads ${one(cell.column, tokens)}: ${share}`;
  }
  const share = about(level.bytes[row * level.columns + column]);
  const pooled = `${some(row, block, tokens)} read ${some(column, block, tokens)}: ${share} of their mass, on average`;
  const exact = pyramid.top?.weight(cell.row, cell.column) ?? null;
  return exact === null ? pooled : `${one(cell.row, tokens)} reads ${one(cell.column, tokens)}: ${mass(exact)}; ${pooled}`;
}

/** A byte holds √mass in 255 steps: what it stands for is about right, and 0 is little, not nothing. */
function about(byte: number): string {
  return byte === 0 ? mass(0) : `about ${mass(massOf(byte))}`;
}

const one = (at: number, tokens: readonly string[]): string => `token ${whole(at)} “${shown(tokens[at] ?? "")}”`;

function some(index: number, block: number, tokens: readonly string[]): string {
  const first = index * block;
  const last = Math.min(tokens.length, first + block) - 1;
  const text = tokens
    .slice(first, Math.min(first + 5, last + 1))
    .join("")
    .trim();
  return `tokens ${whole(first)} to ${whole(last)} (“${text.slice(0, 24)}${last - first >= 5 ? "…" : ""}”)`;
}
