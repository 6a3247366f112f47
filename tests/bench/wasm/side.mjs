// node tests/bench/wasm/side.mjs FILE: the request of side.py on node's WebAssembly, a fresh instance for each.
import { readFileSync } from "node:fs";
import { createInterface } from "node:readline";

const module = new WebAssembly.Module(readFileSync(process.argv[2]));
const request = new Uint8Array(new BigUint64Array([1n, 2n, 3n, 4n, 5n, 6n, 7n, 8n]).buffer);

function answer() {
  const { memory, alloc, handle } = new WebAssembly.Instance(module, {}).exports;
  const at = alloc(request.length);
  new Uint8Array(memory.buffer, at, request.length).set(request);
  const packed = BigInt.asUintN(64, handle(at, request.length));
  return new Uint8Array(memory.buffer, Number(packed >> 32n), Number(packed & 0xffffffffn)).slice();
}

for await (const line of createInterface({ input: process.stdin })) {
  const took = [];
  for (let left = Number(line); left > 0; left--) {
    const begin = process.hrtime.bigint();
    const found = answer();
    took.push(Number(process.hrtime.bigint() - begin) / 1000);
    if (new BigUint64Array(found.buffer)[0] !== 36n) throw new Error(`got ${found}`);
  }
  console.log(JSON.stringify(took));
}
