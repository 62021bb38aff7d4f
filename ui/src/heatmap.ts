// The heat map of one head on a canvas: draws what its viewport shows, from the level that fits the zoom.

import { areaName, span, type Area } from "./area";
import { sides } from "./axes";
import type { Cell } from "./cell";
import { css, sequential } from "./colour";
import { atWidth, el } from "./dom";
import { listen } from "./gestures";
import { Pictures, most, type Look } from "./paint";
import type { Level, Pyramid } from "./pyramid";
import { shade } from "./scale";
import { Viewport } from "./viewport";

/** A cell of a level is at least so many pixels wide, or a coarser level is drawn. */
const CELL = 2;
/** From so many pixels a token on, single weights are drawn over pooled ones. */
const SINGLE = 4;
/** Pixels to the longer side of the map, at most; the shorter one has at least a quarter of it. */
const SIDE = 640;
const LEAST_SIDE = 1 / 4;

export interface Margins {
  left: number;
  top: number;
}

export class HeatMap {
  readonly canvas = el("canvas", { class: "map", tabindex: 0, role: "application", "aria-roledescription": "heat map" });
  readonly element = el("div", { class: "map-place" }, this.canvas);
  readonly view: Viewport;
  margins: Margins = { left: 76, top: 56 };
  cursor: Cell | null = null;
  /** Squares on the diagonal to be framed: where each begins, and the first place after it. */
  frames: readonly [number, number][] = [];
  private pyramid: Pyramid | null = null;
  private look: Look = { log: false, dark: false, hidden: 0 };
  private pictures = new Pictures();
  private asked = false;
  private drawn = 0;
  private side = 0;

  /** `say` hears the cell that is pointed at, `choose` the one that is clicked; `numbered`: where names have no room, numbers tell as much. */
  constructor(
    readonly tokens: readonly string[],
    readonly say: (cell: Cell | null) => void,
    readonly choose: (cell: Cell) => void,
    private readonly after: () => void,
    readonly numbered = true,
  ) {
    this.view = new Viewport(tokens.length, 1, 1);
    atWidth(this.element, width => this.resize(width));
    listen(this);
  }

  show(pyramid: Pyramid, look: Look): void {
    if (pyramid !== this.pyramid) this.pictures = new Pictures();
    [this.pyramid, this.look] = [pyramid, look];
    if (areaName(pyramid.area) !== areaName(this.view.area)) this.within(pyramid.area);
    this.draw();
  }

  private within(area: Area): void {
    this.cursor = null;
    this.view.within(area);
    this.reshape();
  }

  /** The level that is drawn now. */
  get level(): Level | null {
    return this.pyramid?.level(this.view.scale, CELL) ?? null;
  }

  /** Whether single weights lie over the pooled ones. */
  get singles(): boolean {
    return this.level !== null && this.level.block > 1 && this.view.scale >= SINGLE && this.pyramid?.top !== null;
  }

  /** Draws before the next frame, once however often it is asked for. */
  draw(): void {
    if (this.asked) return;
    this.asked = true;
    requestAnimationFrame(() => {
      this.asked = false;
      this.paint();
      this.after();
    });
  }

  private resize(width: number): void {
    this.margins = width < 420 ? { left: 56, top: 46 } : { left: 76, top: 56 };
    this.side = Math.min(width - this.margins.left - 1, SIDE);
    this.reshape();
  }

  /** As wide and as high as the area asks for. */
  private reshape(): void {
    if (this.side === 0) return; // it has no place yet
    const [down, across] = [span(this.view.area.rows), span(this.view.area.keys)];
    const [width, height] = [across, down].map(length => Math.round(this.side * Math.max(LEAST_SIDE, length / Math.max(down, across))));
    const all = [width + this.margins.left + 1, height + this.margins.top + 1];
    const ratio = devicePixelRatio || 1;
    [this.canvas.width, this.canvas.height] = all.map(length => Math.round(length * ratio));
    [this.canvas.style.width, this.canvas.style.height] = all.map(length => `${length}px`);
    this.view.resize(width, height);
    this.draw();
  }

