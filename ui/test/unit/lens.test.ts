import assert from "node:assert/strict";
import { test } from "node:test";
import { read } from "../../src/lens";
import { small } from "../fixture";

type Json = Record<string, any>;

const DATA = JSON.stringify(small().lens);

/** What is said of data that was changed. */
function said(change: (data: Json) => unknown): string {
  const data = JSON.parse(DATA) as Json;
  const changed = change(data);
  try {
    read(changed === undefined ? data : changed);
  } catch (error) {
    return (error as Error).message;
  }
  return "accepted";
}

test("what is wrong is named, with what it holds and what it needs", () => {
  const cases: [(data: Json) => unknown, string][] = [
    [() => null, "the data holds no data and must be filled by `regard inspect`"],
    [() => [1], "the data is an array and must be an object"],
    [data => void (data.format = "regard-lens/2"), 'format is "regard-lens/2" and must be "regard-lens/1"'],
    [data => void delete data.format, 'format is missing and must be "regard-lens/1"'],
    [data => void delete data.model, "model is missing and must be an object"],
    [data => void (data.model.layers = 0), "model.layers is 0 and must be a whole number, at least 1"],
    [data => void data.heads.pop(), "heads holds 47 and must hold 6 layers × 8 heads = 48"],
    [data => void delete data.heads, "heads is missing and must be an array"],
    [data => void (data.heads[9].head = 2), "heads[9].head is 2 and must be 1: heads are ordered by layer, then head"],
    [data => void (data.heads[3].means.entropy = "wide"), 'heads[3].means.entropy is "wide" and must be a number or null'],
    [data => void (data.heads[3].numerics.error.f16 = "inf"), 'heads[3].numerics.error.f16 is "inf" and must be a number or null'],
    [data => void (data.heads[3].distances = [0.5, "x"]), 'heads[3].distances[1] is "x" and must be a number or null'],
    [data => void (data.heads[0].maps[0].rows = 60), "heads[0].maps[0].data holds 4761 bytes and must hold 4140: 60 rows × 69 columns"],
    [
      data => void (data.heads[0].maps[0].data = "****"),
      "heads[0].maps[0].data is not base64 and must hold 4761 bytes: 69 rows × 69 columns",
    ],
    [data => void (data.heads[0].top.keys = ""), "heads[0].top.keys holds 0 bytes and must hold 2208: 552 keys of 4 bytes"],
    [
      data => void (data.similarities = data.similarities.slice(4)),
      "similarities holds 2301 bytes and must hold 2304: 48 heads × 48 heads",
    ],
    [data => void (data.layers[1].layer = "first"), 'layers[1].layer is "first" and must be a whole number, at least 0'],
    [data => void (data.run.ranges[1].end = 8), "run.ranges[1].end is 8 and must be a whole number, at least 9"],
    [data => void data.heads[7].ranges.pop(), "heads[7].ranges holds 1 and must hold one for each of the 2 ranges of the run"],
    [data => void (data.texts = []), "texts is empty and must hold at least one text"],
    [data => void (data.texts[0].tokens[7] = 7), "texts[0].tokens[7] is 7 and must be a string"],
    [data => void data.texts[0].ids.pop(), "texts[0].ids holds 68 numbers and must hold one for each of the 69 tokens"],
    [data => void data.texts[0].loss.pop(), "texts[0].loss holds 68 numbers and must hold one for each of the 69 tokens"],
  ];
  for (const [change, message] of cases) assert.equal(said(change), message);
});

test("what may be missing may be null or absent", () => {
  const optional = ["means", "numerics", "scores", "cluster", "ablation", "ranges", "distances", "by_position", "received", "maps", "top"];
  assert.equal(
    said(data => data.heads.forEach((head: Json) => optional.forEach(key => delete head[key]))),
    "accepted",
  );
  assert.equal(
    said(data => data.heads.forEach((head: Json) => optional.forEach(key => (head[key] = null)))),
    "accepted",
  );
  assert.equal(
    said(data => {
      for (const head of data.heads) delete head.ranges; // of the run's, which are not known
      data.bins = data.position_loss = data.run = data.texts[0].loss = data.texts[0].ids = data.layers = data.similarities = null;
    }),
    "accepted",
  );
  assert.equal(
    said(
      data => ["run", "layers", "similarities"].forEach(key => delete data[key]) ?? data.heads.forEach((head: Json) => delete head.ranges),
    ),
    "accepted",
  );
  assert.equal(read({ ...small().lens, similarities: "" }).similarities, null, "they are left out of a report that would be too large");
  assert.equal(
    said(data => ["name", "type", "kv_heads", "head_dim", "context", "parameters"].forEach(key => delete data.model[key])),
    "accepted",
  );
});
