// node sum_server.mjs MODULE FD: the same module behind Node's http server, a fresh instance for each request.
import { readFileSync } from "node:fs";
import { createServer } from "node:http";

const module = new WebAssembly.Module(readFileSync(process.argv[2]));

const server = createServer((request, response) => {
  if (request.method === "GET") {
    response.setHeader("content-type", "application/json");
    response.end('{"status":"ok"}');
    return;
  }
  const parts = [];
  request.on("data", (part) => parts.push(part));
  request.on("end", () => {
    const data = Buffer.concat(parts);
    const { memory, alloc, handle } = new WebAssembly.Instance(module).exports;
    const at = alloc(data.length);
    new Uint8Array(memory.buffer).set(data, at);
    const packed = BigInt.asUintN(64, handle(at, data.length));
    const from = Number(packed >> 32n), size = Number(packed & 0xffffffffn);
    const answer = Buffer.from(memory.buffer.slice(from, from + size));
    response.setHeader("content-type", "application/octet-stream");
    response.setHeader("content-length", answer.length);
    response.end(answer);
  });
});
server.keepAliveTimeout = 75000;
server.listen({ fd: Number(process.argv[3]) });
