import assert from "node:assert/strict";
import { test } from "node:test";
import { parse } from "../../src/engine";
import { Events } from "../../src/stream";

const TEXT = 'data: {"a": 1}\n\n: a comment\n\ndata: two\ndata: lines\n\nevent: x\ndata:[DONE]\n\ndata: cut';

test("events are the same however the text is cut", () => {
  for (const text of [TEXT, TEXT.replaceAll("\n", "\r\n"), TEXT.replaceAll("\n", "\r")]) {
    for (let size = 1; size <= text.length; size++) {
      const events = new Events();
      const found: string[] = [];
      for (let at = 0; at < text.length; at += size) found.push(...events.push(text.slice(at, at + size)));
      assert.deepEqual(found, ['{"a": 1}', "two\nlines", "[DONE]"], `${size}`);
    }
  }
});

test("metrics of one name add up, and others are left out", () => {
  const text =
    '# HELP regard:pages all\nregard:pages{model_name="m"} 12\nregard:ends_total{reason="stop"} 2\n' +
    'regard:ends_total{reason="length"} 3.5\nother 7\nregard:plain 1e3\n';
  assert.deepEqual(parse(text), { pages: 12, ends_total: 5.5, plain: 1000 });
});
