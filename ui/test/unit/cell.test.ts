import assert from "node:assert/strict";
import { test } from "node:test";
import { describe as says } from "../../src/cell";
import { Pyramid } from "../../src/pyramid";
import { long, small, zoomed } from "../fixture";

test("a cell of single tokens names both and their exact weight", () => {
  const { lens, weights } = small();
  const { tokens } = lens.texts[0];
  const pyramid = Pyramid.of(lens.heads[0], tokens.length)!;
  const weight = weights[0][10 * tokens.length + 9].toFixed(3);
  assert.equal(says(pyramid, pyramid.levels[0], { row: 10, column: 9 }, tokens), `Token 10 “·a” reads token 9 “·and”: ${weight}`);
  assert.match(says(pyramid, pyramid.levels[0], { row: 10, column: 40 }, tokens), /: less than 0\.00001$/);
});

test("a cell of blocks says so", () => {
  const { heads, texts } = long();
  const pyramid = Pyramid.of(heads[0], 100_000)!;
  const text = says(pyramid, pyramid.levels[0], { row: 99_999, column: 99_990 }, texts[0].tokens);
  assert.match(text, /^Tokens 99,840 to 99,999 \(“.*…”\) read tokens 99,840 to 99,999 .*: about 0\.\d+ of their mass, on average$/);
});

test("a cell of a part has the text's positions, and its last block ends where the part does", () => {
  const { lens, weights } = small();
  const { tokens } = lens.texts[0];
  const area = { rows: [20, 40], keys: [8, 15] } as const;
  const [fine, coarse] = [1, 4].map(block => Pyramid.part(zoomed(weights[0], area, block), null, tokens.length));
  const weight = weights[0][30 * tokens.length + 14];
  const told = says(fine, fine.levels[0], { row: 30, column: 14 }, tokens);
  const [, share] = /^Token 30 “⏎” reads token 14 “·The”: about ([\d.]+)$/.exec(told)!;
  assert.ok(Math.abs(Number(share) - weight) < 0.0005 + Math.sqrt(weight) / 255, `${share} is not ${weight}`);
  assert.match(
    says(coarse, coarse.levels[0], { row: 25, column: 14 }, tokens),
    /^Tokens 24 to 27 \(“.*”\) read tokens 12 to 14 \(“crow\. The”\): about/,
  );
});
