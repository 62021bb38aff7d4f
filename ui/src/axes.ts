// The sides of a heat map: names of tokens where there is room for them, else positions; and the frame.

import { shown } from "./dom";
import type { HeatMap } from "./heatmap";
import { ticks, whole } from "./scale";

/** From so many pixels a token on, tokens are named. */
const NAMED = 11;

export function sides(context: CanvasRenderingContext2D, { canvas, margins, tokens, view, numbered }: HeatMap): void {
  const { x, y, scale, width, height, area } = view;
  const { left, top } = margins;
  const style = getComputedStyle(canvas);
  const named = scale >= NAMED;
  [context.fillStyle, context.strokeStyle] = [style.color, style.color];
  context.font = `${named ? Math.min(12, Math.floor(scale)) : 11}px ${style.fontFamily}`;
  context.textBaseline = "middle";
  const places = (from: number, length: number, end: number): number[] => {
    const to = Math.min(end, from + length / scale);
    return named ? range(Math.floor(from), to) : ticks(from, Math.min(end - 1, to), length / 90).filter(Number.isInteger);
  };
  const text = (at: number): string => (named || !numbered ? shown(tokens[at]) : whole(at));
  for (const row of places(y, height, area.rows[1])) {
    const at = (row + 0.5 - y) * scale;
    if (at < -1 || at > height) continue;
    context.textAlign = "right";
    context.fillText(text(row), left - 7, top + at, left - 8);
    if (!named) context.fillRect(left - 5, top + at, 4, 1);
  }
  for (const column of places(x, width, area.keys[1])) {
    const at = (column + 0.5 - x) * scale;
    if (at >= -1 && at <= width) columnName(context, text(column), left + at, top, named);
  }
  context.globalAlpha = 0.35;
  context.strokeRect(left - 0.5, top - 0.5, view.filled[0] + 1, view.filled[1] + 1);
  context.globalAlpha = 1;
}

/** Tokens are written upwards, positions across. */
function columnName(context: CanvasRenderingContext2D, text: string, at: number, top: number, upwards: boolean): void {
  context.save();
  context.translate(at, top - 7);
  if (upwards) context.rotate(-Math.PI / 2);
  context.textAlign = upwards ? "left" : "center";
  context.fillText(text, 0, upwards ? 0 : -6, upwards ? top - 8 : undefined);
  if (!upwards) context.fillRect(0, 2, 1, 4);
  context.restore();
}

const range = (from: number, to: number): number[] => Array.from({ length: Math.max(0, Math.ceil(to) - from) }, (_, i) => from + i);
