// A part of a map: which tokens read, and which are read.

import { whole } from "./scale";

/** From a token to the first after it. */
export type Span = readonly [start: number, end: number];

export interface Area {
  rows: Span;
  keys: Span;
}

/** All of a text. */
export const square = (tokens: number): Area => ({ rows: [0, tokens], keys: [0, tokens] });

export const span = ([start, end]: Span): number => end - start;

/** Rows 1,000 to 1,255, keys 0 to 255; it tells areas apart. */
export const areaName = ({ rows, keys }: Area): string => `${spanName("row", rows)}, ${spanName("key", keys)}`;

const spanName = (one: string, [start, end]: Span): string =>
  end - start === 1 ? `${one} ${whole(start)}` : `${one}s ${whole(start)} to ${whole(end - 1)}`;