  private paint(): void {
    const [context, level] = [this.canvas.getContext("2d"), this.level];
    if (!context || !level || !this.pyramid) return;
    const ratio = devicePixelRatio || 1;
    context.setTransform(ratio, 0, 0, ratio, 0, 0);
    context.clearRect(0, 0, this.canvas.width, this.canvas.height);
    sides(context, this);
    context.save();
    context.translate(this.margins.left, this.margins.top);
    context.beginPath();
    context.rect(0, 0, ...this.view.filled);
    context.clip();
    this.cells(context, level);
    if (this.singles) this.weights(context);
    this.hidden(context, level);
    this.framed(context);
    this.mark(context, level);
    context.restore();
    this.canvas.style.touchAction = this.view.fitted ? "pan-y" : "none";
    Object.assign(this.canvas.dataset, { block: level.block, drawn: ++this.drawn });
  }

  /** The part of the level's picture that is in view. */
  private cells(context: CanvasRenderingContext2D, level: Level): void {
    const { x, y, scale, width, height } = this.view;
    const { block, row, key } = level;
    const [top, left] = level.cell(y, x);
    const columns = Math.min(level.columns, Math.ceil((x - key + width / scale) / block)) - left;
    const rows = Math.min(level.rows, Math.ceil((y - row + height / scale) / block)) - top;
    const size = block * scale;
    context.imageSmoothingEnabled = size < 1;
    if (this.singles) context.globalAlpha = 0.2;
    context.drawImage(
      this.pictures.get(level, this.look),
      left,
      top,
      columns,
      rows,
      left * size - (x - key) * scale,
      top * size - (y - row) * scale,
      columns * size,
      rows * size,
    );
    context.globalAlpha = 1;
  }

  /** The largest weights of the rows in view, each at its own cell. */
  private weights(context: CanvasRenderingContext2D): void {
    const { x, y, scale, height } = this.view;
    const [{ top }, { full }] = [this.pyramid as Pyramid, this];
    const last = Math.min(this.view.area.rows[1], Math.ceil(y + height / scale));
    for (let row = Math.floor(y); row < last; row++) {
      for (const [key, weight] of top?.row(row) ?? []) {
        const t = shade(weight, full, this.look.log);
        if (key < this.look.hidden || t < 0.02) continue;
        context.fillStyle = css(sequential(t, this.look.dark));
        context.fillRect((key - x) * scale, (row - y) * scale, scale, scale);
      }
    }
  }

  /** Stripes over the keys that are left out. */
  private hidden(context: CanvasRenderingContext2D, level: Level): void {
    const width = (level.key + level.hidden(this.look.hidden) * level.block - this.view.x) * this.view.scale;
    if (width <= 0 || this.look.hidden === 0) return;
    context.save();
    context.beginPath();
    context.rect(0, 0, width, this.view.height);
    context.clip();
    context.strokeStyle = getComputedStyle(this.canvas).color;
    context.globalAlpha = 0.25;
    context.beginPath();
    for (let at = -this.view.height; at < width; at += 7) {
      context.moveTo(at, this.view.height);
      context.lineTo(at + this.view.height, 0);
    }
    context.stroke();
    context.restore();
  }

  private framed(context: CanvasRenderingContext2D): void {
    const { x, y, scale } = this.view;
    for (const [from, to] of this.frames) this.outline(context, (from - x) * scale, (from - y) * scale, (to - from) * scale);
  }

  private mark(context: CanvasRenderingContext2D, level: Level): void {
    if (!this.cursor) return;
    const { x, y, scale } = this.view;
    const { row, column } = this.cursor;
    const [down, across] = level.cell(row, column);
    const [block, top, left] = this.singles
      ? [1, row, column]
      : [level.block, level.row + down * level.block, level.key + across * level.block];
    this.outline(context, (left - x) * scale - 1, (top - y) * scale - 1, block * scale + 2);
  }

  /** A square in black and white, which shows on all colours. */
  private outline(context: CanvasRenderingContext2D, left: number, top: number, side: number): void {
    for (const [colour, width] of [
      [this.look.dark ? "#000" : "#fff", 3],
      [this.look.dark ? "#fff" : "#000", 1.5],
    ] as const) {
      context.strokeStyle = colour;
      context.lineWidth = width;
      context.strokeRect(left, top, side, side);
    }
  }

  /** The mass that has the last colour of the scale. */
  get full(): number {
    return this.level ? most(this.level, this.look) : 0;
  }
}
