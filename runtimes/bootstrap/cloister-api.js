'use strict';
// The client of the Runtime API: HTTP/1.1 over one kept connection.

const net = require('net');

const RUNTIME = '/2018-06-01/runtime';
const MAX_HEADER_BYTES = 1 << 20;

// RuntimeAPI has one request under way at a time. Its socket keeps the process alive only while
// it waits for an answer: an empty event loop means that the customer's code has come to rest.
class RuntimeAPI {
  constructor(address) {
    const colon = address.lastIndexOf(':');
    this.host = address.slice(0, colon).replace(/^\[|\]$/g, '');
    this.port = Number(address.slice(colon + 1));
    this.address = address;
    this.socket = null;
    this.waiting = null; // {resolve, reject} of the request under way
    this.received = []; // buffers of the answer under way
    this.missing = 0; // bytes of its body that are known to be still to come
  }

  async next() {
    const answer = await this.request('GET', '/invocation/next', null, {});
    if (answer.status !== 200) {
      throw new Error(`the Runtime API answered next with status ${answer.status}`);
    }
    return answer;
  }

  // post sends a response or an error. A refusal is logged: the event is over either way.
  async post(route, body, headers) {
    const bytes = Buffer.from(body);
    const answer = await this.request('POST', route, bytes, {
      'Content-Type': 'application/json',
      ...headers,
      'Content-Length': bytes.length,
    });
    if (answer.status !== 202) {
      process.stderr.write(
        `Runtime API refused ${route}: ${answer.status} ${answer.body.toString().slice(0, 200)}\n`,
      );
    }
  }

  async request(method, route, body, headers) {
    let head = `${method} ${RUNTIME}${route} HTTP/1.1\r\nHost: ${this.address}\r\n`;
    for (const name of Object.keys(headers)) head += `${name}: ${headers[name]}\r\n`;
    const bytes = Buffer.from(head + '\r\n');
    const message = body === null ? bytes : Buffer.concat([bytes, body]);
    if (this.socket !== null) {
      try {
        return await this.exchange(message);
      } catch {
        // The server may have closed the connection while this process was frozen.
      }
    }
    this.connect();
    return this.exchange(message);
  }

  connect() {
    const socket = net.connect({ host: this.host, port: this.port, noDelay: true });
    this.socket = socket;
    this.received = [];
    this.missing = 0;
    const lost = (error) => {
      if (this.socket !== socket) return;
      this.socket = null;
      socket.destroy();
      const waiting = this.waiting;
      this.waiting = null;
      if (waiting) waiting.reject(error || new Error('the Runtime API closed the connection'));
    };
    socket.on('error', lost);
    socket.on('close', () => lost());
    socket.on('data', (chunk) => {
      this.received.push(chunk);
      let answer;
      try {
        answer = this.parse();
      } catch (error) {
        lost(error);
        return;
      }
      if (answer === null || this.waiting === null) return;
      const waiting = this.waiting;
      this.waiting = null;
      socket.unref();
      if (answer.headers.connection === 'close') {
        this.socket = null;
        socket.destroy();
      }
      waiting.resolve(answer);
    });
  }

  exchange(message) {
    return new Promise((resolve, reject) => {
      this.waiting = { resolve, reject };
      this.socket.ref();
      this.socket.write(message);
    });
  }

  // parse returns the answer that this.received holds, or null if some of it is still to come.
  parse() {
    if (this.missing > 0) {
      this.missing -= this.received[this.received.length - 1].length;
      if (this.missing > 0) return null;
    }
    this.missing = 0;
    const bytes = this.received.length === 1 ? this.received[0] : Buffer.concat(this.received);
    this.received = [bytes];
    const end = bytes.indexOf('\r\n\r\n');
    if (end < 0) {
      if (bytes.length > MAX_HEADER_BYTES) throw new Error('the Runtime API sent a header without end');
      return null;
    }
    const lines = bytes.toString('utf8', 0, end).split('\r\n');
    const headers = {};
    for (let i = 1; i < lines.length; i++) {
      const colon = lines[i].indexOf(':');
      headers[lines[i].slice(0, colon).toLowerCase()] = lines[i].slice(colon + 1).trim();
    }
    const status = Number(lines[0].split(' ')[1]);
    const body = this.parseBody(bytes, end + 4, headers);
    if (body === null) return null;
    this.received = [];
    return { status, headers, body };
  }

  parseBody(bytes, start, headers) {
    if ((headers['transfer-encoding'] || '').toLowerCase() === 'chunked') {
      return unchunk(bytes, start);
    }
    const length = Number(headers['content-length']);
    if (!Number.isInteger(length)) throw new Error('the Runtime API sent a body of unknown length');
    this.missing = start + length - bytes.length;
    return this.missing > 0 ? null : bytes.subarray(start, start + length);
  }
}

function unchunk(bytes, start) {
  const chunks = [];
  for (let at = start; ; ) {
    const end = bytes.indexOf('\r\n', at);
    if (end < 0) return null;
    const size = parseInt(bytes.toString('latin1', at, end), 16);
    if (!(size >= 0)) throw new Error('the Runtime API sent a malformed chunk');
    if (end + 2 + size + 2 > bytes.length) return null;
    if (size === 0) return Buffer.concat(chunks);
    chunks.push(bytes.subarray(end + 2, end + 2 + size));
    at = end + 2 + size + 2;
  }
}

module.exports = { RuntimeAPI };
