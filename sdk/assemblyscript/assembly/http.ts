/** Heads of HTTP requests and responses: one JSON object on one line, with the body behind it. */

import { Json, quote } from "./json";

/** A head and the body behind it: an HTTP function's request, or the answer to one of its own. */
export class Message {
  constructor(
    public head: Json,
    public body: Uint8Array,
  ) {}

  /** A member of the head that is a string: method, path, query. */
  field(name: string): string | null {
    const member = this.head.member(name);
    return member ? member.text() : null;
  }

  /** A header by its name in lower case. */
  header(name: string): string | null {
    const headers = this.head.member("headers");
    const value = headers ? headers.member(name) : null;
    return value ? value.text() : null;
  }

  /** The status of an answer, 0 if it has none. */
  get status(): i32 {
    const member = this.head.member("status");
    return member ? I32.parseInt(member.raw) : 0;
  }
}

/** Head and body of a request or an answer. */
export function split(bytes: Uint8Array): Message {
  let at = bytes.indexOf(0x0a);
  if (at < 0) at = bytes.length;
  const head = String.UTF8.decodeUnsafe(bytes.dataStart, <usize>at);
  return new Message(new Json(head), bytes.subarray(min(at + 1, bytes.length)));
}

/** The response of an HTTP function. */
export function respond(status: i32, contentType: string, body: Uint8Array): Uint8Array {
  const line = '{"status":' + status.toString() + ',"headers":{"content-type":' + quote(contentType) + "}}\n";
  const head = Uint8Array.wrap(String.UTF8.encode(line));
  const out = new Uint8Array(head.length + body.length);
  out.set(head);
  out.set(body, head.length);
  return out;
}

/** Writes the head of a request: `http(new Request("GET", url).with("accept", "text/plain").head, body)`. */
export class Request {
  private headers: string = "";

  constructor(
    public method: string,
    public url: string,
  ) {}

  with(name: string, value: string): Request {
    this.headers += (this.headers.length ? "," : "") + quote(name) + ":" + quote(value);
    return this;
  }

  get head(): string {
    return '{"method":' + quote(this.method) + ',"url":' + quote(this.url) + ',"headers":{' + this.headers + "}}";
  }
}
