/** Counts the lines, words and bytes of its standard input, as wc does: a WASI command. */

const chunk = new ArrayBuffer(65536);
const view = Uint8Array.wrap(chunk);
let lines: u64 = 0;
let words: u64 = 0;
let bytes: u64 = 0;
let inside = false;

for (let got = process.stdin.read(chunk); got > 0; got = process.stdin.read(chunk)) {
  bytes += got;
  for (let i = 0; i < got; i++) {
    const c = view[i];
    const space = c == 0x20 || (c >= 0x09 && c <= 0x0d);
    if (c == 0x0a) lines++;
    if (inside && space) words++;
    inside = !space;
  }
}
if (inside) words++;
process.stdout.write(lines.toString() + " " + words.toString() + " " + bytes.toString() + "\n");
