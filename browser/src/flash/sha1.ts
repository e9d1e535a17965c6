/** SHA-1 and base64, which the handshake is made of: the engine's own come later than Flash, or not at all. */

const DIGITS = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

export function base64(bytes: ArrayLike<number>): string {
  let text = "";
  for (let i = 0; i < bytes.length; i += 3) {
    const three = (bytes[i]! << 16) | ((bytes[i + 1] ?? 0) << 8) | (bytes[i + 2] ?? 0);
    for (let j = 0; j < 4; j++) text += i + j > bytes.length ? "=" : DIGITS.charAt((three >> (18 - 6 * j)) & 63);
  }
  return text;
}

/** The digest of ASCII text (FIPS 180-4), 20 bytes. */
export function sha1(text: string): number[] {
  const words: number[] = [];
  for (let i = 0; i < text.length; i++) put(words, i, text.charCodeAt(i));
  put(words, text.length, 0x80);
  const last = ((text.length + 8) >> 6) * 16 + 15;
  for (let i = 0; i < last; i++) words[i] = words[i]! | 0;
  words[last] = text.length * 8;

  const state = [0x67452301, 0xefcdab89, 0x98badcfe, 0x10325476, 0xc3d2e1f0];
  for (let block = 0; block < words.length; block += 16) addBlock(state, words.slice(block, block + 16));

  const digest: number[] = [];
  for (let i = 0; i < 20; i++) digest.push((state[i >> 2]! >> (24 - 8 * (i & 3))) & 255);
  return digest;
}

function put(words: number[], index: number, byte: number): void {
  words[index >> 2] = (words[index >> 2] ?? 0) | (byte << (24 - 8 * (index & 3)));
}

function addBlock(state: number[], w: number[]): void {
  for (let t = 16; t < 80; t++) w[t] = rotate(w[t - 3]! ^ w[t - 8]! ^ w[t - 14]! ^ w[t - 16]!, 1);
  let a = state[0]!;
  let b = state[1]!;
  let c = state[2]!;
  let d = state[3]!;
  let e = state[4]!;
  for (let t = 0; t < 80; t++) {
    const mix =
      t < 20 ? ((b & c) | (~b & d)) + 0x5a827999
      : t < 40 ? (b ^ c ^ d) + 0x6ed9eba1
      : t < 60 ? ((b & c) | (b & d) | (c & d)) + 0x8f1bbcdc
      : (b ^ c ^ d) + 0xca62c1d6;
    const next = (rotate(a, 5) + mix + e + w[t]!) | 0;
    e = d;
    d = c;
    c = rotate(b, 30);
    b = a;
    a = next;
  }
  [a, b, c, d, e].forEach((value, i) => (state[i] = (state[i]! + value) | 0));
}

function rotate(word: number, by: number): number {
  return (word << by) | (word >>> (32 - by));
}
