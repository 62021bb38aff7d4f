import assert from "node:assert/strict";
import { test } from "node:test";
import { read } from "../../src/lens";
import { Pyramid } from "../../src/pyramid";
import { isRead, reads } from "../../src/reading";
import { halve, long, small, zoomed } from "../fixture";

const { lens, weights } = small();
const tokens = lens.texts[0].tokens.length;

test("a map of single tokens holds every weight, to half a step of its root", () => {
  for (const [index, truth] of weights.entries()) {
    const [level] = Pyramid.of(lens.heads[index], tokens)!.levels;
    assert.equal(level.block, 1);
    truth.forEach((weight, at) => {
      const mass = level.mass(Math.floor(at / tokens), at % tokens);
      assert.ok(Math.abs(Math.sqrt(mass) - Math.sqrt(weight)) <= 0.5 / 255 + 1e-12);
    });
  }
});

test("pooling sums keys and averages rows, the last block being short", () => {
  // 3 tokens in blocks of 1, to blocks of 2: rows 0 and 1 together, row 2 alone.
  const cells = Float64Array.from([1, 0, 0, 0.25, 0.75, 0, 0.2, 0.3, 0.5]);
  assert.deepEqual(
    [...halve(cells, 3, 3, 1)].map(value => Number(value.toFixed(12))),
    [1, 0, 0.5, 0.5],
  );
});

test("every level's rows sum to one", () => {
  for (const level of Pyramid.of(lens.heads[13], tokens)!.levels) {
    for (let row = 0; row < level.rows; row++) {
      let sum = 0;
      for (let column = 0; column < level.columns; column++) sum += level.mass(row, column);
      assert.ok(Math.abs(sum - 1) < 0.05, `${level.block}: row ${row} sums to ${sum}`);
    }
  }
});

test("the level drawn is the finest whose cells are wide enough", () => {
  const pyramid = Pyramid.of(long().heads[0], 100_000)!;
  assert.deepEqual(
    pyramid.levels.map(level => level.block),
    [512, 1024, 2048, 4096, 8192],
  );
  const block = (scale: number): number => pyramid.level(scale, 2).block;
  assert.deepEqual([1, 2 / 512, 1.9 / 512, 2 / 4096, 1e-9].map(block), [512, 512, 1024, 4096, 8192]);
});

test("the most mass skips hidden keys", () => {
  const sink = lens.heads.find(head => (head.scores.first ?? 0) > 0.6)!;
  const [level] = Pyramid.of(sink, tokens)!.levels;
  assert.equal(level.hidden(4), 4);
  assert.ok(level.most(0) > 0.99 && level.most(4) < 0.3);
  assert.equal(Pyramid.of(sink, tokens)!.levels[1].hidden(3), 2);
});

test("a part holds the weights of its rows and keys, and hides those of the first tokens that it has", () => {
  const area = { rows: [30, 50], keys: [2, 14] } as const;
  const [level] = Pyramid.part(zoomed(weights[5], area), null, tokens).levels;
  for (let row = 30; row < 50; row++) {
    for (let key = 2; key < 14; key++) {
      const mass = level.mass(...level.cell(row, key));
      assert.ok(Math.abs(Math.sqrt(mass) - Math.sqrt(weights[5][row * tokens + key])) <= 0.5 / 255 + 1e-12);
    }
  }
  assert.deepEqual(
    [0, 1, 4, 99].map(first => level.hidden(first)),
    [0, 0, 2, 12],
  );
});

test("what a token reads are its largest weights, exactly", () => {
  const [head, row] = [20, 50];
  const truth = [...weights[head].subarray(row * tokens, (row + 1) * tokens)].map((weight, key): [number, number] => [key, weight]);
  const largest = truth.sort((a, b) => b[1] - a[1]).slice(0, 8);
  const reading = reads(Pyramid.of(lens.heads[head], tokens)!, row)!;
  assert.ok(reading.exact);
  assert.deepEqual(
    reading.weights,
    largest.map(([key, weight]) => [key, Math.fround(weight)]),
  );
});

test("who reads a token are the rows that hold it", () => {
  const found = isRead(Pyramid.of(lens.heads[20], tokens)!, 0)!.weights;
  assert.ok(found.length > 3);
  for (const [row, weight] of found) assert.equal(weight, Math.fround(weights[20][row * tokens]));
});

test("without the largest weights a map of single tokens serves, and a pooled one does not", () => {
  const head = { ...lens.heads[20], top: null };
  const reading = reads(Pyramid.of(head, tokens)!, 50)!;
  assert.ok(!reading.exact && reading.weights.length === 8);
  assert.equal(reading.weights[0][0], reads(Pyramid.of(lens.heads[20], tokens)!, 50)!.weights[0][0]);
  assert.equal(reads(Pyramid.of({ ...head, maps: head.maps.slice(1) }, tokens)!, 50), null);
  assert.equal(Pyramid.of({ ...head, maps: [] }, tokens), null);
});

test("the first row has one key, and its unused places none", () => {
  assert.deepEqual(reads(Pyramid.of(lens.heads[3], tokens)!, 0)!.weights, [[0, 1]]);
});

test("the fixtures are what the format asks for", () => {
  for (const each of [lens, long()]) assert.deepEqual(read(JSON.parse(JSON.stringify(each))).heads.length, 48);
});
