// Pointer, wheel, pinch and keys on a heat map.

import type { Span } from "./area";
import type { Cell } from "./cell";
import type { HeatMap } from "./heatmap";

/** A press that moves less than this is a click. */
const CLICK = 4;
const STEP = 1.3;

export function listen(map: HeatMap): void {
  pointers(map);
  map.canvas.addEventListener("wheel", event => wheel(map, event), { passive: false });
  map.canvas.addEventListener("keydown", event => key(map, event));
  map.canvas.addEventListener("dblclick", event => zoom(map, 2, place(map, event)));
}

/** Zooms about a place of the map, its middle by default. */
export function zoom(map: HeatMap, factor: number, at: [number, number] = [map.view.width / 2, map.view.height / 2]): void {
  map.view.zoom(factor, ...at);
  map.draw();
}

function place(map: HeatMap, event: MouseEvent): [number, number] {
  const box = map.canvas.getBoundingClientRect();
  return [event.clientX - box.left - map.margins.left, event.clientY - box.top - map.margins.top];
}

function point(map: HeatMap, cell: Cell | null): void {
  map.cursor = cell;
  map.say(cell);
  map.draw();
}

function pointers(map: HeatMap): void {
  const { canvas } = map;
  const down = new Map<number, [number, number]>();
  let moved = 0;
  canvas.addEventListener("pointerdown", event => {
    if (event.button !== 0) return;
    if (down.size === 0) moved = 0;
    down.set(event.pointerId, place(map, event));
    canvas.setPointerCapture(event.pointerId);
  });
  canvas.addEventListener("pointermove", event => {
    const [from, to] = [down.get(event.pointerId), place(map, event)];
    if (!from) return point(map, map.view.cell(...to));
    moved += Math.hypot(to[0] - from[0], to[1] - from[1]);
    const other = [...down].find(([id]) => id !== event.pointerId)?.[1];
    if (other) pinch(map, from, to, other);
    else map.view.pan(from[0] - to[0], from[1] - to[1]);
    down.set(event.pointerId, to);
    canvas.classList.toggle("dragged", moved > CLICK);
    map.draw();
  });
  const up = (event: PointerEvent): void => {
    const single = down.size === 1;
    if (!down.delete(event.pointerId)) return;
    canvas.classList.remove("dragged");
    const cell = map.view.cell(...place(map, event));
    if (event.type === "pointerup" && single && moved <= CLICK && cell) {
      point(map, cell);
      map.choose(cell);
    }
  };
  canvas.addEventListener("pointerup", up);
  canvas.addEventListener("pointercancel", up);
  canvas.addEventListener("pointerleave", () => document.activeElement !== canvas && point(map, null));
}

/** One finger of two went from `from` to `to`: the map grows as their distance does, and follows their middle. */
function pinch(map: HeatMap, from: [number, number], to: [number, number], other: [number, number]): void {
  const apart = ([x, y]: [number, number]): number => Math.max(1, Math.hypot(x - other[0], y - other[1]));
  map.view.pan((from[0] - to[0]) / 2, (from[1] - to[1]) / 2);
  map.view.zoom(apart(to) / apart(from), (to[0] + other[0]) / 2, (to[1] + other[1]) / 2);
}

/** Scrolls the page, unless the map has the focus or Ctrl (a touchpad's pinch) is held. */
function wheel(map: HeatMap, event: WheelEvent): void {
  if (document.activeElement !== map.canvas && !event.ctrlKey) return;
  event.preventDefault();
  const lines = event.deltaMode === WheelEvent.DOM_DELTA_LINE ? 30 : 1;
  zoom(map, Math.exp(-event.deltaY * lines * (event.ctrlKey ? 0.01 : 0.002)), place(map, event));
}

function key(map: HeatMap, event: KeyboardEvent): void {
  if (event.ctrlKey || event.metaKey || event.altKey) return;
  if (event.key === "+" || event.key === "=") zoom(map, STEP, centre(map));
  else if (event.key === "-") zoom(map, 1 / STEP, centre(map));
  else if (event.key === "0") (map.view.fit(), map.draw());
  else if (event.key === "Enter" && map.cursor) map.choose(map.cursor);
  else if (event.key === "Escape") map.canvas.blur();
  else if (!move(map, event)) return;
  event.preventDefault();
}

/** The cursor's middle, when there is a cursor. */
function centre(map: HeatMap): [number, number] | undefined {
  if (!map.cursor) return undefined;
  const { x, y, scale } = map.view;
  return [(map.cursor.column + 0.5 - x) * scale, (map.cursor.row + 0.5 - y) * scale];
}

/** Arrow keys move the cursor by a cell, with Shift by ten; false for other keys. */
function move(map: HeatMap, event: KeyboardEvent): boolean {
  const directions: Record<string, [number, number]> = { ArrowUp: [-1, 0], ArrowDown: [1, 0], ArrowLeft: [0, -1], ArrowRight: [0, 1] };
  const direction = directions[event.key];
  if (!direction || !map.level) return false;
  const step = (map.singles ? 1 : map.level.block) * (event.shiftKey ? 10 : 1);
  const { rows, keys } = map.view.area;
  const inside = (at: number, [start, end]: Span): number => Math.min(end - 1, Math.max(start, at));
  const from = map.cursor ?? { row: Math.floor(map.view.y), column: Math.floor(map.view.x) };
  const [row, column] = [from.row + direction[0] * step, from.column + direction[1] * step];
  const to = map.cursor ? { row: inside(row, rows), column: inside(column, keys) } : from;
  map.view.show(to.row, to.column);
  point(map, to);
  return true;
}
