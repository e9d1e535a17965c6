/** The opening handshake of RFC 6455, in a client's role: text out, bytes in. */

import type { Bytes } from "../engine.ts";
import { base64, sha1 } from "./sha1.ts";

const GUID = "258EAFA5-E914-47DA-95CA-C5AB0DC85B11";
const MAX_HEAD = 16384; // bytes

/** Where a ws: or wss: URL leads; its host as the Host field has it, and as a socket takes it. */
export interface Place {
  readonly secure: boolean;
  readonly authority: string;
  readonly host: string;
  readonly port: number;
  readonly resource: string;
}

export function placeOf(url: string): Place {
  const [, scheme, authority, host, port, rest] = /^(wss?):\/\/(?:[^/?@]*@)?((\[[^\]]*\]|[^/?:]*)(?::(\d*))?)(.*)$/.exec(url)!;
  return {
    secure: scheme === "wss",
    authority: authority!,
    host: host!.replace(/^\[|\]$/g, ""),
    port: +(port || (scheme === "wss" ? 443 : 80)),
    resource: /^\//.test(rest!) ? rest! : `/${rest}`,
  };
}

export interface Asker {
  /** 16 random bytes in base64. */
  readonly key: string;
  readonly origin: string;
  readonly cookie: string;
}

export function request(place: Place, protocols: string[], { key, origin, cookie }: Asker): string {
  const lines = [
    `GET ${place.resource} HTTP/1.1`,
    `Host: ${place.authority}`,
    "Connection: Upgrade",
    "Upgrade: websocket",
    "Sec-WebSocket-Version: 13",
    `Sec-WebSocket-Key: ${key}`,
    `Origin: ${origin}`,
  ];
  if (protocols.length) lines.push(`Sec-WebSocket-Protocol: ${protocols.join(", ")}`);
  if (cookie) lines.push(`Cookie: ${cookie}`);
  return `${lines.join("\r\n")}\r\n\r\n`;
}

/** A good answer. */
export interface Accepted {
  readonly protocol: string;
  /** What came behind it. */
  readonly rest: Bytes;
}

/** Takes a server's answer as it comes. */
export class AnswerReader {
  private head = "";

  constructor(private readonly key: string) {}

  /** Return the answer when it is whole; null if the connection must fail. */
  push(chunk: Bytes): Accepted | null | undefined {
    for (let i = 0; i < chunk.length; i++) {
      this.head += String.fromCharCode(chunk[i]!);
      if (chunk[i] === 10 && /\r\n\r\n$/.test(this.head.slice(-4))) {
        const protocol = readAnswer(this.head, this.key);
        return protocol === null ? null : { protocol, rest: chunk.subarray(i + 1) };
      }
      if (this.head.length > MAX_HEAD) return null;
    }
    return undefined;
  }
}

/** The subprotocol of a good answer, "" if it names none; null for any other (section 4.1). */
function readAnswer(head: string, key: string): string | null {
  const lines = head.slice(0, -4).split("\r\n");
  if (!/^HTTP\/1\.1 101( |$)/.test(lines.shift()!)) return null;
  const fields: Record<string, string> = {};
  for (const line of lines) {
    const field = /^([!#$%&'*+\-.^_`|~\w]+):[ \t]*(.*?)[ \t]*$/.exec(line);
    if (!field) return null;
    const name = `=${field[1]!.toLowerCase()}`;
    fields[name] = name in fields ? `${fields[name]}, ${field[2]}` : field[2]!;
  }
  const upgraded = /^websocket$/i.test(fields["=upgrade"] ?? "") && /(^|[ \t,])upgrade([ \t,]|$)/i.test(fields["=connection"] ?? "");
  const accepted = fields["=sec-websocket-accept"] === base64(sha1(key + GUID));
  if (!upgraded || !accepted || fields["=sec-websocket-extensions"] !== undefined) return null;
  return fields["=sec-websocket-protocol"] ?? "";
}
