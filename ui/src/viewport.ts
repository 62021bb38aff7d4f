// Which part of a map, of all tokens or of some, a rectangle of pixels shows.

import { span, square, type Area } from "./area";

export class Viewport {
  /** The token (a fraction of one) at the left and at the top. */
  x = 0;
  y = 0;
  /** Pixels a token. */
  scale = 1;
  /** What there is to be seen. */
  area: Area;

  constructor(
    tokens: number,
    public width: number,
    public height: number,
  ) {
    this.area = square(tokens);
    this.fit();
  }

  /** Shows another area, all of it. */
  within(area: Area): void {
    this.area = area;
    this.fit();
  }

  /** The pixels, across and down, that show the area: one that is not square leaves some empty. */
  get filled(): [number, number] {
    const { rows, keys } = this.area;
    return [Math.min(this.width, (keys[1] - this.x) * this.scale), Math.min(this.height, (rows[1] - this.y) * this.scale)];
  }

  get fitScale(): number {
    return Math.min(this.width / span(this.area.keys), this.height / span(this.area.rows));
  }

  /** A token may fill an eighth of the picture, or 64 pixels. */
  get mostScale(): number {
    return Math.max(this.fitScale, 64, Math.min(this.width, this.height) / 8);
  }

  get fitted(): boolean {
    return this.scale <= this.fitScale * 1.0001;
  }

  fit(): void {
    [this.x, this.y, this.scale] = [this.area.keys[0], this.area.rows[0], this.fitScale];
  }

  resize(width: number, height: number): void {
    const fitted = this.fitted;
    [this.width, this.height] = [width, height];
    if (fitted) this.fit();
    else this.zoom(1, 0, 0);
  }

  /** Moves by pixels. */
  pan(dx: number, dy: number): void {
    this.x += dx / this.scale;
    this.y += dy / this.scale;
    this.clamp();
  }

  /** Multiplies the scale; the token under the pixel (px, py) stays there. */
  zoom(factor: number, px: number, py: number): void {
    const scale = Math.min(this.mostScale, Math.max(this.fitScale, this.scale * factor));
    this.x += px / this.scale - px / scale;
    this.y += py / this.scale - py / scale;
    this.scale = scale;
    this.clamp();
  }

  /** Moves as little as shows a cell whole. */
  show(row: number, column: number): void {
    const [across, down] = [this.width / this.scale, this.height / this.scale];
    this.x = Math.min(column, Math.max(this.x, column + 1 - across));
    this.y = Math.min(row, Math.max(this.y, row + 1 - down));
    this.clamp();
  }

  /** The row and the column under a pixel; null outside of the map. */
  cell(px: number, py: number): { row: number; column: number } | null {
    const [column, row] = [Math.floor(this.x + px / this.scale), Math.floor(this.y + py / this.scale)];
    const inside = px >= 0 && py >= 0 && px < this.width && py < this.height;
    return inside && column < this.area.keys[1] && row < this.area.rows[1] ? { row, column } : null;
  }

  private clamp(): void {
    const { rows, keys } = this.area;
    this.x = Math.max(keys[0], Math.min(this.x, keys[1] - this.width / this.scale));
    this.y = Math.max(rows[0], Math.min(this.y, rows[1] - this.height / this.scale));
  }
}
