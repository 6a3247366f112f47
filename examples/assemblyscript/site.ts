/** A small web site, as an HTTP function: GET /, GET /hello/NAME, POST /echo. */
import { answer, requested, respond, split, utf8 } from "@hanzo-compute/guest/assembly";
export { alloc } from "@hanzo-compute/guest/assembly";

const HOME =
  "<!doctype html>\n<title>Hanzo Compute</title>\n<h1>It works</h1>\n" +
  '<p>Try <a href="hello/world">hello/world</a>.</p>\n';

function plain(status: i32, text: string): Uint8Array {
  return respond(status, "text/plain", utf8(text));
}

function serve(bytes: Uint8Array): Uint8Array {
  const request = split(bytes);
  const method = request.field("method");
  const path = request.field("path");
  if (method == null || path == null) return plain(400, "This is an HTTP function: call it at /fn/NAME/.\n");
  const get = method == "GET" || method == "HEAD";
  const where = path.startsWith("/") ? path.substring(1) : path;
  if (where == "") return get ? respond(200, "text/html", utf8(HOME)) : plain(405, "GET it.\n");
  if (where.startsWith("hello/")) {
    return get ? plain(200, "Hello, " + where.substring(6) + "!\n") : plain(405, "GET it.\n");
  }
  if (where == "echo") {
    if (method != "POST") return plain(405, "POST it.\n");
    const type = request.header("content-type");
    return respond(200, type == null ? "application/octet-stream" : type, request.body);
  }
  return plain(404, "There is nothing here.\n");
}

export function handle(ptr: usize, len: i32): u64 {
  return answer(serve(requested(ptr, len)));
}
