// A map's level as a picture, one pixel a cell. All heat maps of the page are painted here.

import { css, sequential, type Rgb } from "./colour";
import { el } from "./dom";
import type { Level } from "./pyramid";
import { shade } from "./scale";

export interface Look {
  log: boolean;
  dark: boolean;
  /** The first so many tokens are left out, and the colours go to what is left. */
  hidden: number;
}

/** The mass that gets the last colour. */
export const most = (level: Level, look: Look): number => level.most(level.hidden(look.hidden));

/** The colour of each value that a byte of a map can have. */
function colours(level: Level, look: Look): Rgb[] {
  const full = most(level, look);
  return Array.from({ length: 256 }, (_, byte) => sequential(shade(level.of(byte), full, look.log), look.dark));
}

/** Hidden columns stay clear. */
export function picture(level: Level, look: Look): HTMLCanvasElement {
  const canvas = document.createElement("canvas");
  [canvas.width, canvas.height] = [level.columns, level.rows];
  const context = canvas.getContext("2d");
  if (!context) return canvas;
  const image = context.createImageData(level.columns, level.rows);
  const table = colours(level, look);
  const hidden = level.hidden(look.hidden);
  level.bytes.forEach((byte, at) => {
    if (at % level.columns >= hidden) image.data.set([...table[byte], 255], 4 * at);
  });
  context.putImageData(image, 0, 0);
  return canvas;
}

/** A strip of the colours from 0 to 1. */
export function ramp(colour: (t: number) => Rgb): HTMLElement {
  const stops = Array.from({ length: 17 }, (_, i) => css(colour(i / 16)));
  return el("span", { class: "ramp", style: `background:linear-gradient(to right,${stops.join(",")})` });
}

/** Pictures that were painted of late, so that panning paints none. */
export class Pictures {
  private readonly kept = new Map<string, HTMLCanvasElement>();

  get(level: Level, look: Look): HTMLCanvasElement {
    const key = `${level.block} ${look.log} ${look.dark} ${look.hidden}`;
    let found = this.kept.get(key);
    if (!found) this.kept.set(key, (found = picture(level, look)));
    return found;
  }
}
