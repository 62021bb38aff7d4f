import assert from "node:assert/strict";
import { test } from "node:test";
import { mass, mean, number, percent, quantile, shade, short, tick, ticks } from "../../src/scale";

test("a linear shade is the share of the most", () => {
  assert.equal(shade(0.25, 0.5, false), 0.5);
  assert.equal(shade(0.9, 0.5, false), 1);
  for (const nothing of [0, -1, NaN]) assert.equal(shade(nothing, 1, false), 0);
  assert.equal(shade(0.5, 0, false), 0);
});

test("a logarithmic shade grows by a fifth with each power of ten", () => {
  for (let power = 0; power <= 5; power++) assert.ok(Math.abs(shade(10 ** -power, 1, true) - (1 - power / 5)) < 1e-12);
  assert.equal(shade(1e-9, 1, true), 0);
  assert.equal(shade(0, 1, true), 0);
});

test("ticks are round and lie inside", () => {
  assert.deepEqual(ticks(0, 1, 4), [0, 0.5, 1]);
  assert.deepEqual(ticks(0, 99_999, 6), [0, 20_000, 40_000, 60_000, 80_000]);
  assert.deepEqual(ticks(-0.03, 0.05, 4), [-0.02, 0, 0.02, 0.04]);
  assert.deepEqual(ticks(3, 3, 4), [3]);
});

test("numbers read as a person writes them", () => {
  assert.deepEqual([0, 1.7, -0.0123, 12.34, 123.4, 131072, null, NaN, 0.00032, -2e-9].map(number), [
    "0",
    "1.70",
    "−0.012",
    "12.3",
    "123",
    "131,072",
    "–",
    "–",
    "0.0003",
    "−2e−9",
  ]);
  assert.deepEqual([0, 0.2, 100, 80_000, -0.5].map(tick), ["0", "0.2", "100", "80,000", "−0.5"]);
  assert.deepEqual([0, 0.0004, 0.021, 0.42, 1].map(percent), ["0 %", "under 0.1 %", "2.1 %", "42 %", "100 %"]);
  assert.deepEqual([0, 0.00002, 0.0123, 0.5].map(mass), ["less than 0.00001", "0.00002", "0.0123", "0.500"]);
  assert.deepEqual([512, 3_400_000, 7e9, 32_768].map(short), ["512", "3.40 M", "7.00 B", "32.8 k"]);
});

test("means skip what is missing; quantiles lie between", () => {
  assert.equal(mean([null, 1, 3]), 2);
  assert.equal(mean([null]), null);
  assert.equal(quantile([4, 1, 3, 2], 0.5), 2.5);
  assert.equal(quantile([1, 2, 3], 1), 3);
});
