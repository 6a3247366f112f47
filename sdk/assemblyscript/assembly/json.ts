/** As much JSON as the heads of requests and responses take. */

/** Text as a JSON string, with its quotes. */
export function quote(value: string): string {
  let out = '"';
  for (let i = 0; i < value.length; i++) {
    const c = value.charCodeAt(i);
    if (c == 0x22 || c == 0x5c) out += "\\" + value.charAt(i);
    else if (c < 0x20) out += "\\u" + c.toString(16).padStart(4, "0");
    else out += value.charAt(i);
  }
  return out + '"';
}

/** A JSON value as it is written. What is broken or absent gives null, never a trap. */
export class Json {
  constructor(public raw: string) {}

  /** A member of an object; names are compared as they are written. */
  member(name: string): Json | null {
    const raw = this.raw;
    let at = space(raw, 0);
    if (at >= raw.length || raw.charCodeAt(at) != 0x7b) return null;
    at = space(raw, at + 1);
    while (at < raw.length && raw.charCodeAt(at) == 0x22) {
      const key = at + 1;
      let end = stringEnd(raw, at);
      if (!end) return null;
      const found = raw.substring(key, end - 1) == name;
      at = space(raw, end);
      if (at >= raw.length || raw.charCodeAt(at) != 0x3a) return null;
      at = space(raw, at + 1);
      end = valueEnd(raw, at);
      if (!end) return null;
      if (found) return new Json(raw.substring(at, end));
      at = space(raw, end);
      if (at >= raw.length || raw.charCodeAt(at) != 0x2c) return null;
      at = space(raw, at + 1);
    }
    return null;
  }

  /** The text of a string. */
  text(): string | null {
    const raw = this.raw;
    if (raw.length < 2 || raw.charCodeAt(0) != 0x22 || stringEnd(raw, 0) != raw.length) return null;
    let out = "";
    for (let at = 1; at < raw.length - 1; at++) {
      let c = raw.charCodeAt(at);
      if (c == 0x5c) {
        c = raw.charCodeAt(++at);
        if (c == 0x75) {
          c = hex(raw, at + 1, raw.length - 1);
          if (c < 0) return null;
          at += 4;
        } else if (c == 0x6e) c = 0x0a;
        else if (c == 0x74) c = 0x09;
        else if (c == 0x72) c = 0x0d;
        else if (c == 0x62) c = 0x08;
        else if (c == 0x66) c = 0x0c;
      }
      out += String.fromCharCode(c);
    }
    return out;
  }
}

function space(raw: string, at: i32): i32 {
  while (at < raw.length && raw.charCodeAt(at) <= 0x20) at++;
  return at;
}

/** Where the string that starts at `at` ends, behind its quote; 0 if it does not. */
function stringEnd(raw: string, at: i32): i32 {
  for (at++; at < raw.length; at++) {
    const c = raw.charCodeAt(at);
    if (c == 0x5c) at++;
    else if (c == 0x22) return at + 1;
  }
  return 0;
}

/** Where the value that starts at `at` ends; 0 if it does not. */
function valueEnd(raw: string, at: i32): i32 {
  const start = at;
  let depth = 0;
  while (at < raw.length) {
    const c = raw.charCodeAt(at);
    if (c == 0x22) {
      at = stringEnd(raw, at);
      if (!at || !depth) return at;
      continue;
    }
    if (c == 0x7b || c == 0x5b) depth++;
    else if (depth && (c == 0x7d || c == 0x5d)) {
      if (!--depth) return at + 1;
    } else if (!depth && (c == 0x2c || c == 0x7d || c == 0x5d || c <= 0x20)) break;
    at++;
  }
  return depth || at == start ? 0 : at;
}

/** Four hexadecimal digits, or -1. */
function hex(raw: string, at: i32, end: i32): i32 {
  if (end - at < 4) return -1;
  let code = 0;
  for (let i = 0; i < 4; i++) {
    const c = raw.charCodeAt(at + i);
    const letter = c | 0x20;
    if (c >= 0x30 && c <= 0x39) code = (code << 4) | (c - 0x30);
    else if (letter >= 0x61 && letter <= 0x66) code = (code << 4) | (letter - 0x61 + 10);
    else return -1;
  }
  return code;
}
