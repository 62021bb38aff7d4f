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
  const [row, column] = level.cell(cell.row, cell.column);
  if (block === 1) {
    const weight = pyramid.top?.weight(cell.row, cell.column) ?? null;
    const share = weight === null ? about(level.bytes[row * level.columns + column]) : mass(weight);
    return `${one(cell.row, tokens)} reads ${one(cell.column, tokens)}: ${share}`;
  }
  const share = about(level.bytes[row * level.columns + column]);
  const { rows, keys } = pyramid.area;
  const [reading, read] = [some(level.row + row * block, block, rows[1], tokens), some(level.key + column * block, block, keys[1], tokens)];
  const pooled = `${reading} read ${read}: ${share} of their mass, on average`;
  const exact = pyramid.top?.weight(cell.row, cell.column) ?? null;
  return exact === null ? pooled : `${one(cell.row, tokens)} reads ${one(cell.column, tokens)}: ${mass(exact)}; ${pooled}`;
}

/** A byte holds √mass in 255 steps: what it stands for is about right, and 0 is little, not nothing. */
function about(byte: number): string {
  return byte === 0 ? mass(0) : `about ${mass(massOf(byte))}`;
}

const one = (at: number, tokens: readonly string[]): string => `token ${whole(at)} “${shown(tokens[at] ?? "")}”`;

function some(first: number, block: number, end: number, tokens: readonly string[]): string {
  const last = Math.min(end, first + block) - 1;
  const text = tokens
    .slice(first, Math.min(first + 5, last + 1))
    .join("")
    .trim();
  return `tokens ${whole(first)} to ${whole(last)} (“${text.slice(0, 24)}${last - first >= 5 ? "…" : ""}”)`;
}
