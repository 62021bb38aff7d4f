import assert from "node:assert/strict";
import { test } from "node:test";
import { bytes, bytesIn, floats, isBase64, words } from "../../src/base64";

// RFC 4648, §10.
const VECTORS = [
  ["", ""],
  ["f", "Zg=="],
  ["fo", "Zm8="],
  ["foo", "Zm9v"],
  ["foob", "Zm9vYg=="],
  ["fooba", "Zm9vYmE="],
  ["foobar", "Zm9vYmFy"],
] as const;

test("the vectors of RFC 4648 decode", () => {
  for (const [text, encoded] of VECTORS) {
    assert.equal(new TextDecoder().decode(bytes(encoded)), text);
    assert.equal(bytesIn(encoded), text.length);
    assert.ok(isBase64(encoded));
  }
});

test("what is not base64 is told apart", () => {
  for (const text of ["Zg", "Zg=", "Zm9v!", "=Zm9", "Zm 9v===", "Zg===", "–––="]) assert.ok(!isBase64(text), text);
});

test("numbers are little-endian", () => {
  assert.deepEqual([...words("AQAAAAABAAD/////")], [1, 256, 0xffffffff]);
  assert.deepEqual([...floats(Buffer.from([0, 0, 0x80, 0x3f, 0, 0, 0x20, 0xc0]).toString("base64"))], [1, -2.5]);
});
