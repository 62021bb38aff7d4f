import assert from "node:assert/strict";
import { test } from "node:test";
import { facts, ranked } from "../../src/facts";
import type { Lens } from "../../src/lens";
import { brief, measures, shades, worded } from "../../src/measures";
import { small } from "../fixture";

const { lens } = small();
const fact = (of: Lens, title: string): string => facts(of).find(each => each.title === title)?.text ?? "no such fact";

/** The fixture with one head's values changed. */
function having(index: number, change: object, others: object = {}): Lens {
  return { ...lens, heads: lens.heads.map((head, at) => ({ ...head, ...(at === index ? change : others) })) };
}

test("a head that is clearly of a pattern is named, with how many are", () => {
  const none = { scores: { ...lens.heads[0].scores, induction: 0.05 } };
  const one = { scores: { ...lens.heads[0].scores, induction: 0.9 } };
  assert.match(
    fact(having(21, one, none), "Induction"),
    /^Layer 2, head 5 is an induction head: in random tokens said twice, 90 % of its mass/,
  );
  assert.match(fact(having(21, none, none), "Induction"), /^No head stands out\. The nearest is layer 0, head 0: .* 5\.0 %/);
});

test("a score of nothing, and a text too short for its sinks, are said to be that", () => {
  const none = { scores: { ...lens.heads[0].scores, retrieval: 0 } };
  assert.equal(fact(having(0, none, none), "Retrieval"), "No head does it at all.");
  assert.match(fact({ ...lens, run: { ...lens.run, tokens: 12 } }, "Sinks"), /In so short a text that says little\.$/);
  assert.doesNotMatch(fact(lens, "Sinks"), /short/);
});

test("what was not measured is said", () => {
  const unknown = { ablation: { zero: null, mean: null, resample: null } };
  assert.equal(fact(lens, "Retrieval"), "Not measured.");
  assert.equal(fact(having(0, unknown, unknown), "What is needed"), "Ablation was not measured.");
  assert.equal(fact({ ...lens, texts: [{ ...lens.texts[0], loss: null }] }, "Loss"), "The loss was not measured.");
});

test("the head that is missed most, and the one that is better left out", () => {
  const of = (zero: number, mean: number | null, resample: number | null): object => ({ ablation: { zero, mean, resample } });
  const without = (lens: Lens): string => fact(lens, "What is needed");
  const alone = { ...having(10, of(0.5, null, null), of(-0.002, null, null)), layers: [] };
  assert.match(
    without(alone),
    /^Without layer 1, head 2 the loss grows by 0\.500 nats a token.* Without layer 5, head 7 it falls by 0\.002\.$/,
  );
  const layers = [0.7, 0.9, 0.8].map((zero, layer) => ({ layer, ablation: { zero, mean: 0, resample: 0 } }));
  const all = { ...having(10, of(0.5, 0.1, 0.3), of(-0.002, 0.2, -0.4)), layers };
  assert.match(
    without(all),
    / Without all heads of layer 1 it grows by 0\.900\. With its mean in its place, layer 0, head 0 is missed most \(0\.200\)\. With what it gives elsewhere, layer 1, head 2 is missed most \(0\.300\)\.$/,
  );
});

test("loss is told with the choices it stands for", () => {
  const loss = lens.texts[0].tokens.map((_, at) => (at === 0 ? null : Math.log(10)));
  assert.match(
    fact({ ...lens, texts: [{ ...lens.texts[0], loss }] }, "Loss"),
    /^2\.30 nats a token: on average as unsure as between 10\.0 tokens alike\./,
  );
});

test("ranking leaves out what is missing", () => {
  const order = ranked(having(0, { means: { ...lens.heads[0].means, sink: null } }).heads, head => head.means.sink);
  assert.equal(order.length, 47);
  assert.ok((order[0].means.sink as number) >= (order[46].means.sink as number));
});

test("measures: ranges, and values in words", () => {
  const all = Object.fromEntries(measures(lens).map(measure => [measure.key, measure]));
  assert.deepEqual([shades(all.sink, lens.heads.map(all.sink.of))!.low, shades(all.sink, lens.heads.map(all.sink.of))!.high], [0, 1]);
  const signed = shades(all.zero, lens.heads.map(all.zero.of))!;
  assert.equal(signed.low, -signed.high);
  assert.equal(shades(all.retrieval, lens.heads.map(all.retrieval.of)), null);
  const part = shades(all["range 0"], [0.1, null, 0.25])!;
  assert.deepEqual([part.low, part.high], [0, 0.25]);
  assert.equal(worded(all.entropy, 1.5), "1.50 nats");
  assert.equal(worded(all.sink, 0.42), "42 %");
  assert.equal(worded(all.zero, 0.0123), "+0.012 nats");
  assert.equal(worded(all.zero, null), "not measured");
  const [bf16, f16] = [all.error_bf16, all.error_f16];
  assert.deepEqual([bf16.of(lens.heads[1]), f16.of(lens.heads[0])], [2e-4, null]);
  assert.equal(worded(bf16, 0.00312), "3.1e−3");
  assert.equal(worded(f16, null), "not measured, or beyond the range of f16");
  assert.deepEqual([brief(bf16, 0.00312), brief(bf16, 0), shades(bf16, [0.001, 0.002])!.low], ["3e−3", "0", 0]);
  assert.equal(worded(all.special, null), "no special token, or not measured");
  assert.deepEqual(
    [brief(all.sink, 0.421), brief(all.sink, 1), brief(all.zero, -0.0123), brief(all.zero, -0.00006), brief(all.entropy, 2.5)],
    [".42", "1.0", "−.012", "−.000", "2.50"],
  );
});
