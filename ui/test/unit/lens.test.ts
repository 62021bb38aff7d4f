import assert from "node:assert/strict";
import { test } from "node:test";
import { read } from "../../src/lens";
import { asked, small } from "../fixture";

type Json = Record<string, any>;

const DATA = JSON.stringify(asked(small(), [{ rows: [20, 40], keys: [0, 12] }]));

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

test("what is wrong with parts, pruning and what comes through all layers is named too", () => {
  const zoom = (data: Json): Json => data.heads[5].zooms[0];
  const cases: [(data: Json) => unknown, string][] = [
    [data => void (zoom(data).rows = [20, 20]), "heads[5].zooms[0].rows[1] is 20 and must be a whole number, at least 21"],
    [data => void (zoom(data).rows = [60, 70]), "heads[5].zooms[0].rows[1] is 70 and must be at most 69, the tokens of the text"],
    [data => void (zoom(data).keys = [-1, 12]), "heads[5].zooms[0].keys[0] is -1 and must be a whole number, at least 0"],
    [
      data => void (zoom(data).keys = [0]),
      "heads[5].zooms[0].keys holds 1 numbers and must hold 2: the first token, and the first after the last",
    ],
    [data => void delete zoom(data).keys, "heads[5].zooms[0].keys is missing and must be an array"],
    [data => void (data.heads[5].zooms = {}), "heads[5].zooms is an object and must be an array"],
    [data => void (data.heads[5].zooms[0] = null), "heads[5].zooms[0] is null and must be an object"],
    [
      data => void (zoom(data).map.data = zoom(data).map.data.slice(4)),
      "heads[5].zooms[0].map.data holds 237 bytes and must hold 240: 20 rows × 12 columns",
    ],
    [data => void (zoom(data).rows = [20, 41]), "heads[5].zooms[0].map.rows is 20 and must be 21: 21 tokens in blocks of 1"],
    [data => void (zoom(data).keys = [5, 6]), "heads[5].zooms[0].map.columns is 12 and must be 1: 1 token in blocks of 1"],
    [data => void delete zoom(data).map, "heads[5].zooms[0].map.block is missing and must be a whole number, at least 1"],
    [data => void (data.pruning = 7), "pruning is 7 and must be an array"],
    [data => void data.pruning.shift(), "pruning[0].heads is 3 and must be 0: the first loss is that with all heads"],
    [data => void (data.pruning[2].heads = 3), "pruning[2].heads is 3 and must be a whole number, at least 4"],
    [data => void (data.pruning[5].heads = 49), "pruning[5].heads is 49 and must be at most 48, the heads of the model"],
    [data => void (data.pruning[1].loss = "much"), 'pruning[1].loss is "much" and must be a number or null'],
    [data => void (data.through = [1]), "through is an array and must be an object"],
    [data => void (data.through.row = 69), "through.row is 69 and must be less than 69, the tokens of the text"],
    [data => void data.through.rollout.pop(), "through.rollout holds 68 numbers and must hold one for each of the 69 tokens"],
    [data => void data.through.flow.push(0), "through.flow holds 70 numbers and must hold one for each of the 69 tokens"],
    [data => void delete data.through.flow, "through.flow is missing and must hold one number for each of the 69 tokens"],
  ];
  for (const [change, message] of cases) assert.equal(said(change), message);
});

test("parts, pruning and what comes through all layers are read as they are", () => {
  const lens = read(JSON.parse(DATA));
  assert.deepEqual(lens, JSON.parse(JSON.stringify({ ...lens, ...JSON.parse(DATA), format: undefined })));
  const { rows, keys } = lens.heads[47].zooms[0];
  assert.deepEqual({ rows, keys }, { rows: [20, 40], keys: [0, 12] });
  assert.deepEqual(
    lens.pruning.map(({ heads }) => heads),
    [0, 3, 7, 16, 40, 48],
  );
  assert.equal(lens.through?.row, 68);
});

test("without parts, pruning and what comes through all layers, there are none", () => {
  for (const none of [undefined, null, "empty"]) {
    const data = JSON.parse(DATA) as Json;
    const empty = none === "empty" ? [] : none;
    for (const head of data.heads) head.zooms = empty;
    [data.pruning, data.through] = [empty, none === "empty" ? null : none];
    const lens = read(data);
    assert.deepEqual([lens.pruning, lens.through, lens.heads.flatMap(head => head.zooms)], [[], null, []]);
  }
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
