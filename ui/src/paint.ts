// A map's level as a picture, one pixel a cell. All heat maps of the page are painted here.

import { sequential, type Rgb } from "./colour";
import { massOf, type Level } from "./pyramid";
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
export function colours(full: number, look: Look): Rgb[] {
  return Array.from({ length: 256 }, (_, byte) => sequential(shade(massOf(byte), full, look.log), look.dark));
}

/** Hidden columns stay clear. */
export function picture(level: Level, look: Look): HTMLCanvasElement {
  const canvas = document.createElement("canvas");
  [canvas.width, canvas.height] = [level.columns, level.rows];
  const context = canvas.getContext("2d");
  if (!context) return canvas;
  const image = context.createImageData(level.columns, level.rows);
  const table = colours(most(level, look), look);
  const hidden = level.hidden(look.hidden);
  level.bytes.forEach((byte, at) => {
    if (at % level.columns >= hidden) image.data.set([...table[byte], 255], 4 * at);
  });
  context.putImageData(image, 0, 0);
  return canvas;
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
