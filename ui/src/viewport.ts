// Which part of a map of tokens × tokens a square of pixels shows.

export class Viewport {
  /** The token (a fraction of one) at the left and at the top. */
  x = 0;
  y = 0;
  /** Pixels a token. */
  scale = 1;

  constructor(
    public tokens: number,
    public width: number,
    public height: number,
  ) {
    this.fit();
  }

  get fitScale(): number {
    return Math.min(this.width, this.height) / this.tokens;
  }

  /** A token may fill an eighth of the picture, or 64 pixels. */
  get mostScale(): number {
    return Math.max(this.fitScale, 64, Math.min(this.width, this.height) / 8);
  }

  get fitted(): boolean {
    return this.scale <= this.fitScale * 1.0001;
  }

  fit(): void {
    [this.x, this.y, this.scale] = [0, 0, this.fitScale];
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
    const inside = px >= 0 && py >= 0 && px < this.width && py < this.height && column < this.tokens && row < this.tokens;
    return inside ? { row, column } : null;
  }

  private clamp(): void {
    this.x = Math.max(0, Math.min(this.x, this.tokens - this.width / this.scale));
    this.y = Math.max(0, Math.min(this.y, this.tokens - this.height / this.scale));
  }
}
