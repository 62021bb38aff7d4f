import assert from "node:assert/strict";
import { test } from "node:test";
import { Viewport } from "../../src/viewport";

const near = (a: number, b: number): void => assert.ok(Math.abs(a - b) < 1e-6 * Math.max(1, Math.abs(b)), `${a} is not ${b}`);

test("all tokens fit at first", () => {
  const view = new Viewport(1000, 500, 500);
  near(view.scale, 0.5);
  assert.deepEqual(view.cell(0, 0), { row: 0, column: 0 });
  assert.deepEqual(view.cell(499.9, 250), { row: 500, column: 999 });
  assert.equal(view.cell(-1, 10), null);
  assert.equal(view.cell(500, 10), null);
});

test("zooming keeps what is under the pointer", () => {
  const view = new Viewport(100_000, 640, 640);
  for (const [px, py] of [
    [320, 320],
    [100, 500],
    [600, 40],
  ]) {
    view.fit();
    const [column, row] = [view.x + px / view.scale, view.y + py / view.scale];
    for (let i = 0; i < 5; i++) view.zoom(1.7, px, py);
    near(view.x + px / view.scale, column);
    near(view.y + py / view.scale, row);
  }
});

test("zooming and panning stay inside", () => {
  const view = new Viewport(60, 600, 600);
  view.zoom(1 / 100, 10, 10);
  assert.ok(view.fitted);
  view.zoom(1e9, 10, 10);
  near(view.scale, 75);
  view.pan(-1e9, 1e9);
  near(view.x, 0);
  near(view.y, 60 - 600 / 75);
});

test("a cell out of view is brought in, and one in view moves nothing", () => {
  const view = new Viewport(1000, 500, 500);
  view.zoom(10, 0, 0);
  view.show(999, 500);
  assert.deepEqual(view.cell(499, 499), { row: 999, column: 500 });
  const before = [view.x, view.y];
  view.show(950, 450);
  assert.deepEqual([view.x, view.y], before);
});

test("a new size keeps the scale, or the fit", () => {
  const view = new Viewport(100, 400, 400);
  view.resize(200, 200);
  near(view.scale, 2);
  view.zoom(4, 0, 0);
  view.resize(300, 300);
  near(view.scale, 8);
});

test("a part fits at its longer side, keeps the positions of the text, and is not left", () => {
  const view = new Viewport(5000, 500, 500);
  view.within({ rows: [1000, 1050], keys: [40, 140] });
  near(view.scale, 5);
  assert.deepEqual(view.cell(0, 0), { row: 1000, column: 40 });
  assert.deepEqual(view.cell(499, 249), { row: 1049, column: 139 });
  assert.equal(view.cell(499, 251), null, "below the last row");
  assert.deepEqual(view.filled, [500, 250]);
  view.zoom(4, 0, 0);
  view.pan(-1e9, -1e9);
  assert.deepEqual(view.cell(0, 0), { row: 1000, column: 40 });
  view.pan(1e9, 1e9);
  assert.deepEqual(view.cell(499, 499), { row: 1049, column: 139 });
  view.show(1000, 139);
  assert.deepEqual(view.cell(499, 0), { row: 1000, column: 139 });
  view.fit();
  assert.deepEqual([view.x, view.y, view.scale], [40, 1000, 5]);
});
