// node tests/bench/wasm/compute.mjs FILE: runs compute.c on node. "KIND N" a line in, [ms, result] out.
import { readFileSync } from "node:fs";
import { createInterface } from "node:readline";

const { compute } = new WebAssembly.Instance(new WebAssembly.Module(readFileSync(process.argv[2])), {}).exports;

for await (const line of createInterface({ input: process.stdin })) {
  const [kind, n] = line.split(" ").map(Number);
  const begin = process.hrtime.bigint();
  const result = compute(kind, n);
  console.log(JSON.stringify([Number(process.hrtime.bigint() - begin) / 1e6, BigInt.asUintN(64, result).toString()]));
}
