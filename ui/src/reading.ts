// What one token reads, and who reads it: from the exact largest weights, or else from a map of single tokens.

import type { Pyramid } from "./pyramid";

export interface Reading {
  /** Tokens and weights, the largest first. */
  weights: [token: number, weight: number][];
  /** Whether the weights are exact, or rounded to what a byte holds. */
  exact: boolean;
}

/** Null when the report holds no single weights: a long text is kept as pooled maps only. */
export function reads(pyramid: Pyramid, row: number): Reading | null {
  return pyramid.top ? { weights: pyramid.top.row(row), exact: true } : fromMap(pyramid, column => [row, column]);
}

/** Of the exact weights only those that are among the largest of their row. */
export function isRead(pyramid: Pyramid, key: number): Reading | null {
  return pyramid.top ? { weights: pyramid.top.column(key), exact: true } : fromMap(pyramid, row => [row, key]);
}

const SHOWN = 8;

function fromMap(pyramid: Pyramid, cell: (at: number) => [row: number, column: number]): Reading | null {
  const level = pyramid.levels[0];
  if (level.block !== 1) return null;
  const all = Array.from({ length: pyramid.tokens }, (_, at): [number, number] => [at, level.mass(...cell(at))]);
  const weights = all.filter(([, weight]) => weight > 0).sort((a, b) => b[1] - a[1]);
  return { weights: weights.slice(0, SHOWN), exact: false };
}
