import assert from "node:assert/strict";
import { test } from "node:test";
import { diverging, ink, kind, sequential, type Rgb } from "../../src/colour";
import { lightness } from "../oklab";

test("lightness is linear in the number, in both themes", () => {
  for (const dark of [false, true]) {
    const at = (t: number): number => lightness(sequential(t, dark));
    const [low, high] = [at(0), at(1)];
    assert.ok(Math.abs(high - low) > 0.65);
    for (let t = 0; t <= 1.0001; t += 0.02) assert.ok(Math.abs(at(t) - (low + (high - low) * t)) < 0.008, `${dark} ${t}: ${at(t)}`);
  }
});

test("nothing has the paper's colour, near enough", () => {
  for (const [dark, paper] of [
    [false, [253, 253, 251]],
    [true, [22, 24, 27]],
  ] as const) {
    sequential(0, dark).forEach((value, i) => assert.ok(Math.abs(value - paper[i]) <= 8, `${dark}: ${sequential(0, dark)}`));
  }
});

test("numbers outside of the range get its ends", () => {
  assert.deepEqual(sequential(-3, false), sequential(0, false));
  assert.deepEqual(sequential(7, true), sequential(1, true));
  assert.deepEqual(diverging(-9, false), diverging(-1, false));
});

test("both sides of zero are as light and differ in hue: blue below, orange above", () => {
  for (const dark of [false, true]) {
    const [below, above] = [diverging(-0.8, dark), diverging(0.8, dark)];
    assert.ok(Math.abs(lightness(below) - lightness(above)) < 0.01);
    assert.ok(below[2] > below[0] + 60 && above[0] > above[2] + 60, `${below} ${above}`);
  }
});

test("eight kinds differ pairwise", () => {
  for (const dark of [false, true]) {
    const all = Array.from({ length: 8 }, (_, i) => kind(i, dark));
    const apart = (a: Rgb, b: Rgb): number => Math.hypot(a[0] - b[0], a[1] - b[1], a[2] - b[2]);
    for (let i = 0; i < 8; i++) for (let j = 0; j < i; j++) assert.ok(apart(all[i], all[j]) > 24, `${i} ${j}: ${all[i]} ${all[j]}`);
  }
});

test("ink on every colour has a contrast of at least 4.5 (WCAG 2, AA)", () => {
  const linear = (value: number): number => (value <= 0.04045 ? value / 12.92 : ((value + 0.055) / 1.055) ** 2.4);
  const luminance = (colour: Rgb): number => [0.2126, 0.7152, 0.0722].reduce((sum, part, i) => sum + part * linear(colour[i] / 255), 0);
  for (const dark of [false, true]) {
    for (let i = 0; i <= 40; i++) {
      for (const colour of [sequential(i / 40, dark), diverging(i / 20 - 1, dark), kind(i, dark)]) {
        const [a, b] = [luminance(colour), ink(colour) === "#000" ? 0 : 1];
        const contrast = (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
        assert.ok(contrast >= 4.5, `${colour} under ${ink(colour)}: ${contrast}`);
      }
    }
  }
});
