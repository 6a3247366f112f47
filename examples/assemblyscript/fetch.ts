/**
 * Gets the URL that it is asked for, with the secret "token" as bearer token. It answers with the other side's
 * status, headers and body, or with 502 and the reason: what it gives is a response of an HTTP function.
 */
import { answer, http, reason, Request, requested, respond, secret, text, utf8 } from "@hanzo-compute/guest/assembly";
export { alloc } from "@hanzo-compute/guest/assembly";

function refused(what: string, error: i32): Uint8Array {
  return respond(502, "text/plain", utf8("fetch: " + what + ": " + reason(error) + "\n"));
}

function serve(url: string): Uint8Array {
  const token = secret("token");
  if (!token.ok) return refused("the secret token", token.error);
  const request = new Request("GET", url).with("accept", "*/*").with("authorization", "Bearer " + token.text);
  const result = http(request.head, new Uint8Array(0));
  return result.ok ? result.bytes : refused("the request", result.error);
}

export function handle(ptr: usize, len: i32): u64 {
  return answer(serve(text(requested(ptr, len))));
}
